"""Blobs on bad days: mirrors that break off, uploads that go on, servers that ask for patience or never end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import pytest

from builda.errors import BuildaError, CorruptContent, RegistryError
from builda.events import Event, Warned
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest, Readable
from builda.oci.reference import Reference
from builda.registry.certificates import Tls
from builda.registry.http import Body, Http, Request
from builda.registry.registryclient import RegistryClient, RegistryOptions, RegistrySink
from builda.registry.repository import PARALLEL
from tests.support.registry import Answer, Asked, Scripted, scripted, serving

BLOB = bytes(range(256)) * 4096
DESCRIPTOR = Descriptor(media_type=mediatype.LAYER, digest=Digest.of(BLOB), size=len(BLOB))


class Memory:
    """The blob as a source; `opened` has the offsets it was read from."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        self.opened.append(offset)
        yield BytesIO(BLOB[offset:])


@contextmanager
def server(answer: Callable[[Asked], Answer]) -> Iterator[Scripted]:
    with scripted(lambda asked: Answer() if asked.path == "/v2/" else answer(asked)) as running:
        yield running


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def client(slept: list[float], events: list[Event]) -> Iterator[RegistryClient]:
    options = RegistryOptions(tls_verify=False)
    environ = {"HOME": "/nonexistent"}
    with RegistryClient(
        options, events.append, environ=environ, system=Path("/nonexistent"), sleep=slept.append
    ) as client:
        yield client


def sink(client: RegistryClient, running: Scripted, chunk: int = 1 << 20) -> RegistrySink:
    return client.sink(Reference.parse(f"{running.address}/app:1"), chunk=chunk)


def ranged(asked: Asked) -> Answer:
    start = int(asked.headers.get("Range", "bytes=0-")[6:-1])
    headers = {"Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"}
    return Answer(206, BLOB[start:], headers) if start else Answer(200, BLOB)


# Mirrors


@pytest.mark.parametrize("then", [Answer(500), Answer(404), Answer(reset=True), Answer(200, b"short")])
def test_a_blob_goes_on_at_the_next_mirror(tmp_path: Path, then: Answer, events: list[Event]) -> None:
    first = iter([Answer(200, BLOB, cut=300_000)])
    with server(lambda _: next(first, then)) as mirror, server(ranged) as primary:
        conf = tmp_path / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{primary.address}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}"\ninsecure = true\n'
        )
        options = RegistryOptions(registries_conf=conf)
        with RegistryClient(options, events.append, environ={"HOME": "/x"}, sleep=lambda _: None) as client:
            source = client.source(Reference.parse(f"{primary.address}/app:1"))
            with source.open_blob(DESCRIPTOR) as content:
                assert b"".join(iter(lambda: content.read(100_000), b"")) == BLOB
    assert primary.asked[-1].headers["Range"] == "bytes=300000-"
    assert any(isinstance(event, Warned) and "mirror failed" in event.message for event in events)


# Uploads


class Uploads:
    """A registry that keeps what arrives of an upload; `cut` is where the first whole body ends."""

    def __init__(self, *, keeps: bool) -> None:
        self.data = b""
        self.keeps = keeps
        self.puts = 0

    def __call__(self, asked: Asked) -> Answer:
        here = {"Location": "/v2/app/blobs/uploads/u", "Range": f"0-{max(len(self.data) - 1, 0)}"}
        match asked.method:
            case "HEAD":
                return Answer(200 if self.data == BLOB and self.puts > 1 else 404)
            case "POST":
                self.data = b""
                return Answer(202, headers=here)
            case "GET":
                return Answer(204 if self.keeps else 404, headers=here)
            case "PATCH":
                start = int(asked.headers["Content-Range"].partition("-")[0])
                assert start == len(self.data)
                self.data += asked.body
                return Answer(202, headers=here | {"Range": f"0-{len(self.data) - 1}"})
            case _:
                self.puts += 1
                if self.puts == 1:
                    self.data = asked.body[:300_000]
                    return Answer(reset=True)
                self.data += asked.body
                return Answer(201)


