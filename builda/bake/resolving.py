"""From declarations to the targets of one command: inheritance, --set, groups, links between targets, all checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from builda.bake import fields
from builda.bake.declared import Declared, unknown
from builda.bake.documents import fault
from builda.bake.fields import Target, merged
from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHORT: Mapping[str, str] = {"platform": "platforms", "secrets": "secret"}
"""What --set calls some attributes."""
_HINT = "write TARGET.ATTRIBUTE=VALUE, as in app.args.VERSION=2 or *.platform=linux/arm64"


class Chosen(NamedTuple):
    """The targets to build, each after those that it builds on; `linked` are built for others only."""

    targets: tuple[Target, ...]
    linked: frozenset[str]
    groups: Mapping[str, tuple[str, ...]]


def choose(declared: Declared, names: Sequence[str], settings: Iterable[str], environ: Mapping[str, str]) -> Chosen:
    """The targets that `names` mean (none: `default`), with the values of --set."""
    overrides = _overrides(declared, settings, environ)
    wanted = list(dict.fromkeys(name for given in names or ("default",) for name in _members(declared, given)))
    resolver = _Resolver(declared, overrides)
    order: dict[str, Target] = {}
    for name in wanted:
        _link(resolver, name, order)
    linked = frozenset(order.keys() - set(wanted))
    found = tuple(order.values())
    _check_tags([target for target in found if target.name not in linked])
    groups = {
        name: tuple(_members(declared, name)) for name in dict.fromkeys(("default", *names)) if name in declared.groups
    }
    groups.setdefault("default", tuple(wanted))
    return Chosen(found, linked, groups)


def resolved(declared: Declared, name: str) -> Target:
    """One target with what it inherits; InvalidValue for a loop or a target that is not there."""
    return _Resolver(declared, {}).target(name)


def _members(declared: Declared, name: str) -> tuple[str, ...]:
    """The targets of a group, and of the groups in it; a target's own name."""
    if name not in declared.groups:
        if name in declared.targets:
            return (name,)
        if any(character in name for character in "*?["):
            found = tuple(target for target in declared.targets if fnmatchcase(target, name))
            if found:
                return found
        hint_for = {*declared.targets, *declared.groups}
        raise unknown(name, hint_for, "no such target or group")
    found_: dict[str, None] = {}
    path = [(name, iter(declared.groups[name].targets))]
    seen = {name}
    while path:
        here, members = path[-1]
        member = next(members, None)
        if member is None:
            path.pop()
        elif (
            any(member == above for above, _ in path)
            and member in declared.groups
            and not (member == here and member in declared.targets)
        ):
            circle = " -> ".join((*(above for above, _ in path), member))
            raise fault(declared.groups[here].place, f"groups contain each other: {circle}")
        elif member in declared.groups and member not in seen:
            seen.add(member)
            path.append((member, iter(declared.groups[member].targets)))
        elif member in declared.targets:
            found_[member] = None
        elif member not in declared.groups:
            error = unknown(member, {*declared.targets, *declared.groups}, f"group {here} names no target")
            raise fault(declared.groups[here].place, str(error), error.hint)
    return tuple(found_)


class _Resolver:
    """Targets with what they inherit, each made once."""

    def __init__(self, declared: Declared, overrides: Mapping[str, list[_Override]]) -> None:
        self._declared = declared
        self._overrides = overrides
        self._made: dict[str, dict[str, Any]] = {}

    def target(self, name: str) -> Target:
        """The target; InvalidValue if it or one that it inherits from is missing, or if it inherits from itself."""
        path = [name]
        while path:
            here = path[-1]
            if here not in self._declared.targets:
                raise self._missing(path)
            declaration = self._declared.targets[here]
            waiting = next((below for below in declaration.inherits if below not in self._made), None)
            if waiting is not None:
                if waiting in path:
                    circle = " -> ".join((*path[path.index(waiting) :], waiting))
                    raise fault(declaration.place, f"target inherits from itself: {circle}")
                path.append(waiting)
                continue
            path.pop()
            said: dict[str, Any] = {}
            for below in declaration.inherits:
                said = merged(said, self._made[below])
            said = merged(said, declaration.said)
            for override in self._overrides.get(here, ()):
                said = override.applied(said)
            self._made[here] = said
        return Target(name=name, place=self._declared.targets[name].place, said=self._made[name])

    def _missing(self, path: Sequence[str]) -> InvalidValue:
        error = unknown(path[-1], self._declared.targets, "no such target")
        if len(path) == 1:
            return error
        place = self._declared.targets[path[-2]].place
        return fault(place, f"target {path[-2]} inherits from a target that is not there: {path[-1]}", error.hint)


