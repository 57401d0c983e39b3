"""The log of a build's pod: numbered lines of JSON, each an event, printed text, or how the build ended.

The numbers begin with 1 in each pod, so a reader that lost its connection reads some lines again and knows which.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping

from builda import events
from builda.errors import BuildaError, CommandFailed, ContainerfileError, StepFailed
from builda.events import Event
from builda.oci.digest import Digest
from builda.values import NamedTuple, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

LINE_LIMIT = 8 << 20
"""Bytes of one line. Command output comes in pieces far smaller."""
_SNAKE = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Printed(NamedTuple):
    """Text that the build wrote to standard output besides its events."""

    text: str


class Closed(NamedTuple):
    """Nothing of the steps follows: the image is published now, or the build ends. `outcome` is for the live view."""

    outcome: str


class Awaiting(NamedTuple):
    """The pod waits for its contexts, which the client that began the build sends through the API."""


class Wrote(NamedTuple):
    """A piece of what a script wrote to `stdout` or `stderr`, as it came."""

    stream: str
    data: bytes


class Returned(NamedTuple):
    """A piece of a file that the build made for its client; `name` is its path in the pod, `done` in the last piece."""

    name: str
    data: bytes
    done: bool


class Exited(NamedTuple):
    """The last line of a pod that ran a script: its exit status."""

    status: int


class Ended(NamedTuple):
    """The last line of a pod: the error that the build ended with, None if it ended well."""

    error: BuildaError | None
    is_last: bool = True
    """False when another pod is to try it again, as nothing is wrong with the build itself."""


Frame: TypeAlias = "Event | Printed | Wrote | Closed | Awaiting | Returned | Exited | Ended"


def to_line(number: int, frame: Frame) -> str:
    """The line, without its end."""
    return json.dumps({"n": number, **_to_json(frame)}, separators=(",", ":"))


def from_line(line: bytes) -> tuple[int, Frame] | None:
    """Number and content of a line; None for what is none of ours, such as the last words of an interpreter."""
    try:
        value = json.loads(line)
        number = value["n"]
        return (number, _from_json(value)) if isinstance(number, int) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error, BuildaError):
        return None


class Skipped(Exception):
    """Frames are missing in a stream that does not begin with the log's first line: an earlier beginning has them."""


class Reader:
    """Takes the bytes of a pod's log, perhaps some of them twice, and gives each frame once and in order."""

    def __init__(self) -> None:
        self._rest = b""
        self._is_whole = True
        self.last = 0
        """The number of the last frame that was given."""
        self.lost = 0
        """How many frames the log no longer has, because it was rotated."""
        self.strange: list[str] = []
        """The last lines that are no frames."""

    def again(self, *, is_whole: bool = True) -> None:
        """The stream broke and begins anew: with the first line that the node has, or after that."""
        self._rest = b""
        self._is_whole = is_whole

    def take(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data` and were not given before.

        Skipped if some are missing and a whole stream may have them.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT:
            self._rest = b""
        for line in lines:
            found = from_line(line)
            if found is None:
                self._note(line)
            elif found[0] > self.last:
                missing = found[0] - self.last - 1
                if missing and not self._is_whole:
                    raise Skipped
                self.lost += missing
                self.last = found[0]
                yield found[1]

    def _note(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if text and text not in self.strange:
            self.strange = [*self.strange[-9:], text]


def _to_json(frame: Frame) -> dict[str, Any]:
    match frame:
        case Awaiting() | Wrote() | Returned() | Exited():
            values = {name: _value_to_json(value) for name, value in frame._asdict().items()}
            return {"event": type(frame).__name__.lower(), **values}
        case Printed(text):
            return {"event": "printed", "text": text}
        case Closed(outcome):
            return {"event": "closed", "outcome": outcome}
        case Ended(error, is_last):
            return {"event": "ended", "error": None if error is None else _error_to_json(error), "last": is_last}
        case _:
            kind = _SNAKE.sub("_", type(frame).__name__).lower()
            return {"event": kind, **{name: _value_to_json(value) for name, value in values_of(frame).items()}}


def _value_to_json(value: object) -> object:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Digest):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


_EVENTS: Mapping[str, Any] = {
    _SNAKE.sub("_", name).lower(): one
    for name, one in vars(events).items()
    if isinstance(one, type) and hasattr(one, "_values") and one.__module__ == events.__name__
}


def _from_json(value: Mapping[str, Any]) -> Frame:
    match value["event"]:
        case "awaiting":
            return Awaiting()
        case "wrote":
            return Wrote(str(value["stream"]), _bytes(value["data"]))
        case "returned":
            return Returned(str(value["name"]), _bytes(value["data"]), value["done"] is True)
        case "exited":
            return Exited(int(value["status"]))
        case "printed":
            return Printed(str(value["text"]))
        case "closed":
            return Closed(str(value["outcome"]))
        case "ended":
            return Ended(None if value["error"] is None else _error_from_json(value["error"]), value["last"] is True)
        case kind:
            cls = _EVENTS[kind]
            types = cls.__annotations__
            event: Event = cls(**{name: _field(types[name], value[name]) for name in types if name in value})
            return event


def _field(annotation: str, value: object) -> object:
    if annotation == "bytes":
        return _bytes(value)
    if annotation.startswith("Digest"):
        return None if value is None else Digest.parse(str(value))
    return tuple(value) if isinstance(value, list) else value


def _bytes(value: object) -> bytes:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()


def _error_to_json(error: BuildaError) -> dict[str, Any]:
    placed = isinstance(error, ContainerfileError | StepFailed)
    return {
        "kind": "step" if isinstance(error, StepFailed) else "containerfile" if placed else "other",
        "message": str(error),
        "hint": error.hint,
        "status": error.exit_status,
        "file": getattr(error, "file", None) if placed else None,
        "line": getattr(error, "line", 0) if placed else 0,
        "excerpt": getattr(error, "excerpt", None) if placed else None,
        "output": list(getattr(error, "output", ())),
    }


def _error_from_json(value: Mapping[str, Any]) -> BuildaError:
    message, hint, status = str(value["message"]), value["hint"], int(value["status"])
    match value["kind"]:
        case "step":
            cause = CommandFailed(message, status=status, hint=hint)
            failure = StepFailed(
                message, cause=cause, file=value["file"], line=value["line"], output=tuple(value["output"]), hint=hint
            )
            failure.excerpt = value["excerpt"]
            return failure
        case "containerfile":
            return ContainerfileError(
                message, file=value["file"], line=value["line"], excerpt=value["excerpt"], hint=hint
            )
        case _:
            error = BuildaError(message, hint=hint)
            error.exit_status = status
            return error
