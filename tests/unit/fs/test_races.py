"""Another process puts links in the place of what is made in a tree: what they lead to stays as it was."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from builda.errors import BuildaError
from builda.fs.nodes import pinned
from builda.fs.sources import Source
from builda.fs.tar import DIRECTORY, FIFO, TarEntry, TarWriter
from builda.fs.trees.copytree import copy_tree
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.unpack import extract
from builda.fs.trees.walk import CopyRequest
from tests.unit.fs.trees import GID, UID, opened

SECONDS = 2.0
SWAP = """
import os, sys
os.chdir(sys.argv[1])
print(flush=True)
while os.getppid() == int(sys.argv[3]):
    for _ in range(200):
        os.symlink(sys.argv[2], ".link")
        os.rename(".link", "name")
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """What no link may lead to."""
    path = tmp_path / "outside"
    path.write_text("keep")
    path.chmod(0o600)
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "shared"
    path.mkdir()
    return path


@contextmanager
def swapping(directory: Path, target: Path) -> Iterator[None]:
    """Another process makes `name` in the directory a link to the target, again and again."""
    arguments = [sys.executable, "-IS", "-c", SWAP, str(directory), str(target), str(os.getpid())]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


def raced(directory: Path, target: Path, work: Callable[[], object]) -> None:
    """Do the work again and again beside the other process; the target must not change."""
    before = looks(target)
    with swapping(directory, target):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with suppress(BuildaError, OSError):  # that it cannot be done is no harm
                work()
            assert looks(target) == before
    assert target.read_text() == "keep"


def looks(path: Path) -> tuple[int, int, int]:
    info = path.stat()
    return info.st_mode, info.st_uid, info.st_mtime_ns


def archive(*entries: TarEntry) -> bytes:
    sink = io.BytesIO()
    tar = TarWriter(sink)
    for entry in entries:
        tar.add(entry)
    tar.close()
    return sink.getvalue()


@pytest.mark.parametrize("kind", [FIFO, DIRECTORY])
def test_an_archive_s_entry_is_replaced_while_it_is_made(shared: Path, target: Path, kind: bytes) -> None:
    name = b"name/" if kind == DIRECTORY else b"name"
    data = archive(*[TarEntry(name, kind, mode=0o777, uid=UID, gid=GID, mtime=7)] * 200)
    with opened(shared) as root:
        raced(shared, target, lambda: extract(io.BytesIO(data), TreeTarget(root)))


def test_a_directory_that_an_archive_implies_is_replaced(shared: Path, target: Path) -> None:
    data = archive(*[TarEntry(b"name/fifo", FIFO, mode=0o777, uid=UID, gid=GID, mtime=7)] * 50)
    with opened(shared) as root:
        raced(shared, target, lambda: extract(io.BytesIO(data), TreeTarget(root)))


def test_a_copy_is_replaced_while_it_is_made(tmp_path: Path, shared: Path, target: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    os.mkfifo(sources / "name")
    (sources / "name").chmod(0o777)
    with opened(sources) as source, opened(shared) as root:
        request = CopyRequest((Source(source, "."),) * 50, "/", owner=(UID, GID), timestamp=7)
        raced(shared, target, lambda: copy_tree(request, TreeTarget(root)))


def test_a_name_that_is_something_else_by_now_is_refused(shared: Path, target: Path) -> None:
    os.mkfifo(shared / "fifo")
    (shared / "link").symlink_to(target)
    (shared / "file").touch()
    with opened(shared) as root:
        with pinned(root, b"fifo", stat.S_IFIFO) as path:
            os.chmod(path, 0o640)
        assert stat.S_IMODE((shared / "fifo").stat().st_mode) == 0o640
        with pinned(root, b"file", stat.S_IFCHR) as path:  # it may stand in for a device
            os.chmod(path, 0o604)
        for name, kind in ((b"link", stat.S_IFIFO), (b"file", stat.S_IFIFO), (b"fifo", stat.S_IFCHR)):
            with pytest.raises(BuildaError, match="was replaced"), pinned(root, name, kind):
                raise AssertionError("it was taken for what it is not")