def _link(resolver: _Resolver, name: str, order: dict[str, Target]) -> None:
    """Put a target into `order`, behind those that its contexts name."""
    if name in order:
        return
    first = resolver.target(name)
    path = [(first, iter(first.linked))]
    while path:
        here, below = path[-1]
        other = next((one for one in below if one not in order), None)
        if other is None:
            order[here.name] = here
            path.pop()
            continue
        if any(other == above.name for above, _ in path):
            circle = " -> ".join((*(above.name for above, _ in path), other))
            raise fault(here.place, f"targets build on each other: {circle}")
        try:
            found = resolver.target(other)
        except InvalidValue as error:
            raise fault(here.place, f"target {here.name} builds on a target: {error}", error.hint) from error
        path.append((found, iter(found.linked)))


def _check_tags(targets: Iterable[Target]) -> None:
    """InvalidValue for an image name that two targets have: one would take it from the other."""
    owners: dict[str, Target] = {}
    for target in targets:
        for tag in target.texts("tags"):
            name = _full(tag)
            if name in owners and owners[name].name != target.name:
                other = owners[name]
                raise fault(target.place, f"targets {other.name} and {target.name} have the same tag: {tag}")
            owners[name] = target


def _full(tag: str) -> str:
    """A name with the tag that one without it has."""
    return tag if ":" in tag.rpartition("/")[2] or "@" in tag else f"{tag}:latest"


class _Override(NamedTuple):
    """One attribute as the command line sets it; for a list, all values of it."""

    attribute: str
    key: str | None
    values: tuple[str, ...]
    appends: bool

    def applied(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The declarations of a target with these overrides applied."""
        kind = fields.FIELDS[self.attribute]
        if kind == "pairs":
            return merged(said, {self.attribute: {self.key: self.values[-1]}})
        if kind in ("texts", "added"):
            before = list(said.get(self.attribute, ())) if self.appends else []
            return {**said, self.attribute: [*before, *(value for value in self.values if value)]}
        value: Any = self.values[-1]
        return {**said, self.attribute: fields.switch(value) if kind == "switch" else value}


def _overrides(declared: Declared, settings: Iterable[str], environ: Mapping[str, str]) -> dict[str, list[_Override]]:
    """What --set says, by target."""
    found: dict[str, dict[tuple[str, str | None], _Override]] = {}
    for setting in settings:
        pattern, override = _parsed(setting, environ)
        if override is None:
            continue
        names = [name for name in declared.targets if name == pattern or fnmatchcase(name, pattern)]
        if not names:
            error = unknown(pattern, declared.targets, "--set matches no target")
            raise error
        for name in names:
            own = found.setdefault(name, {})
            key = (override.attribute, override.key)
            before = own.get(key)
            own[key] = override if before is None else override._replace(values=(*before.values, *override.values))
    return {name: list(own.values()) for name, own in found.items()}


def _parsed(setting: str, environ: Mapping[str, str]) -> tuple[str, _Override | None]:
    left, equals, value = setting.partition("=")
    appends = left.endswith("+")
    pattern, _, rest = left.removesuffix("+").partition(".")
    attribute, _, key = rest.partition(".")
    attribute = _SHORT.get(attribute, attribute)
    kind = fields.FIELDS.get(attribute)
    if attribute in ("push", "load"):
        raise InvalidValue(f"--set has no {attribute}: {setting}", hint=f"--{attribute} is for all targets")
    if not pattern or kind is None:
        raise InvalidValue(f"--set names no attribute of a target: {setting}", hint=_HINT)
    if (kind == "pairs") != bool(key):
        what = "needs a name behind it" if kind == "pairs" else "has no parts"
        raise InvalidValue(f"--set: {attribute} {what}: {setting}", hint=_HINT)
    if appends and kind not in ("texts", "added"):
        raise InvalidValue(f"--set: += is for lists, and {attribute} is none: {setting}")
    if not equals:
        if attribute != "args":
            raise InvalidValue(f"--set gives no value: {setting}", hint=_HINT)
        if key not in environ:
            return pattern, None
        value = environ[key]
    if kind == "switch":
        try:
            fields.switch(value)
        except InvalidValue as error:
            raise InvalidValue(f"--set: {attribute} is {error}: {setting}") from error
    return pattern, _Override(attribute, key or None, (value,), appends)
