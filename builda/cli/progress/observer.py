"""Events as the user sees them: bars on a terminal, one line per finished thing elsewhere, lines of JSON for programs.

Everything goes to stderr (or to the descriptor of `--events`): stdout is for results.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock  # threading takes a millisecond to import
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fcntl import F_GETFL, fcntl

from builda.display import displayed, without_passwords
from builda.errors import InvalidValue
from builda.events import (
    BlobProgress,
    CommandOutput,
    Decided,
    Event,
    ImageMoved,
    ScriptStep,
    StepFinished,
    StepStarted,
    Warned,
    WorkProgress,
)
from builda.values import Protocol, replace, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, TextIO

    from tqdm import tqdm

BAR_LIMIT = 1 << 20
"""A blob smaller than this is there before a bar for it could be read."""

_SHORT = 0.05  # seconds, below which a rate would say nothing


WORK: Mapping[str, str] = {
    "read": "reading",
    "copy": "copying",
    "extract": "extracting",
    "store": "storing the layer of",
}
"""What the live view calls work, by its name in events."""


class Observer(Protocol):
    """Something that shows events, one at a time."""

    def show(self, event: Event) -> None:
        """Show one event."""


class Writable(Protocol):
    """A stream that text is written to."""

    def write(self, text: str, /) -> object:
        """Take `text`."""

    def flush(self) -> None:
        """Let what was taken be seen."""


@contextmanager
def observer(
    stream: TextIO,
    *,
    quiet: bool,
    warnings: bool,
    events: int | None,
    environ: Mapping[str, str],
    traces: bool = False,
    place: Callable[[], str | None] | None = None,
) -> Iterator[Together]:
    """The observer for this stream, these options and this environment; safe for many threads.

    `place` says where the script has this command.
    """
    with ExitStack() as stack:
        shown: list[Observer] = []
        if warnings:
            watched = stream.isatty()
            colour = watched and not environ.get("NO_COLOR")
            shown.append(Warnings(stream, colour=colour, quiet=quiet, watched=watched))
        if not quiet and stream.isatty():
            shown.append(stack.enter_context(_bars(stream, colour=not environ.get("NO_COLOR"), place=place)))
        elif not quiet:
            shown.append(Lines(stream, place=place))
        programs = None if events is None else JsonLines(events)
        yield Together(shown, programs, Traces(stream) if traces else None)


class Together:
    """Several observers as one; one event at a time. `replace` puts another in the place of those for people."""

    def __init__(self, people: Sequence[Observer], programs: Observer | None, traces: Observer | None = None) -> None:
        self._people = tuple(people)
        self._programs = () if programs is None else (programs,)
        self._traces = traces
        self._lock = allocate_lock()

    def show(self, event: Event) -> None:
        """Show one event to all, without what acts on a terminal (to people) and without passwords (to all)."""
        with self._lock:
            if self._traces is not None and isinstance(event, Decided):
                self._traces.show(with_texts(event, displayed))
            elif self._people:
                seen = with_texts(event, displayed)
                for one in self._people:
                    one.show(seen)
            if self._programs:
                told = with_texts(event, without_passwords)
                for one in self._programs:
                    one.show(told)

    def add(self, program: Observer) -> None:
        """Let a program see all events too, from now on."""
        self._programs = (*self._programs, program)

    def replace(self, make: Callable[[Observer], Observer]) -> None:
        """Let people see events through the observer that `make` makes of what they saw them through."""
        self._people = (make(Together(self._people, None)),)


def with_texts(event: Event, change: Callable[[str], str]) -> Event:
    """The event with each of its texts changed; what commands write is theirs and stays."""
    if isinstance(event, BlobProgress | CommandOutput):
        return event
    texts = values_of(event)
    changed = {name: _changed(text, change) for name, text in texts.items() if isinstance(text, str | tuple)}
    differs = {name: text for name, text in changed.items() if text != texts[name]}
    return replace(event, **differs) if differs else event


def _changed(value: object, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    return tuple(change(one) for one in value) if type(value) is tuple else value  # a digest is another kind of tuple


class Traces:
    """Prints what was decided, a line each."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream

    def show(self, event: Event) -> None:
        """Print `event` when it is a decision."""
        if isinstance(event, Decided):
            self._stream.write(f"{event.subject}: {event.message}\n")
            self._stream.flush()


