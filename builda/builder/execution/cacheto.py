"""`--cache-to`: push the results of a build's steps to a registry, beside the steps that are there already.

Steps of all stages are pushed: a store that finds only the last stage's would run the others again.

A registry cannot change a tag on a condition (distribution-spec, "Pushing Manifests", has none). So a build that pushes
looks at the tag right before it puts its manifest there, joins what other builds have put there meanwhile, and looks
again afterwards. The steps of one build are lost only if another's look and put have its put and second look between
them; they are performed once more then.
"""

from __future__ import annotations

from builda.builder.execution.cachefrom import read_steps
from builda.builder.execution.tip import Layer, frozen
from builda.errors import BuildaError, CorruptContent, NotFound, RegistryError
from builda.events import BlobProgress, Warned
from builda.oci.config import chain_ids
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.stepcache import CachedStep, to_manifest
from builda.store.steps import Blob, Empty, Remote, Tree
from builda.transfer.copyimage import AskedSink
from builda.values import NamedTuple

_TRIES = 5
"""How often a manifest is made because other builds have changed the cache meanwhile."""
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.builder.context import Context
    from builda.builder.execution.cachefrom import CachePlace, ImportedSteps
    from builda.builder.image.layers import LayerOptions
    from builda.builder.imageoptions import RegistryAccess
    from builda.oci.manifest import Manifest
    from builda.oci.reference import Reference
    from builda.transfer.copyimage import ImageSink, ImageSource


class Remembered(NamedTuple):
    """A step that a build performed or found: all layers up to its own, on a base with the DiffIDs `below`."""

    key: Digest
    created: float
    layers: tuple[Layer, ...]
    below: tuple[Digest, ...]


class Export(NamedTuple):
    """The remembered steps to push after a build."""

    target: str  # what the tag is derived from
    steps: tuple[Remembered, ...]
    how: LayerOptions
    imported: ImportedSteps | None


class _There(NamedTuple):
    """A cache in a registry: what its tag names (None: nothing), and the steps in it."""

    top: Descriptor | None
    steps: Mapping[Digest, CachedStep]

    def has(self, own: Mapping[Digest, CachedStep]) -> bool:
        """Whether all of these steps are in it, whenever they were made."""
        known = self.steps
        return all(key in known and known[key]._replace(created=one.created) == one for key, one in own.items())


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
    if there.has(own):
        return
    sink = ctx.remote.sink(reference, access, () if export.imported is None else export.imported.references)
    for layer in {step.layer.digest: step.layer for step in own.values() if step.layer is not None}.values():
        _put_layer(ctx, export, sink, layer)
    for tries in range(_TRIES):
        manifest = _put_config(ctx, sink, {**there.steps, **own})
        if tries < _TRIES - 1 and (now := _now(ctx, reference, access, sink, there)).top != there.top:
            there = now
            continue
        top = _put_manifest(ctx, sink, manifest, there, own)
        if isinstance(sink, AskedSink) and sink.has_image(top):
            return
        there = _present(ctx, reference, access)
        if there.top == top or there.has(own):
            return
    message = f"other builds push to the build cache all the time, and steps of this one may be missing: {reference}"
    ctx.emit(
        Warned(message=message, hint="give them a repository each with --cache-to, and name all with --cache-from")
    )


def _now(ctx: Context, reference: Reference, access: RegistryAccess, sink: ImageSink, before: _There) -> _There:
    """The cache that the tag names now; `before` costs least if it is still that one."""
    if before.top is not None and isinstance(sink, AskedSink) and sink.has_image(before.top):
        return before
    return _present(ctx, reference, access)


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


def _present(ctx: Context, reference: Reference, access: RegistryAccess) -> _There:
    """The cache that the registry has; without steps if it is damaged, which is a warning."""
    source = ctx.remote.source(reference, access)
    top = None
    try:
        top, _ = source.manifest()
        return _There(top, {step.key: step for step in read_steps(source)})
    except NotFound:
        return _There(None, {})
    except RegistryError as error:
        if error.status != 404:
            raise
        return _There(None, {})
    except CorruptContent as error:
        ctx.emit(Warned(message=f"build cache is replaced: {error}"))
        return _There(top, {})


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


def _put_config(ctx: Context, sink: ImageSink, steps: Mapping[Digest, CachedStep]) -> Manifest:
    """The manifest of a cache with these steps, whose configuration the registry has then."""
    from builda.transfer.stored import BlobsSource

    manifest, config = to_manifest(steps.values())
    described = ctx.store.put_bytes(config, manifest.config.media_type)
    if not sink.has_blob(described):
        sink.put_blob(described, BlobsSource(ctx.store), lambda count: None)
    return manifest


def _put_manifest(
    ctx: Context, sink: ImageSink, manifest: Manifest, there: _There, own: Mapping[Digest, CachedStep]
) -> Descriptor:
    """Give the tag to a manifest of the steps that are there and the own ones, or of these alone if layers are gone."""
    try:
        return _put(sink, manifest)
    except RegistryError as error:
        if not there.steps or error.status not in (400, 404):
            raise
        return _put(sink, _put_config(ctx, sink, own))  # which no manifest may list


def _put(sink: ImageSink, manifest: Manifest) -> Descriptor:
    data = manifest.dump()
    top = Descriptor(media_type=manifest.media_type, digest=Digest.of(data), size=len(data))
    sink.put_manifest(top, data, top=True)
    return top
