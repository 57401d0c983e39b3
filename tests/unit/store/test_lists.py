"""Images as lists and as trees: the same files, whatever their layers' archives hold."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
from collections.abc import Callable
from typing import NamedTuple

import pytest

from builda.errors import CorruptContent, TreeNeeded
from builda.fs.lists.layertree import Node, Tree
from builda.fs.lists.listwriter import ListTarget
from builda.fs.lists.spool import Spool
from builda.fs.tar import DIRECTORY, REGULAR, SYMBOLIC_LINK
from builda.fs.trees.unpack import extract
from builda.linux.mount import mounted
from builda.store.drivers.lists import ListSnapshots
from builda.store.store import Store
from tests.support.images import image, put

pytestmark = pytest.mark.root

KINDS = {stat.S_IFDIR: DIRECTORY, stat.S_IFREG: REGULAR, stat.S_IFLNK: SYMBOLIC_LINK}


class File(NamedTuple):
    kind: bytes
    mode: int
    owner: tuple[int, int]
    link: str = ""
    size: int = 0


Files = tuple[dict[str, File], list[list[str]]]
"""What there is, by path; and the names of each file that has several."""


def of_tree(store: Store, snapshot: str | None) -> Files:
    found: dict[str, File] = {}
    names: dict[int, list[str]] = {}
    with mounted(store.snapshots.new.view(snapshot)) as root:
        top = f"/proc/self/fd/{root}/."
        for directory, directories, files in os.walk(top):
            for name in (*directories, *files):
                path = os.path.join(directory, name)
                info = os.lstat(path)
                kind, here = KINDS[stat.S_IFMT(info.st_mode)], os.path.relpath(path, top)
                link = os.readlink(path) if kind == SYMBOLIC_LINK else ""
                mode = 0 if link else stat.S_IMODE(info.st_mode)
                size = info.st_size if kind == REGULAR else 0
                found[here] = File(kind, mode, (info.st_uid, info.st_gid), link, size)
                if kind != DIRECTORY:
                    names.setdefault(info.st_ino, []).append(here)
    return found, several(names)


def of_list(tree: Tree) -> Files:
    found: dict[str, File] = {}
    names: dict[int, list[str]] = {}
    pending: list[tuple[str, Node]] = [("", tree.root)]
    while pending:
        prefix, directory = pending.pop()
        for name, node in directory.children.items():
            here, row = prefix + os.fsdecode(name), node.row
            assert node.parent is directory or not node.is_directory
            link = os.fsdecode(row.link) if row.kind == SYMBOLIC_LINK else ""
            size = row.size if row.kind == REGULAR else 0
            found[here] = File(row.kind, 0 if link else row.mode, (row.uid, row.gid), link, size)
            if node.is_directory:
                pending.append((f"{here}/", node))
            else:
                names.setdefault(id(node), []).append(here)
    return found, several(names)


def several(names: dict[int, list[str]]) -> list[list[str]]:
    return sorted(sorted(paths) for paths in names.values() if len(paths) > 1)


def archive(*entries: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return data.getvalue()


def entry(
    path: str, link: str | None = None, *, hard: bool = False, mode: int = 0o644, size: int = 0
) -> tarfile.TarInfo:
    """A file; a directory if the path ends in a slash; a link if it is given where to."""
    made = tarfile.TarInfo(path)
    made.mode, made.size, made.linkname = mode, size, link or ""
    if link is not None:
        made.type = tarfile.LNKTYPE if hard else tarfile.SYMTYPE
    elif path.endswith("/"):
        made.type = tarfile.DIRTYPE
    return made


def both(store: Store, *layers: bytes) -> tuple[Files | str, Files | str]:
    """The image as a tree and as a list, "refused" where that cannot be."""
    made = put(store, image(*layers))
    found: list[Files | str] = []
    asks: tuple[Callable[[], Files], ...] = (
        lambda: of_tree(store, store.snapshots.unpack(made)),
        lambda: of_list(store.snapshots.lists.tree(str(store.snapshots.unpack(made, as_list=True)))),
    )
    for ask in asks:
        try:
            found.append(ask())
        except CorruptContent:
            found.append("refused")
    return found[0], found[1]


@pytest.mark.parametrize(
    "layers",
    [
        [[entry("run/"), entry("var/run", "../run"), entry("var/run/lock", mode=0o600)]],
        [[entry("var/run", "/gone"), entry("var/run/lock")]],
        [[entry("lib", "usr/lib")], [entry("lib/x")]],  # a link of a lower layer gives way
        [[entry("lib", "usr/lib"), entry("usr/lib/x")], [entry("lib/.wh.x")]],
        [[entry("a/b", mode=0o600)], [entry("c/.wh.d"), entry("a/.wh.c")]],  # whose directories are there afterwards
        [[entry("a/", mode=0o700), entry("a/b")], [entry("a/c"), entry("a/b", "c", hard=True)]],
        [[entry("a/b"), entry("a"), entry("a/")], [entry("a"), entry("a/c")]],
        [[entry("a/b/c"), entry("d")], [entry("a/.wh..wh..opq"), entry("a/d"), entry("d/.wh..wh..opq")]],
        [[entry("a/b")], [entry(".wh.a"), entry("a/c")], [entry("a/.wh.c"), entry("e", "../../..")]],
        [[entry("a/b")], [entry("a/c"), entry(".wh.a")]],
        [[entry("a/b"), entry("c")], [entry(".wh..wh..opq"), entry("d", "c")]],
        [[entry("d/b", "../d"), entry("d/d", "d")], [entry("d/d/e"), entry("d/b/c/f")]],  # below what loops
        [[entry("a", size=3), entry("b", "a", hard=True), entry("a", size=5)]],
        [[entry("a/a", size=3), entry("a", "a/a", hard=True)]],
        [[entry("a")], [entry("b", "a", hard=True)]],
        [[entry("a", "b"), entry("b", "a"), entry("a/c")]],
        [[entry("a/.wh..wh..plnk"), entry("a/.wh.")]],
    ],
)
def test_a_list_has_the_files_of_the_tree(store: Store, layers: list[list[tarfile.TarInfo]]) -> None:
    as_tree, as_list = both(store, *(archive(*entries) for entries in layers))
    assert as_list == as_tree


def some_layer(chance: random.Random) -> bytes:
    def path() -> str:
        return "/".join(chance.choice("abcd") for _ in range(chance.choice((1, 1, 2, 2, 3))))

    def one() -> tarfile.TarInfo:
        mode, size = chance.choice((0o644, 0o755, 0o4755, 0o700)), chance.randrange(3)
        match chance.choice("file file file file dir dir link hard white white opaque".split()):
            case "file":
                made = entry(path(), mode=mode, size=size)
            case "dir":
                made = entry(f"{path()}/", mode=mode)
            case "link":
                made = entry(path(), chance.choice(("", "/", "../", "../../")) + path())
            case "hard":
                made = entry(path(), path(), hard=True)
            case "white":
                head, slash, name = path().rpartition("/")
                made = entry(f"{head}{slash}.wh.{name}")
            case _:
                made = entry(f"{path()}/.wh..wh..opq")
        made.uid, made.gid = chance.randrange(3), chance.randrange(3)
        return made

    return archive(*(one() for _ in range(chance.randrange(8))))


@pytest.mark.parametrize("seed", range(10))
def test_lists_and_trees_agree_about_layers_by_chance(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    compared = 0
    for _ in range(25):
        layers = [some_layer(chance) for _ in range(chance.choice((1, 2, 3)))]
        as_tree, as_list = both(store, *layers)
        assert as_list == as_tree, layers
        compared += as_tree != "refused"
    assert compared > 5


BASE = [
    *(entry("a/b/c", size=3), entry("a/d"), entry("b/", mode=0o700), entry("b/d", "../a")),
    *(entry("c/a", size=1), entry("d", "c/a", hard=True)),
]


def state(tree: Tree) -> list[tuple[object, ...]]:
    """All that a next step may ask of a tree, by path."""
    found: list[tuple[object, ...]] = []
    pending = [(b"", tree.root)]
    while pending:
        path, node = pending.pop()
        row = node.row._replace(path=b"")
        place = "" if node.is_directory else node.place
        merged = node.merged and node is not tree.root
        found.append((path, row, place, node.changed, node.opaque, merged, sorted(node.covered)))
        if node.is_directory:
            pending += [(path + b"/" + name, inner) for name, inner in node.children.items()]
    return sorted(found)


@pytest.mark.parametrize("seed", range(10))
def test_a_tree_in_memory_is_the_one_that_would_be_read(store: Store, seed: int) -> None:
    """Archives by chance are unpacked one upon the other, some frozen as layers and some not."""
    chance = random.Random(seed)
    made = put(store, image(archive(*BASE), archive(entry("a/.wh.d"), entry("c/c", size=2))))
    key = store.snapshots.lists.prepare(store.snapshots.unpack(made, as_list=True))
    for time in range(1, 25):
        tree = store.snapshots.lists.tree(key)
        fresh = ListSnapshots(store.layout, store.blobs, userxattr=False).tree(key)
        assert state(tree) == state(fresh)
        try:
            with Spool(store.snapshots.lists.upper(key)) as spool:
                extract(io.BytesIO(added(chance)), ListTarget(tree, spool, time))
        except (CorruptContent, TreeNeeded):
            continue  # and nobody gives the tree back
        store.snapshots.lists.save(key, tree)
        if chance.random() < 0.7:
            cut = store.snapshots.lists.cut(key, None)
            if cut.layer is not None:
                store.snapshots.lists.freeze(cut.layer)
            key = cut.fresh


def added(chance: random.Random) -> bytes:
    """An archive for ADD: no whiteouts, which are files there."""

    def path() -> str:
        return "/".join(chance.choice("abcd") for _ in range(chance.choice((1, 1, 2, 3))))

    kinds = [chance.choice("file file dir link hard root".split()) for _ in range(chance.randrange(4))]
    made: dict[str, Callable[[], tarfile.TarInfo]] = {
        "file": lambda: entry(path(), size=chance.randrange(3)),
        "dir": lambda: entry(f"{path()}/", mode=chance.choice((0o755, 0o700))),
        "link": lambda: entry(path(), "/" + path()),
        "hard": lambda: entry(path(), path(), hard=True),
        "root": lambda: entry("./", mode=chance.choice((0o700, 0o711))),  # 0755 is not recorded
    }
    return archive(*(made[kind]() for kind in kinds))
