"""Sessions: the working containers and images that a script made, which go when it ends.

`sessions/ID/` belongs to the process that runs the script, for as long as it holds `lock` by flock(2). What a verb is
about to make is noted there first, so that whatever a kill leaves is found by its note. A session without a holder has
ended, and the next command dissolves it.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager, suppress

from builda import jsontext
from builda.errors import InvalidValue
from builda.linux import private
from builda.store import layout, locks
from builda.store.layout import Layout
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

DIRECTORY = "sessions"
_PARTS = ("containers", "images")
_CHANGES = ("refs", "removed")
_KEEPS_FAILED = "keeps-failed"
_LOCK, _MEMBERS = "lock", "members"
ENDING = 3.0
"""Seconds that others wait at most for processes that were killed and are ending."""


class Membership(NamedTuple):
    """The session that a process belongs to."""

    where: Layout
    id: str
    is_transaction: bool  # others see the names that its commands give when it ends
    held: int  # descriptor: no process dissolves the session while this one has it open
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
    from builda.fs.paths import discard

    name = os.path.basename(place)
    made = layout.temporary(where)  # others find it when it is held: they dissolve what nobody holds
    with layout.translated(where.root), ExitStack() as undo:
        undo.callback(discard, made)
        private.make(made)
        fd = locks.hold(f"{made}/{_LOCK}")
        undo.callback(os.close, fd)
        for part in (*_PARTS, *(_CHANGES if transaction else ()), *((_KEEPS_FAILED,) if keeps_failed else ())):
            private.make(f"{made}/{part}")
        for file, content in ((_MEMBERS, b""), ("session.json", jsontext.dumps(_own(place)).encode())):
            with open(f"{made}/{file}", "xb", opener=private.opener) as new:
                new.write(content)
        private.make(where.path(DIRECTORY))
        os.rename(made, where.path(DIRECTORY, name))
        undo.pop_all()
    return name, fd


def join(where: Layout, name: str) -> Membership:
    """The membership of a process in the session of this ID; InvalidValue if that has ended."""
    try:
        held = os.open(where.path(DIRECTORY, name, _MEMBERS), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ended(name) from None
    fcntl.flock(held, fcntl.LOCK_SH)
    if not is_alive(where, name):
        os.close(held)
        raise ended(name)
    is_transaction, keeps_failed = (
        os.path.exists(where.path(DIRECTORY, name, part)) for part in (_CHANGES[0], _KEEPS_FAILED)
    )
    return Membership(where, name, is_transaction, held, keeps_failed)


@contextmanager
def without_members(where: Layout, name: str) -> Iterator[None]:
    """Hold a session that was killed: its commands, which end with it, have ended, or do not within ENDING seconds."""
    fd = os.open(where.path(DIRECTORY, name, _MEMBERS), os.O_RDONLY | os.O_CLOEXEC)
    try:
        _waited(lambda: _is_locked(fd))
        yield
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _waited(condition: Callable[[], bool]) -> bool:
    """Wait for a condition; False if it is not met in ENDING seconds."""
    deadline = time.monotonic() + ENDING
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def ended(name: str) -> InvalidValue:
    """The error for a session that has ended."""
    return InvalidValue(
        f"session has ended, and what it made is gone: {name}",
        hint="unset BUILDA_SESSION to work without it",
    )


def is_alive(where: Layout, name: str) -> bool:
    """Whether the process that runs a session's script lives."""
    return locks.is_held(where.path(DIRECTORY, name, _LOCK))


def dead(where: Layout) -> tuple[str, ...]:
    """The IDs of sessions that were killed and not yet dissolved."""
    return tuple(name for name in layout.iter_names(where.path(DIRECTORY)) if _is_dead(where, name))


def _is_dead(where: Layout, name: str) -> bool:
    """Whether the session's process has ended. What it had just forked may hold the lock for a moment longer."""
    from builda.linux import process as processes

    if not is_alive(where, name):
        return True
    match _read(where, name).get("process"):
        case [int(pid), int(start), str(namespace)] if namespace == _namespace() and not processes.is_alive(pid, start):
            return _waited(lambda: not is_alive(where, name))
    return False


def _own(place: str) -> dict[str, Any]:
    from builda.linux.process import process_identity

    return {"place": place, "process": [*process_identity(), _namespace()]}


def _namespace() -> str:
    """The pid namespace of this process, as no other is called on any machine."""
    from builda.store.drivers.bookkeeping import boot_id

    return f"{boot_id()} {os.readlink('/proc/self/ns/pid')}"


def _read(where: Layout, name: str) -> dict[str, Any]:
    with suppress(FileNotFoundError, layout.Damaged):
        return layout.read_json(where.path(DIRECTORY, name, "session.json"))
    return {}


def place_of(where: Layout, name: str) -> str | None:
    """The session's directory in the run root; None if it is not known."""
    place = _read(where, name).get("place")
    return place if isinstance(place, str) and os.path.basename(place) == name else None


def notes(where: Layout, name: str, kind: str) -> tuple[str, ...]:
    """The notes of a session: IDs of containers, and digests of images."""
    return tuple(layout.iter_names(where.path(DIRECTORY, name, kind)))


def noted(where: Layout, kind: str) -> frozenset[str]:
    """The notes of all sessions."""
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
    made, gone = where.path(DIRECTORY, name), layout.temporary(where)
    try:
        os.rename(made, gone)  # at once, as others would make its lock anew to look at it
    except OSError:
        gone = made
    discard(gone)
