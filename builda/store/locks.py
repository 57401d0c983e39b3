"""Locks between processes: one per object that can be written twice. Readers take none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

BUCKETS = 256
"""Lock files of objects that come and go; two objects that share one merely wait for each other."""


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Nobody else is inside `exclusive` of the same path, in any process or thread."""
    from filelock import FileLock

    with FileLock(path, thread_local=False):
        yield


@contextmanager
def brief(path: str, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """As `exclusive`, with flock(2) itself, which is what filelock uses: for the light verbs, whose whole run is
    shorter than an import of filelock (0.03 s). `kind` is what flock is asked for."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, kind)
        yield
    finally:
        os.close(fd)


def shared(path: str) -> AbstractContextManager[None]:
    """Nobody is inside `alone` of the same path."""
    return brief(path, fcntl.LOCK_SH)


def alone(path: str) -> AbstractContextManager[None]:
    """Nobody is inside `shared` of the same path; BlockingIOError at once when somebody is."""
    return brief(path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def bucket(directory: str, name: str, kind: str = "") -> str:
    """The lock file of an object called `name`, a hexadecimal digest; those of each `kind` are for themselves."""
    return f"{directory}/{kind}{int(name[:8], 16) % BUCKETS:02x}.lock"
