"""What a target says, attribute by attribute: the form of each, and how one declaration lies over another."""

from __future__ import annotations

from collections.abc import Mapping

from builda.bake.documents import Place, fault, kind_of
from builda.errors import InvalidValue
from builda.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

    Kind: TypeAlias = Literal["text", "switch", "pairs", "texts", "added"]
    Said: TypeAlias = Mapping[str, Any]

FIELDS: Mapping[str, Kind] = {
    "annotations": "added",
    "args": "pairs",
    "attest": "added",
    "cache-from": "added",
    "cache-to": "texts",
    "context": "text",
    "contexts": "pairs",
    "description": "text",
    "dockerfile": "text",
    "dockerfile-inline": "text",
    "entitlements": "added",
    "extra-hosts": "pairs",
    "labels": "pairs",
    "network": "text",
    "no-cache": "switch",
    "no-cache-filter": "added",
    "output": "texts",
    "platforms": "texts",
    "pull": "switch",
    "secret": "added",
    "shm-size": "text",
    "ssh": "added",
    "tags": "texts",
    "target": "text",
    "ulimits": "added",
}
"""Attributes and their forms. Of `texts` the upper declaration counts, of `added` both do, of `pairs` both by name."""
REFUSED: Mapping[str, str] = {
    "call": "--check, --print-plan and --print-script of builda build do what it asks for",
    "policy": "builda has no policies in Rego; --source-policy-file of builda build has rules for base images",
    "resources": "--memory, --cpus and the like of builda build limit commands",
}
_FIRST = ("type", "id", "ref", "src", "dest", "env")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One build, with everything that files, variables and options say of it."""

    name: str
    place: Place
    said: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """The value of an attribute that is a text; None if nothing is said."""
        found: str | None = self.said.get(name)
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """The values of an attribute that is a list."""
        return tuple(self.said.get(name) or ())

    def pairs(self, name: str) -> Mapping[str, str]:
        """The values of an attribute that is a mapping."""
        return self.said.get(name) or {}

    def is_on(self, name: str) -> bool:
        """Whether a switch is said to be on."""
        return self.said.get(name) is True

    @property
    def linked(self) -> tuple[str, ...]:
        """The targets whose images this one builds on, by its contexts."""
        values = self.pairs("contexts").values()
        return tuple(dict.fromkeys(value[7:] for value in values if value.startswith("target:")))


def value_of(name: str, value: Any, place: Place, what: str) -> Any:
    """The value of an attribute in its form; InvalidValue for another one, or for an attribute that is none."""
    if name in REFUSED:
        raise fault(place, f"{what}: {name} is not supported", REFUSED[name])
    kind = FIELDS.get(name)
    if kind is None:
        from difflib import get_close_matches

        near = get_close_matches(name, FIELDS, 1)
        raise fault(place, f"{what} has no attribute {name}", f"did you mean {near[0]}?" if near else None)
    try:
        return _READERS[kind](value)
    except InvalidValue as error:
        raise fault(place, f"{what}: {name} is {error}", error.hint) from error


def merged(below: Said, above: Said) -> dict[str, Any]:
    """What two declarations say together, where `above` counts more."""
    found = dict(below)
    for name, value in above.items():
        match FIELDS[name]:
            case "pairs":
                found[name] = {**found.get(name, {}), **value}
            case "added":
                found[name] = list(dict.fromkeys((*found.get(name, ()), *value)))
            case _:
                found[name] = value
    return found


def text(value: Any) -> str:
    """A scalar as text; InvalidValue saying what it is instead."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    if not isinstance(value, str):
        raise InvalidValue(f"a text, not {kind_of(value)}")
    return value


def switch(value: Any) -> bool:
    """A boolean, in YAML's words too."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        return value.lower() in ("true", "1", "yes", "on")
    raise InvalidValue(f"true or false, not {kind_of(value)}" + (f" {value!r}" if isinstance(value, str) else ""))


def pairs(value: Any) -> dict[str, str]:
    """A mapping of names to texts; what is null is left out."""
    if not isinstance(value, Mapping):
        raise InvalidValue(f"a mapping of names to texts, not {kind_of(value)}")
    found = {}
    for name, one in value.items():
        if one is None:
            continue
        try:
            found[name] = text(one)
        except InvalidValue as error:
            raise InvalidValue(f"a mapping of names to texts, and {name} is {error}") from error
    return found


def texts(value: Any) -> list[str]:
    """A list of texts. One that is a mapping becomes `NAME=VALUE,…`; what is null or empty is left out."""
    if not isinstance(value, list | tuple):
        raise InvalidValue(f"a list of texts, not {kind_of(value)}")
    found = []
    for one in value:
        if one is None or one == "":
            continue
        try:
            found.append(_fields(one) if isinstance(one, Mapping) else text(one))
        except InvalidValue as error:
            raise InvalidValue(f"a list of texts, and one of it is {error}") from error
    return found


def _fields(value: Mapping[str, Any]) -> str:
    words = []
    for name in sorted(value, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        one = value[name]
        if one is None or one == "":
            continue
        word = f"{name}={text(one)}"
        words.append('"' + word.replace('"', '""') + '"' if set(word) & set(',"') else word)
    return ",".join(words)


_READERS = {"text": text, "switch": switch, "pairs": pairs, "texts": texts, "added": texts}
