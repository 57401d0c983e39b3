"""What every driver of snapshots keeps: overlay, fuse-overlayfs, plain, trees in memory, and lists of files.

A driver is tried through the interface that the builder uses: prepare, mount, cut, freeze, write, unpack, remove. Lists
have no tree to mount, and nothing can be deleted in them: their files are changed on disk and recorded as layers are.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from builda.errors import CorruptContent, IsolationUnavailable, NotFound
from builda.events import ignore
from builda.fs.layer import AS_IS, Clamp, apply, diff_trees, fingerprints
from builda.fs.lists.layertree import read_rows
from builda.fs.lists.spool import Spool
from builda.fs.paths import discard
from builda.fs.tarread import iter_members
from builda.linux import fuse
from builda.linux import syscalls as sys_
from builda.linux.mount import mounted
from builda.oci import mediatype
from builda.oci.config import chain_ids
from builda.oci.digest import Digest
from builda.store.drivers.protocol import Snapshots
from builda.store.store import Image, Store
from tests.support import images, needs
from tests.support.stores import another, files

pytestmark = pytest.mark.root

TREES = ("overlay", "fuse-overlayfs", "plain", "memory")
DRIVERS = (*TREES, "composed")
with_trees = pytest.mark.parametrize("work", TREES, indirect=True)
"""For what lists do not promise."""
TIME = 1_600_000_000


class File(NamedTuple):
    """What is compared of a path."""

    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    content: bytes
    links: int
    xattrs: tuple[tuple[str, bytes], ...]


@dataclass
class Work:
    """A working tree of one driver, with the layers that were frozen under it."""

    store: Store
    driver: Snapshots
    key: str
    image: Image | None = None
    layers: list[str] = field(default_factory=list)

    @property
    def top(self) -> str | None:
        """The topmost frozen layer."""
        return self.layers[-1] if self.layers else None

    def change(self, do: Callable[[Path], object]) -> None:
        """Call `do` with the path of the mounted tree's root."""
        with mounted(self.driver.rootfs(self.key)) as root:
            do(Path(f"/proc/self/fd/{root}"))

    def seen(self) -> dict[str, File]:
        """The files of the mounted tree, by path."""
        with mounted(self.driver.rootfs(self.key)) as root:
            return tree_of(f"/proc/self/fd/{root}/.")

    def freeze(self, *, even_empty: bool = False) -> str | None:
        """Freeze what was changed; the layer, None without changes."""
        cut = self.driver.cut(self.key, self.top, even_empty=even_empty)
        self.key = cut.fresh
        if cut.layer is None:
            return None
        self.driver.freeze(cut.layer)
        self.layers.append(cut.layer)
        return cut.layer

    def archive(self, layer: str, clamp: Clamp = AS_IS) -> tuple[bytes, tuple[str, ...]]:
        """The layer's archive, and the paths that it leaves out."""
        sink = io.BytesIO()
        below = self.layers[: self.layers.index(layer)] if layer in self.layers else self.layers
        skipped = self.driver.write_changes(layer, sink, clamp=clamp, below=below[-1] if below else None)
        return sink.getvalue(), skipped

    def names(self, layer: str) -> list[str]:
        """The names that the layer's archive lists, sorted."""
        with tarfile.open(fileobj=io.BytesIO(self.archive(layer)[0])) as tar:
            return sorted(tar.getnames())

    def again(self) -> Work:
        """A second working tree on the same layers."""
        return Work(self.store, self.driver, self.driver.prepare_on(self.image, self.top), self.image, [*self.layers])


