"""Whether a store is the same after a verb that failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.conftest import Builda


@contextmanager
def unchanged(builda: Builda) -> Iterator[None]:
    """The store holds the same images, names, containers and trees afterwards.

    Not compared: locks, leases, overlay's own work, verified blobs that nothing refers to, which prune takes, and what
    the first verb that needs trees learns of the store's file system.
    """
    before = contents(builda)
    yield
    assert contents(builda) == before


def contents(builda: Builda) -> dict[str, bytes | None]:
    """Every path of the store, records with their content."""
    found: dict[str, bytes | None] = {}
    for path in builda.root.rglob("*") if builda.root.exists() else []:
        name = str(path.relative_to(builda.root))
        volatile = name.startswith(("locks", "leases", "ingest", "blobs", "builda.json")) or path.parent.name == "work"
        if not volatile and path.suffix != ".lock" and path.name != "lock":
            record = path.suffix == ".json" or name.startswith("refs/")
            found[name] = path.read_bytes() if record and path.is_file() else None
    return found
