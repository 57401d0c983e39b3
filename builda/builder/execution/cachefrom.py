"""The build cache in a registry: other stores' remembered steps. One request finds them; layers are fetched on use.

A cache that cannot be used is a warning, and the build goes on without it. Its content is verified as an image's is:
sizes, digests, and the DiffID when a layer is unpacked. Trust is the same as for a base image: every account that
may push to the repository decides what builds contain.
"""

from __future__ import annotations

import threading

from builda.builder.execution.tip import LayerLost
from builda.errors import BuildaError, CorruptContent, RegistryError, Unsupported
from builda.events import BlobProgress, Warned
from builda.oci.config import chain_ids
from builda.oci.digest import Digest
from builda.store.steps import Blob, Empty, Remote, Tree
from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builda.builder.context import Context
    from builda.builder.execution.tip import Layer
    from builda.builder.imageoptions import RegistryAccess
    from builda.oci.descriptor import Descriptor
    from builda.oci.reference import Reference
    from builda.oci.stepcache import CachedStep
    from builda.store.steps import Content
    from builda.transfer.copyimage import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlace:
    """A repository for remembered steps. Without `tag`, the tag is derived from platform and target."""

    registry: str
    repository: str
    tag: str | None = None
    ignore_error: bool = False  # of --cache-to: a failing push is a warning

    def reference(self, target: str) -> Reference:
        """The reference that holds the steps of builds of `target`."""
        from builda.oci.reference import Reference

        return Reference(self.registry, self.repository, self.tag or f"builda-cache-{target}")


class ImportedSteps:
    """The remembered steps of several registries, which are asked at the first look-up. Threads may share it."""

    def __init__(self, ctx: Context, references: tuple[Reference, ...], access: RegistryAccess) -> None:
        self._ctx = ctx
        self.references = references
        self._access = access
        self._lock = threading.Lock()
        self._steps: dict[Digest, list[CachedStep]] | None = None
        self._sources: dict[Digest, ImageSource] = {}

    def find(self, key: Digest, below: tuple[Digest, ...] | None, oldest: float) -> CachedStep | None:
        """The step with this key, made on layers with the DiffIDs `below` (None: not all known); None if there is none.

        A layer that was made on other layers does not count: it holds the difference from those.
        """
        for step in self._known().get(key, ()):
            if step.created < oldest:
                continue
            if step.layer is None:
                return step
            if below is not None and step.diff_id is not None and step.chain == chain_ids((*below, step.diff_id))[-1]:
                return step
        return None

    def source(self, layer: Descriptor) -> ImageSource:
        """The registry that has the layer of a step that was found."""
        return self._sources[layer.digest]

    def _known(self) -> Mapping[Digest, list[CachedStep]]:
        with self._lock:
            if self._steps is None:
                self._steps = {}
                for reference in self.references:
                    self._load(reference, self._steps)
            return self._steps

    def _load(self, reference: Reference, known: dict[Digest, list[CachedStep]]) -> None:
        try:
            source = self._ctx.remote.source(reference, self._access)
            steps = read_steps(source)
        except BuildaError as error:
            missing = isinstance(error, RegistryError) and error.status == 404
            what = f"no build cache there yet: {reference}" if missing else f"build cache cannot be used: {error}"
            self._ctx.emit(Warned(message=what, hint=None if missing else error.hint))
            return
        for step in steps:
            known.setdefault(step.key, []).append(step)
            if step.layer is not None:
                self._sources.setdefault(step.layer.digest, source)


def read_steps(source: ImageSource) -> tuple[CachedStep, ...]:
    """The steps in the cache at `source`; CorruptContent if it is something else."""
    from builda.oci.manifest import parse
    from builda.oci.stepcache import from_manifest

    descriptor, data = source.manifest()
    try:
        return from_manifest(parse(data, descriptor.media_type))
    except Unsupported as error:
        raise CorruptContent(str(error)) from error


def fetched(
    ctx: Context,
    steps: ImportedSteps | None,
    layers: tuple[Layer, ...],
    base: str | None,
    below: tuple[Digest, ...] | None,
    *,
    as_list: bool,
) -> tuple[Layer, ...]:
    """The layers, each with its snapshot: those that have none here are fetched and unpacked.

    `base` is the snapshot under them all and `below` its DiffIDs (None: not all known); they become trees, or lists.
    LayerLost if a layer is missing or not what the cache promised.
    """
    done: list[Layer] = []
    diff_ids = below
    for layer in layers:
        content: Content = layer.content
        match content:
            case Empty(snapshot):
                content = Empty(snapshot or base)
            case Tree(snapshot, diff_id, _):
                base = snapshot
                diff_ids = None if diff_ids is None or diff_id is None else (*diff_ids, diff_id)
            case Blob(diff_id, blob) | Remote(diff_id, blob):
                diff_ids = None if diff_ids is None else (*diff_ids, diff_id)
                chain = _no_chain(base, diff_id) if diff_ids is None else chain_ids(diff_ids)[-1]
                base = _unpacked(ctx, steps, blob, diff_id, chain, base, as_list=as_list)
                content = Tree(base, diff_id, blob)
        done.append(layer._replace(content=content))
    return tuple(done)


def _no_chain(parent: str | None, diff_id: Digest) -> Digest:
    """A stand-in for the ChainID of a layer above one without a DiffID. No image has it, so none finds the layer."""
    return Digest.of(f"{parent} {diff_id}".encode())


def _unpacked(
    ctx: Context,
    steps: ImportedSteps | None,
    blob: Descriptor,
    diff_id: Digest,
    chain: Digest,
    parent: str | None,
    *,
    as_list: bool,
) -> str:
    store = ctx.store
    try:
        if not store.blobs.has(blob.digest):
            if steps is None:
                raise LayerLost(f"layer of the build cache is gone: {blob.digest}")
            _fetch(ctx, blob, steps.source(blob))
        kind = store.snapshots.lists if as_list else store.snapshots.new
        return kind.unpack_layer(blob, diff_id, chain, parent, ctx.emit)
    except (RegistryError, CorruptContent) as error:
        raise LayerLost(f"layer of the build cache cannot be used: {error}") from error


def _fetch(ctx: Context, layer: Descriptor, source: ImageSource) -> None:
    from builda.transfer.stored import StoreSink

    StoreSink(ctx.store).put_blob(layer, source, _progress(ctx, layer))
    ctx.emit(BlobProgress(action="pull", digest=layer.digest, offset=layer.size, total=layer.size, done=True))


def _progress(ctx: Context, layer: Descriptor) -> Callable[[int], None]:
    moved = 0

    def progress(count: int) -> None:
        nonlocal moved
        moved += count
        ctx.emit(BlobProgress(action="pull", digest=layer.digest, offset=moved, total=layer.size))

    return progress
