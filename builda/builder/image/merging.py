"""One layer of several: what an image gets of the steps of a container with a cache, each of which has its own.

The layer is what the container would have if nothing had been cached: files that a later step removed are not in it.
"""

from __future__ import annotations

import json
import os

from builda.builder.image import layers as stored_layers
from builda.builder.image.layers import StoredLayer
from builda.events import Warned
from builda.oci.digest import Digest
from builda.store.steps import Blob, Empty, StepResult, Told, Tree
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.builder.context import Context
    from builda.builder.image.layers import LayerOptions
    from builda.fs.tar import Writable
    from builda.oci.digest import Readable
    from builda.store.containers import FrozenLayer, WorkingContainer


class Whole(NamedTuple):
    """A container as images see it: `own` is the layer of what is above its last whole one, a tree if there is one.

    None without layers of steps: then all that is above is in the working tree.
    """

    container: WorkingContainer
    own: FrozenLayer | None = None


def whole(ctx: Context, container: WorkingContainer, how: LayerOptions) -> Whole:
    """The container with one layer in the place of each group of partial ones."""
    if not any(layer.partial for layer in container.layers):
        return Whole(container)
    done: list[FrozenLayer] = []
    group: list[FrozenLayer] = []
    below = container.base
    for layer in container.layers:
        group.append(layer)
        if not layer.partial:
            done.append(_joined(ctx, container, below, group, how))
            group, below = [], layer.snapshot or below
    changed = ctx.store.snapshots.kind_of(container.snapshot).is_changed(container.snapshot, container.top)
    if changed:  # a process uses its mount, so it was not made a layer
        group.append(_working_tree(container))
    own = _joined(ctx, container, below, group, how) if group else None
    return Whole(replace(container, layers=tuple(done)), own)


def _working_tree(container: WorkingContainer) -> FrozenLayer:
    from builda.oci.config import History
    from builda.store.containers import FrozenLayer

    return FrozenLayer(snapshot=container.snapshot, history=History())


def _joined(
    ctx: Context, container: WorkingContainer, below: str | None, group: list[FrozenLayer], how: LayerOptions
) -> FrozenLayer:
    """The one layer of a group, with the history of its last."""
    files, last = [layer for layer in group if not layer.empty], group[-1]
    if not files:
        return replace(last, partial=False)
    history = replace(last.history, empty_layer=False)
    if len(files) == 1 and files[0].snapshot != container.snapshot:
        return replace(files[0], history=history, partial=False)
    key = _key(files, how)
    known = None if key is None else ctx.store.steps.find(key)
    if known is None or not isinstance(known.content, Tree | Blob) or not _is_made(ctx, known, how):
        known = _made(ctx, container, below, files, how)
        if key is not None:
            ctx.store.steps.put(key, known)
    content = known.content
    if isinstance(content, Empty):  # all of it was undone
        return replace(
            last, snapshot=below or "", history=replace(history, empty_layer=True), empty=True, partial=False
        )
    snapshot = content.snapshot if isinstance(content, Tree) else ""
    return replace(
        last,
        snapshot=snapshot,
        history=history,
        diff_id=content.diff_id,
        blob=content.blob,
        empty=False,
        key=None,
        partial=False,
    )


def _key(files: list[FrozenLayer], how: LayerOptions) -> Digest | None:
    """The key under which the merged layer of these steps is remembered; None if one of them has no key."""
    keys = [str(layer.key) for layer in files if layer.key is not None]
    return Digest.of(json.dumps({"merged": keys, "how": how}).encode()) if len(keys) == len(files) else None


def _is_made(ctx: Context, known: StepResult, how: LayerOptions) -> bool:
    blob = known.content.blob if isinstance(known.content, Tree | Blob) else None
    return blob is not None and how.made(blob) and ctx.store.blobs.has(blob.digest, blob.size)


def _made(
    ctx: Context, container: WorkingContainer, below: str | None, files: list[FrozenLayer], how: LayerOptions
) -> StepResult:
    """The layer, made in a tree of its own, which stays as its snapshot if the layer records the tree as it is."""
    store = ctx.store
    image = None if container.image_digest is None else store.image(str(container.image_digest))
    tree = store.snapshots.prepare_on(image, below)
    kind = store.snapshots.kind_of(tree)
    try:
        _fill(ctx, container, tree, files)

        def produce(sink: Writable) -> tuple[str, ...]:
            return kind.write_changes(tree, sink, clamp=how.clamp, below=below)

        stored = stored_layers.write(store, produce, how)
    except BaseException:
        store.snapshots.remove(tree)
        raise
    _warn(ctx, stored)
    told = Told(text=f"one layer of {len(files)} steps")
    explained = json.dumps({"parent": None, "step": {"type": "Merged"}, "inputs": {"steps": len(files)}})
    if stored.blob is None or stored.diff_id is None:
        store.snapshots.remove(tree)
        return StepResult(Empty(), explained, ctx.now(), told)
    if kind.driver.stacks and kind.driver.lasts and how.keeps_times and not stored.skipped:
        return StepResult(Tree(store.snapshots.freeze(tree), stored.diff_id, stored.blob), explained, ctx.now(), told)
    store.snapshots.remove(tree)
    return StepResult(Blob(stored.diff_id, stored.blob), explained, ctx.now(), told)


def _warn(ctx: Context, stored: StoredLayer) -> None:
    for path in stored.skipped:
        ctx.emit(Warned(message=f"socket is left out of the layer: /{path.lstrip('/')}"))


def _fill(ctx: Context, container: WorkingContainer, tree: str, files: list[FrozenLayer]) -> None:
    """Do in `tree` what the layers record, one after the other."""
    from builda.fs.layer import apply
    from builda.linux.mount import mounted

    with mounted(ctx.store.snapshots.rootfs(tree)) as root:
        below = container.top
        for layer in files:
            is_own = layer.snapshot == container.snapshot
            write = _writer(ctx, layer.snapshot, below if is_own else None)
            _piped(write, lambda archive: apply(archive, root, whiteouts="merged"))


def _writer(ctx: Context, snapshot: str, below: str | None) -> Callable[[Writable], object]:
    from builda.fs.layer import AS_IS

    return lambda sink: ctx.store.snapshots.kind_of(snapshot).write_changes(snapshot, sink, clamp=AS_IS, below=below)


def _piped(write: Callable[[Writable], object], read: Callable[[Readable], object]) -> None:
    """Have `read` read what `write` writes on another thread."""
    from concurrent.futures import ThreadPoolExecutor

    reader, writer = os.pipe()

    def written() -> None:
        with open(writer, "wb") as sink:
            write(sink)

    with ThreadPoolExecutor(1, "builda-archive") as pool:
        with open(reader, "rb") as archive:
            writing = pool.submit(written)
            read(archive)
        writing.result()
