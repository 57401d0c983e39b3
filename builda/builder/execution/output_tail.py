"""The last output lines of each stage's command, for the error if the command fails.

They are repeated only if the user has not just seen them: if the stream is hidden, or other output came in between.
"""

from __future__ import annotations

import re
from _thread import allocate_lock  # threading takes a millisecond to import
from collections import deque

from builda.events import CommandOutput, StepFinished, StepStarted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import Emit, Event

KEPT = 15
"""Lines that an error repeats."""
_LONGEST = 400
_CONTROL = r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]"


class Tails:
    """Passes events on to `emit` and keeps last lines. `hidden` streams are not shown. Threads may share it."""

    def __init__(self, emit: Emit, *, hidden: frozenset[str]) -> None:
        self._emit = emit
        self._hidden = hidden
        self._lock = allocate_lock()
        self._lines: dict[str | None, deque[bytes]] = {}
        self._unseen: set[str | None] = set()  # stages whose last lines are not the last thing on the screen

    def show(self, event: Event) -> None:
        """Take note of `event` and pass it on."""
        with self._lock:
            self._note(event)
        self._emit(event)

    def of(self, stage: str | None) -> tuple[str, ...]:
        """The last lines of a stage's command; none if they are what the user saw last."""
        with self._lock:
            lines = self._lines.get(stage, deque())
            return _readable(lines) if stage in self._unseen else ()

    def _note(self, event: Event) -> None:
        match event:
            case StepStarted():
                self._lines[event.stage] = deque([b""], maxlen=KEPT + 1)
                self._unseen.discard(event.stage)
                self._hide_others(event.stage)
            case StepFinished():
                self._hide_others(event.stage)
            case CommandOutput():
                self._add(event)
                self._hide_others(event.stage)
                if event.stream in self._hidden:
                    self._unseen.add(event.stage)
            case _:
                pass

    def _hide_others(self, stage: str | None) -> None:
        self._unseen |= {other for other, lines in self._lines.items() if other != stage and any(lines)}

    def _add(self, event: CommandOutput) -> None:
        lines = self._lines.setdefault(event.stage, deque([b""], maxlen=KEPT + 1))
        first, *rest = event.data.split(b"\n")
        lines[-1] = (lines[-1] + first)[-4 * _LONGEST :]
        lines.extend(line[: 4 * _LONGEST] for line in rest)


def _readable(lines: deque[bytes]) -> tuple[str, ...]:
    """The lines as text, without escape sequences and without what a carriage return overwrote."""
    texts = [line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace") for line in lines]
    if texts and not texts[-1]:
        texts.pop()
    return tuple(re.sub(_CONTROL, "", text)[:_LONGEST] for text in texts[-KEPT:])
