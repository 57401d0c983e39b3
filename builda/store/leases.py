"""Leases: which live process works in the store, and since when.

A process that may make or reuse objects has a file `leases/lease-PID-START-RANDOM`. The sweep spares everything that is
younger than the oldest living lease, so whatever a process made or touched since it began is safe until it ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builda.linux.process import process_identity
from builda.store import layout
from builda.store.layout import Layout


@contextmanager
def lease(store: Layout) -> Iterator[None]:
    """This process works in the store for the time of the block."""
    pid, start = process_identity()
    path = store.path("leases", f"lease-{pid}-{start}-{os.urandom(8).hex()}")
    with layout.translated(store.root):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)


def horizon(store: Layout, now: float, *, mine: bool = True) -> float:
    """When the oldest living lease began, `now` when there is none; leases of dead processes are removed.

    Without `mine` this process's own leases do not count.
    """
    oldest = now
    own = "lease-{}-{}-".format(*process_identity())
    for name in layout.iter_names(store.path("leases")):
        path = store.path("leases", name)
        try:
            began = os.stat(path).st_mtime
        except FileNotFoundError:
            continue
        if layout.owner_is_alive(name):
            if mine or not name.startswith(own):
                oldest = min(oldest, began)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)
    return oldest
