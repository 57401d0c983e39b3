"""The timeline of a session: what its commands wrote of themselves, put together, and as text, JSON and a page."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from builda.cli.format.table import align, human_size
from builda.cli.report.recording import SHORTEST, Build, Ending, ImageLayers, Step, Wait, user_of
from builda.display import displayed
from builda.events import step_name
from builda.session import trace
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WORDS = {True: "remembered", False: "done again", None: "not cached"}
_LAST = "verb_ended"
_MISSES = ("script_step", "step_missed")


class LockWait(NamedTuple):
    """Time that a command waited for something that another process was using. `began` is as in `Verb`."""

    what: str
    began: float
    seconds: float
    pid: int | None
    program: str
    command: int | None = None  # the number of the session's command that this process is, from 1

    @property
    def text(self) -> str:
        """The object that it waited for, and the process that used it."""
        user = user_of(self.pid, self.program) if self.command is None else f"command {self.command}"
        return f"{self.what}, used by {user}"


class Verb(NamedTuple):
    """One builda command of a session. Times are seconds; `began` counts from the begin of the session."""

    arguments: tuple[str, ...]  # secrets masked
    began: float
    seconds: float | None  # None: it was killed, or goes on
    status: int | None  # -N: signal N ended it
    place: str | None  # FILE:LINE of the script, if it is known
    is_push: bool  # a push that was put off, performed when the script had succeeded
    cached: bool | None  # None: its result is not looked for
    reason: str | None  # why its result was not found
    written: int  # bytes of blobs that it stored or unpacked here
    transferred: int  # bytes of blobs that it pulled or pushed
    message: str | None  # why it failed
    parts: tuple[str, ...]  # the steps of a build
    output: bytes
    lost: int  # bytes of output before that
    pid: int
    waits: tuple[LockWait, ...]

    @property
    def line(self) -> str:
        """The command as a shell would read it."""
        return shlex.join(self.arguments) + (" (put off until the script had succeeded)" if self.is_push else "")

    @property
    def is_failed(self) -> bool:
        """Whether it ended with an exit status other than 0."""
        return self.status not in (0, None)


class Timeline(NamedTuple):
    """A session: its script, when it began (seconds since 1970), what it took, its exit status, its commands.

    The status is None if the session was killed.
    """

    script: tuple[str, ...]
    began: float
    seconds: float
    status: int | None
    verbs: tuple[Verb, ...]


def timeline(place: str, wanted: trace.Wanted, status: int | None) -> Timeline:
    """Read the timeline of the session in `place`, whose script ended with `status`."""
    ends = trace.ends(place)
    verbs = tuple(filter(None, (_verb(path, wanted, ends) for path in trace.files(place))))
    verbs = tuple(verb._replace(waits=tuple(_resolved(wait, verbs) for wait in verb.waits)) for verb in verbs)
    now = time.monotonic() - wanted.moment
    if status is None:  # it was killed some time ago
        now = max((verb.began + (verb.seconds or 0.0) for verb in verbs), default=0.0)
    return Timeline(tuple(wanted.script), wanted.began, now, status, verbs)


def _verb(path: str, wanted: trace.Wanted, ends: Sequence[dict[str, Any]]) -> Verb | None:
    """The command that wrote the file `path`; None if it was killed before it wrote a line."""
    first, *said = tuple(trace.lines(path)) or ({},)
    if first.get("event") != "verb_started":
        return None
    began = first["at"]
    end = next(_named(said, _LAST), None)
    if end is None:
        end = next((one for one in ends if one["pid"] == first["pid"] and one["at"] >= began), None)
    finished, built = list(_named(said, "step_finished")), list(_named(said, "image_built"))
    output, lost = _output(path)
    return Verb(
        arguments=tuple(first["arguments"]),
        began=began - wanted.moment,
        seconds=None if end is None else end["at"] - began,
        status=None if end is None else int(end["status"]),
        place=first.get("place"),
        is_push=first["is_push"],
        cached=next((bool(one["cached"]) for one in (*built, *_named(said, "script_step"), *reversed(finished))), None),
        reason=next((one["reason"] for one in _named(said, *_MISSES) if one["reason"]), None),
        written=_moved(said, "unpack") + sum(one["bytes"] for one in _named(said, "layer_stored")),
        transferred=_moved(said, "pull", "push"),
        message=next((one["message"] for one in _named(said, "verb_failed")), None),
        parts=tuple(_parts(said)) if built or len(finished) > 1 else (),
        output=output,
        lost=lost,
        pid=first["pid"],
        waits=tuple(_waits(said, wanted, None if end is None else end["at"])),
    )


def _named(said: Iterable[dict[str, Any]], *events: str) -> Iterator[dict[str, Any]]:
    """The lines about events of these kinds."""
    return (one for one in said if one.get("event") in events)


def _waits(said: Sequence[dict[str, Any]], wanted: trace.Wanted, ended: float | None) -> Iterator[LockWait]:
    """The waits of a command. One that was not over went on until the command `ended`; None if that is not known."""
    open_: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for one in _named(said, trace.LOCK_WAITED):
        same = open_.setdefault((one["what"], one["pid"]), [])
        if not one["done"]:
            same.append(one)
            continue
        if same:
            same.pop()
        if one["seconds"] >= SHORTEST:
            yield _wait(one, one["at"] - one["seconds"], one["seconds"], wanted)
    for one in (one for same in open_.values() for one in same):
        yield _wait(one, one["at"], 0.0 if ended is None else ended - one["at"], wanted)


def _wait(said: Mapping[str, Any], began: float, seconds: float, wanted: trace.Wanted) -> LockWait:
    return LockWait(said["what"], began - wanted.moment, seconds, said["pid"], said["program"])


def _resolved(wait: LockWait, verbs: Sequence[Verb]) -> LockWait:
    """The wait with the number of the command whose process it waited for, if that is one of the session."""
    found = (
        number
        for number, verb in enumerate(verbs, 1)
        if verb.pid == wait.pid
        and verb.began <= wait.began
        and (verb.seconds is None or wait.began <= verb.began + verb.seconds)
    )
    return wait._replace(command=next(found, None))


def _moved(said: Iterable[dict[str, Any]], *actions: str) -> int:
    """The bytes of all blobs that moved."""
    ended = (one for one in _named(said, "blob_progress") if one["done"] and not one["reused"])
    return sum(one["offset"] for one in ended if one["action"] in actions)


def _parts(said: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The steps of a build, a line each."""
    texts = {(one["stage"], one["index"]): one["text"] for one in _named(said, "step_started")}
    for one in said:
        name = step_name(one.get("stage"), one.get("index", 0), one.get("total", 0))
        text = texts.get((one.get("stage"), one.get("index")), "").partition("\n")[0]
        if one.get("event") == "step_finished":
            yield f"{name} {text}: {'remembered' if one['cached'] else format(one['seconds'], '.2f') + ' s'}"
        elif one.get("event") == "step_failure":
            yield f"{name} {text}: {one['message'] or 'stopped'}"


