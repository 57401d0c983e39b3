"""A working container with a cache at its beginning, and before it is committed or copied."""

from __future__ import annotations

from builda.builder.cached.working import absorbed, taken_down
from builda.builder.execution.buildoptions import ExecuteOptions
from builda.builder.execution.keys import base_key
from builda.builder.working_tree import occupied
from builda.store.containers import StepCache
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import FromOptions
    from builda.store.containers import WorkingContainer


def started(ctx: Context, container: WorkingContainer, options: FromOptions) -> WorkingContainer:
    """The new container with the cache that the options choose; without one if its layers are lists."""
    choice, access = options.cache, options.pull.access
    if choice is None or container.layers or ctx.store.snapshots.is_list(container.snapshot):
        return container
    base = "scratch" if container.image_digest is None else str(container.image_digest)
    said, driver = ctx.run_options(options.run), ctx.store.snapshots.kind_of(container.snapshot).driver
    key = base_key(base, container.config.platform, ExecuteOptions(run=options.run), said, driver)
    cache = StepCache(
        key=key,
        sources=choice.sources,
        targets=choice.targets,
        tls_verify=access.tls_verify,
        authfile=access.authfile,
        explains=choice.explains,
    )
    with ctx.store.containers.locked(container) as current:
        return ctx.store.update(replace(current, cache=cache))


def settled(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """Freeze all changes of the container as layers, unless a process uses its `builda mount`; the container then."""
    with occupied(ctx, container) as current, taken_down(ctx, current) as is_free:
        return absorbed(ctx, current) if is_free else current
