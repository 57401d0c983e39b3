"""The tree of a working container with a cache, while a step is looked up or performed: how it comes to stand where.

The caller holds the tree's lock. A kill at any moment leaves a tree that differs from its last layer, and no result
under a key that is not its own: what differs is found by its content.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager

from builda.builder.execution.keys import Changes, explained
from builda.builder.execution.lookup import Lookup
from builda.builder.execution.tip import Layer, LayerLost, Tip
from builda.builder.mountpoint_cleanup import settle
from builda.builder.records import timestamp
from builda.events import Warned
from builda.linux.mount import attach, is_mounted
from builda.oci.config import History
from builda.oci.digest import Digest
from builda.oci.edits import Edited
from builda.store.containers import FrozenLayer, StepCache
from builda.store.steps import Blob, Empty, Remote, Told, Tree
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from builda.builder.context import Context
    from builda.builder.execution.cachefrom import ImportedSteps
    from builda.store.containers import WorkingContainer
    from builda.store.steps import Content, StepResult


class Wanted(NamedTuple):
    """A step to look up: its key, what the key is the digest of, and the parts of that."""

    key: Digest
    explanation: bytes
    step: object
    inputs: Mapping[str, object]


def cache_of(container: WorkingContainer) -> StepCache:
    """The container's cache, which it has."""
    assert container.cache is not None
    return container.cache


def wanted(container: WorkingContainer, step: object, inputs: Mapping[str, object]) -> Wanted:
    """The key of `step` (as `keyed` gives it) on top of all layers of the container."""
    explanation = explained(cache_of(container).key, step, inputs)
    return Wanted(Digest.of(explanation), explanation, step, inputs)