def _output(path: str) -> tuple[bytes, int]:
    """The kept output of a command, and the number of bytes that were dropped before it."""
    found = b""
    for ending in reversed(trace.OUTPUTS):
        with suppress(FileNotFoundError), open(path.removesuffix(trace.COMMAND) + ending, "rb") as file:
            found += file.read()
    return found[-trace.KEPT :], max(0, len(found) - trace.KEPT)


def text_of(told: Timeline) -> str:
    """A line for each command, and one for the whole."""
    lines = ["START\tSECONDS\tWAITED\tSTATUS\tCACHE\tWRITTEN\tTRANSFERRED\tCOMMAND"]
    for verb in told.verbs:
        seconds = "?" if verb.seconds is None else f"{verb.seconds:.2f}"
        status = "?" if verb.status is None else str(verb.status)
        sizes = (human_size(size) if size else "-" for size in (verb.written, verb.transferred))
        line = displayed(verb.line).replace("\n", "\\n").replace("\t", "\\t")
        waited = f"{sum(wait.seconds for wait in verb.waits):.2f}" if verb.waits else "-"
        lines.append("\t".join((f"{verb.began:.2f}", seconds, waited, status, _WORDS[verb.cached], *sizes, line)))
    ended = "was killed" if told.status is None else f"ended with status {told.status}"
    count = "1 command" if len(told.verbs) == 1 else f"{len(told.verbs)} commands"
    script = displayed(shlex.join(told.script)).replace("\n", "\\n")
    waits = "".join(
        f"command {number} waited {wait.seconds:.2f} s for {displayed(wait.text)}\n"
        for number, verb in enumerate(told.verbs, 1)
        for wait in verb.waits
    )
    return f"{align(lines)}\n{waits}{count} in {told.seconds:.2f} s: {script} {ended}\n"


