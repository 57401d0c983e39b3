"""Ignore files of contexts: their rules, and whether a path is ignored."""

from __future__ import annotations

import os

from builda.errors import InvalidValue
from builda.fs import paths
from builda.fs.ignore import Matcher
from builda.inputfile import read_input

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


IGNORE_FILES = (".containerignore", ".dockerignore")
SIZE_LIMIT = 8 << 20
"""Bytes of an ignore file; an untrusted context may have a file of any size under that name."""


def rules_of(file: Path | str | None) -> Matcher:
    """The rules of an ignore file, each with its place; none without a file. InvalidValue for one that is too large."""
    if file is None:
        return Matcher(())
    return _parse(read_input(file, "ignore file", SIZE_LIMIT), str(file))


def rules_in(root: int, shown: Path | str) -> Matcher:
    """The rules of the ignore file in the directory `root`, a named context; none without a file.

    InvalidValue for one that is no regular file, or too large; `shown` is the directory as errors name it.
    """
    for name in IGNORE_FILES:
        try:
            data = paths.read_file(root, name, SIZE_LIMIT + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            reason = (error.strerror or "cannot be read").lower()
            raise InvalidValue(f"ignore file of a build context: {reason}: {shown}/{name}") from error
        return _parse(data, f"{shown}/{name}")
    return Matcher(())


def _parse(data: bytes, file: str) -> Matcher:
    if len(data) > SIZE_LIMIT:
        raise InvalidValue(f"ignore file has more bytes than the limit, {SIZE_LIMIT}: {file}")
    return Matcher.parse(data.decode("utf-8", "surrogateescape"), file)


def ignored_by(file: Path | str | None, context: Path | str | None) -> Callable[[str], bool]:
    """Whether a path, relative to the context, is out of sight of COPY and ADD, with all that is below it."""
    if file is None:
        return lambda path: False
    rules = rules_of(file)

    def is_ignored(path: str) -> bool:
        if not rules.excludes(path):
            return False
        is_directory = context is None or os.path.isdir(os.path.join(context, path))
        return not (is_directory and rules.reaches_into(path))

    return is_ignored
