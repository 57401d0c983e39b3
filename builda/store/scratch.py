"""Scratch directories: the files that a command is given while it runs, in the volatile run root.

Each is held by flock(2) for as long as its process lives, so that the sweep knows which are left over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builda.fs.paths import discard
from builda.linux.process import process_identity
from builda.store import layout, locks
from builda.store.imagemounts import is_of_an_image
from builda.store.layout import Layout


@contextmanager
def scratch(where: Layout) -> Iterator[str]:
    """A private directory, gone after the block; those that killed processes left go first."""
    parent = where.volatile("scratch")
    sweep(where)
    pid, start = process_identity()
    path = f"{parent}/tmp-{pid}-{start}-{os.urandom(8).hex()}"
    fd = locks.hold_directory(path)
    try:
        yield path
    finally:
        discard(path)
        os.close(fd)


def sweep(where: Layout) -> None:
    """Remove scratch directories of dead processes."""
    parent = f"{where.runroot}/scratch"
    for name in layout.iter_names(parent):
        path = f"{parent}/{name}"
        if layout.owner_is_alive(name) is not True:
            with suppress(FileNotFoundError, NotADirectoryError, BlockingIOError), locks.directory_alone(path):
                discard(path)


def sweep_mount_points(where: Layout) -> None:
    """Remove directories that `builda mount` made for containers that are gone, unless something is mounted there."""
    parent = f"{where.runroot}/mounts"
    for name in layout.iter_names(parent):
        if not is_of_an_image(name) and not os.path.exists(where.path("containers", name)):
            with suppress(OSError):
                os.rmdir(f"{parent}/{name}")
