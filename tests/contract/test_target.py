"""What copies and archives rely on, of each kind of tree that can be written to: on disk, and a list of rows."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builda.errors import AlreadyExists, CorruptContent, Unsupported
from builda.fs import standin
from builda.fs.layer import AS_IS, write_tree
from builda.fs.lists.layertree import Tree
from builda.fs.lists.listwriter import ListTarget
from builda.fs.lists.spool import Spool, write_rows
from builda.fs.sources import Source
from builda.fs.tar import CHARACTER, DIRECTORY, SYMBOLIC_LINK
from builda.fs.tarread import iter_members
from builda.fs.trees.copytree import copy_tree
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.target import Looks, Target, make_directories
from builda.fs.trees.unpack import extract
from builda.fs.trees.walk import CopyRequest
from tests.unit.fs.trees import GID, UID

OWNER = (UID, GID)
Row = tuple[object, ...]


class Work:
    """A tree to write to, and all that it holds."""

    target: Target[Any]

    def seen(self) -> dict[str, Row]:
        """By path: kind, mode, owner, time of what is no directory, where a link leads, and the content."""
        raise NotImplementedError

    def layer(self, sink: io.BytesIO) -> None:
        """Write the layer that holds it."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class OnDisk(Work):
    def __init__(self, path: Path) -> None:
        self.root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.path = path
        self.target = TreeTarget(self.root)

    def seen(self) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for path in sorted(self.path.rglob("*")):
            info = path.lstat()
            kind = {stat.S_IFDIR: b"5", stat.S_IFLNK: b"2"}.get(stat.S_IFMT(info.st_mode), b"0")
            mode = 0o777 if kind == SYMBOLIC_LINK else stat.S_IMODE(info.st_mode)
            time = None if kind == DIRECTORY else int(info.st_mtime)
            link = os.fsencode(os.readlink(path)) if kind == SYMBOLIC_LINK else b""
            content = path.read_bytes() if kind == b"0" else b""
            found[str(path.relative_to(self.path))] = (kind, mode, info.st_uid, info.st_gid, time, link, content)
        return found

    def layer(self, sink: io.BytesIO) -> None:
        write_tree(self.root, sink)

    def close(self) -> None:
        os.close(self.root)


class AsList(Work):
    def __init__(self, path: Path) -> None:
        self.path = path
        self.tree = Tree()
        self.spool = Spool(str(path))
        self.target = ListTarget(self.tree, self.spool, 77)

    def seen(self) -> dict[str, Row]:
        found: dict[str, Row] = {}
        pending = [("", self.tree.root)]
        while pending:
            prefix, directory = pending.pop()
            for name, node in directory.children.items():
                row, path = node.row, prefix + os.fsdecode(name)
                time = None if row.kind == DIRECTORY else row.mtime
                data = (self.path / row.file).read_bytes()[row.at : row.at + row.size] if row.size else b""
                found[path] = (row.kind, row.mode, row.uid, row.gid, time, row.link, data)
                if node.is_directory:
                    pending.append((f"{path}/", node))
        return found

    def layer(self, sink: io.BytesIO) -> None:
        write_rows(self.tree.rows(), str(self.path), sink, AS_IS)

    def close(self) -> None:
        self.spool.__exit__(None, None, None)


def both(path: Path) -> Iterator[Work]:
    for kind in (OnDisk, AsList):
        (path / kind.__name__).mkdir(0o755)
        work = kind(path / kind.__name__)
        yield work
        work.close()


@pytest.fixture(params=[OnDisk, AsList])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Work]:
    path = tmp_path / "target"
    path.mkdir()
    made: Work = request.param(path)
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """A directory to copy from, with a file, a link, a directory and two names of one file."""
    path = tmp_path / "source"
    (path / "d/e").mkdir(parents=True)
    for name in ("f", "d/g", "d/e/h"):
        (path / name).write_text(name)
        os.utime(path / name, (5, 5))
    os.link(path / "d/g", path / "d/same")
    os.symlink("d/g", path / "l")
    os.utime(path / "l", (5, 5), follow_symlinks=False)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def link(work: Work, name: str, to: str) -> None:
    root = work.target.open(b"")
    work.target.special(root, name.encode(), stat.S_IFLNK, to.encode(), 0, Looks(OWNER, 0o777, {}, 0))
    work.target.close(root)


