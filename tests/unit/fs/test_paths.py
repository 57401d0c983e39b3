"""Paths inside a root: nothing leads out, with openat2 and without."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.fs import paths
from tests.unit.fs.trees import opened

Opener = Callable[[int, bytes, int], int]


@pytest.fixture(params=[paths.open_in_root, paths.walk_in_root], ids=["openat2", "walk"])
def opener(request: pytest.FixtureRequest) -> Opener:
    found: Opener = request.param
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    for name, to in {
        "abs": "/a/file",
        "up": "../../../../secret",
        "a/rel": "../a/b/../file",
        "dir": "/a",
        "loop": "loop",
        "dangling": "/nothing",
        "chain": "dir/rel",
    }.items():
        os.symlink(to, path / name)
    return path


@pytest.mark.parametrize(
    "path", ["a/file", "/a/file", "abs", "a/rel", "dir/file", "chain", "../../a/file", "a//./file"]
)
def test_links_and_dots_are_followed_inside_the_root(root: Path, opener: Opener, path: str) -> None:
    with opened(root) as fd:
        found = opener(fd, os.fsencode(path), os.O_RDONLY)
    with open(found, "rb") as file:
        assert file.read() == b"inside"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("up", FileNotFoundError),
        ("../secret", FileNotFoundError),
        ("dangling", FileNotFoundError),
        ("loop", OSError),
        ("a/file/x", NotADirectoryError),
    ],
)
def test_what_is_outside_is_not_found(root: Path, opener: Opener, path: str, kind: type[OSError]) -> None:
    with opened(root) as fd, pytest.raises(kind):
        opener(fd, os.fsencode(path), os.O_RDONLY)


def test_the_last_link_is_not_followed_when_told(root: Path, opener: Opener) -> None:
    with opened(root) as fd:
        found = opener(fd, b"abs", os.O_PATH | os.O_NOFOLLOW)
        assert os.readlink("", dir_fd=found) == "/a/file"
        os.close(found)


PARTS = ["a", "b", "..", ".", "dir", "abs", "up", "file", "chain", "dangling", ""]


@given(st.lists(st.sampled_from(PARTS), max_size=7))
@settings(max_examples=200, deadline=None)
def test_the_walk_agrees_with_the_kernel(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    base = tmp_path_factory.getbasetemp() / "agree"
    if not (base / "root").exists():
        _grow(base)
    path = "/".join(parts).encode()
    with opened(base / "root") as fd:
        assert _found(paths.walk_in_root, fd, path) == _found(paths.open_in_root, fd, path)


def _grow(base: Path) -> None:
    path = base / "root"
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "file").write_bytes(b"inside")
    links = {"abs": "/a/file", "up": "../../..", "dir": "/a", "dangling": "/no", "a/chain": "../dir/b"}
    for name, to in links.items():
        os.symlink(to, path / name)


def _found(opener: Opener, root: int, path: bytes) -> object:
    try:
        fd = opener(root, path, os.O_PATH)
    except OSError as error:
        return error.errno
    info = os.fstat(fd)
    os.close(fd)
    return info.st_dev, info.st_ino


def test_no_descriptor_is_left_open(root: Path, opener: Opener) -> None:
    with opened(root) as fd:
        before = len(os.listdir("/proc/self/fd"))
        for path in (b"a/file", b"loop", b"chain", b"a/b/../../up", b"nothing/x"):
            try:
                os.close(opener(fd, path, os.O_RDONLY))
            except OSError:
                continue
        assert len(os.listdir("/proc/self/fd")) == before


def test_removing_follows_nothing(root: Path) -> None:
    os.symlink(root.parent, root / "a" / "b" / "out")
    with opened(root) as fd:
        paths.remove_tree(fd, "a")
        paths.remove_tree(fd, "dangling")
        paths.remove_tree(fd, "never-there")
    assert (root.parent / "secret").read_bytes() == b"outside"
    assert not (root / "a").exists()


@pytest.mark.parametrize(
    ("path", "found"),
    [("a/rel", b"a/file"), ("chain", b"a/file"), ("up", b"secret"), ("dangling/x/../y", b"nothing/y"), ("/", b"")],
)
def test_resolving_by_name(root: Path, path: str, found: bytes) -> None:
    with opened(root) as fd:
        assert paths.resolved(fd, path) == found


def test_small_files_are_read_inside_the_root(root: Path) -> None:
    with opened(root) as fd:
        assert paths.read_file(fd, "abs") == b"inside"
        assert paths.read_file(fd, "abs", limit=2) == b"in"
        assert paths.lstat_in_root(fd, "nothing/at/all") is None
        assert paths.stat_in_root(fd, "dangling") is None
        with pytest.raises(OSError, match="not a regular file"):
            paths.read_file(fd, "a")