def tree_of(root: str) -> dict[str, File]:
    """The files below `root`, by path; "." is the root."""
    found: dict[str, File] = {}
    for directory, directories, names in os.walk(root):
        for name in (".", *directories, *names) if directory == root else (*directories, *names):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            content = b""
            if stat.S_ISREG(info.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(info.st_mode):
                content = os.fsencode(os.readlink(path))
            elif stat.S_ISCHR(info.st_mode):
                content = str(info.st_rdev).encode()
            links = info.st_nlink if stat.S_ISREG(info.st_mode) else 0
            xattrs = tuple(
                (key, os.getxattr(path, key, follow_symlinks=False))
                for key in sorted(os.listxattr(path, follow_symlinks=False))
                if "overlay." not in key
            )
            mode = 0 if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(info.st_mode)
            mtime = 0 if stat.S_ISDIR(info.st_mode) else int(info.st_mtime)
            kind = stat.S_IFMT(info.st_mode)
            found[os.path.relpath(path, root)] = File(
                kind, mode, info.st_uid, info.st_gid, mtime, content, links, xattrs
            )
    return found


class ListWork(Work):
    """A working list of files. What it holds is unpacked on disk to be seen, and to be changed."""

    def change(self, do: Callable[[Path], object]) -> None:
        data = io.BytesIO()
        with self.unpacked() as (place, root):
            before = fingerprints(root)
            do(place)
            diff_trees(before, root, data, clamp=AS_IS)
        data.seek(0)
        lists = self.store.snapshots.lists
        tree = lists.tree(self.key)
        with Spool(lists.upper(self.key)) as spool:
            tree.add(read_rows(iter_members(data), lambda member: spool.taken(member.content)), "", changed=True)
        lists.save(self.key, tree)

    def seen(self) -> dict[str, File]:
        with self.unpacked() as (place, _):
            return tree_of(f"{place}/.")

    def again(self) -> Work:
        return ListWork(
            self.store, self.driver, self.driver.prepare_on(self.image, self.top), self.image, [*self.layers]
        )

    @contextmanager
    def unpacked(self) -> Iterator[tuple[Path, int]]:
        """A directory with the files of the list, and a descriptor of it."""
        lists = self.store.snapshots.lists
        with tempfile.TemporaryDirectory() as directory:
            root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fchmod(root, 0o755)
                for snapshot in reversed(lists.lineage(self.key)):
                    if os.path.exists(lists.path(snapshot, "fs/blob")):
                        with lists.layer(snapshot) as archive:
                            apply(archive, root, whiteouts="plain")
                    else:
                        apply(io.BytesIO(self.archive(snapshot)[0]), root, whiteouts="plain")
                yield Path(directory), root
            finally:
                os.close(root)


@pytest.fixture(params=DRIVERS)
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Work]:
    """An empty working tree of each driver."""
    driver = request.param
    if driver == "fuse-overlayfs" and (lacking := fuse.lacking()) is not None:
        needs.not_here(f"no right to serve file systems: {lacking}")
    with ExitStack() as stack:
        named = None if driver == "memory" else driver
        store = stack.enter_context(Store.open(tmp_path / "store", tmp_path / "run", driver=named))
        if driver == "memory":
            place = tmp_path / "memory"
            place.mkdir()
            sys_.mount("tmpfs", str(place), "tmpfs", 0, "size=256m")
            stack.callback(partial(subprocess.run, ["umount", "-l", place], check=True))
            store.snapshots.keep_in_memory(str(place), 256 << 20)
        store.lease()
        if driver == "composed":
            yield ListWork(store, store.snapshots.lists, store.snapshots.lists.prepare_on(None, None))
        else:
            yield Work(store, store.snapshots.new, store.snapshots.new.prepare_on(None, None))


def on(work: Work, *layers: bytes) -> Work:
    """A working tree on an image of these layers."""
    image = images.put(work.store, images.image(*layers))
    _, key = work.driver.prepare_for(image, ignore)
    if isinstance(work, ListWork):
        work.store.snapshots.lists.stand_on(key, image, ignore)
    return type(work)(work.store, work.driver, key, image)