@pytest.mark.parametrize(("keeps", "opened"), [(True, [0, 300_000, 800_000]), (False, [0, 0, 500_000, 1_000_000])])
def test_an_upload_that_broke_off_goes_on_where_the_registry_is(
    client: RegistryClient, keeps: bool, opened: list[int]
) -> None:
    uploads, memory, counted = Uploads(keeps=keeps), Memory(), [0]

    def progress(count: int) -> None:
        counted[0] += count

    with server(uploads) as running:
        sink(client, running, 500_000).put_blob(DESCRIPTOR, memory, progress)
    assert uploads.data == BLOB
    assert memory.opened == opened
    assert counted == [len(BLOB)]


def test_a_registry_that_forgets_each_chunk_is_given_up(client: RegistryClient, slept: list[float]) -> None:
    patches = iter(range(10_000))

    def answer(asked: Asked) -> Answer:
        here = {"Location": "/v2/app/blobs/uploads/u", "Range": "0-0"}
        if asked.method == "PATCH":
            return Answer(202 if next(patches) % 2 == 0 else 416, headers=here)
        return Answer({"HEAD": 404, "POST": 202, "GET": 204}.get(asked.method, 413), headers=here)

    with server(answer) as running, pytest.raises(RegistryError, match="416"):
        sink(client, running, 100_000).put_blob(DESCRIPTOR, Memory(), lambda _: None)
    assert len(slept) < 20


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (None, "no Location"),
        ("http://[bad/?token=hunter2", "not a URL"),
        ("ftp://h/x", "not an http or https URL"),
        ("http://h:99999/", "not an http or https URL"),
    ],
)
def test_a_place_for_an_upload_that_is_none_is_said(client: RegistryClient, location: str | None, words: str) -> None:
    headers = {} if location is None else {"Location": location}
    with (
        server(lambda asked: Answer(202 if asked.method == "POST" else 404, headers=headers)) as running,
        pytest.raises(RegistryError, match=re.escape(words)) as caught,
    ):
        sink(client, running).put_blob(DESCRIPTOR, Memory(), lambda _: None)
    assert "hunter2" not in str(caught.value)


def test_credentials_do_not_follow_an_upload_to_another_host() -> None:
    with server(lambda _: Answer(201)) as storage:

        def answer(asked: Asked) -> Answer:
            if "Authorization" not in asked.headers:
                return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            if asked.method == "HEAD":
                return Answer(404)
            return Answer(202, headers={"Location": f"http://{storage.address}/u?signature=abc"})

        options = RegistryOptions(tls_verify=False, creds="me:secret")
        with server(answer) as running, RegistryClient(options, environ={"HOME": "/x"}) as client:
            sink(client, running).put_blob(DESCRIPTOR, Memory(), lambda _: None)
    assert [asked.body for asked in storage.asked] == [BLOB]
    assert "Authorization" not in storage.asked[0].headers


# Patience


def test_a_date_in_retry_after_is_obeyed(client: RegistryClient, slept: list[float]) -> None:
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    answers = iter([Answer(429, headers={"Retry-After": when}), Answer(200, b'{"tags": ["a"]}')])
    with server(lambda _: next(answers)) as running:
        assert client.tags(Reference.parse(f"{running.address}/app")) == ("a",)
    assert 25 < slept[0] <= 30


def test_other_threads_wait_too_when_a_registry_asks_for_patience() -> None:
    slept: dict[int, list[float]] = {}

    def sleep(seconds: float) -> None:
        slept.setdefault(threading.get_ident(), []).append(seconds)

    answers = iter([Answer(429, headers={"Retry-After": "100"})])
    http = Http(environ={}, sleep=sleep)
    with scripted(lambda _: next(answers, Answer(200, b"ok"))) as running:
        request = Request("GET", f"http://{running.address}/", lambda _: Tls(), "asking")
        assert http.call(request, limit=10)[1] == b"ok"
        other = threading.Thread(target=lambda: http.call(request, limit=10))
        other.start()
        other.join()
        http.close()
    assert slept.pop(threading.get_ident()) == [100.0]
    (waited,) = slept.values()
    assert 90 < waited[0] <= 100


