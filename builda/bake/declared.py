"""What the files say together: variables, groups and targets, before a target inherits from others."""

from __future__ import annotations

from collections.abc import Mapping

from builda.bake.documents import Place, fault
from builda.bake.fields import merged
from builda.errors import InvalidValue
from builda.values import NamedTuple, dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TARGET_LIMIT = 20_000
"""Targets of all files, those of matrices counted each."""


class Group(NamedTuple):
    """Names of targets and groups."""

    targets: tuple[str, ...]
    place: Place
    description: str | None = None


class Declaration(NamedTuple):
    """What is said of a target itself."""

    said: Mapping[str, Any]
    inherits: tuple[str, ...]
    place: Place


class Variable(NamedTuple):
    """A variable as it is listed."""

    name: str
    value: Any
    description: str | None
    place: Place


@dataclass(slots=True)
class Declared:
    """Filled by the readers of files, the file that counts more later."""

    variables: dict[str, Variable] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    targets: dict[str, Declaration] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add_target(self, name: str, new: Declaration) -> None:
        """Lay a declaration over that of an earlier file."""
        check_name(name, new.place, "target")
        old = self.targets.get(name)
        if old is not None:
            new = Declaration(merged(old.said, new.said), (*old.inherits, *new.inherits), new.place)
        elif len(self.targets) >= TARGET_LIMIT:
            raise fault(new.place, f"there are more targets than the limit, {TARGET_LIMIT}")
        self.targets[name] = new

    def add_group(self, name: str, new: Group) -> None:
        """Add the members of a group to those that an earlier file gave it."""
        check_name(name, new.place, "group")
        old = self.groups.get(name)
        both = (*(() if old is None else old.targets), *new.targets)
        self.groups[name] = new._replace(targets=tuple(dict.fromkeys(both)))


def check_name(name: str, place: Place, what: str) -> None:
    """InvalidValue for a name that --set and the command line could not hold."""
    if not name or not all(character.isalnum() or character in "_-" for character in name) or not name.isascii():
        raise fault(place, f"name of a {what} has letters, digits, _ and - only: {name!r}")


def unknown(name: str, known: object, what: str) -> InvalidValue:
    """The error about a target or group that no file has."""
    from difflib import get_close_matches

    names = sorted(known)  # type: ignore[call-overload]  # any collection of names
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names[:20])}" if names else None
    return InvalidValue(f"{what}: {name}", hint=hint)
