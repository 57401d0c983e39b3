"""Which files a Copy reads, from its flags: what it copies and what its key is made of are one request."""

from __future__ import annotations

from builda.fs.trees.walk import CopyRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.fs.sources import Source
    from builda.fs.trees.target import Inode
    from builda.plan import Copy


def reading(sources: tuple[Source, ...], step: Copy | None, never: frozenset[Inode]) -> CopyRequest:
    """The request that reads `sources` as the step says; without a step all of them. Where they go is yet to be set.

    `never` are the directories that are left out wherever they lie: those of the store.
    """
    if step is None:
        return CopyRequest(sources=sources, destination="/", owner=(0, 0), wildcards=False, never=never)
    return CopyRequest(
        sources=sources,
        destination="/",
        owner=(0, 0),
        excludes=step.excludes,
        parents=step.parents,
        follow_symlinks=step.follow_symlinks,
        wildcards=step.allow_wildcard,
        never=never,
        allow_empty_wildcard=step.allow_empty_wildcard or step.as_containerfile,
    )
