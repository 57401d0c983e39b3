"""Mounts without mounting: what a sandbox would mount is put into the tree itself and taken out afterwards.

Everything is made beside the tree and renamed into it, and what is in its place is renamed away; `mount_journal` undoes
it. What is copied is as it was when the command began, and what the command makes of it is thrown away, except in cache
mounts, which are in the tree themselves for that time.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builda.builder.run.clone_tree import created, duplicate
from builda.builder.run.subtree import shown
from builda.errors import InvalidValue, NotFound, Unsupported
from builda.fs import nodes, owners, paths, rights
from builda.linux import caps
from builda.store.drivers import mount_journal as journal
from builda.store.drivers.mount_journal import take_out
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from builda.isolation.spec import Sandbox
    from builda.linux.mount import Mount

__all__ = ["placed", "take_out"]

_NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_TERMINALS = "ptmx"
"""The node that makes terminals. Only where calls are answered (mode `traced`) can one stand in for it."""
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_DIRECTORIES = {"shm": 0o1777, "pts": 0o755, "mqueue": 0o755}
_BIND = ("bind", "rbind")


class File(NamedTuple):
    """A fresh file."""

    target: str
    data: bytes
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)


class Copy(NamedTuple):
    """A file or directory, which `source` shows, as it is now, to be thrown away."""

    target: str
    source: Mount


class Moved(NamedTuple):
    """A socket, to be thrown away."""

    target: str
    source: str


class Cache(NamedTuple):
    """A directory of the store that the command may change."""

    target: str
    home: str


class Empty(NamedTuple):
    """An empty directory, to be thrown away with all that the command puts there."""

    target: str
    mode: int


class Devices(NamedTuple):
    """The standard devices in /dev."""

    target: str


Item: TypeAlias = File | Copy | Moved | Cache | Empty | Devices


@contextmanager
def placed(tree: str, aside: str, sandbox: Sandbox, *, caches: str) -> Iterator[Sandbox]:
    """Put what the sandbox would mount into the tree for the time of the block; the sandbox without these mounts.

    Memory files stay in the sandbox, by their paths in the tree, so that the child can remove them if builda is killed.

    `aside` is a private path beside the tree, on its file system; cache mounts are directories in `caches`, which no
    other run uses meanwhile. Unsupported, before anything is changed, for what would have to be written on the host.
    """
    from builda.values import replace

    items = items_of(sandbox, caches)
    take_out(tree, aside)
    held: dict[str, int] = {}
    try:
        with _opened(tree, aside, held) as placing:
            places = {item.target: placing.place(item) for item in items}
            placing.finish()
        memory_files = tuple(replace(file, target="/" + places[file.target]) for file in sandbox.memory_files)
        yield replace(sandbox, files={}, devices=(), mounts=(), memory_files=memory_files)
    finally:
        take_out(tree, aside, held=held)
        for fd in held.values():
            os.close(fd)


def items_of(sandbox: Sandbox, caches: str) -> tuple[Item, ...]:
    """The items to put into the tree, in this order. Changes nothing."""
    for device in sandbox.devices:
        if device.target != device.source or device.target not in [f"/dev/{name}" for name in _NODES]:
            raise Unsupported(
                f"--device needs a mode that can mount: {device.source}",
                hint="leave out --device, or run where builda can mount",
            )
    return (
        Empty("/proc", 0o555),
        Empty("/sys", 0o555),
        Devices("/dev"),
        *(File(path, data) for path, data in sandbox.files.items()),
        *(_item(mount, caches) for mount in sandbox.mounts),
        *(File(file.target, file.data, file.mode, file.owner or (0, 0)) for file in sandbox.memory_files),
    )


def _item(mount: Mount, caches: str) -> Item:
    if mount.type == "tmpfs":
        words = dict(word.partition("=")[::2] for word in mount.options)
        return Empty(mount.target, int(words.get("mode", "1777"), 8))
    if mount.type == "overlay" and len(mount.lower) == 1:
        return Copy(mount.target, mount._replace(type="bind", source=mount.lower[0], lower=()))
    if mount.type not in _BIND:
        raise Unsupported(f"needs a mode that can mount: {mount.type} at {mount.target}")
    try:
        is_socket = stat.S_ISSOCK(os.stat(mount.source).st_mode)
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory to mount: {mount.source}") from error
    if is_socket:
        return Moved(mount.target, mount.source)
    if "ro" in mount.options:
        return Copy(mount.target, mount)
    if os.path.dirname(mount.source) == caches:
        return Cache(mount.target, mount.source)
    raise Unsupported(
        f"without mounts a command cannot write to the host: {mount.source} at {mount.target}",
        hint="make it read-only (ro), or copy it into the image",
    )


@contextmanager
def _opened(tree: str, aside: str, held: dict[str, int]) -> Iterator[_Placing]:
    os.makedirs(aside, mode=0o700, exist_ok=True)
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    here = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        journal.note(aside, do="begin")
        yield _Placing(root, here, aside, held)
    finally:
        os.close(here)
        os.close(root)


class _Placing:
    """Items on their way into the tree at `root`; `here` is the directory they are made in.

    `held` gets a descriptor of each directory that is changed.
    """

    def __init__(self, root: int, here: int, aside: str, held: dict[str, int]) -> None:
        self.root = root
        self.here = here
        self.aside = aside
        self.held = held
        self.count = 0
        self.times: dict[str, int] = {}

    def place(self, item: Item) -> str:
        """Make the item and exchange it with what is at its target; the target's path without links."""
        path = self.resolved(item.target)
        self.count += 1
        is_directory = self.make(item, str(self.count))
        self.check(path, item.target, is_directory)
        above, _, name = path.rpartition("/")
        self.make_parents(above, item.target)
        parent = paths.open_directory(self.root, above)
        try:
            self.exchange(parent, name, path, str(self.count))
        finally:
            os.close(parent)
        return path

    def finish(self) -> None:
        """Restore the times of changed directories, so that later only the command's own changes show."""
        for path, mtime in self.times.items():
            os.utime(self.held[path], ns=(os.fstat(self.held[path]).st_atime_ns, mtime))
        journal.note(self.aside, do="ready")

    def resolved(self, target: str) -> str:
        """The path inside the tree without links."""
        try:
            path = os.fsdecode(paths.resolved(self.root, target))
        except OSError as error:
            raise InvalidValue(f"too many levels of symbolic links in the container: {target}") from error
        if not path:
            raise InvalidValue(f"cannot mount over the root of the container: {target}")
        return path

    def check(self, path: str, target: str, is_directory: bool) -> None:
        there = paths.lstat_in_root(self.root, path)
        if there is not None and stat.S_ISDIR(there.st_mode) != is_directory:
            kinds = ("a directory", "a file") if is_directory else ("a file", "a directory")
            raise InvalidValue(f"cannot mount {kinds[0]} over {kinds[1]} in the container: {target}")

    def make(self, item: Item, name: str) -> bool:
        """Make the item in the directory aside; whether it is a directory."""
        match item:
            case File(_, data, mode, owner):
                _write(self.here, name, data, mode, owner)
                return False
            case Copy(_, source):
                with shown(source) as fd:
                    return duplicate(f"/proc/self/fd/{fd}", self.here, name)
            case Moved(target, source):
                _move_socket(source, self.here, name, target)
                return False
            case Cache(_, home):
                journal.note(self.aside, do="cache", number=self.count, home=home)
                os.rename(home, name, dst_dir_fd=self.here)
            case Empty(_, mode):
                paths.make_directory(self.here, name, mode, (0, 0))
            case Devices():
                _make_devices(self.here, name)
        return True

    def make_parents(self, path: str, target: str) -> None:
        """Make the directory. What was made is removed after the command if it is empty then."""
        done = ""
        for name in path.split("/") if path else ():
            above, done = done, f"{done}/{name}" if done else name
            parent = paths.open_directory(self.root, above)
            try:
                self.make_parent(parent, name, above, done, target)
            finally:
                os.close(parent)

    def make_parent(self, parent: int, name: str, above: str, path: str, target: str) -> None:
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise InvalidValue(f"cannot mount below a path that is not a directory in the container: {target}")
        except FileNotFoundError:
            self.keep_time(parent, above)
            journal.note(self.aside, do="make", path=path)
            paths.make_directory(parent, name, 0o755, (0, 0))

    def keep_time(self, directory: int, path: str) -> None:
        if path not in self.times:
            info = os.fstat(directory)
            self.held[path], self.times[path] = os.dup(directory), info.st_mtime_ns
            journal.note(self.aside, do="time", path=path, mtime=info.st_mtime_ns, ino=info.st_ino)

    def exchange(self, parent: int, name: str, path: str, number: str) -> None:
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            original = None
        else:
            is_directory = stat.S_ISDIR(info.st_mode)
            original = {"ino": info.st_ino, "ctime": info.st_ctime_ns, "directory": is_directory}
            original["linked"] = info.st_nlink > 1
        self.keep_time(parent, path.rpartition("/")[0])
        journal.note(self.aside, do="place", path=path, number=self.count, original=original)
        if original is not None:
            os.rename(name, f"{number}-original", src_dir_fd=parent, dst_dir_fd=self.here)
            info = os.stat(f"{number}-original", dir_fd=self.here, follow_symlinks=False)
            journal.note(self.aside, do="moved", number=self.count, ctime=info.st_ctime_ns)
        os.rename(number, name, src_dir_fd=self.here, dst_dir_fd=parent)


