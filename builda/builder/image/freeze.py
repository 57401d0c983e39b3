"""`freeze` makes a layer of the changes so far, by rename. Work goes on in a new snapshot at once."""

from __future__ import annotations

from builda.builder import mounting
from builda.builder.mountpoint_cleanup import settle
from builda.builder.records import timestamp
from builda.builder.working_tree import occupied
from builda.oci.config import History
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.image.layers import LayerOptions
    from builda.store.containers import FrozenLayer, WorkingContainer


def freeze(
    ctx: Context,
    container: WorkingContainer,
    created_by: str | None,
    comment: str | None,
    options: LayerOptions | None,
    *,
    only_changes: bool = False,
) -> WorkingContainer:
    """The container with one frozen layer more, and a new, empty working tree on it, also where it is mounted.

    Where nothing was changed the layer is only a history entry (none with `only_changes`), and the working tree stays.
    Without `options` no thread begins to make the layer's bytes.
    """
    from builda.store.containers import FrozenLayer

    with occupied(ctx, container), ctx.store.containers.locked(container) as current:
        settle(ctx, current)
        text = created_by or current.created_by or "/bin/sh"
        history = History(created=timestamp(ctx.now()), created_by=text, comment=comment or current.comment)
        below = current.top
        cut = ctx.store.snapshots.cut(current.snapshot, below)
        if only_changes and cut.empty and not _has_files(_divided(current.layers)[1]):
            return current
        before, steps = _divided(current.layers)
        layer = FrozenLayer(
            snapshot=cut.layer or below or "", history=replace(history, empty_layer=cut.empty), empty=cut.empty
        )
        done = ctx.store.update(
            replace(
                current,
                snapshot=cut.fresh,
                layers=(*before, *_pending(current), *steps, layer),
                history=(),
                created_by=None,
                comment=None,
            )
        )
        if cut.layer is None:
            return done
        ctx.store.snapshots.freeze(cut.layer)
        if done.mount_point is not None:
            mounting.renew(ctx, done, done.mount_point)
    if options is not None:
        ctx.layers().start(layer.snapshot, options, ctx.emit)
    return done


def _divided(
    layers: tuple[FrozenLayer, ...],
) -> tuple[tuple[FrozenLayer, ...], tuple[FrozenLayer, ...]]:
    """The layers down to the last whole one, and those of steps above it, which this layer takes in."""
    count = next((number for number, layer in enumerate(reversed(layers)) if not layer.partial), len(layers))
    return layers[: len(layers) - count], layers[len(layers) - count :]


def _has_files(steps: tuple[FrozenLayer, ...]) -> bool:
    return any(not layer.empty for layer in steps)


def _pending(container: WorkingContainer) -> tuple[FrozenLayer, ...]:
    """The history entries that have no layer, in their place among those that have."""
    from builda.store.containers import FrozenLayer

    below = container.top or ""
    return tuple(FrozenLayer(snapshot=below, history=entry, empty=True) for entry in container.history)
