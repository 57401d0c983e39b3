"""`mount` and `umount` of working containers and images, and mounts of both for the time of a `with` block."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

from builda.builder.working_tree import occupied, rootfs
from builda.linux import private
from builda.linux.mount import attach, detach, is_mounted, mounted
from builda.store.imagemounts import ImageMount
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builda.builder.context import Context
    from builda.linux.mount import Mount
    from builda.oci.digest import Digest
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image


@contextmanager
def viewed(ctx: Context, image: Image) -> Iterator[tuple[Mount, ...]]:
    """An image's mounts, read-only, for the time of the block."""
    store = ctx.store
    store.lease()
    if not store.snapshots.new.driver.copies:
        yield store.snapshots.view(store.snapshots.unpack(image, ctx.emit))
        return
    _, key = store.snapshots.prepare_for(image, ctx.emit)
    try:
        yield store.snapshots.rootfs(key)
    finally:
        store.snapshots.remove(key)


@contextmanager
def opened(ctx: Context, container: WorkingContainer) -> Iterator[tuple[int, WorkingContainer]]:
    """A descriptor of the working tree's root, and the record; the tree is locked during the block."""
    with occupied(ctx, container) as current, opened_alone(ctx, current) as found:
        yield found


@contextmanager
def opened_alone(ctx: Context, container: WorkingContainer) -> Iterator[tuple[int, WorkingContainer]]:
    """Like `opened`, for a caller that holds the lock of the tree."""
    from builda.builder.materialize import treed
    from builda.builder.mountpoint_cleanup import settle

    settle(ctx, container)
    current = treed(ctx, container)
    with mounted(rootfs(ctx, current)) as root:
        yield root, current


def mount(ctx: Context, container: WorkingContainer) -> Path:
    """Mount the working tree at a path of its own; where nothing can be mounted it is the tree's own path."""
    from pathlib import Path

    from builda.builder.materialize import treed
    from builda.builder.mountpoint_cleanup import settle

    with occupied(ctx, container) as current:
        if not ctx.store.can_mount:
            settle(ctx, current)
            current = treed(ctx, current)
            (tree,) = ctx.store.snapshots.rootfs(current.snapshot)
            return Path(tree.source)
        place = ctx.store.layout.mount_point(current.id)
        if not is_mounted(place):
            settle(ctx, current)
            current = treed(ctx, current)
            ctx.store.layout.volatile("mounts")
            private.make(place)
            attach(ctx.store.snapshots.rootfs(current.snapshot), place)
        if current.mount_point != place:
            _note(ctx, current, place)
        return Path(place)


def renew(ctx: Context, container: WorkingContainer, place: str) -> None:
    """Show the container's present working tree where an earlier one is mounted; nothing if none is."""
    if is_mounted(place):
        detach(place)
        attach(ctx.store.snapshots.rootfs(container.snapshot), place)


def mounted_at(container: WorkingContainer) -> str | None:
    """The path where `mount` mounted it; None if that mount is gone with its namespace, or since a reboot."""
    path = container.mount_point
    return path if path is not None and is_mounted(path) else None


def umount(ctx: Context, container: WorkingContainer) -> bool:
    """Unmount the container; returns whether it was mounted."""
    with occupied(ctx, container) as current:
        if current.mount_point is None:
            return False
        was_mounted = is_mounted(current.mount_point)
        detach(current.mount_point)
        with suppress(OSError):  # busy if a process has it as its directory; the next prune removes it
            os.rmdir(current.mount_point)
        _note(ctx, current, None)
        return was_mounted


def mount_image(ctx: Context, image: Image) -> str:
    """Mount an image read-only at a path of its own, until it is unmounted as often as it was mounted.

    Where nothing can be mounted it is the path of a copy, and what is written there changes no image.
    """
    store = ctx.store
    store.lease()
    if store.snapshots.new.driver.copies:
        base, tree = store.snapshots.prepare_for(image, ctx.emit)
    else:
        base, tree = store.snapshots.unpack(image, ctx.emit), None
    with store.image_mounts.locked():
        found = store.image_mounts.find(image.digest)
        if found is not None:
            if tree is not None:
                store.snapshots.remove(tree)
            store.image_mounts.write(found._replace(times=found.times + 1), is_mounted=bool(found.namespace))
            return found.place
        return _mounted_now(ctx, ImageMount(image.digest, store.image_mounts.place(image.digest), base, tree))


def _mounted_now(ctx: Context, mount: ImageMount) -> str:
    store = ctx.store
    mounts = store.snapshots.view(mount.base) if mount.tree is None else store.snapshots.rootfs(mount.tree)
    if not store.can_mount:
        (tree,) = mounts
        store.image_mounts.write(mount._replace(place=tree.source), is_mounted=False)
        return tree.source
    if mount.tree is not None:
        mounts = tuple(one._replace(options=(*one.options, "ro")) for one in mounts)
    store.image_mounts.write(mount, is_mounted=True)
    store.layout.volatile("mounts")
    private.make(mount.place)
    attach(mounts, mount.place)
    return mount.place


def umount_image(ctx: Context, digest: Digest, *, force: bool = False) -> bool:
    """Undo one `mount_image` of the image with this manifest, with `force` all; whether it was mounted."""
    mounts = ctx.store.image_mounts
    with mounts.locked():
        found = mounts.find(digest)
        if found is None:
            return False
        if found.times > 1 and not force:
            mounts.write(found._replace(times=found.times - 1), is_mounted=bool(found.namespace))
            return True
        if found.namespace:
            detach(found.place)
        mounts.remove(found)
    if found.tree is not None:
        ctx.store.snapshots.remove(found.tree)
    return True


def _note(ctx: Context, container: WorkingContainer, place: str | None) -> None:
    with ctx.store.containers.locked(container) as current:
        ctx.store.update(replace(current, mount_point=place))
