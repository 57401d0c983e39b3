"""The objects of a store, their sizes, and the bytes that `prune --all` would free."""

from __future__ import annotations

import os
from contextlib import suppress

from builda.errors import NotFound
from builda.oci.digest import Digest
from builda.store import gc, layout
from builda.store.drivers.bookkeeping import count
from builda.store.layout import Damaged
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from builda.store.store import Store


class Usage(NamedTuple):
    """Objects of one type: how many there are, their bytes, and how many bytes of them `prune --all` removes."""

    type: str
    total: int
    size: int
    reclaimable: int


def usage(store: Store) -> tuple[Usage, ...]:
    """One row for each type. A blob counts once, for the first type that needs it."""
    used = {container.image_digest for container in store.containers.iter()}
    used.update(mount.image for mount in store.image_mounts.iter())
    images = tuple(store.images.iter())
    kept = _content(store, (image.digest for image in images if image.digest in used))
    named = _content(store, (image.digest for image in images)) | kept
    others = set(layout.iter_names(store.layout.path("blobs/sha256"))) - named
    return (
        Usage("Images", len(images), _bytes(store, named), _bytes(store, named - kept)),
        _trees(store),
        _containers(store),
        Usage("Other layers", len(others), _bytes(store, others), _bytes(store, others)),
        _caches(store),
    )


def _content(store: Store, digests: Iterable[Digest]) -> set[str]:
    return {blob for digest in digests for blob in gc.content_of(store, digest)}


def _bytes(store: Store, blobs: Iterable[str]) -> int:
    size = 0
    for name in blobs:
        with suppress(FileNotFoundError):  # the layer of a list may be in a registry
            size += os.stat(store.layout.blob(name)).st_size
    return size


def _trees(store: Store) -> Usage:
    """Unpacked layers and the trees of remembered steps."""
    needed: set[str] = set()
    active: set[str] = set()
    for container in store.containers.iter():
        active.add(container.snapshot)
        with suppress(NotFound, Damaged):
            needed.update(store.snapshots.new.lineage(container.snapshot))
    for mount in store.image_mounts.iter():
        with suppress(NotFound, Damaged):
            needed.update(store.snapshots.new.lineage(mount.tree or mount.base))
    sizes = {}
    for name in layout.iter_names(store.layout.path("snapshots")):
        if name not in active:
            with suppress(NotFound, Damaged):
                sizes[name] = max(0, store.snapshots.new.info(name).size)
    free = sum(size for name, size in sizes.items() if name not in needed)
    return Usage("Trees", len(sizes), sum(sizes.values()), free)


def _containers(store: Store) -> Usage:
    """The number of working containers, and the bytes that they wrote since their last layer."""
    containers = tuple(store.containers.iter())
    size = 0
    for container in containers:
        with suppress(FileNotFoundError):
            size += count(store.layout.path("snapshots", container.snapshot, "fs"))[1]
    return Usage("Containers", len(containers), size, 0)


def _caches(store: Store) -> Usage:
    """The directories of --mount=type=cache."""
    place = store.layout.path("cache")
    names = [name for name in layout.iter_names(place) if not name.endswith((".lock", ".users"))]
    size = sum(count(f"{place}/{name}")[1] for name in names)
    return Usage("Cache mounts", len(names), size, size)
