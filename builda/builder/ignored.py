"""What the ignore file of a context leaves out, as a question about one path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from builda.fs.ignore import Matcher

if TYPE_CHECKING:
    from collections.abc import Callable


def ignored_by(file: Path | None) -> Callable[[str], bool]:
    """Whether a path, relative to the context, is out of sight of COPY and ADD, with all that is below it."""
    if file is None:
        return lambda path: False
    rules = Matcher.parse(file.read_text("utf-8", "surrogateescape"))
    return lambda path: rules.excludes(path) and not rules.reaches_into(path)
