"""Make a tree for a working container whose layers are lists: the first command or mount needs one."""

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
    from builda.store.containers import FrozenLayer
    from builda.store.store import Image, Store, WorkingContainer


def treed(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """The container with a tree; IsolationUnavailable if the store can have none. The caller holds its tree lock."""
    store = ctx.store
    if not store.is_list(container.snapshot):
        return container
    if not store.driver.has_trees:
        from builda.store.drivers.lists import no_trees

        raise store.no_run or no_trees()
    store.lease()
    image = None if container.image_digest is None else store.image(str(container.image_digest))
    base = None if image is None else store.lasting.unpack(image, _quietly(ctx.emit))
    layers = _unpacked(ctx, image, container.layers, base)
    top = layers[-1].snapshot if layers else base
    key = store.lasting.prepare_on(image, top or None)
    try:
        _fill(store, key, container.snapshot)
        with store.containers.locked(container) as current:
            made = store.update(replace(current, base=base, snapshot=key, layers=layers))
    except BaseException:
        store.remove_snapshot(key)
        raise
    store.remove_snapshot(container.snapshot)
    return made


def with_tree(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """As `treed`, and takes the tree lock."""
    if not ctx.store.is_list(container.snapshot):
        return container
    with occupied(ctx, container) as current:
        return treed(ctx, current)


def _quietly(emit: Emit) -> Emit:
    """`emit` without the progress of blobs, which would mix with the output of the command that was asked for."""
    return lambda event: None if isinstance(event, BlobProgress) else emit(event)


def _unpacked(
    ctx: Context, image: Image | None, layers: tuple[FrozenLayer, ...], base: str | None
) -> tuple[FrozenLayer, ...]:
    """The frozen layers with trees instead of lists, `base` below them."""
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
        base = ctx.store.lasting.unpack_layer(stored.blob, stored.diff_id, chain, base, _quietly(ctx.emit))
        done.append(replace(layer, snapshot=base, diff_id=stored.diff_id, blob=stored.blob))
    return tuple(done)


def _fill(store: Store, key: str, composed: str) -> None:
    """Unpack the changes in the list `composed` into the tree `key`."""
    from concurrent.futures import ThreadPoolExecutor

    from builda.fs.layer import AS_IS

    reader, writer = os.pipe()

    def write() -> None:
        with open(writer, "wb") as sink:
            store.lists.write_changes(composed, sink, clamp=AS_IS)

    with ThreadPoolExecutor(1, "builda-archive") as pool:
        with open(reader, "rb") as archive:
            writing = pool.submit(write)
            store.lasting.fill(key, archive)
        writing.result()
