"""Which files a Copy reads, from its flags: what it copies and what its key is made of are one request."""

from __future__ import annotations

from builda.fs.trees.walk import CopyRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.fs.sources import Source
    from builda.plan import Copy


def reading(sources: tuple[Source, ...], step: Copy | None) -> CopyRequest:
    """The request that reads `sources` as the step says; without a step all of them. Where they go is yet to be set."""
    if step is None:
        return CopyRequest(sources=sources, destination="/", owner=(0, 0), wildcards=False)
    return CopyRequest(
        sources=sources,
        destination="/",
        owner=(0, 0),
        excludes=step.excludes,
        parents=step.parents,
        follow_symlinks=step.follow_symlinks,
        wildcards=step.allow_wildcard,
        allow_empty_wildcard=step.allow_empty_wildcard or step.as_containerfile,
    )
