"""Copies of files and directories that a command sees in place of the originals and may change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from builda.errors import Unsupported
from builda.fs import owners, xattrs

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def duplicate(source: str, parent: int, name: str) -> bool:
    """`name` in the directory `parent` looks as the source does: owners, modes, times, attributes and hard links.

    A source that can be replaced meanwhile is named by a descriptor (/proc/self/fd/N).

    Whether it is a directory. Unsupported for what is neither that nor a file.
    """
    found = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        mode = os.fstat(found).st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise Unsupported(f"neither a file nor a directory, so it cannot be copied: {source}")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        make = _duplicate_directory if stat.S_ISDIR(mode) else _duplicate_file
        make(fd, parent, name)
        return stat.S_ISDIR(mode)
    finally:
        os.close(fd)


def _duplicate_directory(source: int, parent: int, name: str) -> None:
    from builda.fs.sources import Source
    from builda.fs.trees.copytree import copy_tree
    from builda.fs.trees.directory import TreeTarget
    from builda.fs.trees.walk import CopyRequest

    os.mkdir(name, 0o700, dir_fd=parent)
    here = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        copy_tree(CopyRequest((Source(source, "."),), "/"), TreeTarget(here))
        look_like(here, source)
    finally:
        os.close(here)


def _duplicate_file(source: int, parent: int, name: str) -> None:
    with created(parent, name) as fd, open(source, "rb", closefd=False) as file, open(fd, "wb", closefd=False) as copy:
        while data := file.read(1 << 20):
            copy.write(data)
        copy.flush()
        look_like(fd, source)


@contextmanager
def created(parent: int, name: str) -> Iterator[int]:
    """A descriptor of a new file for the time of the block."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def look_like(fd: int, model: int) -> None:
    """Give a file or directory the owner, mode, attributes and time of another; Unsupported if it cannot have them."""
    info = os.fstat(model)
    owners.fchown(fd, info.st_uid, info.st_gid)
    os.fchmod(fd, stat.S_IMODE(info.st_mode))
    xattrs.write(fd, xattrs.recorded(model))
    os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
