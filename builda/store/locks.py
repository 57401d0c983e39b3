"""Locks between processes: one per object that can be written twice. Readers take none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

BUCKETS = 256
"""Lock files of objects that come and go; two objects that share one merely wait for each other."""


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Nobody else is inside `exclusive` of the same path, in any process or thread."""
    from filelock import FileLock

    with FileLock(path, thread_local=False):
        yield


@contextmanager
def brief(path: str) -> Iterator[None]:
    """As `exclusive`, with flock(2) itself, which is what filelock uses: for the light verbs, whose whole run is
    shorter than an import of filelock (0.03 s)."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def bucket(directory: str, name: str, kind: str = "") -> str:
    """The lock file of an object called `name`, a hexadecimal digest; those of each `kind` are for themselves."""
    return f"{directory}/{kind}{int(name[:8], 16) % BUCKETS:02x}.lock"
