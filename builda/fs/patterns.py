"""Patterns of Containerfiles and ignore files, in Go's syntax (path/filepath.Match), as regular expressions.

`*` and `?` stay within one path component, `[a-z]` and `[^a-z]` are classes, `\\` takes the next character as it is.
`**` crosses components where the caller says so. Python's fnmatch differs in each of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from builda.errors import InvalidValue


def has_wildcards(pattern: str) -> bool:
    """Whether `pattern` can match anything but one name, or escapes something."""
    return any(character in pattern for character in "*?[\\")


def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern for one path component; InvalidValue for a pattern that Go would refuse."""
    return re.compile(translate(pattern), re.DOTALL)


_STAR = "[^/]*"
_DIRECTORIES = "(?:[^/]*/)*"  # `**/` where a component begins
_MAYBE = "(?:.*/)?"  # `**` beside other characters


def translate(pattern: str, *, double_star: bool = False) -> str:
    """A regular expression, to be matched whole and with DOTALL, that matches as `pattern` does.

    With `double_star`, `**` at the end matches anything, and elsewhere any number of leading components. Between two
    stars the first place that fits is as good as any other, so it is not given up again (an atomic group): the time is
    linear in a name's length, however many stars there are.
    """
    parts = list(_tokens(pattern, double_star))
    blocks = _split(parts, _DIRECTORIES)
    found = [_block(blocks[0])]
    for index, block in enumerate(blocks[1:], 1):
        found.append(_after(_DIRECTORIES, _block(block), first=index < len(blocks) - 1 and _is_plain(block)))
    return "".join(found)


def _block(parts: list[str]) -> str:
    """Parts without `**/`."""
    pieces = _split(parts, _STAR)
    found = ["".join(pieces[0])]
    for index, piece in enumerate(pieces[1:], 1):
        first = index < len(pieces) - 1 and "/" not in piece and _is_plain(piece)
        found.append(_after(_STAR, "".join(piece), first=first))
    return "".join(found)


def _after(star: str, rest: str, *, first: bool) -> str:
    return f"(?>{star}?{rest})" if first else star + rest


def _is_plain(parts: list[str]) -> bool:
    """Whether none of the parts can match a slash that is not written there."""
    return not any(part != "/" and re.fullmatch(part, "/", re.DOTALL) for part in parts)


def _split(parts: list[str], at: str) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for part in parts:
        if part == at:
            found.append([])
        else:
            found[-1].append(part)
    return found


def _tokens(pattern: str, double_star: bool) -> Iterator[str]:
    at, before = 0, "/"
    while at < len(pattern):
        begins = before == "/"
        token, at = _token(pattern, at, double_star and begins, double_star)
        if token != _STAR or before != _STAR:  # two stars are as good as one
            yield token
        before = "/" if token == _DIRECTORIES else token


def _token(pattern: str, at: int, begins: bool, double_star: bool) -> tuple[str, int]:
    character = pattern[at]
    if character == "*":
        if double_star and pattern.startswith("**", at):
            return _double_star(pattern, at + 2, begins)
        return _STAR, at + 1
    if character == "?":
        return "[^/]", at + 1
    if character == "[":
        return _class(pattern, at)
    if character == "\\":
        escaped, at = _escaped(pattern, at)
        return re.escape(escaped), at
    return re.escape(character), at + 1


def _double_star(pattern: str, at: int, begins: bool) -> tuple[str, int]:
    if at == len(pattern) or pattern[at:] == "/":
        return ".*", len(pattern)
    if pattern.startswith("/", at):
        return _DIRECTORIES if begins else _MAYBE, at + 1
    return _MAYBE, at


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
