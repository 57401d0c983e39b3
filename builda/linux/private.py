"""Directories and files that only this user can change, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

OTHERS = 0o077
"""The rights of everybody but the owner."""


def make(path: str) -> None:
    """`path` is a directory; one that is made now has mode 0700, and what is missing above it gets 0755."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path) or "."
        if path == missing[-1]:
            break
    while missing:
        path = missing.pop()
        with suppress(FileExistsError):  # another process made it at the same moment
            os.mkdir(path, 0o755 if missing else 0o700)
    if not os.path.isdir(path):
        raise NotADirectoryError(20, os.strerror(20), path)


def narrow(path: str, is_own: Callable[[str], bool]) -> bool:
    """Whether nobody else reaches what the directory holds.

    A wider one of this user's is narrowed if every name in it `is_own`. One that holds anything else (a home, /tmp)
    was not made for this, and one of another user's cannot be narrowed: both stay as they are.
    """
    info = os.stat(path)
    if not info.st_mode & OTHERS:
        return True
    if info.st_uid != os.geteuid() or info.st_mode & stat.S_ISVTX or not all(map(is_own, os.listdir(path))):
        return False
    with suppress(OSError):  # a read-only file system
        os.chmod(path, stat.S_IMODE(info.st_mode) & ~OTHERS)
        return True
    return False


def is_ours(path: str, uid: int) -> bool:
    """Whether it is a directory of this user's that nobody else can write to; not followed if it is a link."""
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o022


def opener(path: str | bytes, flags: int) -> int:
    """For `open`: a file that is made by it cannot be written by others, even with a umask of 0."""
    return os.open(path, flags | os.O_CLOEXEC, 0o644)
