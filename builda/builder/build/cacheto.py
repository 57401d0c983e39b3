"""`--cache-to`: push the results of a build's steps to a registry, beside the steps that are there already.

Steps of all stages are pushed: a store that finds only the last stage's would run the others again. If two builds push
at the same time, the later one wins, and the other's steps are performed once more.
"""

from __future__ import annotations

from builda.builder.build.cachefrom import read_steps
from builda.builder.build.tip import Layer, frozen
from builda.errors import BuildaError, CorruptContent, NotFound, RegistryError
from builda.events import BlobProgress, Warned
from builda.oci.config import chain_ids
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.stepcache import CachedStep, to_manifest
from builda.store.steps import Blob, Empty, Remote, Tree
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from builda.builder.build.cachefrom import CachePlace, ImportedSteps
    from builda.builder.context import Context
    from builda.builder.image.layers import LayerOptions
    from builda.builder.imageoptions import RegistryAccess
    from builda.oci.reference import Reference
    from builda.transfer.copyimage import ImageSink, ImageSource


class Remembered(NamedTuple):
    """A step that a build performed or found: all layers up to its own, on a base with the DiffIDs `below`."""

    key: Digest
    created: float
    layers: tuple[Layer, ...]
    below: tuple[Digest, ...]


class Export(NamedTuple):
    """What is pushed after a build."""

    target: str  # what the tag is derived from
    steps: tuple[Remembered, ...]
    how: LayerOptions
    imported: ImportedSteps | None


def push_cache(ctx: Context, export: Export, place: CachePlace, access: RegistryAccess) -> None:
    """Push the steps to `place`. RegistryError if it refuses them, or a warning with `ignore_error`."""
    reference = place.reference(export.target)
    try:
        _push(ctx, export, reference, access)
    except BuildaError as error:
        if not place.ignore_error:
            raise
        ctx.emit(Warned(message=f"build cache was not pushed: {error}", hint=error.hint))


def _push(ctx: Context, export: Export, reference: Reference, access: RegistryAccess) -> None:
    own = _cached_steps(ctx, export)
    there = _present(ctx, reference, access)
    if all(key in there and there[key]._replace(created=step.created) == step for key, step in own.items()):
        return
    sink = ctx.remote.sink(reference, access, () if export.imported is None else export.imported.references)
    for layer in {step.layer.digest: step.layer for step in own.values() if step.layer is not None}.values():
        _put_layer(ctx, export, sink, layer)
    try:
        _put_manifest(ctx, sink, {**there, **own}.values())
    except RegistryError as error:
        if not there or error.status not in (400, 404):
            raise
        _put_manifest(ctx, sink, own.values())  # layers of the old steps are gone, which no manifest may list


def _cached_steps(ctx: Context, export: Export) -> dict[Digest, CachedStep]:
    """The steps in the form of the cache; waits for the threads that make their layers."""
    found: dict[Digest, CachedStep] = {}
    for step in export.steps:
        below = step.below
        layer, diff_id, chain = None, None, None
        for each in step.layers:
            layer, diff_id = _stored(ctx, export, each)
            if diff_id is not None:
                below = (*below, diff_id)
        if layer is not None:
            chain = chain_ids(below)[-1]
        found[step.key] = CachedStep(step.key, int(step.created), chain, diff_id, layer)
    return found


def _stored(ctx: Context, export: Export, layer: Layer) -> tuple[Descriptor | None, Digest | None]:
    match layer.content:
        case Empty():
            return None, None
        case Blob(diff_id, blob) | Remote(diff_id, blob):
            return blob, diff_id
        case Tree():
            stored = ctx.layers().result(frozen(layer), export.how, ctx.emit)
            return stored.blob, stored.diff_id


def _present(ctx: Context, reference: Reference, access: RegistryAccess) -> dict[Digest, CachedStep]:
    """The steps that the registry has already; none if the cache there is damaged, which is a warning."""
    try:
        return {step.key: step for step in read_steps(ctx.remote.source(reference, access))}
    except NotFound:
        return {}
    except RegistryError as error:
        if error.status != 404:
            raise
        return {}
    except CorruptContent as error:
        ctx.emit(Warned(message=f"build cache is replaced: {error}"))
        return {}


def _put_layer(ctx: Context, export: Export, sink: ImageSink, layer: Descriptor) -> None:
    if sink.has_blob(layer):
        return
    moved = 0

    def progress(count: int) -> None:
        nonlocal moved
        moved += count
        ctx.emit(BlobProgress(action="push", digest=layer.digest, offset=moved, total=layer.size))

    sink.put_blob(layer, _source_of(ctx, export, layer), progress)
    ctx.emit(BlobProgress(action="push", digest=layer.digest, offset=layer.size, total=layer.size, done=True))


def _source_of(ctx: Context, export: Export, layer: Descriptor) -> ImageSource:
    """The store if it has the layer, else the registry it was found in, which can mount it without sending it."""
    if ctx.store.blobs.has(layer.digest):
        from builda.transfer.stored import BlobsSource

        return BlobsSource(ctx.store)
    assert export.imported is not None, "a layer that is not in the store was found in a registry"
    return export.imported.source(layer)


def _put_manifest(ctx: Context, sink: ImageSink, steps: Iterable[CachedStep]) -> None:
    from builda.transfer.stored import BlobsSource

    manifest, config = to_manifest(steps)
    described = ctx.store.put_bytes(config, manifest.config.media_type)
    if not sink.has_blob(described):
        sink.put_blob(described, BlobsSource(ctx.store), lambda count: None)
    data = manifest.dump()
    top = Descriptor(media_type=manifest.media_type, digest=Digest.of(data), size=len(data))
    sink.put_manifest(top, data, top=True)
