"""Progress of copies and layers in bytes: no events in the first second, then at most ten a second."""

from __future__ import annotations

import time
from contextlib import contextmanager

from builda.events import WorkProgress, ignore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal

    from builda.events import Emit

    Moved = Callable[[int], None]
    Work = Literal["read", "copy", "extract", "store"]

_PATIENCE = 1.0
_PERIOD = 0.1


@contextmanager
def moving(emit: Emit, work: Work, subject: str, total: Callable[[], int | None]) -> Iterator[Moved | None]:
    """A function to report moved bytes to, for the time of the block; None if no one listens to events.

    `subject` is what the user calls it. `total`, all bytes that there are, None if that is not known, is
    asked once it is needed.
    """
    if emit is ignore:
        yield None
        return
    told = _Told(emit, work, subject, total)
    yield told.moved
    told.end()


def words(paths: tuple[str, ...]) -> str:
    """Several paths in a few words: the first, and how many more."""
    first, *others = paths
    return f"{first} and {len(others)} more" if others else first


class _Told:
    def __init__(self, emit: Emit, work: Work, subject: str, total: Callable[[], int | None]) -> None:
        self._emit = emit
        self._work = work
        self._subject = subject
        self._measure = total
        self._total: int | None = None
        self._offset = 0
        self._begun = False
        self._next = time.monotonic() + _PATIENCE

    def moved(self, count: int) -> None:
        self._offset += count
        now = time.monotonic()
        if now < self._next:
            return
        if not self._begun:
            self._begun = True
            self._total = self._measure()
        self._next = now + _PERIOD
        self._tell(done=False)

    def end(self) -> None:
        if self._begun:
            self._tell(done=True)

    def _tell(self, *, done: bool) -> None:
        total = None if self._total is None else max(self._total, self._offset)
        self._emit(WorkProgress(work=self._work, subject=self._subject, offset=self._offset, total=total, done=done))
