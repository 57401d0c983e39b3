"""Several platforms: which a base image has, which this machine runs, and the index of what was built for them."""

from __future__ import annotations

from builda.builder.image.pull import pull
from builda.errors import NotFound
from builda.oci.manifest import Index, parse
from builda.oci.reference import LOCAL_REGISTRY
from builda.plan import FromImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import PullOptions
    from builda.oci.descriptor import Platform
    from builda.plan import Plan


def common_platforms(ctx: Context, plan: Plan, options: PullOptions) -> tuple[Platform, ...]:
    """The platforms that all base images of the plan have, in the order of the first one's index."""
    stages = (plan.stages[index] for index in plan.needed())
    names = dict.fromkeys(stage.base.name for stage in stages if isinstance(stage.base, FromImage))
    found: tuple[Platform, ...] | None = None
    for name in names:
        there = _platforms_of(ctx, name, options)
        found = there if found is None else tuple(platform for platform in found if platform in there)
    if not found:
        raise NotFound(f"base images have no platform in common: {' '.join(names) or 'scratch'}")
    return found


def _platforms_of(ctx: Context, name: str, options: PullOptions) -> tuple[Platform, ...]:
    from builda.transfer.copyimage import outline

    stored = ctx.store.find_image(name)
    document = stored.document if stored is not None else None
    references = ctx.remote.candidates(name) if not isinstance(document, Index) else ()
    if references and references[0].registry != LOCAL_REGISTRY:
        descriptor, data = outline(ctx.remote.source(references[0], options.access))
        document = parse(data, descriptor.media_type)
    if not isinstance(document, Index):
        return (pull(ctx, name, options).config.platform,)
    known = (entry.platform for entry in document.manifests if entry.platform is not None)
    return tuple(dict.fromkeys(platform for platform in known if platform.os != "unknown"))
