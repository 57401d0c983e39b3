"""`image search` on docker.io, whose index is a stand-in here: a server on loopback that answers as the real one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from builda.api import open_builder
from builda.builder.image.search import INDEX, Found, of_docker, search
from builda.builder.imageoptions import RegistryAccess
from builda.errors import BuildaError, InvalidValue, RegistryError
from tests.unit.builder.conftest import Bench

ANSWER = {
    "num_results": 2,
    "query": "deb",
    "results": [
        {"name": "debian", "description": "a system", "star_count": 5000, "is_official": True},
        {"name": "someone/deb", "description": None, "star_count": 1, "is_official": False},
    ],
}
FOUND = (
    Found("docker.io/library/debian", "a system", 5000, True),
    Found("docker.io/someone/deb", "", 1, False),
)
ACCESS = RegistryAccess(retry=0)


@contextmanager
def index(body: bytes, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """Where it listens, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_the_index_is_asked_for_the_word_and_so_many_results(tmp_path: Path) -> None:
    with index(json.dumps(ANSWER).encode()) as (place, asked), open_builder(tmp_path / "s", tmp_path / "r") as builder:
        assert of_docker(builder.context, "deb an&x", ACCESS, 7, index=place) == FOUND
        assert of_docker(builder.context, "deb", ACCESS, 1, index=place) == FOUND[:1]
    assert urlsplit(asked[0]).path == "/v1/search"
    assert parse_qs(urlsplit(asked[0]).query) == {"q": ["deb an&x"], "n": ["7"]}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"<html>", 200, "is not JSON"),
        (b"[]", 200, "has no results"),
        (b'{"results": [{"name": 3}]}', 200, "has no results"),
        (b"[" * 100_000, 200, "is not JSON"),
        (b"x" * (5 << 20), 200, "more than"),
        (b"", 404, "404"),
    ],
)
def test_an_answer_that_is_none(tmp_path: Path, body: bytes, status: int, message: str) -> None:
    with (
        index(body, status) as (place, _),
        open_builder(tmp_path / "s", tmp_path / "r") as builder,
        pytest.raises(BuildaError, match=message),
    ):
        of_docker(builder.context, "deb", ACCESS, 7, index=place)


@pytest.mark.root
def test_docker_s_names_lead_to_its_index(bench: Bench) -> None:
    bench.remote.urls[f"{INDEX}/v1/search?q=deb&n=25"] = json.dumps(ANSWER).encode()
    for name in ("docker.io/deb", "docker://docker.io/deb", "index.docker.io/deb"):
        assert search(bench.builder.context, name, ACCESS) == FOUND
    with pytest.raises(InvalidValue, match="for a word only"):
        search(bench.builder.context, "docker.io/", ACCESS)
    bench.remote.urls[f"{INDEX}/v1/search?q=x&n=25"] = b"{}"
    with pytest.raises(RegistryError, match="has no results"):
        search(bench.builder.context, "docker.io/x", ACCESS)
