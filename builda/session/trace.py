"""The trace of a session, in its directory: what is to be written of it, and a file of each command that it runs.

A command writes its file itself, line by line, so that whatever ends it, what it did until then is known. There is no
directory of traces unless the session is traced, which is all that a command asks.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress

from builda.linux import private
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_DIRECTORY = "trace"
_WANTED = "wanted.json"
_ENDED = "ended"
LOCK_WAITED = "lock_waited"
"""The event of a command that waits for something that another one is using: when that begins, and when it is over."""
COMMAND = ".jsonl"
"""How the names of the commands' files end. What a command printed is in files beside it."""
KEPT = 256 << 10
"""Bytes of what a command printed that are kept: its last ones."""
OUTPUTS = (".out", ".out-before")
"""Endings of the files with what a command printed: the newest bytes, and those before them."""


class Wanted(NamedTuple):
    """The traces to write when the session has ended: files by path, each with its format: text, json or html."""

    files: dict[str, str]
    script: list[str]
    began: float  # seconds since 1970
    moment: float  # the same moment by the clock that only goes on

    @property
    def keeps_output(self) -> bool:
        """Whether what commands print is to be kept."""
        return "html" in self.files.values()


def begin(place: str, wanted: Wanted) -> None:
    """Make commands of the session in `place` write a trace from now on."""
    temporary = f"{place}/{_WANTED}"
    with open(temporary, "x", encoding="utf-8", errors="surrogateescape", opener=private.opener) as file:
        json.dump(wanted._asdict(), file)
    private.make(f"{place}/{_DIRECTORY}")
    os.rename(temporary, f"{place}/{_DIRECTORY}/{_WANTED}")


def wanted(place: str) -> Wanted | None:
    """The traces to write of the session in `place`; None if it is not traced, or ended before the trace began."""
    try:
        with open(f"{place}/{_DIRECTORY}/{_WANTED}", encoding="utf-8", errors="surrogateescape") as file:
            return Wanted(**json.load(file))
    except FileNotFoundError:
        return None


def new_file(place: str) -> str:
    """The path for the file of a command of this process, which sorts behind those of earlier commands."""
    return f"{place}/{_DIRECTORY}/{time.monotonic_ns():020}-{os.getpid()}{COMMAND}"


def note_end(place: str, pid: int, status: int) -> None:
    """Note that a process of the session ended with this wait status: one that was killed says nothing itself."""
    line = json.dumps({"pid": pid, "at": time.monotonic(), "status": os.waitstatus_to_exitcode(status)})
    with (
        suppress(OSError),  # the trace lacks it; the command's client is told
        open(f"{place}/{_DIRECTORY}/{_ENDED}", "a", encoding="utf-8", opener=private.opener) as file,
    ):
        file.write(line + "\n")


def append(path: str, data: bytes) -> None:
    """Write to the end of a command's file, which is made if it is missing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with open(path, "ab", buffering=0, opener=lambda name, _: private.opener(name, flags)) as file:
        file.write(data)


def files(place: str) -> Iterator[str]:
    """The paths of the commands' files, in the order in which the commands began."""
    names = sorted(name for name in os.listdir(f"{place}/{_DIRECTORY}") if name.endswith(COMMAND))
    yield from (f"{place}/{_DIRECTORY}/{name}" for name in names)


def ends(place: str) -> list[dict[str, Any]]:
    """The ends that `note_end` noted, oldest first: pid, moment and exit status, -N for signal N."""
    return list(lines(f"{place}/{_DIRECTORY}/{_ENDED}"))


def lines(path: str) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines; what a kill left of a last line is not one."""
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError):
                yield json.loads(line)