def fill(root: Path) -> None:
    """One of each kind of file, with attributes that are easily lost."""
    (root / "d/sub").mkdir(parents=True)
    (root / "d").chmod(0o2750)
    (root / "d/sub").chmod(0o1777)
    (root / "file").write_bytes(b"content" * 1000)
    (root / "empty").touch()
    (root / "set-id").write_bytes(b"x")
    os.chown(root / "set-id", 5, 6)
    (root / "set-id").chmod(0o6755)
    os.link(root / "file", root / "d/linked")
    (root / "link").symlink_to("/nowhere")
    os.chown(root / "link", 7, 8, follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(root / "file", "user.kept", b"value")
    os.setxattr(root / "set-id", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    (root / os.fsdecode(b"odd \xff\n name")).touch()
    with open(root / "sparse", "wb") as file:
        file.truncate(3 << 20)
    for path in ("file", "empty", "set-id", "fifo", "device", "sparse"):
        os.utime(root / path, (TIME, TIME))
    os.utime(root / "link", (TIME, TIME), follow_symlinks=False)


def test_a_new_tree_on_nothing_is_empty(work: Work) -> None:
    assert list(work.seen()) == ["."]
    assert work.seen()["."].mode == 0o755


def test_what_was_frozen_is_seen_in_the_trees_above_it(work: Work) -> None:
    work.change(fill)
    before = work.seen()
    assert work.freeze() is not None
    assert work.seen() == before
    assert work.again().seen() == before


@with_trees
def test_a_frozen_layer_is_not_changed_by_the_tree_above_it(work: Work) -> None:
    work.change(fill)
    layer = work.freeze()
    before = work.archive(str(layer))
    work.change(lambda root: (root / "file").write_bytes(b"other"))
    work.change(lambda root: (root / "empty").unlink())
    work.freeze()
    assert work.archive(str(layer)) == before


def test_two_trees_on_one_layer_do_not_see_each_other(work: Work) -> None:
    work.change(fill)
    work.freeze()
    second = work.again()
    before = second.seen()
    work.change(lambda root: (root / "file").write_bytes(b"mine"))
    work.change(lambda root: (root / "new").touch())
    assert second.seen() == before


def test_unchanged_trees_have_no_layer_unless_asked_for_one(work: Work) -> None:
    work.change(fill)
    work.freeze()
    assert not work.driver.is_changed(work.key, work.top)
    assert work.freeze() is None
    empty = work.freeze(even_empty=True)
    assert empty is not None
    assert work.names(empty) == []


def test_a_layer_records_what_changed_and_nothing_else(work: Work) -> None:
    work.change(fill)
    work.freeze()
    work.change(lambda root: (root / "d/sub/new").write_bytes(b"x"))
    assert work.driver.is_changed(work.key, work.top)
    assert work.names(str(work.freeze())) == ["d", "d/sub", "d/sub/new"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mode", lambda root: (root / "set-id").chmod(0o4711)),
        ("owner", lambda root: os.chown(root / "set-id", 9, 9)),
        ("time", lambda root: os.utime(root / "set-id", (1, 1))),
        ("attribute", lambda root: os.setxattr(root / "set-id", "user.new", b"x")),
    ],
)
def test_a_changed_attribute_records_the_whole_file(work: Work, name: str, change: Callable[[Path], object]) -> None:
    work.change(fill)
    work.freeze()
    work.change(change)
    layer = str(work.freeze())
    with tarfile.open(fileobj=io.BytesIO(work.archive(layer)[0])) as tar:
        assert "set-id" in tar.getnames()
        file = tar.extractfile("set-id")
        assert file is not None
        assert file.read() == b"x"


def test_the_root_directory_is_recorded_when_it_changes(work: Work) -> None:
    for mode, names in ((0o700, ["."]), (0o750, ["."]), (0o755, ["."])):
        work.change(lambda root, mode=mode: root.chmod(mode))  # type: ignore[misc]  # the loop's value
        layer = work.freeze()
        assert layer is not None
        assert work.names(layer) == names
        assert work.freeze() is None
        assert work.again().seen()["."].mode == mode
    work.change(lambda root: (root / "f").touch())
    layer = work.freeze()
    assert layer is not None
    assert work.names(layer) == ["f"]


def test_an_unusual_root_directory_is_in_every_layer_with_files(work: Work) -> None:
    work.change(lambda root: os.chown(root, 7, 8))
    assert work.freeze() is not None
    work.change(lambda root: (root / "f").touch())
    layer = work.freeze()
    assert layer is not None
    assert work.names(layer) == [".", "f"]


@with_trees
def test_deletions_are_whiteouts(work: Work) -> None:
    work.change(fill)
    work.freeze()
    work.change(lambda root: (root / "empty").unlink())
    work.change(lambda root: discard(f"{root}/d"))
    layer = str(work.freeze())
    assert {".wh.empty", ".wh.d"} <= set(work.names(layer))
    assert "d" not in work.again().seen()


@with_trees
def test_what_was_made_and_deleted_between_two_layers_leaves_nothing(work: Work) -> None:
    work.change(fill)
    work.freeze()
    work.change(lambda root: (root / "d/brief").touch())
    work.change(lambda root: (root / "d/brief").unlink())
    layer = work.freeze()
    assert layer is None or "d/brief" not in str(work.names(layer))


@with_trees
def test_a_replaced_directory_hides_what_it_had(work: Work) -> None:
    work.change(fill)
    work.change(lambda root: (root / "d/old").touch())
    work.freeze()

    def replace(root: Path) -> None:
        discard(f"{root}/d")
        (root / "d").mkdir()
        (root / "d/new").touch()

    work.change(replace)
    work.freeze()
    names = {path for path in work.again().seen() if path.startswith("d/")}
    assert names == {"d/new"}


@with_trees
def test_a_file_may_become_a_directory_and_a_directory_a_file(work: Work) -> None:
    work.change(fill)
    work.freeze()

    def swap(root: Path) -> None:
        (root / "empty").unlink()
        (root / "empty").mkdir()
        (root / "empty/in").touch()
        discard(f"{root}/d")
        (root / "d").write_bytes(b"file")

    work.change(swap)
    seen = work.seen()
    work.freeze()
    assert {path: file.kind for path, file in work.again().seen().items()} == {
        path: file.kind for path, file in seen.items()
    }


@with_trees
def test_sockets_are_left_out_and_named(work: Work) -> None:
    def bind(root: Path) -> None:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"{root}/socket")

    work.change(bind)
    work.change(lambda root: (root / "file").touch())
    archive, skipped = work.archive(str(work.freeze()))
    assert skipped == ("/socket",)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["file"]


