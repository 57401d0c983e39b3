"""Copies files and directories, so that a command may change the copies instead of the originals."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from builda.errors import Unsupported


def duplicate(source: str, parent: int, name: str) -> bool:
    """Copy `source` to `name` in the directory `parent`, with owners, modes, times, attributes and hard links.

    Returns whether it is a directory; Unsupported if it is neither a directory nor a regular file. A caller names a
    source that may be replaced meanwhile by a descriptor (/proc/self/fd/N).
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
        _duplicate(fd, parent, name)
        return stat.S_ISDIR(mode)
    finally:
        os.close(fd)


def _duplicate(source: int, parent: int, name: str) -> None:
    from builda.fs import xattrs
    from builda.fs.sources import Source
    from builda.fs.trees.copytree import copy_tree
    from builda.fs.trees.directory import TreeTarget, look_like
    from builda.fs.trees.target import Looks
    from builda.fs.trees.walk import CopyRequest

    info, here = os.fstat(source), TreeTarget(parent)
    if not stat.S_ISDIR(info.st_mode):
        looks = Looks(*here.original(info, xattrs.recorded(source)))
        here.copy(parent, os.fsencode(name), source, info, looks, None)
        return
    directory = here.make(parent, os.fsencode(name))
    try:
        copy_tree(CopyRequest((Source(source, "."),), "/"), TreeTarget(directory))
        look_like(directory, source)
    finally:
        os.close(directory)


@contextmanager
def created(parent: int, name: str) -> Iterator[int]:
    """A descriptor of a new file for the time of the block."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)
