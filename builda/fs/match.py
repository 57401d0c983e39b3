"""Patterns over paths: Go's filepath.Match with `**`, which COPY's wildcards and ignore files share.

Semantics: Go path/filepath.Match, and the ignore-file section of the Docker build reference.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator

from builda.errors import InvalidValue
from builda.fs import paths

WILDCARDS = frozenset("*?[")


def is_pattern(text: str) -> bool:
    """Whether `text` holds a wildcard that no backslash takes away."""
    return any(char in WILDCARDS for char in re.sub(r"\\.", "", text))


def unescaped(text: str) -> str:
    """`text` without the backslashes that took the meaning from its characters."""
    return re.sub(r"\\(.)", r"\1", text)


def to_regex(pattern: str) -> str:
    """A pattern as a regular expression for a whole path. InvalidValue for an open bracket or a trailing backslash."""
    result, index = "", 0
    while index < len(pattern):
        char = pattern[index]
        if pattern.startswith("**", index):
            index += 2
            if pattern.startswith("/", index):
                index += 1
            result += ".*" if index >= len(pattern) else "(?:.*/)?"
            continue
        if char == "[":
            text, index = _bracket(pattern, index)
            result += text
            continue
        if char == "\\":
            index += 1
            if index == len(pattern):
                raise InvalidValue(f"pattern ends in a backslash: {pattern}")
            result += re.escape(pattern[index])
        else:
            result += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
        index += 1
    return result


def _bracket(pattern: str, start: int) -> tuple[str, int]:
    index, text = start + 1, ""
    if pattern.startswith("^", index):
        text, index = "^", index + 1
    first = index
    while index < len(pattern) and (pattern[index] != "]" or index == first):
        if pattern[index] == "\\" and index + 1 < len(pattern):
            index += 1
            text += re.escape(pattern[index])
        else:
            text += "-" if pattern[index] == "-" else re.escape(pattern[index])
        index += 1
    if index >= len(pattern):
        raise InvalidValue(f"pattern has an open bracket: {pattern}")
    try:
        re.compile(f"[{text}]")
    except re.error as error:
        raise InvalidValue(f"pattern has a bad range: {pattern}") from error
    return f"[{text}]" if text.startswith("^") is False else f"(?!/)[{text}]", index + 1


class Matcher:
    """The rules of an ignore file, or of `--exclude`: the last that matches a path or a directory above it wins."""

    def __init__(self, rules: Iterable[tuple[bool, str]]) -> None:
        self._rules = tuple((keep, re.compile(to_regex(pattern), re.DOTALL)) for keep, pattern in rules)
        self.has_exceptions = any(keep for keep, _ in self._rules)

    @classmethod
    def parse(cls, text: str) -> Matcher:
        """The rules in the text of an ignore file."""
        lines = text.removeprefix("\ufeff").splitlines()
        return cls.of(line for line in lines if not line.startswith("#"))

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Matcher:
        """The rules that `patterns` are, `!` in front of those that let a path back in."""
        rules: list[tuple[bool, str]] = []
        for pattern in patterns:
            text = pattern.strip()
            keep = text.startswith("!")
            text = text[1:].strip() if keep else text
            if not text:
                continue
            clean = posixpath.normpath(text).lstrip("/")
            if clean not in ("", "."):
                rules.append((keep, clean))
        return cls(rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def excludes(self, path: str) -> bool:
        """Whether the rules leave `path` out."""
        parts = path.split("/")
        prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        excluded = False
        for keep, regex in self._rules:
            if excluded == keep and any(regex.fullmatch(prefix) for prefix in prefixes):
                excluded = not keep
        return excluded


NOTHING_EXCLUDED = Matcher(())


def glob(root: int, pattern: str) -> tuple[str, ...]:
    """Paths inside `root` that `pattern` matches, sorted, without a leading slash; links on the way stay inside."""
    parts = [part for part in posixpath.normpath(pattern).split("/") if part not in ("", ".")]
    return tuple(sorted(set(_glob(root, "", parts))))


def _glob(root: int, prefix: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield prefix
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _glob(root, prefix, rest)
        for name, is_directory in _names(root, prefix):
            if is_directory:
                yield from _glob(root, posixpath.join(prefix, name), parts)
            elif not rest:
                yield posixpath.join(prefix, name)
    elif is_pattern(head):
        regex = re.compile(to_regex(head), re.DOTALL)
        for name, _ in _names(root, prefix):
            if regex.fullmatch(name):
                yield from _glob(root, posixpath.join(prefix, name), rest)
    else:
        path = posixpath.join(prefix, unescaped(head))
        if paths.lstat_in_root(root, path) is not None:
            yield from _glob(root, path, rest)


def _names(root: int, prefix: str) -> list[tuple[str, bool]]:
    try:
        fd = paths.open_in_root(root, prefix, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        with os.scandir(fd) as found:
            return sorted((entry.name, stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)) for entry in found)
    finally:
        os.close(fd)
