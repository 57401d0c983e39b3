"""`rm` and `prune`: remove working containers, and whatever nothing refers to."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.store.containers import WorkingContainer
    from builda.store.images import Removal


def remove(ctx: Context, container: WorkingContainer) -> None:
    """Remove the working container and its mount; InUse when something runs in it."""
    ctx.store.remove_container(container, detach=_detach)


def prune(ctx: Context, *, all_images: bool, force: bool, until: float | None) -> Removal:
    """Remove what nothing needs, and what killed commands left; the options are those of `Builder.prune`."""
    from builda.isolation import remove_leftovers
    from builda.store import pruning

    removal = pruning.prune(ctx.store, all_images=all_images, force=force, detach=_detach, until=until)
    if os.geteuid() == 0 and ctx.network.private and ctx.store.can_mount and ctx.store.no_run is None:
        remove_leftovers()
    return removal


def _detach(path: str) -> None:
    from builda.linux.mount import detach

    detach(path)