def _write(parent: int, name: str, data: bytes, mode: int, owner: tuple[int, int]) -> None:
    with created(parent, name) as fd, open(fd, "wb", closefd=False) as file:
        file.write(data)
        if rights.lacks_rights():
            owners.dress(fd, *owner, mode)
            return
        owners.fchown(fd, *owner)
        os.fchmod(fd, mode)


def _make_devices(parent: int, name: str) -> None:
    os.mkdir(name, 0o700, dir_fd=parent)
    here = paths.open_made(parent, name)
    try:
        with caps.raised("CAP_MKNOD"):
            node: Callable[[int, str], None] = _make_node if _opens_nodes(here) else _make_stand_in
            for each in _NODES:
                node(here, each)
            if rights.lacks_rights():
                _make_stand_in(here, _TERMINALS)
        for each, target in _LINKS.items():
            os.symlink(target, each, dir_fd=here)
        for each, mode in _DIRECTORIES.items():
            paths.make_directory(here, each, mode, (0, 0))
        owners.fchown(here, 0, 0)
        os.fchmod(here, 0o755)
    finally:
        os.close(here)


def _opens_nodes(parent: int) -> bool:
    """Whether a node can be made here and opens its device: not in a user namespace, and not on a nodev mount."""
    try:
        _make_node(parent, "null")
    except PermissionError:
        return False
    try:
        os.close(os.open("null", os.O_RDWR, dir_fd=parent))
        return True
    except PermissionError:
        return False
    finally:
        os.unlink("null", dir_fd=parent)


def _make_node(parent: int, name: str) -> None:
    os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(*_NODES[name]), dir_fd=parent)
    with nodes.pinned(parent, name, stat.S_IFCHR) as path:
        os.chmod(path, 0o666)  # whatever the umask


def _make_stand_in(parent: int, name: str) -> None:
    """Make a stand-in for a device node; isolation answers when a command opens it."""
    with created(parent, name) as fd:
        os.fchmod(fd, 0o666)


def _move_socket(source: str, parent: int, name: str, target: str) -> None:
    """Rename a socket into place: connect(2) finds it by inode, so its listener keeps working."""
    try:
        os.rename(source, name, dst_dir_fd=parent)
    except OSError as error:
        raise Unsupported(
            f"socket cannot be moved into the container ({error.strerror}): {source} at {target}"
        ) from error
