"""Descriptors of directories."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


@contextmanager
def opened(path: str | Path) -> Iterator[int]:
    """A descriptor of a directory whose path is builda's own, for the time of the block."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def nearest(path: str) -> str:
    """`path`, or the nearest directory above it that is there."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
