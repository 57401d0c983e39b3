"""The live view of a build on a terminal: running steps with their time and last lines; finished ones stay above.

One thread draws, ten times a second at most. Everything drawn is cut to the terminal's width, so that what has to be
erased is known; after a resize it is counted as the terminal has wrapped it. Nothing of the terminal's state is
changed, so there is nothing to restore when the process is killed.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from builda.cli.finished import Done, Ledger, heading
from builda.cli.progress import Warnings
from builda.cli.table import human_size
from builda.cli.termtext import cells, cut, plain
from builda.events import BlobProgress, CommandOutput, Event, StepFinished, StepStarted

PERIOD = 0.1
"""Seconds between two drawings at least."""
_ALONE, _TOGETHER = 5, 1  # lines of output shown of a stage
_BLOBS = 4
_ROOM = 8  # columns that a text gets before numbers beside it get any
_DIM, _GREEN, _PLAIN = "\033[2m", "\033[32m", "\033[0m"


class _Running:
    """The step that a stage is at, and the end of what its command wrote."""

    def __init__(self, event: StepStarted, began: float) -> None:
        self.head = heading(event.stage, event.index, event.total)
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
    """What is to be seen: a function of events and time, without a terminal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._running: dict[str | None, _Running] = {}
        self._blobs: dict[tuple[str, object], BlobProgress] = {}
        self._ledger = Ledger()

    def note(self, event: Event) -> list[Done]:
        """Take an event in; the steps that are finished by it."""
        match event:
            case StepStarted():
                self._running[event.stage] = _Running(event, self._clock())
            case StepFinished():
                self._running.pop(event.stage, None)
            case CommandOutput() if event.stage in self._running:
                self._running[event.stage].add(event.data)
            case BlobProgress():
                self._move(event)
            case _:
                pass
        return self._ledger.note(event)

    def rest(self) -> list[Done]:
        """The steps that are finished, but for what will not be known."""
        return self._ledger.rest()

    def lines(self, width: int, height: int) -> list[tuple[str, bool]]:
        """What is going on, as lines that fit, each with whether it matters less."""
        now = self._clock()
        rows: list[tuple[str, bool]] = []
        count = _ALONE if len(self._running) == 1 else _TOGETHER
        for running in self._running.values():
            rows.append((_spread(f"{running.head} {running.text}", f"{now - running.began:.1f}s", width), False))
            rows += [(cut(f"    {line}", width), True) for line in running.last(count)]
        for blob in list(self._blobs.values())[:_BLOBS]:
            rows.append((_spread(f"    {blob.action} {_name(blob)}", _moved(blob), width), True))
        if not self._running:
            rows += [(cut(f"    storing the layer of {head}", width), True) for head in self._ledger.storing()]
        while len(rows) > max(1, height - 1):  # first what matters less, from the top
            del rows[next((i for i, (_, less) in enumerate(rows) if less), 0)]
        return rows

    def _move(self, event: BlobProgress) -> None:
        key = event.action, event.digest
        self._blobs.pop(key, None) if event.done else self._blobs.__setitem__(key, event)


class Live:
    """Draws a Screen on a terminal, for many threads; `close` leaves the finished steps and the cursor below them."""

    def __init__(self, stream: TextIO, *, colour: bool, warnings: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._screen = Screen()
        self._above: list[str] = []  # to be printed for good
        self._drawn: list[int] = []  # cells of each line that is to be erased
        self._warnings = Warnings(_Above(self._above), colour=colour, quiet=False) if warnings else None
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

    def close(self) -> None:
        """Draw for the last time."""
        self._ended.set()
        self._thread.join()
        with self._lock:
            for done in self._screen.rest():
                self._keep(done)
            self._draw(running=False)

    def _keep(self, done: Done) -> None:
        width = _size(self._stream)[0]
        room = width - cells(done.cost) - 2
        cost = done.cost if room >= _ROOM else ""
        text = cut(plain(f"{done.head} {done.text}".encode()), room if cost else width)
        coloured = f"{_GREEN if done.cached else _DIM}{cost}{_PLAIN}" if self._colour else cost
        self._above.append(f"{text}  {coloured}\n" if cost else f"{text}\n")

    def _draw_on(self) -> None:
        while not self._ended.wait(PERIOD):
            with self._lock:
                self._draw(running=True)

    def _draw(self, *, running: bool) -> None:
        width, height = _size(self._stream)
        rows = self._screen.lines(width, height) if running else []
        parts = [self._erasing(width + 1), *self._above]
        self._above.clear()
        parts += [f"{_DIM}{row}{_PLAIN}\n" if less and self._colour else f"{row}\n" for row, less in rows]
        self._drawn = [cells(row) for row, _ in rows]
        with suppress(OSError):  # a terminal that went away sees nothing more
            self._stream.write("".join(parts))
            self._stream.flush()

    def _erasing(self, columns: int) -> str:
        """What takes the last frame away; a terminal that became narrower has wrapped its lines."""
        if not self._drawn:
            return ""
        rows = sum(max(1, -(-count // columns)) for count in self._drawn)
        return f"\r\033[{rows}A\033[J"


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


def _name(blob: BlobProgress) -> str:
    return "layer" if blob.digest is None else blob.digest.encoded[:12]


def _moved(blob: BlobProgress) -> str:
    if not blob.total:
        return human_size(blob.offset)
    return f"{human_size(blob.offset)} of {human_size(blob.total)} {100 * blob.offset // blob.total:3}%"