class Warnings:
    """Prints warnings, each once; when `quiet`, none of the build checks'. Notes appear on a terminal only.

    Scripts compare what a verb prints with what Buildah prints.
    """

    def __init__(self, stream: Writable, *, colour: bool, quiet: bool, watched: bool = False) -> None:
        self._quiet = quiet
        self._watched = watched
        self._stream = stream
        self._word = "\033[33mwarning\033[0m" if colour else "warning"
        self._said: set[object] = set()

    def show(self, event: Event) -> None:
        """Print `event` when it is a warning that was not printed before."""
        key = (event.message, event.file, event.line) if isinstance(event, Warned) else None
        if isinstance(event, Warned) and key not in self._said and not (event.check and self._quiet):
            if event.note and not self._watched:
                return
            self._said.add(key)
            self._stream.write(self._text(event))
            self._stream.flush()

    def _text(self, event: Warned) -> str:
        if event.check is not None:
            return f"{event.file}:{event.line}: {event.check}: {event.message}\n"
        lines = [f"{self._word}: {event.message}", *([f"hint: {event.hint}"] if event.hint else ())]
        return "".join(line.replace("\n", "\n  ") + "\n" for line in lines)


class Lines:
    """One line for each blob or step that is done, with its seconds and bytes; no bars, no colours."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        place: Callable[[], str | None] | None = None,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._place = place
        self._begun: dict[tuple[str, object], float] = {}

    def show(self, event: Event) -> None:
        """Print a line when `event` ends something; pass the output of commands on."""
        match event:
            case BlobProgress():
                self._blob(event)
            case ImageMoved():
                self._moved(event)
            case StepStarted():
                stage = f"[{event.stage}] " if event.stage else ""
                self._say(f"{stage}{event.index}/{event.total} {event.text}")
            case StepFinished():
                what = "cached" if event.cached else f"{event.seconds:.2f}s"
                stage = f"[{event.stage}] " if event.stage else ""
                self._say(f"{stage}{event.index}/{event.total} done: {what}")
            case ScriptStep():
                self._script_step(event)
            case CommandOutput(shown=False):
                _pass_on(event, self._stream)
            case _:
                pass

    def _blob(self, event: BlobProgress) -> None:
        key = (event.action, event.digest)
        if not event.done:
            if key not in self._begun:
                self._begun[key] = self._clock()
            return
        begun = self._begun.pop(key, None)
        if event.action == "unpack":  # Buildah has nothing to say of it, and scripts capture what `from` prints
            return
        size = "already there" if event.reused else _bytes(event.offset)
        took = "" if event.reused or begun is None else _took(event.offset, self._clock() - begun)
        self._say(f"{event.action} {_short(event)} {size}{took}")

    def _script_step(self, event: ScriptStep) -> None:
        if event.cached:
            self._say(f"--> cached: {event.text}")
        elif event.is_asked:
            place = None if self._place is None else self._place()
            where = "" if place is None else f"{displayed(place)}: "
            self._say(f"--> not cached: {where}{event.text}: {event.reason}")

    def _moved(self, event: ImageMoved) -> None:
        if event.blobs > 1:  # one has said it all
            there = f", {event.reused} already there" if event.reused else ""
            took = _took(event.size, event.seconds)
            self._say(f"{event.action} {event.blobs} blobs, {_bytes(event.size)}{took}{there}")

    def _say(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class Bars(Lines):
    """A tqdm bar for each large blob that moves, and for work that takes long; steps get their lines.

    A blob that is small or was there gets none.
    """

    def __init__(self, stream: TextIO, *, colour: bool, place: Callable[[], str | None] | None = None) -> None:
        super().__init__(stream, place=place)
        self._bars: dict[tuple[str, object], tqdm[Any]] = {}
        self._colour = "green" if colour else None

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, WorkProgress):
            self._move((event.work, event.subject), event, f"{event.work} {_end_of(event.subject)}")
        else:
            super().show(event)

    def close(self) -> None:
        """Take down the bars of what did not come to its end."""
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()

    def _blob(self, event: BlobProgress) -> None:
        key = (event.action, event.digest)
        if key in self._bars or not (event.done or (event.total or 0) < BAR_LIMIT):
            self._move(key, event, f"{event.action} {_short(event)}")

    def _move(self, key: tuple[str, object], event: BlobProgress | WorkProgress, what: str) -> None:
        bar = self._bars.get(key)
        if bar is None:
            bar = self._bars[key] = self._new_bar(event, what)
        bar.total = event.total
        bar.update(event.offset - bar.n)
        if event.done:
            bar.close()
            del self._bars[key]

    def _new_bar(self, event: BlobProgress | WorkProgress, what: str) -> tqdm[Any]:
        from tqdm import tqdm  # 50 ms, for people only

        return tqdm(
            desc=what,
            total=event.total,
            initial=event.offset,
            unit="B",
            unit_scale=True,
            file=self._stream,
            colour=self._colour,
            dynamic_ncols=True,
        )

    def _say(self, line: str) -> None:
        if not self._bars:
            super()._say(line)
            return
        from tqdm import tqdm

        tqdm.write(line, file=self._stream)


@contextmanager
def _bars(stream: TextIO, *, colour: bool, place: Callable[[], str | None] | None) -> Iterator[Bars]:
    bars = Bars(stream, colour=colour, place=place)
    try:
        yield bars
    finally:
        bars.close()


class JsonLines:
    """Every event as one JSON object per line, with its kind under "event" and the seconds since 1970 under "time".

    InvalidValue when the descriptor cannot be written to. Commands that run do not inherit it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        try:
            writable = fcntl(descriptor, F_GETFL) & os.O_ACCMODE != os.O_RDONLY
            os.set_inheritable(descriptor, False)
        except OSError:
            writable = False
        if not writable:
            hint = f"open one in the shell, as in: builda --events {descriptor} … {descriptor}>events.json"
            raise InvalidValue(f"--events names no descriptor that is open for writing: {descriptor}", hint=hint)

    def show(self, event: Event) -> None:
        """Write one line; a reader that went away is told nothing more."""
        left = json_of(event).encode() + b"\n"
        while left and self._descriptor is not None:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BrokenPipeError:
                self._descriptor = None


