"""What the ignore file of a context leaves out, as a question about one path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from builda.fs.ignore import Matcher

if TYPE_CHECKING:
    from collections.abc import Callable


def rules_of(file: Path | None) -> Matcher:
    """The rules of an ignore file, each with its place; none without a file."""
    return Matcher(()) if file is None else Matcher.parse(file.read_text("utf-8", "surrogateescape"), str(file))


def ignored_by(file: Path | None) -> Callable[[str], bool]:
    """Whether a path, relative to the context, is out of sight of COPY and ADD, with all that is below it."""
    if file is None:
        return lambda path: False
    rules = rules_of(file)
    return lambda path: rules.excludes(path) and not rules.reaches_into(path)
