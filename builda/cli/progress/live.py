"""The live view of a build on a terminal: running steps with their time and last lines; finished ones stay above.

One thread draws, ten times a second at most. Everything drawn is cut to the terminal's width, so that it is known how
many rows the next frame overwrites; after a resize they are counted as the terminal has wrapped them. The screen is
never erased as a whole: tmux keeps such a screen in its scroll-back. Nothing of the terminal's state is changed, so
there is nothing to restore when the process is killed.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from builda.cli.format.table import human_size, human_time
from builda.cli.progress.ledger import Done, Ledger
from builda.cli.progress.observer import WORK, Warnings
from builda.cli.progress.termtext import cells, cut, plain
from builda.events import (
    BlobProgress,
    BuildStarted,
    CommandOutput,
    Event,
    StepFailure,
    StepFinished,
    StepStarted,
    WorkProgress,
    step_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

PERIOD = 0.1
"""Seconds between two drawings at least."""
_ALONE, _TOGETHER = 5, 1  # lines of output shown of a stage
_BLOBS = 4
_ROOM = 8  # columns that a text gets before numbers beside it get any
_DIM, _GREEN, _RED, _PLAIN = "\033[2m", "\033[32m", "\033[31m", "\033[0m"
_CLEAR = "\033[K"


class _Moving:
    """A transfer in progress, with the time and offset at which it began."""

    def __init__(self, event: BlobProgress | WorkProgress, began: float) -> None:
        self.event = event
        self._began = began
        self._first = event.offset

    def said(self, now: float) -> str:
        """The moved bytes of the total; after a second also the rate."""
        event, seconds = self.event, now - self._began
        rate = f"{human_size(int((event.offset - self._first) / seconds))}/s " if seconds >= 1 else ""
        if not event.total:
            return f"{rate}{human_size(event.offset)}"
        share = 100 * event.offset // event.total
        return f"{rate}{human_size(event.offset)} of {human_size(event.total)} {min(share, 100):3}%"


class _Running:
    """The step that a stage is at, and the end of what its command wrote."""

    def __init__(self, event: StepStarted, began: float) -> None:
        self.head = step_name(event.stage, event.index, event.total)
        self.text = event.text
        self.began = began
        self._lines: deque[bytes] = deque([b""], maxlen=_ALONE + 1)

    def add(self, data: bytes) -> None:
        """Take output in."""
        first, *rest = data[-65536:].split(b"\n")
        self._lines[-1] = (self._lines[-1] + first)[-4096:]
        self._lines.extend(rest)

    def last(self, count: int) -> list[str]:
        """The last lines that are not empty."""
        texts = [plain(line) for line in self._lines]
        return [text for text in texts if text.strip()][-count:]


class Screen:
    """The content of the live view: a function of events and time, without a terminal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._running: dict[str | None, _Running] = {}
        self._moving: dict[tuple[str, object], _Moving] = {}
        self._ledger = Ledger()
        self._steps: dict[str | None, int] = {}  # how many there are, by platform
        self._done: dict[str | None, int] = {}  # how many are over, by stage
        self._cached: dict[str | None, int] = {}  # how many of them had been remembered
        self._failed = False

    def note(self, event: Event) -> list[Done]:
        """Take an event in; the steps that are finished by it."""
        match event:
            case BuildStarted():
                self._steps[event.platform] = event.steps
            case StepStarted():
                self._running[event.stage] = _Running(event, self._clock())
                if event.index == 1:
                    self._cached[event.stage] = 0
            case StepFinished():
                self._running.pop(event.stage, None)
                self._done[event.stage] = event.index
                self._cached[event.stage] = self._cached.get(event.stage, 0) + (event.cached and event.index > 1)
            case StepFailure():
                self._running.pop(event.stage, None)
                self._failed = True
            case CommandOutput(shown=False) if event.stage in self._running:
                self._running[event.stage].add(event.data)
            case BlobProgress():
                self._move((event.action, event.digest), event)
            case WorkProgress():
                self._move((event.work, event.subject), event)
            case _:
                pass
        return self._ledger.note(event)

    def rest(self) -> list[Done]:
        """The steps that are finished, but for what will not be known."""
        return self._ledger.rest()

    def lines(self, width: int, height: int) -> list[tuple[str, bool]]:
        """What is going on, as lines that fit, each with whether it matters less."""
        now = self._clock()
        rows: list[tuple[str, bool]] = [(cut(self._head(now), width), True)]
        count = _ALONE if len(self._running) == 1 else _TOGETHER
        for running in self._running.values():
            rows.append((_spread(f"{running.head} {running.text}", human_time(now - running.began), width), False))
            rows += [(cut(f"    {line}", width), True) for line in running.last(count)]
        for moving in list(self._moving.values())[:_BLOBS]:
            rows.append((_spread(f"    {_named(moving.event)}", moving.said(now), width), True))
        if not self._running:
            told = {subject for work, subject in self._moving if work == "store"}
            waiting = [head for head in self._ledger.storing() if head not in told]
            rows += [(cut(f"    {WORK['store']} {head}", width), True) for head in waiting]
        room = max(1, height - 1)
        while len(rows) > room and len(rows) > 1:  # first what matters less, from the top; the head comes last of it
            del rows[next((at for at, (_, less) in enumerate(rows) if less and at), 0)]
        return rows

    def summary(self, outcome: str, *, remembers: bool) -> str:
        """The last line: how the build ended, after how long, and what it leaves; "" if no step began."""
        if not self._steps:
            return ""
        took = human_time(self._clock() - self._began)
        done, cached = sum(self._done.values()), sum(self._cached.values())
        if outcome == "built":
            return f"built in {took}: {_counted(done)}, {cached} cached"
        if outcome == "failed":
            return f"failed after {took}"
        verb = "is" if done == 1 else "are"
        kept = f"; {_counted(done)} that had ended {verb} remembered" if remembers and done else ""
        return f"interrupted after {took}: no image was made, and no working container is left{kept}"

    def _head(self, now: float) -> str:
        word = "failed, ending the rest" if self._failed else "building"
        total = sum(self._steps.values())
        counted = f", {sum(self._done.values())} of {_counted(total)}" if total else ""
        return f"{word} {human_time(now - self._began)}{counted}"

    def _move(self, key: tuple[str, object], event: BlobProgress | WorkProgress) -> None:
        if event.done:
            self._moving.pop(key, None)
        elif key in self._moving:
            self._moving[key].event = event
        else:
            self._moving[key] = _Moving(event, self._clock())


