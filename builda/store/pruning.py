"""`prune`: images without a name, remembered steps, cache mounts, and what killed commands left."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from builda.errors import InUse, NotFound
from builda.fs.paths import discard
from builda.store import failedsteps, layout, leases, locks, sessions
from builda.store.drivers.bookkeeping import count
from builda.store.images import Removal
from builda.store.layout import Damaged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.store.images import Image
    from builda.store.store import Store


def prune(
    store: Store,
    *,
    all_images: bool = False,
    force: bool = False,
    detach: Callable[[str], None] | None = None,
    until: float | None = None,
) -> Removal:
    """Remove images without a name (all that no container uses with `all_images`), remembered steps, cache mounts
    and everything that killed commands left. With `force` working containers on those images go first.

    With `until` only images that were created, and steps and cache mounts that were last used, before that time.
    """
    horizon = leases.horizon(store.layout, time.time(), mine=False)
    removed: list[Removal] = []
    _remove_failed_steps(store, until, detach)
    for image in tuple(store.images.iter()):
        if (image.names and not all_images) or (until is not None and image.created >= until):
            continue
        with suppress(InUse):
            removed.append(_remove_whole(store, image, all_images, horizon, force=force, detach=detach))
    for kind in ("steps", "digests"):
        for name in layout.iter_names(store.layout.path(kind)):
            if _is_before(store.layout.path(kind, name), until):
                layout.unlink(store.layout, store.layout.path(kind, name))
    freed = _forget_cache_mounts(store, until)
    return Removal(
        tuple(name for removal in removed for name in removal.untagged),
        tuple(image_id for removal in removed for image_id in removal.deleted),
        freed + store.sweep(),
    )


def _remove_failed_steps(store: Store, until: float | None, detach: Callable[[str], None] | None) -> None:
    """Remove the failed steps that were kept, but those that a session or a shell uses."""
    in_sessions = sessions.noted(store.layout, "containers")
    for container in tuple(store.containers.iter()):
        with suppress(Damaged, InUse, NotFound):
            failed = failedsteps.read(store.layout, container.id)
            if failed is None or container.id in in_sessions or (until is not None and failed.when >= until):
                continue
            store.remove_container(container, detach=detach)


def _remove_whole(
    store: Store, image: Image, named: bool, horizon: float, *, force: bool, detach: Callable[[str], None] | None
) -> Removal:
    users = [container for container in store.containers.iter() if container.image_digest == image.digest]
    if users and not force:
        raise InUse(f"image is used by working container {users[0].name}: {image.id}")
    if any(mount.image == image.digest for mount in store.image_mounts.iter()):
        raise InUse(f"image is mounted: {image.id}", hint="builda image umount ends that")
    for container in users:
        store.remove_container(container, detach=detach)
    names = store.images.discard(image.digest, named=named, horizon=horizon)
    if names is None:
        raise InUse(f"image is just being made or named: {image.id}")
    return Removal(names, (image.id.encoded,))


def _forget_cache_mounts(store: Store, until: float | None) -> int:
    freed = 0
    for name in layout.iter_names(store.layout.path("cache")):
        if name.endswith((".lock", ".users")):
            continue
        path = store.layout.path("cache", name)
        if not _is_before(f"{path}.users", until):
            continue
        with suppress(BlockingIOError), locks.alone(f"{path}.users"):
            size = count(path)[1]
            discard(path)
            freed += size
    return freed


def _is_before(path: str, until: float | None) -> bool:
    """Whether a file was touched before `until` (None: at any time); True if it is missing."""
    try:
        return until is None or os.stat(path).st_mtime < until
    except FileNotFoundError:
        return True
