"""Sessions: the working containers and images that a script made, which go when it ends.

`sessions/ID/` belongs to the process that runs the script, for as long as it holds `lock` by flock(2). What a verb is
about to make is noted there first, so that whatever a kill leaves is found by its note. A session that nobody holds has
ended, and the next command dissolves it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress

from builda.errors import InvalidValue
from builda.linux import private
from builda.store import layout, locks
from builda.store.layout import Layout
from builda.values import NamedTuple

DIRECTORY = "sessions"
_PARTS = ("containers", "images")
_CHANGES = ("refs", "removed")
_KEEPS_FAILED = "keeps-failed"


class Membership(NamedTuple):
    """The session that a process makes things in."""

    where: Layout
    id: str
    is_transaction: bool  # others see the names that its commands give when it ends
    keeps_failed: bool = False  # steps that fail are noted in their containers, which stay if the script fails

    def note(self, kind: str, name: str) -> None:
        """Note a container or an image that is about to be made. InvalidValue if the session has ended."""
        path = self.where.path(DIRECTORY, self.id, kind, name)
        try:
            with layout.translated(self.where.root):
                os.close(private.opener(path, os.O_WRONLY | os.O_CREAT))
        except FileNotFoundError:
            raise ended(self.id) from None


def begin(where: Layout, place: str, *, transaction: bool, keeps_failed: bool = False) -> tuple[str, int]:
    """Make a session, which lasts as long as this process keeps the returned descriptor open; its ID comes first.

    In a `transaction` what its commands change of names is kept apart. `place` is the session's directory in the run
    root, which `remove` removes too.
    """
    name = os.path.basename(place)
    with layout.translated(where.root):
        private.make(where.path(DIRECTORY, name))
        fd = locks.hold(where.path(DIRECTORY, name, "lock"))
        for part in (*_PARTS, *(_CHANGES if transaction else ()), *((_KEEPS_FAILED,) if keeps_failed else ())):
            private.make(where.path(DIRECTORY, name, part))
        layout.publish(where, where.path(DIRECTORY, name, "session.json"), json.dumps({"place": place}).encode())
    return name, fd


def join(where: Layout, name: str) -> Membership:
    """The membership of a process in the session of this ID; InvalidValue if that has ended."""
    if not is_alive(where, name):
        raise ended(name)
    is_transaction, keeps_failed = (
        os.path.exists(where.path(DIRECTORY, name, part)) for part in (_CHANGES[0], _KEEPS_FAILED)
    )
    return Membership(where, name, is_transaction, keeps_failed)


def ended(name: str) -> InvalidValue:
    """The error for a session that has ended."""
    return InvalidValue(
        f"session has ended, and what it made is gone: {name}",
        hint="unset BUILDA_SESSION to work without it",
    )


def is_alive(where: Layout, name: str) -> bool:
    """Whether the process that runs a session's script lives."""
    return locks.is_held(where.path(DIRECTORY, name, "lock"))


def dead(where: Layout) -> tuple[str, ...]:
    """The IDs of sessions that were killed and not yet dissolved."""
    return tuple(name for name in layout.iter_names(where.path(DIRECTORY)) if not is_alive(where, name))


def place_of(where: Layout, name: str) -> str | None:
    """The session's directory in the run root; None if it is not known."""
    with suppress(FileNotFoundError, layout.Damaged):
        place = layout.read_json(where.path(DIRECTORY, name, "session.json")).get("place")
        return place if isinstance(place, str) and os.path.basename(place) == name else None
    return None


def notes(where: Layout, name: str, kind: str) -> tuple[str, ...]:
    """What a session noted: the IDs of containers, the digits of images."""
    return tuple(layout.iter_names(where.path(DIRECTORY, name, kind)))


def noted(where: Layout, kind: str) -> frozenset[str]:
    """What all sessions noted."""
    return frozenset(one for name in layout.iter_names(where.path(DIRECTORY)) for one in notes(where, name, kind))


def forget(where: Layout, name: str, kind: str, noted: str) -> None:
    """Remove a note, as what it is about is gone or stays."""
    layout.unlink(where, where.path(DIRECTORY, name, kind, noted))


def remove(where: Layout, name: str) -> None:
    """Remove the session with its directory in the run root, unless something is still noted."""
    from builda.fs.paths import discard

    place = place_of(where, name)
    for part in _PARTS:
        with suppress(OSError):  # a note is left
            os.rmdir(where.path(DIRECTORY, name, part))
        if os.path.exists(where.path(DIRECTORY, name, part)):
            return
    if place is not None:
        discard(place)
    discard(where.path(DIRECTORY, name))
