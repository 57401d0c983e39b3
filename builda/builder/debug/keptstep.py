"""A failed step as it is noted: what its command would have had, and where it was written. JSON, and back."""

from __future__ import annotations

import json

from builda.errors import BuildaError, InvalidValue
from builda.mounts import mount_text, parse_mount
from builda.plan import Context as BuildContext
from builda.plan import FromContainer, FromImage, FromStage, NamedContext, Run, RunOptions
from builda.values import NamedTuple, values_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.plan import RunMount, Source

_CONTAINER, _IMAGE, _CONTEXT = "container:", "image:", "context:"


class KeptStep(NamedTuple):
    """A step that failed, or that a build stopped before."""

    run: Run  # what a command of the step has; without arguments if the step is none
    text: str  # the instruction or the command
    number: str = ""  # 2/5, with the stage before it if there are several
    place: str = ""  # FILE:LINE
    error: str | None = None  # None: it was not begun
    context: str | None = None  # the directory of the build context, if it is this machine's own
    named: tuple[tuple[str, str], ...] = ()  # the same of named contexts
    in_build: bool = True  # commands see no name of the container

    @property
    def title(self) -> str:
        """Step, text and place on one line."""
        first = self.text.partition("\n")[0]
        short = f"{first[:80]}…" if len(first) > 80 or "\n" in self.text else first
        where = f" ({self.place})" if self.place else ""
        number = f"step {self.number}: " if self.number else ""
        return f"{number}{short}{where}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The IDs of the secrets that its mounts ask for."""
        return _ids(self.run, "secret")

    @property
    def agents(self) -> tuple[str, ...]:
        """The IDs of the ssh agents that its mounts ask for."""
        return _ids(self.run, "ssh")


def _ids(run: Run, kind: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(mount.id or "default" for mount in run.mounts if mount.type == kind))


def to_json(kept: KeptStep) -> dict[str, Any]:
    """What a note holds; sources of mounts are no stages any more."""
    run = kept.run
    return {
        "text": kept.text,
        "number": kept.number,
        "place": kept.place,
        "error": kept.error,
        "context": kept.context,
        "named": dict(kept.named),
        "in_build": kept.in_build,
        "args": list(run.args),
        "env": dict(run.env),
        "user": run.user,
        "working_dir": run.working_dir,
        "mounts": [mount_text(mount, _source_text(mount.from_)) for mount in run.mounts],
        "options": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values_of(run.options).items()
            if value not in (None, ())
        },
    }


def _source_text(source: Source) -> str | None:
    match source:
        case FromContainer(name):
            return f"{_CONTAINER}{name}"
        case FromImage(name):
            return f"{_IMAGE}{name}"
        case NamedContext(name):
            return f"{_CONTEXT}{name}"
        case BuildContext():
            return None
        case FromStage():
            raise AssertionError("stages end with their build")


def from_text(text: str) -> KeptStep:
    """The step in the text of a JSON object; InvalidValue if it is none. It may come from strangers."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValue("not the note of a failed step") from error
    if not isinstance(value, dict):
        raise InvalidValue("not the note of a failed step")
    return from_json(value)


def from_json(value: dict[str, Any]) -> KeptStep:
    """The step in a note; InvalidValue if it is none."""
    try:
        return _read(value)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValue("not the note of a failed step") from error
    except BuildaError as error:
        raise InvalidValue(f"not the note of a failed step: {error}") from error


def _read(value: dict[str, Any]) -> KeptStep:
    run = Run(
        args=_texts(value["args"]),
        env=_pairs(value["env"]),
        user=_text_or_none(value["user"]),
        working_dir=_text_or_none(value["working_dir"]),
        mounts=tuple(_mount(text) for text in _texts(value["mounts"])),
        options=_options(value["options"]),
    )
    return KeptStep(
        run=run,
        text=_text(value["text"]),
        number=_text(value["number"]),
        place=_text(value["place"]),
        error=_text_or_none(value["error"]),
        context=_text_or_none(value["context"]),
        named=_pairs(value["named"]),
        in_build=value["in_build"] is True,
    )


def _mount(text: str) -> RunMount:
    return parse_mount(text, _source)


def _source(text: str) -> Source:
    for prefix, kind in ((_CONTAINER, FromContainer), (_IMAGE, FromImage), (_CONTEXT, NamedContext)):
        if text.startswith(prefix):
            return kind(text.removeprefix(prefix))
    raise ValueError(text)


def _options(value: dict[str, Any]) -> RunOptions:
    said: dict[str, Any] = {name: _texts(item) if isinstance(item, list) else item for name, item in value.items()}
    return RunOptions(**said)


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise TypeError(value)
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(value)
    return tuple(map(_text, value))


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise TypeError(value)
    pairs = tuple((_text(name), _text(item)) for name, item in value.items())
    if any(not name or "=" in name for name, _ in pairs):
        raise ValueError(pairs)
    return pairs
