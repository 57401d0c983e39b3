"""What events look like: lines without a terminal, bars on one, JSON for programs."""

from __future__ import annotations

import io
import json
import os
import pty
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.cli.progress.observer import BAR_LIMIT, Lines, observer
from builda.events import (
    BlobProgress,
    CommandOutput,
    Event,
    ImageMoved,
    StepFinished,
    StepStarted,
    Warned,
    WorkProgress,
)
from builda.oci.digest import Digest

DIGEST = Digest.of(b"x")


def blob(offset: int, *, total: int = 3_400_000, done: bool = False, reused: bool = False) -> BlobProgress:
    return BlobProgress(action="pull", digest=DIGEST, offset=offset, total=total, done=done, reused=reused)


def shown(*events: Event, quiet: bool = False, warnings: bool = True) -> str:
    stream = io.StringIO()
    with observer(stream, quiet=quiet, warnings=warnings, events=None, environ={}) as watching:
        for event in events:
            watching.show(event)
    return stream.getvalue()


def test_a_blob_has_one_line_when_it_is_done() -> None:
    clock: Iterator[float] = iter([10.0, 12.5])
    stream = io.StringIO()
    lines = Lines(stream, lambda: next(clock))
    for event in (blob(0), blob(1000), blob(3_400_000, done=True)):
        lines.show(event)
    assert stream.getvalue() == f"pull {DIGEST.encoded[:12]} 3.4 MB in 2.50s (1.36 MB/s)\n"


@pytest.mark.parametrize(
    ("blobs", "reused", "seconds", "said"),
    [
        (3, 2, 2.0, "pull 3 blobs, 9 MB in 2.00s (4.5 MB/s), 2 already there\n"),
        (2, 0, 0.01, "pull 2 blobs, 9 MB in 0.01s\n"),
        (1, 2, 2.0, ""),
        (0, 2, 2.0, ""),
    ],
)
def test_the_end_of_a_pull_says_how_much_it_was_in_all(blobs: int, reused: int, seconds: float, said: str) -> None:
    event = ImageMoved(action="pull", blobs=blobs, size=9_000_000, reused=reused, seconds=seconds)
    assert shown(event) == said


def test_no_time_is_told_that_was_not_taken() -> None:
    assert shown(blob(3_400_000, done=True)) == f"pull {DIGEST.encoded[:12]} 3.4 MB\n"


def test_what_was_there_says_so() -> None:
    assert shown(blob(0, done=True, reused=True)) == f"pull {DIGEST.encoded[:12]} already there\n"


def test_steps_have_a_line_at_either_end() -> None:
    assert shown(
        StepStarted(index=1, total=2, text="RUN x", stage="base"),
        StepFinished(index=1, total=2, cached=False, seconds=0.123, stage="base"),
        StepFinished(index=2, total=2, cached=True, seconds=0.0),
    ).splitlines() == ["[base] 1/2 RUN x", "[base] 1/2 done: 0.12s", "2/2 done: cached"]


def test_the_output_of_commands_passes_as_it_is() -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    Lines(stream).show(CommandOutput(data=b"\xff\n", stream="stdout"))
    assert stream.buffer.getvalue() == b"\xff\n"


def test_quiet_is_quiet_but_warns() -> None:
    said = shown(blob(0, done=True), Warned(message="odd", hint="look"), Warned(message="odd"), quiet=True)
    assert said == "warning: odd\nhint: look\n"


def test_warnings_can_be_switched_off() -> None:
    assert shown(Warned(message="odd"), warnings=False) == ""


def test_events_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with (
        open(path, "wb") as file,
        observer(io.StringIO(), quiet=True, warnings=False, events=file.fileno(), environ={}) as watching,
    ):
        watching.show(blob(5))
        watching.show(CommandOutput(data=b"\xff", stream="stderr"))
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["event"] == "blob_progress"
    assert (first["digest"], first["offset"]) == (str(DIGEST), 5)
    assert (second["event"], second["data"]) == ("command_output", "\\xff")


def test_a_reader_of_events_may_go_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with observer(io.StringIO(), quiet=True, warnings=False, events=writer, environ={}) as watching:
        watching.show(blob(1))
        watching.show(blob(2))
    os.close(writer)


@pytest.fixture
def terminal() -> Iterator[tuple[io.TextIOWrapper, int]]:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with open(slave, "w", encoding="utf-8") as stream:
        yield stream, master
    os.close(master)


def test_a_terminal_shows_bars_for_large_blobs_only(terminal: tuple[io.TextIOWrapper, int]) -> None:
    stream, master = terminal
    with observer(stream, quiet=False, warnings=True, events=None, environ={"NO_COLOR": "1"}) as watching:
        watching.show(blob(1, total=BAR_LIMIT - 1))
        watching.show(blob(0, total=4 * BAR_LIMIT))
        watching.show(blob(4 * BAR_LIMIT, total=4 * BAR_LIMIT, done=True))
        stream.write("end\n")
    said = ""
    while "end" not in said:  # a read returns what has arrived
        said += os.read(master, 65536).decode()
    assert "100%" in said
    assert said.count("pull") >= 1
    assert "\033[3" not in said  # no colour


def test_a_terminal_shows_bars_for_work_that_takes_long(terminal: tuple[io.TextIOWrapper, int]) -> None:
    stream, master = terminal
    with observer(stream, quiet=False, warnings=True, events=None, environ={"NO_COLOR": "1"}) as watching:
        for total, offset in ((None, 10), (9_000_000, 4_500_000), (9_000_000, 9_000_000)):
            done = offset == total
            watching.show(WorkProgress(work="store", subject="app", offset=offset, total=total, done=done))
        stream.write("end\n")
    said = ""
    while "end" not in said:
        said += os.read(master, 65536).decode()
    assert "store app: 100%" in said
    assert "9.00M/9.00M" in said


def test_without_a_terminal_nothing_is_said_of_such_work() -> None:
    assert shown(WorkProgress(work="copy", subject="app", offset=1, total=1, done=True)) == ""