def test_an_archive_unpacks_to_the_tree_that_it_was_made_of(work: Work) -> None:
    work.change(fill)
    before = work.seen()
    archive, _ = work.archive(str(work.freeze()))
    assert on(work, archive).seen() == {**before, ".": on(work).seen()["."]}


def test_the_same_tree_gives_the_same_archive(work: Work) -> None:
    work.change(fill)
    first = str(work.freeze())
    other = type(work)(work.store, work.driver, work.driver.prepare_on(None, None))
    other.change(fill)
    clamp = Clamp(exact=TIME)
    assert work.archive(first, clamp) == other.archive(str(other.freeze()), clamp)


def test_times_are_clamped_while_the_archive_is_written(work: Work) -> None:
    work.change(fill)
    archive, _ = work.archive(str(work.freeze()), Clamp(latest=1000))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {member.mtime for member in tar if ".wh." not in member.name} == {1000}


@with_trees
def test_images_layers_lie_on_each_other(work: Work) -> None:
    lower = images.layer({"a": None, "a/gone": b"1", "a/kept": b"2", "b": None, "b/x": b"3"})
    upper = images.layer({"a": None, "a/.wh.gone": b"", "a/kept": b"new", "b": None, "b/.wh..wh..opq": b"", "b/y": b""})
    tree = on(work, lower, upper)
    seen = tree.seen()
    assert set(seen) == {".", "a", "a/kept", "b", "b/y"}
    assert seen["a/kept"].content == b"new"
    tree.change(lambda root: (root / "a/kept").unlink())
    assert ".wh.kept" in str(tree.names(str(tree.freeze())))


def test_a_layer_that_is_not_what_its_image_says_leaves_nothing(work: Work) -> None:
    made = images.simple(1, layers=1)
    image = images.put(work.store, made)
    Path(work.store.blobs.path(made.layer_digests[0])).write_bytes(images.pack(images.layer({"other": b"x"}), "gzip"))
    before = files(work.store)
    begin: Callable[..., object] = work.driver.prepare_for
    if not work.driver.driver.has_trees:  # a list leaves it to its first use
        begin = work.driver.unpack
    with pytest.raises(CorruptContent):
        begin(image, ignore)
    assert files(work.store) == before


def test_a_remembered_layer_is_unpacked_on_another(work: Work) -> None:
    work.change(fill)
    work.freeze()
    tar = images.layer({"added": b"x", ".wh.empty": b""})
    blob = images.pack(tar, "gzip")
    kind = mediatype.layer_media_type("oci", "gzip")
    descriptor = work.store.put_bytes(blob, kind)
    diff_id = Digest.of(tar)
    chain = chain_ids((Digest.of(b"below"), diff_id))[-1]
    layer = work.driver.unpack_layer(descriptor, diff_id, chain, work.top, lambda _: None)
    above = type(work)(work.store, work.driver, work.driver.prepare_on(None, layer), None, [*work.layers, layer])
    seen = above.seen()
    assert seen["added"].content == b"x"
    assert "empty" not in seen
    assert seen["file"].links == 2


def test_a_tree_on_many_layers_has_them_all(work: Work) -> None:
    for number in range(40):
        work.change(lambda root, number=number: (root / f"f{number}").write_text(str(number)))  # type: ignore[misc]
        work.freeze()
    seen = work.again().seen()
    assert all(seen[f"f{number}"].content == str(number).encode() for number in range(40))


def test_what_was_removed_is_gone(work: Work) -> None:
    work.change(fill)
    work.freeze()
    second = work.again()
    work.driver.remove(second.key)
    assert not work.driver.exists(second.key)
    with pytest.raises(NotFound):
        work.driver.info(second.key)
    work.driver.remove(second.key)  # a second time is no error
    assert work.driver.exists(str(work.top))