def json_of(event: Event) -> str:
    """An event as one JSON object on one line."""
    import json
    import re

    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    values = {name: _json_value(value) for name, value in values_of(event).items()}
    return json.dumps({"event": kind, "time": round(time.time(), 3), **values}, separators=(",", ":"))


def _json_value(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if type(value) is tuple:  # a digest is one too, of its own type
        return [_json_value(item) for item in value]
    if isinstance(value, float):
        return round(value, 6)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _pass_on(event: CommandOutput, stream: TextIO) -> None:
    out: IO[bytes] | None = getattr(stream, "buffer", None)
    with suppress(BrokenPipeError):
        if out is None:
            stream.write(event.data.decode(errors="replace"))
        else:
            out.write(event.data)
        stream.flush()


def _short(event: BlobProgress) -> str:
    return event.digest.encoded[:12] if event.digest is not None else "layer"


def _end_of(subject: str, length: int = 30) -> str:
    """A name, or the end of a long one, so that there is room for a bar beside it."""
    return subject if len(subject) <= length else f"…{subject[1 - length :]}"


def _took(count: int, seconds: float) -> str:
    """The duration of moving `count` bytes, with the rate unless it was too short for one."""
    rate = f" ({_bytes(int(count / seconds))}/s)" if seconds >= _SHORT else ""
    return f" in {seconds:.2f}s{rate}"


def _bytes(count: int) -> str:
    from builda.cli.format.table import human_size

    return human_size(count)
