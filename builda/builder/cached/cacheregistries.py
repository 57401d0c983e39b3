"""The caches in registries that a script's containers read, and those that their steps are pushed to."""

from __future__ import annotations

from builda.builder.cached.working import cache_of, tip_of
from builda.builder.execution.cachefrom import ImportedSteps
from builda.builder.execution.cacheplaces import places
from builda.builder.execution.cacheto import Export, Remembered, push_cache
from builda.builder.image.layers import LayerOptions
from builda.builder.image.pull import machine_platform
from builda.builder.imageoptions import RegistryAccess
from builda.store.steps import snapshot_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.context import Context
    from builda.builder.execution.tip import Layer
    from builda.store.containers import StepCache, WorkingContainer


def imported(ctx: Context, cache: StepCache, container: WorkingContainer) -> ImportedSteps:
    """The remembered steps of other stores in the registries that the container names."""
    target = _target(container)
    references = tuple(place.reference(target) for place in places(cache.sources, "--cache-from"))
    return ImportedSteps(ctx, references, _access(cache))


def push_steps(ctx: Context, container: WorkingContainer) -> None:
    """Push the steps that led to the container to the caches that it names."""
    cache = cache_of(container)
    steps = tuple(_steps(ctx, container))
    if not steps or not cache.targets:
        return
    known = imported(ctx, cache, container) if cache.sources else None
    export = Export(_target(container), steps, LayerOptions(), known)
    for place in places(cache.targets, "--cache-to"):
        push_cache(ctx, export, place, _access(cache))


def _steps(ctx: Context, container: WorkingContainer) -> Iterator[Remembered]:
    """The steps of the container's layers, each with all layers up to its own."""
    tip = tip_of(ctx, container, with_base=True)
    layers: list[Layer] = []
    for layer, made in zip(container.layers, tip.layers, strict=True):
        known = None if layer.key is None else ctx.store.steps.find(layer.key)
        if known is not None and snapshot_of(known.content) == layer.snapshot:  # it may know the layer's bytes by now
            made = made._replace(content=known.content)
        layers.append(made)
        if layer.key is not None and known is not None:
            yield Remembered(layer.key, known.created, tuple(layers), tip.base_diff_ids)


def _target(container: WorkingContainer) -> str:
    """The text that the tag of a cache is derived from, as in a build: the platform."""
    platform, here = container.config.platform, machine_platform()
    if (platform.os, platform.architecture) == (here.os, here.architecture):
        platform = here
    return "-".join(word for word in (platform.os, platform.architecture, platform.variant) if word)[:100]


def _access(cache: StepCache) -> RegistryAccess:
    return RegistryAccess(tls_verify=cache.tls_verify, authfile=cache.authfile)
