"""`mount` and `umount`, and mounts for the time of a `with` block: of a working container or an image."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path

from builda.builder.working_tree import occupied, rootfs
from builda.linux import private
from builda.linux.mount import attach, detach, is_mounted, mounted
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.context import Context
    from builda.linux.mount import Mount
    from builda.store.store import Image, WorkingContainer


@contextmanager
def viewed(ctx: Context, image: Image) -> Iterator[tuple[Mount, ...]]:
    """An image's mounts, read-only, for the time of the block."""
    store = ctx.store
    store.lease()
    if not store.snapshots.driver.copies:
        yield store.view(store.unpack(image, ctx.emit))
        return
    _, key = store.prepare_for(image, ctx.emit)
    try:
        yield store.rootfs(key)
    finally:
        store.remove_snapshot(key)


@contextmanager
def opened(ctx: Context, container: WorkingContainer) -> Iterator[tuple[int, WorkingContainer]]:
    """A descriptor of the working tree's root, and the record; the tree is locked during the block."""
    with occupied(ctx, container) as current, opened_alone(ctx, current) as found:
        yield found


@contextmanager
def opened_alone(ctx: Context, container: WorkingContainer) -> Iterator[tuple[int, WorkingContainer]]:
    """As `opened`, for a caller that holds the tree's lock."""
    from builda.builder.materialize import treed
    from builda.builder.mountpoint_cleanup import settle

    settle(ctx, container)
    current = treed(ctx, container)
    with mounted(rootfs(ctx, current)) as root:
        yield root, current


def mount(ctx: Context, container: WorkingContainer) -> Path:
    """Mount the working tree at a path of its own; where nothing can be mounted it is the tree's own path."""
    from builda.builder.materialize import treed
    from builda.builder.mountpoint_cleanup import settle

    with occupied(ctx, container) as current:
        if not ctx.store.can_mount:
            settle(ctx, current)
            current = treed(ctx, current)
            (tree,) = ctx.store.rootfs(current.snapshot)
            return Path(tree.source)
        place = ctx.store.layout.mount_point(current.id)
        if not is_mounted(place):
            settle(ctx, current)
            current = treed(ctx, current)
            ctx.store.layout.volatile("mounts")
            private.make(place)
            attach(ctx.store.rootfs(current.snapshot), place)
        if current.mount_point != place:
            _note(ctx, current, place)
        return Path(place)


def mounted_at(container: WorkingContainer) -> str | None:
    """Where `mount` mounted it; None if that was in a namespace that has ended, or before the machine started."""
    path = container.mount_point
    return path if path is not None and is_mounted(path) else None


def umount(ctx: Context, container: WorkingContainer) -> bool:
    """Unmount it; whether it was mounted."""
    with occupied(ctx, container) as current:
        if current.mount_point is None:
            return False
        was_mounted = is_mounted(current.mount_point)
        detach(current.mount_point)
        with suppress(OSError):  # busy if a process has it as its directory; the next prune removes it
            os.rmdir(current.mount_point)
        _note(ctx, current, None)
        return was_mounted


def _note(ctx: Context, container: WorkingContainer, place: str | None) -> None:
    with ctx.store.containers.locked(container) as current:
        ctx.store.update(replace(current, mount_point=place))
