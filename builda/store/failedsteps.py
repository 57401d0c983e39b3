"""Notes about failed steps, each in the directory of the working container that the step failed in.

A note goes with its container. What a step was is JSON here; `builder.debug` gives it a meaning.
"""

from __future__ import annotations

import os
from contextlib import suppress

from builda import jsontext
from builda.store import layout
from builda.store.layout import Damaged
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.store.layout import Layout

NOTE = "failed.json"
VERSION = 1
PREFIX = "failed-step"
"""What the names of kept containers begin with."""


class FailedStep(NamedTuple):
    """The note of a failed step in its working container, or in a container that the step's mounts show."""

    when: float  # seconds since the epoch
    step: dict[str, Any]  # empty in the note of a container that is only shown
    others: tuple[str, ...] = ()  # IDs of the containers that its mounts show; they are removed with this one
    shown_in: str | None = None  # the ID of the container whose step shows this one


def write(where: Layout, container_id: str, failed: FailedStep) -> None:
    """Note a failed step in the directory of its working container; a note from before is replaced."""
    layout.publish(where, _path(where, container_id), jsontext.dumps({"version": VERSION, **failed._asdict()}).encode())


def read(where: Layout, container_id: str) -> FailedStep | None:
    """The note in a working container; None if there is none. Damaged if it holds what builda does not write."""
    path = _path(where, container_id)
    try:
        value = layout.read_json(path)
    except FileNotFoundError:
        return None
    when, step, others, shown_in = (value.get(name) for name in FailedStep._fields)
    if (
        value.get("version") != VERSION
        or not isinstance(when, int | float)
        or not isinstance(step, dict)
        or not isinstance(others, list)
        or not all(isinstance(other, str) for other in others)
        or not isinstance(shown_in, str | None)
    ):
        raise Damaged(path)
    return FailedStep(when, step, tuple(others), shown_in)


def is_noted(where: Layout, container_id: str) -> bool:
    """Whether a working container has a note."""
    return os.path.exists(_path(where, container_id))


def forget(where: Layout, container_id: str) -> None:
    """Remove the note, as the container went on."""
    with suppress(FileNotFoundError):
        os.unlink(_path(where, container_id))


def _path(where: Layout, container_id: str) -> str:
    return where.path("containers", container_id, NOTE)
