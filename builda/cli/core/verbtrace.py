"""The record that one command of a traced session writes: its words, its events, its output, and its exit status."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from builda import jsontext
from builda.cli.progress.observer import json_of, with_texts
from builda.display import without_passwords
from builda.events import BlobProgress, CommandOutput, Decided, LockWaited, WorkProgress
from builda.scriptlint.secretwords import masked
from builda.session import trace
from builda.values import values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from builda.events import Event


class VerbTrace:
    """An observer that writes the file of this process's command. What it cannot write is missing in the trace only."""

    def __init__(self, path: str, *, keeps_output: bool) -> None:
        self.keeps_output = keeps_output
        """Whether what the command prints is to be kept."""
        self._path = path
        self._process = os.getpid()

    def begin(self, arguments: Sequence[str], *, is_push: bool, place: str | None) -> None:
        """Write what the command is, and its `place` in the script.

        `is_push` if a push that was put off is performed now.
        """
        words = [without_passwords(word) for word in masked(arguments)]
        said = {"arguments": words, "pid": self._process, "is_push": is_push, "place": place}
        self._write({"event": "verb_started", **said})

    def show(self, event: Event) -> None:
        """Write one event, unless it tells of progress only."""
        if isinstance(event, CommandOutput):
            if event.shown:
                self.say(event.data)
        elif isinstance(event, LockWaited):
            self._write({"event": trace.LOCK_WAITED, **values_of(event)})
        elif not (isinstance(event, Decided) or (isinstance(event, BlobProgress | WorkProgress) and not event.done)):
            self._append(self._path, json_of(with_texts(event, without_passwords)).encode() + b"\n")

    def say(self, data: bytes) -> None:
        """Keep what the command printed: at least the last trace.KEPT bytes of it, at most twice as many."""
        newest, before = (self._path.removesuffix(trace.COMMAND) + ending for ending in trace.OUTPUTS)
        with suppress(OSError):
            if os.path.getsize(newest) + len(data) > trace.KEPT:
                os.replace(newest, before)
        self._append(newest, data[-trace.KEPT :])

    def fail(self, message: str) -> None:
        """Write why the command fails."""
        self._write({"event": "verb_failed", "message": without_passwords(message)})

    def end(self, status: int) -> None:
        """Write the exit status."""
        self._write({"event": "verb_ended", "status": status})

    def _write(self, said: Mapping[str, Any]) -> None:
        text = jsontext.dumps({**said, "at": time.monotonic()})
        self._append(self._path, text.encode() + b"\n")

    def _append(self, path: str, data: bytes) -> None:
        if os.getpid() != self._process:  # forked for other work
            return
        with suppress(OSError):
            trace.append(path, data)


def verb_trace(directory: str, arguments: Sequence[str], *, is_push: bool) -> VerbTrace | None:
    """The trace of this process's command, begun; None if the session in `directory` is not traced."""
    wanted = trace.wanted(directory)
    if wanted is None:
        return None
    found = VerbTrace(trace.new_file(directory), keeps_output=wanted.keeps_output)
    found.begin(arguments, is_push=is_push, place=None if is_push else _place_of(arguments))
    return found


def _place_of(arguments: Sequence[str]) -> str | None:
    from builda.session.scriptplace import place_of

    return place_of(os.environ, arguments)
