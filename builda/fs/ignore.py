"""Ignore files (.containerignore, .dockerignore) and --exclude: which paths a copy leaves out.

The last pattern that matches a path, or a directory above it, decides; `!` takes paths back in. Semantics are those of
moby's patternmatcher: Go's filepath.Match and `**`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from builda.errors import InvalidValue
from builda.fs.patterns import has_wildcards, translate
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    _Match: TypeAlias = Callable[[str], re.Match[str] | None]


class _Rule(NamedTuple):
    text: str  # as the user wrote it
    pattern: str  # cleaned, without `!`
    takes_back: bool
    expression: str
    place: str = ""  # file:line


class _Run(NamedTuple):
    """Neighbouring rules of one sign. Plain names are in a set; all other patterns are joined into one expression."""

    takes_back: bool
    paths: frozenset[str]
    longest: int  # of the paths
    names: frozenset[str]  # of files in any directory: **/NAME
    match: _Match | None

    def matches(self, path: str) -> bool:
        if self.paths and any(start in self.paths for start in _beginnings(path, self.longest)):
            return True
        if self.names and not self.names.isdisjoint(path.split("/")):
            return True
        return self.match is not None and self.match(path) is not None


class Matcher:
    """The rules of one ignore file, or of a step's --exclude options. Immutable."""

    __slots__ = ("_back", "_rules", "_runs")

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        self._rules = rules
        self._runs = _runs(rules)
        self._back: list[tuple[_Match | None, ...]] | None = None

    @classmethod
    def parse(cls, text: str, file: str = "") -> Matcher:
        """The rules of an ignore file: one pattern a line, `#` in the first column begins a comment.

        InvalidValue for a malformed pattern, with its place in `file`.
        """
        lines = enumerate(text.removeprefix("\ufeff").splitlines(), 1)
        return cls(tuple(rule for number, line in lines if (rule := _placed(line, f"{file}:{number}" if file else ""))))

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Matcher:
        """The rules of a list of patterns; InvalidValue for a malformed one."""
        return cls(tuple(rule for pattern in patterns if (rule := _rule(pattern))))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, *names: str) -> bool:
        """Whether a path is left out.

        A path may have several names, one relative to the context, one to the copied directory: a rule applies when it
        matches any of them.
        """
        excluded = False
        for run in self._runs:
            if run.takes_back == excluded and any(map(run.matches, names)):
                excluded = not excluded
        return excluded

    def blame(self, path: str) -> str:
        """A sentence that names the rule which leaves a path out."""
        rule = self._rule_for(path)
        if rule is None or not rule.place:
            return f"the ignore file leaves it out by the rule {'' if rule is None else rule.text}".rstrip()
        return f"{rule.place} leaves it out: {rule.text}"

    def _rule_for(self, path: str) -> _Rule | None:
        found: _Rule | None = None
        for rule in self._rules:
            matches = re.compile(f"(?:{rule.expression})(?:/|\\Z)", re.DOTALL).match
            if rule.takes_back == (found is not None) and matches(path):
                found = None if rule.takes_back else rule
        return found

    def reaches_into(self, *names: str) -> bool:
        """Whether something below a directory that is left out may be taken back."""
        if self._back is None:
            self._back = [_components(rule.pattern) for rule in self._rules if rule.takes_back]
        return any(_may_match_below(parts, name.split("/")) for name in names for parts in self._back)


def _runs(rules: tuple[_Rule, ...]) -> tuple[_Run, ...]:
    from itertools import groupby

    return tuple(_run(takes_back, list(group)) for takes_back, group in groupby(rules, key=_takes_back))


def _takes_back(rule: _Rule) -> bool:
    return rule.takes_back


def _run(takes_back: bool, rules: list[_Rule]) -> _Run:
    paths = {rule.pattern for rule in rules if not has_wildcards(rule.pattern)}
    names = {rule.pattern[3:] for rule in rules if _is_name(rule.pattern)}
    others = [rule.expression for rule in rules if rule.pattern not in paths and not _is_name(rule.pattern)]
    match = re.compile(f"(?:{'|'.join(others)})(?:/|\\Z)", re.DOTALL).match if others else None
    return _Run(takes_back, frozenset(paths), max(map(len, paths), default=0), frozenset(names), match)


def _is_name(pattern: str) -> bool:
    name = pattern[3:]
    return pattern.startswith("**/") and name != "" and "/" not in name and not has_wildcards(name)


def _beginnings(path: str, longest: int) -> Iterator[str]:
    """The path and the directories above it, but for what is longer than `longest`."""
    if len(path) <= longest:
        yield path
    at = path.find("/", 0, longest + 1)
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1, longest + 1)


def _placed(line: str, place: str) -> _Rule | None:
    try:
        rule = _line(line)
    except InvalidValue as error:
        raise InvalidValue(f"{place}: {error}" if place else str(error), hint=error.hint) from error
    return None if rule is None else rule._replace(place=place)


def _line(line: str) -> _Rule | None:
    if line.startswith("#"):
        return None
    text = line.strip()
    sign = "!" if text.startswith("!") else ""
    path = text[len(sign) :].strip()
    if len(path) > 1:
        path = _cleaned(path).removeprefix("/") or "/"
    return _rule(sign + path)


def _rule(text: str) -> _Rule | None:
    pattern = text.strip()
    if not pattern:
        return None
    if pattern == "!":
        raise InvalidValue('a pattern of "!" alone names no path')
    takes_back = pattern.startswith("!")
    cleaned = _cleaned(pattern[takes_back:])
    if not has_wildcards(cleaned):
        return _Rule(text.strip(), cleaned, takes_back, re.escape(cleaned))
    try:
        expression = _expression(cleaned)
        re.compile(expression)
    except re.error as error:
        raise InvalidValue(f"malformed pattern: {text}") from error
    return _Rule(text.strip(), cleaned, takes_back, expression)


def _cleaned(path: str) -> str:
    """Go's filepath.Clean."""
    clean = posixpath.normpath(path)
    return "/" + clean.lstrip("/") if clean.startswith("/") else clean


def _expression(pattern: str) -> str:
    rest = pattern[2:]
    if pattern.startswith("**") and not rest.startswith("/") and not any(c in rest for c in "*?[]\\"):
        return ".*" + re.escape(rest)  # moby compares the end of the path here, whatever stands before it
    return translate(pattern, double_star=True)


def _components(pattern: str) -> tuple[_Match | None, ...]:
    """A matcher for each component of a path. None ends it: from there on any component may match."""
    found: list[_Match | None] = []
    for part in pattern.split("/"):
        if "**" in part:
            return (*found, None)
        found.append(re.compile(translate(part), re.DOTALL).fullmatch)
    return tuple(found)


def _may_match_below(wanted: tuple[_Match | None, ...], directory: list[str]) -> bool:
    for match, part in zip(wanted, directory, strict=False):
        if match is None:
            return True
        if not match(part):
            return False
    return True