def json_of(told: Timeline) -> str:
    """One JSON object, in which texts act on nothing. What commands printed is not in it."""
    verbs = [
        {
            "arguments": verb.arguments,
            "place": verb.place,
            "start": round(verb.began, 6),
            "seconds": None if verb.seconds is None else round(verb.seconds, 6),
            "status": verb.status,
            "put_off": verb.is_push,
            "cached": verb.cached,
            "reason": verb.reason,
            "bytes_written": verb.written,
            "bytes_transferred": verb.transferred,
            "error": verb.message,
            "steps": verb.parts,
            "waits": [
                {
                    "what": wait.what,
                    "start": round(wait.began, 6),
                    "seconds": round(wait.seconds, 6),
                    "pid": wait.pid,
                    "program": wait.program,
                    "command": wait.command,
                }
                for wait in verb.waits
            ],
        }
        for verb in told.verbs
    ]
    whole = {
        "script": told.script,
        "began": round(told.began, 3),
        "seconds": round(told.seconds, 6),
        "status": told.status,
        "commands": verbs,
    }
    return json.dumps(whole, indent=4) + "\n"


def build_of(told: Timeline, images: Sequence[ImageLayers]) -> Build:
    """The session as a page shows it: commands that ran at the same time are in different rows."""
    rows = _rows(told.verbs)
    names: dict[str | None, str] = {
        str(row): "one after the other" if row == 0 else "at the same time" + (f", {row}" if row > 1 else "")
        for row in rows
    }
    total = len(told.verbs)
    steps = [
        _step(verb, str(row), f"{number}/{total}")
        for number, (verb, row) in enumerate(zip(told.verbs, rows, strict=True), 1)
    ]
    build = Build(steps=steps, seconds=told.seconds, images=tuple(images), noun="commands", row_names=names)
    match told.status:
        case None:
            build.ended = Ending("killed", is_good=False)
        case 0:
            build.ended = Ending("succeeded", is_good=True, facts=tuple(image.name for image in images))
        case status:
            build.ended = Ending("failed", is_good=False, facts=(f"exit status {status}",))
    return build


def _rows(verbs: Sequence[Verb]) -> list[int]:
    """The row of each command: the first in which nothing runs when it begins."""
    free: list[float] = []  # when the last command of each row ended
    found = []
    for verb in verbs:
        row = next((number for number, end in enumerate(free) if end <= verb.began), len(free))
        free[row : row + 1] = [verb.began + verb.seconds if verb.seconds is not None else float("inf")]
        found.append(row)
    return found


def _step(verb: Verb, row: str, name: str) -> Step:
    sizes = [
        f"{human_size(size)} {what}" for size, what in ((verb.written, "written"), (verb.transferred, "moved")) if size
    ]
    status = "its end is not known: it was killed" if verb.status is None else f"exit status {verb.status}"
    return Step(
        text=verb.line,
        name=name,
        began=verb.began,
        seconds=verb.seconds,
        row=row,
        place=verb.place,
        cached=bool(verb.cached),
        failure=(verb.message or status) if verb.is_failed else None,
        reason=verb.reason,
        size=verb.written + verb.transferred,
        facts=(", ".join((status, _WORDS[verb.cached], *sizes)), *verb.parts),
        output=bytearray(verb.output),
        lost=verb.lost,
        waits=[Wait(wait.began, wait.seconds, wait.text) for wait in verb.waits],
    )


def title_of(script: Sequence[str]) -> str:
    """The title of a page: the script without its directory."""
    first, *rest = script
    return shlex.join((os.path.basename(first), *rest))