def test_nothing_is_prepared_on_what_is_not_there(work: Work) -> None:
    before = files(work.store)
    with pytest.raises(NotFound):
        work.driver.prepare_on(None, "0" * 32)
    assert files(work.store) == before


def test_another_process_sees_the_trees_that_last(work: Work) -> None:
    if not work.driver.driver.lasts:
        needs.not_here("no right of another process to this one's memory")
    work.change(fill)
    layer = str(work.freeze())
    with another(work.store) as store:
        other = store.snapshots.kind_of(work.key)
        assert other.driver == work.driver.driver
        assert other.info(layer).committed
        assert type(work)(store, other, work.key, None, [*work.layers]).seen() == work.seen()


@pytest.mark.parametrize("work", ["composed"], indirect=True)
def test_without_trees_there_is_nothing_to_mount(work: Work) -> None:
    assert not work.driver.driver.has_trees
    with pytest.raises(IsolationUnavailable, match="lists of files instead of trees"):
        work.driver.rootfs(work.key)
    with pytest.raises(IsolationUnavailable, match="lists of files instead of trees"):
        work.driver.view(None)


def make_below(root: Path) -> None:
    for path in ("kept/inner", "again/inner", "gone"):
        (root / path).mkdir(parents=True)
        (root / path / "old").touch()
    (root / "replaced").touch()
    set_times(root)


def change_above(root: Path) -> None:
    for path in ("new/deep/deeper", "kept/new/deep", "kept/inner/new"):
        (root / path).mkdir(parents=True)
        (root / path / "file").touch()
    delete(root, "again", "gone")
    (root / "replaced").unlink()
    for path in ("again/inner", "again/other", "replaced/inner"):
        (root / path).mkdir(parents=True)
        (root / path / "file").touch()
    set_times(root)


def delete(root: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(root / name)


def set_times(root: Path) -> None:
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            os.utime(os.path.join(directory, name), (TIME, TIME))


ENTRIES = {
    *("again", "again/inner", "again/inner/.wh.old", "again/inner/file", "again/other", "again/other/file", ".wh.gone"),
    *(
        "kept",
        "kept/inner",
        "kept/inner/new",
        "kept/inner/new/file",
        "kept/new",
        "kept/new/deep",
        "kept/new/deep/file",
    ),
    *("new", "new/deep", "new/deep/deeper", "new/deep/deeper/file"),
    *("replaced", "replaced/inner", "replaced/inner/file"),
}


@pytest.mark.parametrize("work", ["overlay", "fuse-overlayfs", "memory"], indirect=True)
@pytest.mark.parametrize("committed", [True, False])
def test_equal_changes_make_equal_layers(work: Work, committed: bool) -> None:
    """What was removed is deleted by its name, and what was only touched is not in the layer."""
    work.change(make_below)
    work.freeze()
    work.change(change_above)
    names = work.names(str(work.freeze()) if committed else work.key)
    assert set(names) == ENTRIES


@pytest.mark.parametrize("work", DRIVERS, indirect=True)
def test_equal_additions_make_one_layer_whatever_the_driver(work: Work) -> None:
    work.change(make_below)
    work.freeze()

    def add(root: Path) -> None:
        for path in ("new/deep/deeper", "kept/new/deep"):
            (root / path).mkdir(parents=True)
            (root / path / "file").write_bytes(b"content")
        for path in ("new", "kept/new"):
            set_times(root / path)
            os.utime(root / path, (TIME, TIME))
        os.utime(root / "kept", (TIME, TIME))

    work.change(add)
    data, _ = work.archive(str(work.freeze()), Clamp(TIME))
    assert Digest.of(data).encoded == ADDITIONS


ADDITIONS = "9bf61d98effa58a3cc02183e22ee1c9c0bc067661e863fb0c0d3b0610c9e706b"
"""Of the layer that overlay makes."""


@pytest.mark.parametrize("work", ["overlay", "fuse-overlayfs"], indirect=True)
def test_what_a_layer_between_hides_needs_no_mark(work: Work) -> None:
    work.change(make_below)
    work.freeze()
    work.change(lambda root: delete(root, "again", "gone"))
    work.change(lambda root: (root / "again").mkdir())
    work.freeze()
    work.change(lambda root: (root / "again/inner").mkdir())
    work.change(lambda root: (root / "gone/inner").mkdir(parents=True))
    assert work.names(str(work.freeze())) == ["again", "again/inner", "gone", "gone/inner"]