@contextmanager
def taken_down(ctx: Context, container: WorkingContainer) -> Iterator[bool]:
    """End the container's `builda mount` for the time of the block; whether its tree may be replaced meanwhile.

    It may not while a process uses the mount, and would go on to write into what is a layer by then.
    """
    place = container.mount_point
    if place is None or not ctx.store.can_mount or not is_mounted(place):
        yield True
        return
    from builda.linux import syscalls as sys_

    try:
        sys_.umount2(place, sys_.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        yield False
        return
    try:
        yield True
    finally:
        attach(ctx.store.snapshots.rootfs(ctx.store.containers.load(container.id).snapshot), place)


def absorbed(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """The container without changes: what no remembered step changed becomes a layer, found by its content.

    An equal change of an earlier run is that run's, so that the steps behind it are found, too.
    """
    settle(ctx, container)
    if not ctx.store.snapshots.kind_of(container.snapshot).is_changed(container.snapshot, container.top):
        return container
    sought = wanted(container, Changes(), {"content": str(_content_of_changes(ctx, container))})
    found = find(ctx, container, sought, None, max_age=None)
    if found is not None and (moved := moved_to(ctx, container, sought.key, found, None)) is not None:
        return moved
    return frozen(ctx, container, sought, "changes", Told(text="changes"))


def _content_of_changes(ctx: Context, container: WorkingContainer) -> Digest:
    """The digest of what was changed in the tree, whenever that was."""
    import hashlib

    from builda.fs.layer import Clamp

    hashing = hashlib.sha256()

    class Sink:
        def write(self, data: bytes | bytearray | memoryview, /) -> None:
            hashing.update(data)

    snapshots = ctx.store.snapshots.kind_of(container.snapshot)
    snapshots.write_changes(container.snapshot, Sink(), clamp=Clamp(exact=0), below=container.top)
    return Digest("sha256", hashing.hexdigest())


def find(
    ctx: Context,
    container: WorkingContainer,
    sought: Wanted,
    imported: ImportedSteps | None,
    *,
    max_age: float | None,
) -> StepResult | None:
    """The remembered result of a step on the layers of the container, from the store or else from `imported`."""
    tip = tip_of(ctx, container, with_base=imported is not None)
    if imported is not None and tip.diff_ids is None:
        imported = None
    driver = ctx.store.snapshots.kind_of(container.snapshot).driver
    return Lookup(ctx, imported, driver, max_age, blobs=True).find(sought.key, tip, sought.explanation)


def tip_of(ctx: Context, container: WorkingContainer, *, with_base: bool) -> Tip:
    """The state of the container, as of a stage of a build. Its base image is read only if `with_base`."""
    digest = container.image_digest if with_base else None
    return Tip(
        image=None if digest is None else ctx.store.image(str(digest)),
        key=cache_of(container).key,
        edited=Edited(container.config),
        layers=tuple(Layer(layer.history, _content(layer)) for layer in container.layers),
        base=container.base,
    )


def _content(layer: FrozenLayer) -> Content:
    return Empty(layer.snapshot or None) if layer.empty else Tree(layer.snapshot, layer.diff_id, layer.blob)


def moved_to(
    ctx: Context,
    container: WorkingContainer,
    key: Digest,
    found: StepResult,
    imported: ImportedSteps | None,
    used: tuple[tuple[str, str, str], ...] = (),
) -> WorkingContainer | None:
    """The container with what was found as its topmost layer; None if that layer cannot be had.

    Changes in its tree are lost. `used` is what the step took from outside.
    """
    store = ctx.store
    content = _here(ctx, container, key, found, imported)
    if content is None:
        return None
    layer = _layer(content, key, found.created, found.told.text, container.top)
    fresh = container.snapshot
    if isinstance(content, Tree):
        fresh = store.snapshots.moved(container.snapshot, content.snapshot)
    done = _recorded(ctx, container, layer, fresh, used)
    if fresh != container.snapshot:
        store.snapshots.remove(container.snapshot)
    return done


def _here(
    ctx: Context, container: WorkingContainer, key: Digest, found: StepResult, imported: ImportedSteps | None
) -> Content | None:
    """The found content, fetched into a snapshot of this store if it has files; None, with a warning, if it is lost."""
    if not isinstance(found.content, Blob | Remote):
        return found.content
    from builda.builder.execution.cachefrom import fetched

    tip = tip_of(ctx, container, with_base=True)
    layer = Layer(History(), found.content)
    as_list = ctx.store.snapshots.is_list(container.snapshot)
    try:
        (done,) = fetched(ctx, imported, (layer,), container.top, tip.diff_ids, as_list=as_list)
    except LayerLost as lost:
        ctx.emit(Warned(message=f"{lost}; the step is performed"))
        return None
    ctx.store.steps.put(key, found._replace(content=done.content))
    return done.content


def _layer(content: Content, key: Digest, created: float, text: str, top: str | None) -> FrozenLayer:
    history = History(created=timestamp(created), created_by=text, empty_layer=isinstance(content, Empty))
    match content:
        case Tree(snapshot, diff_id, blob):
            return FrozenLayer(snapshot=snapshot, history=history, diff_id=diff_id, blob=blob, key=key, partial=True)
        case Empty() | Blob() | Remote():
            return FrozenLayer(snapshot=top or "", history=history, empty=True, key=key, partial=True)


def _recorded(
    ctx: Context,
    container: WorkingContainer,
    layer: FrozenLayer,
    snapshot: str,
    used: tuple[tuple[str, str, str], ...] = (),
) -> WorkingContainer:
    with ctx.store.containers.locked(container) as current:
        cache = cache_of(current) if layer.key is None else replace(cache_of(current), key=layer.key)
        taken = tuple(dict.fromkeys((*current.used, *used)))
        layers = (*current.layers, layer)
        return ctx.store.update(replace(current, snapshot=snapshot, layers=layers, cache=cache, used=taken))


def frozen(ctx: Context, container: WorkingContainer, sought: Wanted, text: str, told: Told) -> WorkingContainer:
    """The container with its changes as a layer, which is remembered as what the step led to."""
    store = ctx.store
    cut = store.snapshots.cut(container.snapshot, container.top, even_empty=container.top is None)
    below = cut.layer or container.top
    content: Content = Empty(below) if cut.empty or below is None else Tree(below)
    layer = _layer(content, sought.key, ctx.now(), text, below)
    done = _recorded(ctx, container, layer, cut.fresh)
    if cut.layer is not None:
        store.snapshots.freeze(cut.layer)
    lookup = Lookup(ctx, None, store.snapshots.kind_of(done.snapshot).driver, None, blobs=True)
    parent = cache_of(container).key
    lookup.remember(sought.key, parent, sought.step, sought.inputs, content, told)
    return done
