"""`mount` and `umount`, and how every other primitive gets at a working container's files."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builda.events import Warned
from builda.linux import private
from builda.linux.mount import Mount, attach, detach, is_mounted, mounted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.builder import Builder
    from builda.store.store import Image, WorkingContainer

__all__ = ["is_mounted", "mount", "mounted", "occupied", "opened", "reading", "rootfs", "umount", "viewed"]


def rootfs(builder: Builder, container: WorkingContainer) -> tuple[Mount, ...]:
    """The working tree's mounts. A second overlay on one upper directory is undefined: a mounted tree is bound."""
    if container.mount_point is not None and is_mounted(container.mount_point):
        return (Mount("bind", container.mount_point, "/"),)
    return builder.store.rootfs(container.snapshot)


def reading(builder: Builder, container: WorkingContainer) -> tuple[Mount, ...]:
    """The working tree's mounts for looking at it without its lock: nothing is written beside who has the lock."""
    (tree,) = rootfs(builder, container)
    if tree.type == "bind":
        return (tree._replace(options=(*tree.options, "ro")),)
    upper = builder.store.kind_of(container.snapshot).upper(container.snapshot)
    options = tuple(word for word in tree.options if not word.startswith(("upperdir=", "workdir=")))
    return (tree._replace(options=("ro", *options), lower=(upper, *tree.lower)),)


@contextmanager
def viewed(builder: Builder, image: Image) -> Iterator[tuple[Mount, ...]]:
    """An image's mounts, read-only, for the time of the block."""
    store = builder.store
    store.lease()
    if store.snapshots.driver != "plain":
        yield store.view(store.unpack(image, builder.emit))
        return
    _, key = store.prepare_for(image, builder.emit)
    try:
        yield store.rootfs(key)
    finally:
        store.remove_snapshot(key)


@contextmanager
def occupied(builder: Builder, container: WorkingContainer) -> Iterator[WorkingContainer]:
    """Nobody else works in the container's tree during the block; its record as it is at the beginning.

    The record itself is not locked: `config` need not wait for a command that runs for an hour.
    """

    containers = builder.store.containers
    others = [pid for pid in containers.runners(container) if pid != os.getpid()]
    if others:
        builder.emit(Warned(message=f"waiting for process {others[0]}, which runs a command in {container.name}"))
    with containers.lock(container, "tree.lock"):
        yield containers.load(container.id)


@contextmanager
def opened(builder: Builder, container: WorkingContainer) -> Iterator[tuple[int, WorkingContainer]]:
    """The working tree's root, changed by nobody else during the block, and the record as it is at its beginning."""
    with occupied(builder, container) as current, opened_alone(builder, current) as found:
        yield found


@contextmanager
def opened_alone(builder: Builder, container: WorkingContainer) -> Iterator[tuple[int, WorkingContainer]]:
    """The same for a caller who has the tree's lock."""
    from builda.builder.settling import settle
    from builda.builder.treed import treed

    settle(builder, container)
    current = treed(builder, container)
    with mounted(rootfs(builder, current)) as root:
        yield root, current


def mount(builder: Builder, container: WorkingContainer) -> Path:
    """Mount the working tree at a path of its own; where nothing can be mounted it is the tree's own path."""
    from builda.builder.settling import settle
    from builda.builder.treed import treed

    with occupied(builder, container) as current:
        if not builder.store.can_mount:
            settle(builder, current)
            current = treed(builder, current)
            (tree,) = builder.store.rootfs(current.snapshot)
            return Path(tree.source)
        place = builder.store.layout.mount_point(current.id)
        if not is_mounted(place):
            settle(builder, current)
            current = treed(builder, current)
            builder.store.layout.volatile("mounts")
            private.make(place)
            attach(builder.store.rootfs(current.snapshot), place)
        if current.mount_point != place:
            _note(builder, current, place)
        return Path(place)


def umount(builder: Builder, container: WorkingContainer) -> bool:
    """Unmount it; whether it was mounted."""
    with occupied(builder, container) as current:
        if current.mount_point is None:
            return False
        was_mounted = is_mounted(current.mount_point)
        detach(current.mount_point)
        with suppress(OSError):  # a directory that somebody stands in goes with the next prune
            os.rmdir(current.mount_point)
        _note(builder, current, None)
        return was_mounted


def _note(builder: Builder, container: WorkingContainer, place: str | None) -> None:
    with builder.store.locked(container) as current:
        builder.store.update(replace(current, mount_point=place))
