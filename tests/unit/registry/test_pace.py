"""Servers that send next to nothing: builda gives up, and tries again as after any broken connection."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest

from builda.errors import RegistryError
from builda.events import Event, Warned
from builda.registry.certificates import Tls
from builda.registry.http import Http, Request
from builda.registry.pace import Pace, Paced, TooSlow
from tests.support.registry import serving

QUICK = Pace(least=64, seconds=0.2)
HEADER = b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def http(events: list[Event]) -> Iterator[Http]:
    http = Http(environ={}, retry=1, retry_delay=0, emit=events.append, sleep=lambda _: None, pace=QUICK)
    yield http
    http.close()


def trust(_: str) -> Tls:
    raise AssertionError("no TLS here")


def handler(speak: Callable[[socket.socket], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.close_connection = True
            with suppress(OSError):  # the client has gone
                speak(self.connection)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def trickle(connection: socket.socket, data: bytes, *, pause: float = 0.02, step: int = 1) -> None:
    for start in range(0, len(data), step):
        connection.sendall(data[start : start + step])
        time.sleep(pause)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("at_once", "slowly"),
    [
        (b"", HEADER + b"x" * 4000),
        (HEADER, b"x" * 4000),
        (CHUNKED, b"1\r\nx\r\n" * 700),
        (HEADER + b"x" * 3900, b"x" * 100),
    ],
    ids=["header", "body", "chunks", "end"],
)
def test_a_server_that_trickles_is_given_up(http: Http, events: list[Event], at_once: bytes, slowly: bytes) -> None:
    def speak(connection: socket.socket) -> None:
        connection.sendall(at_once)
        trickle(connection, slowly)

    with serving(handler(speak)) as address, pytest.raises(RegistryError) as caught:
        http.call(Request("GET", f"http://{address}/", trust, "asking"), limit=10_000)
    assert str(caught.value) == f"server sends too slowly, less than 64 bytes in 0.2 seconds: {address}"
    assert [str(event.message).partition(":")[0] for event in events if isinstance(event, Warned)] == [
        "server sends too slowly, less than 64 bytes in 0.2 seconds"
    ]


def test_a_server_that_is_slow_and_goes_on_is_waited_for(http: Http) -> None:
    def speak(connection: socket.socket) -> None:
        time.sleep(0.4)  # the first byte has the socket's own timeout
        trickle(connection, HEADER + b"x" * 4000, pause=0.01, step=200)

    with serving(handler(speak)) as address:
        assert http.call(Request("GET", f"http://{address}/", trust, "asking"), limit=10_000)[1] == b"x" * 4000


class Ready:
    def recv(self, size: int, /) -> bytes:
        return b"x"


def test_a_reader_that_takes_its_time_is_not_the_servers_fault() -> None:
    paced = Paced(Ready(), Pace(least=100, seconds=0.05))
    for _ in range(5):
        assert paced.recv(1) == b"x"
        time.sleep(0.03)


def test_what_came_before_does_not_count_for_later() -> None:
    class Waits:
        pause = 0.03

        def recv(self, size: int, /) -> bytes:
            time.sleep(self.pause)
            return b"x" * min(size, 5)

    raw = Waits()
    paced = Paced(raw, Pace(least=10, seconds=0.5))
    for _ in range(20):
        paced.recv(5)
    raw.pause = 0.2
    slow = iter(lambda: paced.recv(1), b"")
    with pytest.raises(TooSlow):
        list(slow)
