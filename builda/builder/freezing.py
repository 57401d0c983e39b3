"""freeze: what was changed so far becomes a layer of its own, by rename; work goes on upon it at once."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from builda.builder.mounting import occupied
from builda.builder.records import timestamp
from builda.builder.settling import settle
from builda.oci.config import History

if TYPE_CHECKING:
    from builda.builder.builder import Builder
    from builda.builder.layers import LayerOptions
    from builda.store.containers import FrozenLayer
    from builda.store.store import WorkingContainer


def freeze(
    builder: Builder,
    container: WorkingContainer,
    created_by: str | None,
    comment: str | None,
    options: LayerOptions | None,
) -> WorkingContainer:
    """The container with one frozen layer more, and a new, empty working tree on it.

    Where nothing was changed the layer is only a history entry, and the working tree stays. Without `options` nobody
    begins to make the layer's bytes.
    """
    from builda.store.containers import FrozenLayer

    with occupied(builder, container), builder.store.locked(container) as current:
        settle(builder, current)
        text = created_by or current.created_by or "/bin/sh"
        history = History(created=timestamp(builder.now()), created_by=text, comment=comment or current.comment)
        unchanged = not os.listdir(builder.store.snapshots.upper(current.snapshot))
        layer = FrozenLayer(snapshot=current.snapshot, history=replace(history, empty_layer=unchanged), empty=unchanged)
        done = replace(
            current, layers=(*current.layers, *_pending(current), layer), history=(), created_by=None, comment=None
        )
        if unchanged:
            return builder.store.update(done)
        # The record names the new tree before the old one is closed: a kill between leaves a layer that is merely
        # not marked as committed, and never a working tree that is.
        done = builder.store.update(replace(done, snapshot=builder.store.prepare(current.snapshot)))
        builder.store.freeze(current.snapshot)
    if options is not None:
        builder.layers.start(layer.snapshot, options)
    return done


def _pending(container: WorkingContainer) -> tuple[FrozenLayer, ...]:
    """The history entries that have no layer, in their place among those that have."""
    from builda.store.containers import FrozenLayer

    return tuple(FrozenLayer(snapshot=container.snapshot, history=entry, empty=True) for entry in container.history)
