"""A working container's tree as primitives use it: its lock and its mounts. Nothing is mounted or changed here."""

from __future__ import annotations

import os
from contextlib import contextmanager

from builda.events import Warned
from builda.linux.mount import Mount, is_mounted, over_upper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.context import Context
    from builda.store.containers import WorkingContainer


@contextmanager
def occupied(ctx: Context, container: WorkingContainer) -> Iterator[WorkingContainer]:
    """Hold the lock of the container's tree during the block; the record as it is at the beginning.

    A thread that holds it may take it again: a primitive within the look-up of its step.

    The record itself is not locked: `config` need not wait for a command that runs for an hour.
    """
    containers = ctx.store.containers
    running = () if containers.holds_tree(container) else containers.runners(container)
    if others := [pid for pid in running if pid != os.getpid()]:
        ctx.emit(Warned(message=f"waiting for process {others[0]}, which runs a command in {container.name}"))
    with containers.tree_locked(container):
        current = containers.load(container.id)
        _tell_of_earlier_boot(ctx, current)
        yield current


def _tell_of_earlier_boot(ctx: Context, container: WorkingContainer) -> None:
    """Warn, once in each boot, of a tree that was written to in an earlier one: nothing syncs it."""
    driver = ctx.store.snapshots.kind_of(container.snapshot)
    if driver.is_of_earlier_boot(container.snapshot):
        driver.take_as_it_is(container.snapshot)
        ctx.emit(
            Warned(
                message=f"{container.name} was begun before this machine was started: if that followed a power cut, "
                "files written in it may be empty, and `builda from` begins a new one"
            )
        )


def rootfs(ctx: Context, container: WorkingContainer) -> tuple[Mount, ...]:
    """The mounts of the working tree.

    A tree that `builda mount` has mounted is bound from there: the kernel leaves undefined what two overlays on one
    upper directory do.
    """
    if container.mount_point is not None and is_mounted(container.mount_point):
        return (Mount("bind", container.mount_point, "/"),)
    return ctx.store.snapshots.rootfs(container.snapshot)


def reading(ctx: Context, container: WorkingContainer) -> tuple[Mount, ...]:
    """The mounts for reading the working tree without its lock: read-only, so they may exist beside the writer's."""
    (tree,) = rootfs(ctx, container)
    if tree.type == "bind":
        return (tree._replace(options=(*tree.options, "ro")),)
    return (over_upper(tree),)
