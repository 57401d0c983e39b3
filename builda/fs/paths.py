"""Paths inside a root, resolved by descriptor.

Every path that comes from an image, an archive or a Containerfile goes through here: symbolic links, absolute ones
included, and `..` are followed by the kernel inside the root (openat2, RESOLVE_IN_ROOT) and never lead out of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from builda.linux import syscalls

Path: TypeAlias = str | bytes

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def open_in_root(root: int, path: Path, flags: int, mode: int = 0) -> int:
    """A descriptor of `path` inside `root`; the last component is followed unless `flags` hold O_NOFOLLOW."""
    return syscalls.openat2(root, os.fsencode(path) or b".", flags, mode, _RESOLVE)


def open_parent(root: int, path: Path) -> tuple[int, bytes]:
    """A descriptor of the directory that holds `path`, and the last component, which is not followed.

    The name is b"." for the root itself.
    """
    clean = os.fsencode(path).strip(b"/")
    head, _, name = clean.rpartition(b"/")
    if name in (b"", b".", b".."):
        return open_in_root(root, clean, os.O_PATH | os.O_DIRECTORY), b"."
    return open_in_root(root, head, os.O_PATH | os.O_DIRECTORY), name


@contextmanager
def parent_of(root: int, path: Path) -> Iterator[tuple[int, bytes]]:
    """`open_parent` whose descriptor is closed at the end of the block."""
    fd, name = open_parent(root, path)
    try:
        yield fd, name
    finally:
        os.close(fd)


def lstat_in_root(root: int, path: Path) -> os.stat_result | None:
    """What `path` is, its last component not followed; None when there is nothing."""
    try:
        with parent_of(root, path) as (parent, name):
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def stat_in_root(root: int, path: Path) -> os.stat_result | None:
    """What `path` leads to inside `root`; None when it leads to nothing."""
    try:
        fd = open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def read_file(root: int, path: Path, limit: int = 16 << 20) -> bytes:
    """The bytes of a regular file inside `root`, at most `limit`; OSError when it is none."""
    fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(22, "not a regular file", os.fsdecode(path))
        return file.read(limit)


def make_directories(
    root: int, path: Path, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int | None = None
) -> tuple[str, ...]:
    """Make `path` and what is missing above it; those it made, topmost first.

    Links on the way are followed inside the root; a file in the way raises NotADirectoryError.
    """
    made: list[str] = []
    done = b""
    for part in os.fsencode(path).split(b"/"):
        if part in (b"", b"."):
            continue
        step = done + b"/" + part
        if stat_in_root(root, step) is None:
            with parent_of(root, step) as (parent, name):
                _make_directory(parent, name, mode, uid, gid, mtime)
            made.append(os.fsdecode(step))
        done = step
    if done and not stat.S_ISDIR((stat_in_root(root, done) or os.stat_result((0,) * 10)).st_mode):
        raise NotADirectoryError(20, "not a directory", os.fsdecode(done))
    return tuple(made)


def _make_directory(parent: int, name: bytes, mode: int, uid: int, gid: int, mtime: int | None) -> None:
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return  # a link that leads nowhere, or another process was faster
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        if mtime is not None:
            os.utime(fd, (mtime, mtime))
    finally:
        os.close(fd)


def remove_tree(parent: int, name: Path) -> None:
    """Remove `name` in the directory `parent` with all below it, following nothing; what is not there is no error."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def empty(directory: int) -> None:
    """Remove everything in `directory`."""
    with os.scandir(directory) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if is_directory:
            remove_tree(directory, name)
        else:
            os.unlink(name, dir_fd=directory)
