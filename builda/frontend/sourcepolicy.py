"""`build --source-policy-file`: rules that allow, deny or replace the images that a Containerfile names.

The file is BuildKit's source policy in JSON, as far as Buildah reads it: rules for images, by name or by wildcards.
"""

from __future__ import annotations

import json

from builda.errors import InvalidReference, InvalidValue, PolicyRejected, Unsupported
from builda.oci.reference import Reference
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias

Action: TypeAlias = "Literal['ALLOW', 'DENY', 'CONVERT']"

_PREFIX = "docker-image://"
_KNOWN = {"rule": {"action", "selector", "updates"}, "selector": {"identifier", "matchType"}}


class Rule(NamedTuple):
    """The action for images whose identifier matches `pattern`, which may have wildcards unless `exact`."""

    action: Action
    pattern: str
    exact: bool = False
    target: str = ""

    def matches(self, identifier: str) -> bool:
        """Whether the rule is for the image of this identifier (`docker-image://registry/repository:tag`)."""
        return self.pattern == identifier if self.exact else _matches(self.pattern, identifier)


class SourcePolicy(NamedTuple):
    """The rules of one file, the first matching one of which decides."""

    file: str
    rules: tuple[Rule, ...]

    def decide(self, name: str) -> str:
        """The image to take for `name`; PolicyRejected naming the rule if it is denied."""
        identifier = _PREFIX + _full(name)
        for number, rule in enumerate(self.rules):
            if rule.matches(identifier):
                if rule.action == "DENY":
                    raise PolicyRejected(
                        f"image is denied by the source policy {self.file}: {name}",
                        hint=f"rule {number} denies {rule.pattern}",
                    )
                return rule.target.removeprefix(_PREFIX) if rule.action == "CONVERT" else name
        return name


def parse(data: bytes, file: str) -> SourcePolicy:
    """The policy in `data`; InvalidValue or Unsupported naming `file` and the rule for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"source policy is not JSON ({error}): {file}") from error
    rules = value.get("rules") or [] if isinstance(value, dict) else None
    if not isinstance(rules, list):
        raise InvalidValue(f"source policy is not an object with an array of rules: {file}")
    return SourcePolicy(file, tuple(_rule(rule, f"rule {number} of {file}") for number, rule in enumerate(rules)))


def _rule(value: object, where: str) -> Rule:
    rule = _object(value, "rule", where)
    selector = _object(rule.get("selector"), "selector", where)
    action, pattern = rule.get("action"), selector.get("identifier")
    if action not in ("ALLOW", "DENY", "CONVERT"):
        raise InvalidValue(f"action is none of ALLOW, DENY and CONVERT in {where}: {action}")
    if not isinstance(pattern, str) or not pattern:
        raise InvalidValue(f"selector has no identifier in {where}")
    kind = selector.get("matchType") or "WILDCARD"
    if kind == "REGEX":
        raise Unsupported(f"matchType REGEX is not supported, in {where}", hint="write WILDCARD with * and ?, or EXACT")
    if kind not in ("EXACT", "WILDCARD"):
        raise InvalidValue(f"matchType is none of EXACT and WILDCARD in {where}: {kind}")
    return Rule(action, pattern, kind == "EXACT", _target(rule, where) if action == "CONVERT" else "")


def _target(rule: dict[str, Any], where: str) -> str:
    updates = rule.get("updates")
    target = updates.get("identifier") if isinstance(updates, dict) else None
    if not isinstance(target, str) or not target:
        raise InvalidValue(f"CONVERT needs updates with an identifier in {where}")
    try:
        Reference.parse(target.removeprefix(_PREFIX))
    except InvalidReference as error:
        raise InvalidValue(f"{error}, in {where}") from error
    return target


def _object(value: object, what: str, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"{what} is not an object in {where}")
    if unknown := sorted(value.keys() - _KNOWN[what]):
        raise Unsupported(f"{what} has an unknown key {unknown[0]!r} in {where}")
    return value


def _full(name: str) -> str:
    """The name with its registry and tag; anything else than a name as it is."""
    try:
        return str(Reference.parse(name))
    except InvalidReference:
        return name


def _matches(pattern: str, text: str) -> bool:
    """Whether `pattern`, in which * is any text and ? any character, is all of `text`; takes len * len at most."""
    at = place = 0
    star, resume = -1, 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, resume = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in (text[at], "?"):
            place, at = place + 1, at + 1
        elif star >= 0:
            resume += 1
            place, at = star + 1, resume
        else:
            return False
    return not pattern[place:].strip("*")
