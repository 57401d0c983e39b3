"""Connections between requests: kept, found ended, refused by a proxy, encrypted twice."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from builda.errors import RegistryError
from builda.events import Decided, Event
from builda.registry.certificates import Tls
from builda.registry.http import Body, Http, Request
from tests.support.registry import make_certificates

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Raw:
    """A server that plays a script for each connection; `heard` has what each of them received."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.address = ""


@contextmanager
def raw_server(script: Callable[[int, socket.socket], None]) -> Iterator[Raw]:
    """`script` gets the number of each connection and the connection, which is closed after it."""
    raw = Raw()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                number = len(raw.heard)
                raw.heard.append(b"")
                threading.Thread(target=speak, args=(number, connection), daemon=True).start()

    def speak(number: int, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            script(number, connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        raw.address = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield raw
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def request_from(connection: socket.socket) -> bytes:
    """The header of the next request; b"" when there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    return data


@pytest.fixture
def http() -> Iterator[Http]:
    http = Http(environ={}, retry=1, retry_delay=0, sleep=lambda _: None)
    yield http
    http.close()


def trust(_: str) -> Tls:
    return Tls(verify=False)


def ask(
    http: Http, address: str, *, method: str = "GET", scheme: str = "http", body: bytes | Body | None = None
) -> bytes:
    request = Request(method, f"{scheme}://{address}/", trust, "asking", body=body)
    if isinstance(body, Body):  # it is sent once only
        with http.open(request) as reply:
            return reply.data(1000, "asking")
    return http.call(request, limit=1000)[1]


def polite(number: int, connection: socket.socket) -> None:
    while request_from(connection):
        connection.sendall(OK)


def test_one_connection_serves_many_requests(http: Http) -> None:
    with raw_server(polite) as server:
        assert [ask(http, server.address) for _ in range(5)] == [b"ok"] * 5
        assert len(server.heard) == 1
        http.close()


def test_a_connection_that_the_server_ended_meanwhile_is_replaced_at_once(http: Http) -> None:
    def once(number: int, connection: socket.socket) -> None:
        request_from(connection)
        connection.sendall(OK)

    with raw_server(once) as server:
        assert [ask(http, server.address) for _ in range(3)] == [b"ok"] * 3
        assert len(server.heard) == 3


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_connection_that_ends_as_it_is_used_again_is_replaced_without_an_attempt(method: str) -> None:
    def until_second(number: int, connection: socket.socket) -> None:
        request_from(connection)
        connection.sendall(OK)
        request_from(connection)  # and says nothing

    http = Http(environ={}, retry=0, sleep=lambda _: None)
    with raw_server(until_second) as server:
        assert ask(http, server.address) == b"ok"
        assert ask(http, server.address, method=method) == (b"" if method == "HEAD" else b"ok")
        http.close()


def test_what_a_server_sends_unasked_is_no_answer_to_the_next_request(http: Http) -> None:
    def eager(number: int, connection: socket.socket) -> None:
        while request_from(connection):
            connection.sendall(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    with raw_server(eager) as server:
        assert [ask(http, server.address) for _ in range(3)] == [b"ok"] * 3
        assert len(server.heard) == 3


def test_an_answer_that_is_not_read_to_its_end_costs_the_connection(http: Http) -> None:
    def long(number: int, connection: socket.socket) -> None:
        while request_from(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 10_000_000)

    with raw_server(long) as server:
        for _ in range(2):
            with http.open(Request("GET", f"http://{server.address}/", trust, "asking")) as reply:
                assert reply.read(10) == b"x" * 10
        assert len(server.heard) == 2


def test_a_refusal_before_the_end_of_an_upload_is_heard(http: Http) -> None:
    def refuse(number: int, connection: socket.socket) -> None:
        request_from(connection)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsorry!")
        connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            connection.settimeout(0.2)
            connection.recv(1)

    class Zeros:
        def read(self, size: int = -1, /) -> bytes:
            return bytes(size)

    with raw_server(refuse) as server:
        request = Request(
            "PUT", f"http://{server.address}/", trust, "asking", body=Body(Zeros(), 1 << 28, lambda _: None)
        )
        with http.open(request) as reply:
            assert (reply.status, reply.read()) == (413, b"sorry!")


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_a_body_is_sent_whole_with_its_length(http: Http, size: int) -> None:
    bodies = []

    def take(number: int, connection: socket.socket) -> None:
        data = request_from(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        assert f"Content-Length: {size}".encode() in head
        while len(body) < size:
            body += connection.recv(65536)
        bodies.append(body)
        connection.sendall(OK)

    with raw_server(take) as server:
        assert ask(http, server.address, method="POST", body=b"z" * size) == b"ok"
    assert bodies == [b"z" * size]


def test_a_body_that_cannot_be_read_is_not_the_servers_fault(http: Http) -> None:
    class Broken:
        def read(self, size: int = -1, /) -> bytes:
            raise BrokenPipeError("the disk is gone")

    with raw_server(polite) as server, pytest.raises(BrokenPipeError, match="the disk is gone"):
        ask(http, server.address, method="PUT", body=Body(Broken(), 10, lambda _: None))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-x\r\n", "the server's answer is not HTTP (it begins with 'SSH-2.0-x')"),
        (b"", "connection broke (the server closed the connection without an answer)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "connection broke before the end of the content"),
        (b"HTTP/1.1 200 OK\r\nX: \x1b[2J\r\nnonsense\x1b[2J\r\n\r\n", "a line that is no field: 'nonsense\\x1b[2J'"),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(http: Http, answer: bytes, words: str) -> None:
    def speak(number: int, connection: socket.socket) -> None:
        request_from(connection)
        connection.sendall(answer)

    with raw_server(speak) as server, pytest.raises(RegistryError) as caught:
        ask(http, server.address)
    assert words in str(caught.value)
    assert server.address in str(caught.value)
    assert len(server.heard) == 2


def test_requests_are_told_without_their_query() -> None:
    events: list[Event] = []
    http = Http(environ={}, emit=events.append, tracing=True)
    with raw_server(polite) as server:
        http.call(Request("GET", f"http://{server.address}/v2/?token=secret", trust, "asking"), limit=100)
        http.close()
    message = f'{server.address} "GET /v2/ HTTP/1.1" 200'
    assert events == [Decided(subject="request", message=message)]


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "x..example"])
def test_what_cannot_be_a_host_name_is_said_so(http: Http, host: str) -> None:
    with pytest.raises(RegistryError, match="cannot resolve host name"):
        ask(http, host)


# Proxies


def tunnelling(target: str, status: bytes = b"200 OK") -> Callable[[int, socket.socket], None]:
    """A proxy that tunnels to `target`, or answers another `status`."""

    def serve(number: int, connection: socket.socket) -> None:
        request_from(connection)
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\n")
        if not status.startswith(b"200"):
            return
        host, _, port = target.partition(":")
        with socket.create_connection((host, int(port))) as upstream:
            back = threading.Thread(target=pump, args=(upstream, connection))
            back.start()
            pump(connection, upstream)
            back.join()

    return serve


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("status", "attempts", "hint"),
    [
        (b"407 Proxy Authentication Required", 1, "user and password"),
        (b"403 Forbidden", 1, ""),
        (b"502 Bad Gateway", 2, ""),
    ],
)
def test_a_proxy_that_refuses_is_named(status: bytes, attempts: int, hint: str) -> None:
    with raw_server(tunnelling("", status)) as proxy:
        http = Http(environ={"HTTPS_PROXY": f"http://me:pw@{proxy.address}"}, retry=1, sleep=lambda _: None)
        with pytest.raises(RegistryError) as caught:
            ask(http, "registry.invalid", scheme="https")
    assert str(caught.value) == f"cannot reach registry.invalid:443 through the proxy: {status.decode()}"
    assert hint in (caught.value.hint or "")
    assert "pw" not in f"{caught.value}{caught.value.hint}"
    assert len(proxy.heard) == attempts


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    make_certificates(directory, names="IP:127.0.0.1,DNS:registry.invalid")
    return directory


def encrypted(certificates: Path, script: Callable[[int, socket.socket], None]) -> Callable[[int, socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")

    def serve(number: int, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            script(number, tls)

    return serve


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_may_be_spoken_to_over_tls(certificates: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.crt"))  # the authorities of the machine
    big = b"x" * 3_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big) + big

    def speak(number: int, connection: socket.socket) -> None:
        while head := request_from(connection):
            connection.sendall(answer if b"GET" in head else OK)

    def through(number: int, connection: socket.socket) -> None:
        speak(number, connection) if scheme == "http" else tunnelling(server.address)(number, connection)

    with raw_server(encrypted(certificates, speak)) as server, raw_server(encrypted(certificates, through)) as proxy:
        address = f"https://{proxy.address}"
        http = Http(environ={"HTTPS_PROXY": address, "HTTP_PROXY": address}, retry=0, sleep=lambda _: None)
        request = Request("GET", f"{scheme}://registry.invalid/", lambda _: Tls(), "asking")
        assert http.call(request, limit=len(big))[1] == big
        assert http.call(request._replace(method="POST", body=b"y" * 300_000), limit=100)[1] == b"ok"
        http.close()
    assert len(proxy.heard) == 1


def test_an_untrusted_proxy_is_refused(certificates: Path) -> None:
    with raw_server(encrypted(certificates, polite)) as proxy:
        http = Http(environ={"HTTPS_PROXY": f"https://{proxy.address}"}, retry=0, sleep=lambda _: None)
        with pytest.raises(RegistryError, match="through the proxy"):
            ask(http, "registry.invalid", scheme="https")


def test_a_refusal_that_arrives_in_pieces_is_read_whole(http: Http) -> None:
    body = b'{"errors": [{"code": "DENIED", "message": "' + b"x" * 5000 + b'no entry"}]}'

    def slowly(number: int, connection: socket.socket) -> None:
        request_from(connection)
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 1000):
            connection.sendall(body[start : start + 1000])
            time.sleep(0.01)

    with raw_server(slowly) as server:
        assert ask(http, server.address) == body
