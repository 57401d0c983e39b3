"""Make a tree for a working container that has none, or none that lasts.

If its layers are lists, the first command or mount needs a tree. If its tree is in the memory of this process, a
container that is to stay needs another.
"""

from __future__ import annotations

import os

from builda.builder.working_tree import occupied
from builda.events import BlobProgress
from builda.oci.config import chain_ids
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.events import Emit
    from builda.store.containers import FrozenLayer, WorkingContainer
    from builda.store.store import Image, Store


def treed(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """The container with a tree; IsolationUnavailable if the store can have none. The caller holds its tree lock."""
    store = ctx.store
    if not store.snapshots.is_list(container.snapshot):
        return container
    if not store.snapshots.driver.has_trees:
        from builda.store.drivers.lists import no_trees

        raise store.no_run or no_trees()
    return _with_lasting_tree(ctx, container)


def lasting(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """The container with a snapshot that outlives this process. The caller holds its tree lock."""
    if ctx.store.snapshots.kind_of(container.snapshot).driver.lasts:
        return container
    return _with_lasting_tree(ctx, container)


def _with_lasting_tree(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """The container with a new tree of the store, in which everything is as in its present snapshot."""
    store = ctx.store
    store.lease()
    image = None if container.image_digest is None else store.image(str(container.image_digest))
    base = None if image is None else store.snapshots.lasting.unpack(image, quietly(ctx.emit))
    layers = _unpacked(ctx, image, container.layers, base)
    top = layers[-1].snapshot if layers else base
    key = store.snapshots.lasting.prepare_on(image, top or None)
    try:
        _fill(store, key, container)
        with store.containers.locked(container) as current:
            made = store.update(replace(current, base=base, snapshot=key, layers=layers))
    except BaseException:
        store.snapshots.remove(key)
        raise
    store.snapshots.remove(container.snapshot)
    return made


def with_tree(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """Like `treed`, but takes the lock of the tree."""
    if not ctx.store.snapshots.is_list(container.snapshot):
        return container
    with occupied(ctx, container) as current:
        return treed(ctx, current)


def quietly(emit: Emit) -> Emit:
    """`emit` without the progress of blobs, which would mix with the output of the command that was asked for."""
    return lambda event: None if isinstance(event, BlobProgress) else emit(event)


def _unpacked(
    ctx: Context, image: Image | None, layers: tuple[FrozenLayer, ...], base: str | None
) -> tuple[FrozenLayer, ...]:
    """The frozen layers with trees of the store instead of what they have, `base` below them."""
    from builda.builder.image.layers import LayerOptions

    diff_ids = () if image is None else image.config.diff_ids
    done: list[FrozenLayer] = []
    for layer in layers:
        stored = ctx.layers().result(layer, LayerOptions(), ctx.emit)
        if stored.blob is None or stored.diff_id is None:
            done.append(replace(layer, snapshot=base or ""))
            continue
        diff_ids = (*diff_ids, stored.diff_id)
        chain = chain_ids(diff_ids)[-1]
        base = ctx.store.snapshots.lasting.unpack_layer(stored.blob, stored.diff_id, chain, base, quietly(ctx.emit))
        done.append(replace(layer, snapshot=base, diff_id=stored.diff_id, blob=stored.blob))
    return tuple(done)


def _fill(store: Store, key: str, container: WorkingContainer) -> None:
    """Unpack the changes in the container's snapshot into the tree `key`."""
    from concurrent.futures import ThreadPoolExecutor

    from builda.fs.layer import AS_IS

    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb") as sink:
            changed = store.snapshots.kind_of(container.snapshot)
            changed.write_changes(container.snapshot, sink, clamp=AS_IS, below=container.top)

    with ThreadPoolExecutor(1, "builda-archive") as pool:
        with open(reader, "rb") as archive:
            writing = pool.submit(write)
            store.snapshots.lasting.fill(key, archive)
        writing.result()