def test_so_many_blobs_are_read_from_one_registry_at_a_time(client: RegistryClient) -> None:
    at_once, most, lock = [0], [0], threading.Lock()

    def answer(asked: Asked) -> Answer:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.05)
        with lock:
            at_once[0] -= 1
        return Answer(200, BLOB)

    def read() -> None:
        with client.source(Reference.parse(f"{running.address}/app:1")).open_blob(DESCRIPTOR) as content:
            while content.read(1 << 20):
                pass

    with server(answer) as running:
        threads = [threading.Thread(target=read) for _ in range(3 * PARALLEL)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 1 < most[0] <= PARALLEL


def test_a_server_that_breaks_off_after_each_byte_is_given_up(client: RegistryClient, slept: list[float]) -> None:
    def answer(asked: Asked) -> Answer:
        whole = ranged(asked)
        return Answer(whole.status, whole.body, whole.headers, cut=1)

    with (
        server(answer) as running,
        client.source(Reference.parse(f"{running.address}/app:1")).open_blob(DESCRIPTOR) as content,
        pytest.raises(RegistryError, match="connection broke"),
    ):
        list(iter(lambda: content.read(1 << 20), b""))
    assert len(slept) == 3


def test_a_server_that_takes_next_to_nothing_is_given_up() -> None:
    class Zeros:
        def read(self, size: int = -1, /) -> bytes:
            return bytes(size)

    class Deaf(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            time.sleep(1)
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    http = Http(environ={}, retry=0)
    with serving(Deaf) as address:
        body = Body(Zeros(), 1 << 30, lambda _: None)
        request = Request("PUT", f"http://{address}/", lambda _: Tls(), "sending", body=body, timeout=0.3)
        with pytest.raises(RegistryError) as caught:
            http.retrying(lambda _: http.open(request))
    assert str(caught.value) == f"server takes data too slowly, less than 1048576 bytes in 0.3 seconds: {address}"


# Numbers and lists


@pytest.mark.parametrize("start", ["9" * 5000, "-1", "x", "", "٥"])
def test_a_range_that_is_no_number_is_refused(client: RegistryClient, start: str) -> None:
    headers = {"Content-Range": f"bytes {start}-9/10".encode().decode("latin-1")}
    with (
        server(lambda _: Answer(206, BLOB, headers)) as running,
        pytest.raises(CorruptContent, match="Content-Range") as caught,
        client.source(Reference.parse(f"{running.address}/app:1")).open_blob(DESCRIPTOR, 5) as content,
    ):
        content.read(10)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("life", ["1e400", "-5", "NaN", "Infinity", "1" + "0" * 400, '"x"', "true", "null"])
def test_any_life_of_a_token_will_do(client: RegistryClient, life: str) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            return Answer(200, f'{{"token": "t", "expires_in": {life}}}'.encode())
        if asked.headers.get("Authorization") == "Bearer t":
            return Answer(200, b'{"tags": ["a"]}')
        return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="http://{running.address}/token"'})

    with server(answer) as running:
        assert client.tags(Reference.parse(f"{running.address}/app")) == ("a",)


def test_a_registry_that_always_wants_another_token_is_given_up(client: RegistryClient) -> None:
    count = iter(range(1000))

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            return Answer(200, f'{{"token": "t{next(count)}"}}'.encode())
        realm = f'Bearer realm="http://{running.address}/token",scope="repository:x{next(count)}:pull"'
        return Answer(401, headers={"WWW-Authenticate": realm})

    with server(answer) as running, pytest.raises(RegistryError, match="401"):
        client.tags(Reference.parse(f"{running.address}/app"))
    assert len(running.asked) < 12


@pytest.mark.parametrize("realm", ["", "x", "http://[bad", "file:///etc/passwd", "http://h:0x/"])
def test_a_token_server_that_is_none_is_said(client: RegistryClient, realm: str) -> None:
    headers = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
    with server(lambda _: Answer(401, headers=headers)) as running, pytest.raises(BuildaError, match=r"token|401"):
        client.tags(Reference.parse(f"{running.address}/app"))


def test_a_list_of_names_without_end_is_given_up(client: RegistryClient) -> None:
    page = b'{"tags": [' + b",".join([b'"t"'] * 300_000) + b"]}"
    pages = iter(range(1000))

    def answer(asked: Asked) -> Answer:
        return Answer(body=page, headers={"Link": f'</v2/app/tags/list?last={next(pages)}>; rel="next"'})

    with server(answer) as running, pytest.raises(RegistryError, match="more than 1000000 names"):
        client.tags(Reference.parse(f"{running.address}/app"))
    assert next(pages) <= 5