def made(work: Work, path: str, **looks: Any) -> list[bytes]:
    return make_directories(work.target, path, Looks(OWNER, **looks))


def copied(work: Work, source: int, path: str, to: str, **options: Any) -> None:
    copy_tree(CopyRequest((Source(source, path),), to, **{"owner": OWNER, **options}), work.target)


def members(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    """An archive of (path, tar type, where a link leads or what a file holds)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path, kind, text in entries:
            entry = tarfile.TarInfo(path)
            entry.type, entry.uid, entry.gid = kind, UID, GID
            entry.linkname = text if kind in (b"1", b"2") else ""
            entry.size = len(text) if kind == b"0" else 0
            tar.addfile(entry, io.BytesIO(text.encode()))
    data.seek(0)
    return data


def test_directories_are_made_where_links_lead(work: Work) -> None:
    made(work, "a")
    link(work, "dir", "a")
    link(work, "var-run", "/run")
    assert made(work, "/dir/new/deep", mode=0o750, time_ns=5 * 10**9) == [b"/dir/new", b"/dir/new/deep"]
    assert made(work, "/dir/new/deep") == []
    assert made(work, "var-run/x") == [b"/run", b"/var-run/x"]
    seen = work.seen()
    assert seen["a/new/deep"][1] == 0o750
    assert {"run/x", "a/new"} <= seen.keys()
    deep = work.target.open(b"a/new/deep")
    assert work.target.time_of(deep) == 5 * 10**9
    work.target.close(deep)


def test_a_file_where_a_directory_must_go_is_an_error(work: Work, source: int) -> None:
    copied(work, source, "f", "/file")
    with pytest.raises(NotADirectoryError):
        made(work, "file/x")
    with pytest.raises(AlreadyExists):
        copied(work, source, "d", "/file/x/")


def test_links_in_a_circle_are_an_error(work: Work) -> None:
    link(work, "a", "b")
    link(work, "b", "a")
    with pytest.raises(OSError, match="many levels"):
        made(work, "a/x")


def test_links_give_way_to_directories_when_told(work: Work) -> None:
    made(work, "a")
    link(work, "dir", "a")
    assert make_directories(work.target, "dir/x", Looks(OWNER), replace=True) == [b"/dir", b"/dir/x"]
    assert work.seen()["dir"][0] == DIRECTORY
    assert "a/x" not in work.seen()


def test_copies_merge_into_directories_and_replace_files_and_links(work: Work, source: int) -> None:
    made(work, "to/e", mode=0o700)
    link(work, "to/f", "/nowhere")
    link(work, "way", "to")
    copied(work, source, ".", "/way", mode=lambda mode, is_directory: 0o705)
    seen = work.seen()
    assert seen["to/f"][0::6] == (b"0", b"f")
    assert seen["to/l"] == (SYMBOLIC_LINK, 0o777, UID, GID, 5, b"d/g", b"")
    assert seen["to/d/e"][1] == 0o705
    assert seen["to/e"][1] == 0o700
    with pytest.raises(AlreadyExists):
        copied(work, source, "d", "/to/f/")


def test_a_file_with_two_names_keeps_them_and_loses_the_one_that_is_replaced(work: Work, source: int) -> None:
    copied(work, source, "d", "/to/")
    root, to = work.target.open(b""), work.target.open(b"to")
    work.target.link(root, b"third", b"to/same")
    work.target.link(root, b"third", b"to/g")  # has it already
    with pytest.raises(FileExistsError):
        work.target.link(to, b"same", b"to/e/h")
    with pytest.raises(FileNotFoundError):
        work.target.link(to, b"new", b"to/e")
    work.target.remove(to, b"g")
    work.target.remove(to, b"missing")
    work.target.close(root)
    work.target.close(to)
    assert {"third", "to/same"} <= work.seen().keys()
    assert "to/g" not in work.seen()


ARCHIVES: dict[str, Callable[[], io.BytesIO]] = {
    "what is not listed": lambda: members(("a/b/c", b"0", "x")),
    "a file that gives way to what is below it": lambda: members(("a", b"0", "x"), ("a/b", b"0", "y")),
    "a link that is gone through": lambda: members(("d/", b"5", ""), ("l", b"2", "/d"), ("l/x", b"0", "y")),
    "a link to what is made then": lambda: members(("l", b"2", "new/there"), ("l/x", b"0", "y")),
    "a directory where a link to one is": lambda: members(("d/", b"5", ""), ("l", b"2", "d"), ("l/", b"5", "")),
    "a directory in place of a link": lambda: members(("l", b"2", "/gone"), ("l/", b"5", ""), ("l/x", b"0", "")),
    "a file in place of a directory": lambda: members(("d/x", b"0", "1"), ("d", b"0", "2")),
    "a hard link": lambda: members(("a", b"0", "1"), ("d/b", b"1", "a"), ("a", b"1", "d/b")),
    "a fifo": lambda: members(("p", b"0", ""), ("d/p", b"2", "../p")),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_unpacked(name: str, tmp_path: Path) -> None:
    """The same of a tree and of a list, upon what is there."""
    found = []
    for work in both(tmp_path):
        made(work, "in/d", mode=0o711)
        extract(ARCHIVES[name](), work.target, "in", timestamp=9)
        found.append(work.seen())
    assert found[0] == found[1]
    assert len(found[0]) > 1


def test_a_copy_makes_the_same_layer(tmp_path: Path, source: int) -> None:
    """With attributes, and with a file that stands in for a device where none can be made."""
    attributes = {"f": {"user.kept": b"1", "user.overlay.x": b"2"}, "device": {standin.XATTR: b"0:0:0600:char-1-3"}}
    for name, values in attributes.items():
        fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=source)
        for key, value in values.items():
            os.setxattr(fd, key, value)
        os.close(fd)
    layers = []
    for work in both(tmp_path):
        copied(work, source, ".", "/to/", timestamp=9)
        entries = (("to/d/e/", b"5", ""), ("to/d/e/i", b"0", "x"), ("n", b"1", "to/d/e/i"))
        extract(members(*entries), work.target, timestamp=9)
        work.layer(sink := io.BytesIO())
        layers.append(sink.getvalue())
    assert layers[0] == layers[1]
    assert b"user.kept" in layers[0]
    kinds = {member.entry.name: member.entry.type for member in iter_members(io.BytesIO(layers[0]))}
    assert kinds[b"to/device"] == CHARACTER


@pytest.mark.parametrize("name", [".wh.x", "d/.wh.x", ".wh..wh..opq"])
def test_a_name_that_would_delete_something_is_in_no_layer(work: Work, name: str) -> None:
    for kind in (b"0", b"5"):
        extract(members((name, kind, "")), work.target)
        with pytest.raises(Unsupported, match="cannot be in a layer"):
            work.layer(io.BytesIO())


@pytest.mark.parametrize(
    "entries",
    [
        (("a", b"1", "nothing"),),
        (("a", b"2", ""),),
        (("a", b"Z", ""),),
        (("x" * 300, b"0", ""),),
        (("a", b"2", "b"), ("b", b"2", "a"), ("a/c", b"0", "")),
        (("../a", b"0", ""),),
    ],
)
def test_what_is_malformed_is_refused(work: Work, entries: tuple[tuple[str, bytes, str], ...]) -> None:
    with pytest.raises(CorruptContent):
        extract(members(*entries), work.target)


def test_nothing_leads_out_of_the_root(work: Work, tmp_path: Path) -> None:
    link(work, "out", "../../outside")
    made(work, "out/x")
    extract(members(("out/y", b"0", "1")), work.target)
    assert {"outside/x", "outside/y"} <= work.seen().keys()
    assert not (tmp_path / "outside").exists()
