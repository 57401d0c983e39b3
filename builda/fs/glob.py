"""Wildcards of COPY and ADD, expanded inside a root: Go's filepath.Glob, and `**` for any number of directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from builda.fs import paths
from builda.fs.patterns import compiled, has_wildcards


def glob(root: int, pattern: str) -> tuple[str, ...]:
    """Paths inside `root` that match, relative to it and sorted; () when nothing does.

    Links to directories are followed inside the root, except by `**`. InvalidValue for a malformed pattern.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        del parts[0]  # stops at the root
    for part in parts:
        compiled(part)
    found = {""}
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        found = {path for directory in found for path in _expanded(root, directory, part, last)}
    return tuple(sorted(found - {""}, key=os.fsencode))


def _expanded(root: int, directory: str, part: str, last: bool) -> Iterator[str]:
    if part == "**":
        yield from _below(root, directory, last)
    elif not has_wildcards(part):
        path = _joined(directory, part)
        if paths.lstat_in_root(root, path) is not None:
            yield path
    else:
        matches = compiled(part).fullmatch
        yield from (_joined(directory, name) for name, _ in _listed(root, directory) if matches(name))


def _below(root: int, directory: str, last: bool) -> Iterator[str]:
    """The directory and those below it; at the end of a pattern everything below."""
    pending = [directory]
    while pending:
        directory = pending.pop()
        if not last:
            yield directory
        for name, is_directory in _listed(root, directory):
            if last:
                yield _joined(directory, name)
            if is_directory:
                pending.append(_joined(directory, name))


def _listed(root: int, directory: str) -> list[tuple[str, bool]]:
    try:
        fd = paths.open_in_root(root, directory, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        with os.scandir(fd) as entries:
            return [(entry.name, stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)) for entry in entries]
    finally:
        os.close(fd)


def _joined(directory: str, name: str) -> str:
    return f"{directory}/{name}" if directory else name
