"""Directories and files that only their owner can change, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress

OTHERS = 0o077
"""Mode bits of group and others."""


def make(path: str) -> None:
    """Make the directory `path` with mode 0700, and missing ones above it with 0755. Existing ones keep their modes."""
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
    """Whether only the owner can enter the directory; it is narrowed if that is safe.

    A directory of this user is narrowed if every name in it `is_own`. One that holds anything else (a home, /tmp) was
    not made by builda, and one of another user cannot be changed: both stay as they are.
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
    """Whether `path` is a directory of this user that no other user can write to. A link is not followed."""
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o022


def opener(path: str | bytes, flags: int) -> int:
    """An opener for `open`: new files get mode 0644 at most, so that others cannot write them with a umask of 0."""
    return os.open(path, flags | os.O_CLOEXEC, 0o644)