class Live:
    """Draws a Screen on a terminal, for many threads; `close` leaves the finished steps and the cursor below them.

    `remembers`: the results of steps are kept for the next build.
    """

    def __init__(self, stream: TextIO, *, colour: bool, warnings: bool, remembers: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._remembers = remembers
        self._screen = Screen()
        self._above: list[str] = []  # to be printed for good
        self._drawn: list[int] = []  # cells of each line that is to be overwritten
        self._warnings = Warnings(_Above(self._above), colour=colour, quiet=False, watched=True) if warnings else None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw_on, name="builda-live", daemon=True)
        self._thread.start()

    def show(self, event: Event) -> None:
        """Take note of `event`; it is drawn with the next frame."""
        with self._lock:
            if self._warnings is not None:
                self._warnings.show(event)
            for done in self._screen.note(event):
                self._keep(done)

    def close(self, outcome: str) -> None:
        """Draw for the last time; the build was `built`, has `failed` or was `interrupted`."""
        self._ended.set()
        self._thread.join()
        with self._lock:
            for done in self._screen.rest():
                self._keep(done)
            if summary := self._screen.summary(outcome, remembers=self._remembers):
                self._above.append(f"{_DIM}{summary}{_PLAIN}\n" if self._colour else f"{summary}\n")
            self._draw(running=False)

    def _keep(self, done: Done) -> None:
        width = _size(self._stream)[0]
        room = width - cells(done.cost) - 2
        cost = done.cost if room >= _ROOM or done.lost else ""
        text = cut(plain(f"{done.head} {done.text}".encode()), max(_ROOM, room) if cost else width)
        colour = _RED if done.lost == "failed" else _GREEN if done.cached else _DIM
        coloured = f"{colour}{cost}{_PLAIN}" if self._colour else cost
        self._above.append(f"{text}  {coloured}\n" if cost else f"{text}\n")

    def _draw_on(self) -> None:
        while not self._ended.wait(PERIOD):
            with self._lock:
                self._draw(running=True)

    def _draw(self, *, running: bool) -> None:
        width, height = _size(self._stream)
        rows = self._screen.lines(width, height) if running else []
        kept = "".join(self._above).splitlines()
        self._above.clear()
        old = sum(_height(count, width + 1) for count in self._drawn)
        new = len(rows) + sum(_height(cells(plain(line.encode())), width + 1) for line in kept)
        parts = [f"\r\033[{old}A" if old else ""]
        parts += [_overwriting(line, cells(plain(line.encode())), width + 1) for line in kept]
        parts += [
            f"{_DIM}{row}{_PLAIN}{_CLEAR}\n" if less and self._colour else f"{row}{_CLEAR}\n" for row, less in rows
        ]
        if old > new:
            parts.append(f"{_CLEAR}\n" * (old - new) + f"\033[{old - new}A")
        self._drawn = [cells(row) for row, _ in rows]
        with suppress(OSError):  # a terminal that went away sees nothing more
            self._stream.write("".join(parts))
            self._stream.flush()


def _height(count: int, columns: int) -> int:
    """The rows that a line of `count` cells takes."""
    return max(1, -(-count // columns))


def _overwriting(line: str, count: int, columns: int) -> str:
    """A line of `count` cells over what stands there; in a row that is full, clearing takes the last character."""
    return f"{line}\n" if count and count % columns == 0 else f"{line}{_CLEAR}\n"


class _Above:
    """A stream for warnings, which are printed for good."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, text: str) -> None:
        self._lines.append(text)

    def flush(self) -> None:
        pass


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns that may be written to without wrapping, and lines."""
    with suppress(OSError, ValueError):
        size = os.get_terminal_size(stream.fileno())
        if size.columns and size.lines:
            return max(1, size.columns - 1), size.lines
    return 79, 24


def _spread(left: str, right: str, width: int) -> str:
    """`left`, cut if need be, and `right` at the end of the line; only `left` where there is no room for both."""
    left = plain(left.encode())
    room = width - cells(right) - 1
    if room < _ROOM:
        return cut(left, width)
    left = cut(left, room)
    return f"{left}{' ' * (room - cells(left))} {right}"


def _named(moving: BlobProgress | WorkProgress) -> str:
    if isinstance(moving, WorkProgress):
        return f"{WORK[moving.work]} {moving.subject}"
    return f"{moving.action} {'layer' if moving.digest is None else moving.digest.encoded[:12]}"


def _counted(steps: int) -> str:
    return f"{steps} step" if steps == 1 else f"{steps} steps"
