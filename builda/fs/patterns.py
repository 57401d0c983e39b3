"""Patterns of Containerfiles and ignore files, in Go's syntax (path/filepath.Match), as regular expressions.

`*` and `?` stay within one path component, `[a-z]` and `[^a-z]` are classes, `\\` takes the next character as it is.
`**` crosses components where the caller says so. Python's fnmatch differs in each of these.
"""

from __future__ import annotations

import re

from builda.errors import InvalidValue


def has_wildcards(pattern: str) -> bool:
    """Whether `pattern` can match anything but one name, or escapes something."""
    return any(character in pattern for character in "*?[\\")


def compiled(pattern: str) -> re.Pattern[str]:
    """What one path component must match; InvalidValue for a pattern that Go would not take."""
    return re.compile(translate(pattern), re.DOTALL)


def translate(pattern: str, *, double_star: bool = False) -> str:
    """A regular expression, to be matched whole and with DOTALL, that matches as `pattern` does.

    With `double_star`, `**` at the end matches anything, and elsewhere any number of leading components.
    """
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        expression, at = _token(pattern, at, double_star)
        parts.append(expression)
    return "".join(parts)


def _token(pattern: str, at: int, double_star: bool) -> tuple[str, int]:
    character = pattern[at]
    if character == "*":
        if double_star and pattern.startswith("**", at):
            return _double_star(pattern, at + 2)
        return "[^/]*", at + 1
    if character == "?":
        return "[^/]", at + 1
    if character == "[":
        return _class(pattern, at)
    if character == "\\":
        escaped, at = _escaped(pattern, at)
        return re.escape(escaped), at
    return re.escape(character), at + 1


def _double_star(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("/", at):
        at += 1
    if at == len(pattern):
        return ".*", at
    return "(?:.*/)?", at


def _class(pattern: str, start: int) -> tuple[str, int]:
    at = start + 1
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while at < len(pattern) and not (pattern[at] == "]" and ranges):
        low, at = _class_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1)
        if low <= high:  # a reversed range matches nothing
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    if at >= len(pattern):
        raise _malformed(pattern)
    inside = "".join(ranges)
    if not inside:
        return (r"[\s\S]" if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{inside}]", at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise _malformed(pattern)
    if pattern[at] == "\\":
        return _escaped(pattern, at)
    return pattern[at], at + 1


def _escaped(pattern: str, at: int) -> tuple[str, int]:
    if at + 1 >= len(pattern):
        raise _malformed(pattern)
    return pattern[at + 1], at + 2


def _malformed(pattern: str) -> InvalidValue:
    return InvalidValue(f"malformed pattern: {pattern}", hint=r"a literal [ or \ is written \[ or \\")
