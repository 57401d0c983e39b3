"""A build as it is watched: Buildah's lines on stdout; on stderr a line for each finished step, or the live view."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

from builda.cli.progress.ledger import Ledger
from builda.display import displayed
from builda.errors import BuildaError, ContainerfileError, InvalidValue, StepFailed
from builda.events import (
    BlobProgress,
    BuildFailed,
    CommandOutput,
    Event,
    ImageBuilt,
    LayerStored,
    StageSaved,
    StepFinished,
    StepMissed,
    StepStarted,
    Warned,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from builda.builder.execution.buildoptions import Built
    from builda.cli.progress.live import Live
    from builda.cli.progress.observer import Observer

PROGRESS = ("auto", "plain", "tty")


def wants_live(
    progress: str, stream: TextIO, environ: Mapping[str, str], *, quiet: bool, verbose: bool = False
) -> bool:
    """Whether a build is shown live on `stream`; InvalidValue when that is asked for and cannot be.

    `verbose`: many lines are printed besides, so that `auto` means none.
    """
    if progress not in PROGRESS:
        raise InvalidValue(f"unknown --progress: {progress}", hint=f"it is {', '.join(PROGRESS)}")
    able = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
    if progress == "tty" and not able:
        raise InvalidValue("--progress=tty needs a terminal on standard error", hint="auto and plain need none")
    return able and not quiet and progress != "plain" and not (verbose and progress == "auto")


def ended(built: Built, names: tuple[str, ...], began: float) -> ImageBuilt:
    """The event of a build that ended well."""
    image = built.image
    seconds = time.monotonic() - began
    return ImageBuilt(id=image.id, digest=image.digest, names=names, cached=built.cached, seconds=seconds)


def failed(error: BuildaError, began: float) -> BuildFailed:
    """The event of a build that ended with `error`."""
    placed = isinstance(error, ContainerfileError | StepFailed) and error.file is not None
    return BuildFailed(
        message=str(error),
        status=error.exit_status,
        seconds=time.monotonic() - began,
        hint=error.hint,
        file=getattr(error, "file", None) if placed else None,
        line=getattr(error, "line", None) if placed else None,
    )


class BuildView:
    """Shows the events of one build; `close` ends the live view, after which blobs and warnings go on being shown."""

    def __init__(self, lines: Lines | None, live: Live | None, others: Observer, *, quiet: bool) -> None:
        self._misses: list[StepMissed] = []
        self._quiet = quiet
        self._lines = lines
        self._live = live
        self._others = others

    def show(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, StepMissed) and event.is_asked and not self._quiet:
            self._misses.append(event)
        if self._lines is not None:
            self._lines.show(event)
        if self._live is not None:
            self._live.show(event)
        elif isinstance(event, BlobProgress | Warned):
            self._others.show(event)

    def close(self, outcome: str) -> None:
        """The build is over: it was `built`, has `failed` or was `interrupted`. Nothing moves any more.

        Why steps were not found comes now, for a build that failed too: in between it would part a step's lines.
        """
        if self._live is not None:
            live, self._live = self._live, None
            live.close(outcome)
        if self._lines is not None:
            self._lines.close()
        misses, self._misses = self._misses, []
        for miss in misses:
            sys.stdout.write(displayed(f"--> not remembered: {miss.text}: {miss.reason}") + "\n")
        sys.stdout.flush()


def build_view(
    others: Observer,
    *,
    live: bool,
    quiet: bool,
    mixed: bool,
    remembers: bool,
    warnings: bool,
    environ: Mapping[str, str],
) -> BuildView:
    """The view of one build, to be closed; `others` shows blobs and warnings where the live view does not.

    `mixed`: stages may run side by side. `remembers`: the results of steps are kept for the next build.
    """
    if not live:
        return BuildView(Lines(sys.stdout, sys.stderr, quiet=quiet, mixed=mixed), None, others, quiet=quiet)
    from builda.cli.progress.live import Live

    lines = None if sys.stdout.isatty() else Lines(sys.stdout, None, quiet=False, mixed=mixed, passes=("stdout",))
    colour = not environ.get("NO_COLOR")
    return BuildView(
        lines, Live(sys.stderr, colour=colour, warnings=warnings, remembers=remembers), others, quiet=quiet
    )


def stage_prefix(stage: str | None) -> str:
    """Platform and stage as Buildah puts them in front of a line: `[linux/amd64] [1/2] `."""
    return "".join(f"[{word}] " for word in (stage or "").split())


class Lines:
    """Buildah's lines on `out`, what finished steps took on `err` (None: told elsewhere).

    Where stages are `mixed`, their commands' output comes in whole lines, each with its stage in front.
    """

    def __init__(
        self,
        out: TextIO,
        err: TextIO | None,
        *,
        quiet: bool,
        mixed: bool = False,
        passes: tuple[str, ...] = ("stdout", "stderr"),
    ) -> None:
        self._mixed = mixed
        self._begun: dict[tuple[str | None, str], bytes] = {}  # lines without an end, by stage and stream
        self._out = out
        self._err = err
        self._quiet = quiet
        self._passes = passes
        self._ledger = Ledger()

    def show(self, event: Event) -> None:
        """Print what `event` says."""
        match event:
            case StepStarted() if not self._quiet:
                self._print(f"{stage_prefix(event.stage)}STEP {event.index}/{event.total}: {event.text}")
            case StepFinished(cached=True) if event.index > 1 and not self._quiet:
                self._print(f"{stage_prefix(event.stage) if self._mixed else ''}--> Using cache")
            case StageSaved() if not self._quiet:
                self._print(f"{stage_prefix(event.stage)}COMMIT")
                self._print(f"--> {event.id.encoded[:12]}")
            case CommandOutput(shown=False) if event.stream in self._passes and not (
                self._quiet and event.stream == "stdout"
            ):
                self._pass_on(event)
            case _:
                pass
        if isinstance(event, StepFinished):
            self._end_lines(event.stage)
        if isinstance(event, StepStarted | StepFinished | LayerStored):
            self._tell(event)

    def close(self) -> None:
        """Print the steps whose layers are still being stored, and what commands wrote without a line's end."""
        for stage, _ in list(self._begun):
            self._end_lines(stage)
        for done in self._ledger.rest():
            self._say(f"{done.head} done: {done.cost}")

    def _pass_on(self, event: CommandOutput) -> None:
        if not self._mixed or event.stage is None:
            _write(event.stream, event.data)
            return
        key = event.stage, event.stream
        *lines, self._begun[key] = (self._begun.get(key, b"") + event.data).split(b"\n")
        if lines:
            _write(event.stream, b"".join(b"[%b] %b\n" % (event.stage.encode(), line) for line in lines))

    def _end_lines(self, stage: str | None) -> None:
        for key in [key for key in self._begun if key[0] == stage]:
            if line := self._begun.pop(key):
                _write(key[1], b"[%b] %b\n" % (str(stage).encode(), line))

    def _tell(self, event: Event) -> None:
        for done in self._ledger.note(event):
            if done.works and not done.cached:
                self._say(f"{done.head} done: {done.cost}")

    def _say(self, line: str) -> None:
        if self._err is not None and not self._quiet:
            self._err.write(line + "\n")
            self._err.flush()

    def _print(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()


def _write(stream: str, data: bytes) -> None:
    file = sys.stdout if stream == "stdout" else sys.stderr
    file.flush()
    try:
        while data:
            data = data[os.write(file.fileno(), data) :]
    except OSError as error:
        error.filename = f"standard {'output' if stream == 'stdout' else 'error'}"
        raise
