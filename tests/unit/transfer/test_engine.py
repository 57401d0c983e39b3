"""`docker-daemon:` when nobody listens, and when what listens refuses, lies or stops."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from builda.errors import (
    BuildaError,
    CorruptContent,
    EngineError,
    InvalidReference,
    InvalidValue,
    NotFound,
    Unsupported,
)
from builda.transfer.copyimage import copy_image
from builda.transfer.engine import Engine, EngineSink, EngineSource
from builda.transfer.locate import open_sink, open_source, parse_location
from tests.support.memory import MemoryImage, image_of, random_image

IMAGE = "docker-daemon:localhost/a:1"


@contextmanager
def engine(path: Path, answer: bytes, *, reads: bool = True) -> Iterator[list[bytes]]:
    """One answer to whatever is asked; the requests. Without `reads` it answers before the body has come."""
    requests: list[bytes] = []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                requests.append(_read(connection) if reads else connection.recv(100))
                with suppress(BrokenPipeError):
                    connection.sendall(answer)

    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield requests
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _read(connection: socket.socket) -> bytes:
    data = b""
    while not (data.startswith(b"GET") and data.endswith(b"\r\n\r\n")) and not data.endswith(b"\r\n0\r\n\r\n"):
        piece = connection.recv(1 << 16)
        if not piece:
            break
        data += piece
    return data


def said(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def send(image: MemoryImage) -> None:
    location = parse_location(IMAGE)
    assert location is not None
    copy_image(image, open_sink(location))


def get(text: str = IMAGE) -> None:
    location = parse_location(text)
    assert location is not None
    open_source(location)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "s"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_an_engine_that_is_not_there_is_named(place: Path) -> None:
    with pytest.raises(EngineError, match=r"no engine at unix:.*: No such file") as caught:
        get()
    assert "DOCKER_HOST" in (caught.value.hint or "")
    with pytest.raises(EngineError, match="no engine at unix:"):
        send(random_image())


def test_by_default_it_is_dockers_socket() -> None:
    assert Engine.of({}).address == Engine.of({"DOCKER_HOST": ""}).address == "unix:///var/run/docker.sock"


@pytest.mark.parametrize("address", ["ssh://me@host", "npipe:////./pipe/docker", "nonsense", "tcp://"])
def test_an_engine_that_cannot_be_reached_so_is_refused(address: str) -> None:
    with pytest.raises(Unsupported, match="engine cannot be reached so"):
        Engine.of({"DOCKER_HOST": address})


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(Unsupported):
        Engine.of({"DOCKER_HOST": "tcp://host:99999999"})


def test_tls_is_refused_and_not_left_out() -> None:
    with pytest.raises(Unsupported, match="not spoken to over TLS"):
        Engine.of({"DOCKER_HOST": "tcp://host:2376", "DOCKER_TLS_VERIFY": "1"})


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (said("404 Not Found", b'{"message": "no such image"}'), NotFound, "has no such image: localhost/a:1"),
        (said("500 Internal Server Error", b'{"message": "disk is full"}'), EngineError, "disk is full"),
        (said("200 OK", b"<html>sign in</html>"), CorruptContent, "not a tar archive"),
        (said("200 OK", b""), CorruptContent, "not a tar archive"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + bytes(600), CorruptContent, "tar archive|ends early"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", BuildaError, "ends early|not understood"),
        (b"SSH-2.0-OpenSSH\r\n", EngineError, "is not understood"),
        (b"", EngineError, "is not understood"),
    ],
)
def test_what_an_engine_answers_instead_of_an_image(
    place: Path, answer: bytes, error: type[BuildaError], message: str
) -> None:
    with engine(place, answer), pytest.raises(error, match=message):
        get()


@pytest.mark.parametrize(
    "answer",
    [
        said("200 OK", b'{"stream": "reading"}\n{"error": "disk is full", "errorDetail": {}}\n'),
        said("500 Internal Server Error", b'{"cause": "x", "message": "disk is full"}'),
        said("500 Internal Server Error", b"disk is full"),
    ],
)
@pytest.mark.parametrize("reads", [True, False])
def test_an_image_that_an_engine_does_not_load(place: Path, answer: bytes, reads: bool) -> None:
    image = image_of(({"f": bytes(3 << 20)},), compression="none")
    with engine(place, answer, reads=reads), pytest.raises(EngineError, match=r"disk is full|not understood"):
        send(image)


def test_an_image_is_sent_as_an_archive_under_its_name(place: Path) -> None:
    with engine(place, said("200 OK", b'{"stream": "Loaded image: localhost/a:1"}')) as requests:
        send(random_image())
    (request,) = requests
    assert request.startswith(b"POST /images/load?quiet=1 ")
    assert b'"RepoTags":["localhost/a:1"]' in request


def test_a_list_is_refused_before_anything_is_sent(place: Path) -> None:
    from tests.support.memory import index_of

    with engine(place, said("200 OK", b"")) as requests, pytest.raises(Unsupported):
        send(index_of(random_image()))
    assert requests == []


def test_a_source_that_breaks_off_loads_nothing(place: Path) -> None:
    image = random_image()
    layer = image.image.layers[-1]
    image.blobs[layer.digest] = image.blobs[layer.digest][:-3]
    with engine(place, said("200 OK", b"")) as requests, pytest.raises(CorruptContent):
        send(image)
    assert not requests or b"\r\n0\r\n\r\n" not in requests[0]


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("sha256:abc", InvalidReference),
        ("a@sha256:" + "0" * 64, InvalidValue),
        ("UPPER", InvalidReference),
        ("a/../b:1", InvalidReference),
        ("a:b/../../c", InvalidReference),
    ],
)
def test_names_that_no_engine_knows(where: str, error: type[BuildaError]) -> None:
    for kind in (EngineSource, EngineSink):
        with pytest.raises(error):
            kind(where)


def test_an_id_is_asked_for_but_is_no_name_to_load_under(place: Path) -> None:
    identity = "sha256:" + "0" * 64
    with engine(place, said("404 Not Found", b"")) as requests, pytest.raises(NotFound):
        EngineSource(identity)
    assert requests[0].startswith(f"GET /images/{identity}/get ".encode())
    with pytest.raises(InvalidReference, match="cannot be loaded under an ID"):
        EngineSink(identity)


def test_a_message_of_an_engine_is_cut(place: Path) -> None:
    body = json.dumps("x" * 100_000).encode()
    with engine(place, said("500 Internal Server Error", body)), pytest.raises(EngineError) as caught:
        get()
    assert len(str(caught.value)) < 1000
