"""Edits of a working container's record: configuration, times and history. No file is touched."""

from __future__ import annotations

import time
from types import MappingProxyType

from builda.errors import InvalidValue
from builda.oci.config import History
from builda.oci.edits import apply_all
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.builder.context import Context
    from builda.plan import Configure
    from builda.store.containers import WorkingContainer


_FIRST, _END = -62_135_596_800, 253_402_300_800
"""The seconds at which the years 1 and 10000 begin."""


def timestamp(seconds: float) -> str:
    """The time as image configurations write it (RFC 3339, UTC), without a fraction when there is none.

    InvalidValue outside the years 1 to 9999, which are all that can be written so.
    """
    if not _FIRST <= seconds < _END:
        raise InvalidValue(f"time is outside the years 1 to 9999: {seconds}", hint="times are in seconds since 1970")
    whole = int(seconds // 1)
    microseconds = round((seconds - whole) * 1_000_000)
    if microseconds == 1_000_000:
        whole, microseconds = whole + 1, 0
    fraction = f".{microseconds:06d}".rstrip("0") if microseconds else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + fraction + "Z"


def remembered(
    ctx: Context,
    container: WorkingContainer,
    created_by: str | None,
    used: tuple[tuple[str, str, str], ...] = (),
) -> WorkingContainer:
    """The container as recorded now, with one more history entry if `created_by` is given, and with what was used."""
    if created_by is None and not used:
        return ctx.store.containers.load(container.id)
    with ctx.store.containers.locked(container) as current:
        changed = replace(current, used=tuple(dict.fromkeys((*current.used, *used))))
        if created_by is not None:
            changed = noted(changed, created_by, None, ctx.now())
        return ctx.store.update(changed)


def noted(container: WorkingContainer, created_by: str, comment: str | None, now: float) -> WorkingContainer:
    """The container with an empty-layer entry added to its history."""
    entry = History(created=timestamp(now), created_by=created_by, comment=comment, empty_layer=True)
    return replace(container, history=(*container.history, entry))


def configure(ctx: Context, container: WorkingContainer, step: Configure) -> WorkingContainer:
    """The container with its pending configuration and annotations edited."""
    with ctx.store.containers.locked(container) as current:
        changed = replace(
            current,
            config=apply_all(current.config, step.edits),
            annotations=_annotations(current.annotations, step),
        )
        if step.created_by is not None:
            changed = noted(changed, step.created_by, step.history_comment, ctx.now())
        elif step.history_comment is not None:
            changed = replace(changed, comment=step.history_comment)
        return ctx.store.update(changed)


def _annotations(before: Mapping[str, str], step: Configure) -> Mapping[str, str]:
    kept = {} if "" in step.unset_annotations else dict(before)
    for name in step.unset_annotations:
        kept.pop(name, None)
    return MappingProxyType({**kept, **step.set_annotations})
