"""Leases: which live processes work in the store, and since when.

A process that may make or reuse objects holds a file `leases/lease-PID-START-RANDOM`. The sweep spares all that is
younger than the oldest lease that is held, so whatever a process made or touched since it began is safe until it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builda.linux.process import process_identity
from builda.store import layout, locks
from builda.store.layout import Layout


@contextmanager
def lease(store: Layout) -> Iterator[None]:
    """Hold a lease during the block."""
    pid, start = process_identity()
    path = store.path("leases", f"lease-{pid}-{start}-{os.urandom(8).hex()}")
    with layout.translated(store.root):
        fd = locks.hold(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.close(fd)


def horizon(store: Layout, now: float, *, mine: bool = True) -> float:
    """When the oldest living lease began, `now` if there is none; seconds since the epoch.

    Without `mine` this process's own leases do not count.
    """
    oldest = now
    own = "lease-{}-{}-".format(*process_identity())
    for name in layout.iter_names(store.path("leases")):
        path = store.path("leases", name)
        if name.startswith(own) and not mine:
            continue
        with suppress(FileNotFoundError):
            began = os.stat(path).st_mtime
            if began < oldest and locks.is_held(path):
                oldest = began
    return oldest


def remove_dead(store: Layout) -> None:
    """Remove leases that no living process holds."""
    for name in layout.iter_names(store.path("leases")):
        path = store.path("leases", name)
        if not locks.is_held(path):
            with suppress(FileNotFoundError):
                os.unlink(path)
