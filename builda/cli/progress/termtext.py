"""Text for a terminal: without what would move its cursor, and cut by the cells that it takes."""

from __future__ import annotations

import re
import unicodedata

_SEQUENCE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(data: bytes) -> str:
    """One line as it stands on a terminal in the end: without escapes, and without what a carriage return overwrote."""
    line = data.rstrip(b"\r\n").rpartition(b"\r")[2].decode(errors="replace")
    return _CONTROL.sub(" ", _SEQUENCE.sub("", line.expandtabs(4)))


def cells(text: str) -> int:
    """The number of columns that `text` takes in a terminal."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, width: int) -> str:
    """`text`, or its beginning and an ellipsis, in no more than `width` columns."""
    if cells(text) <= width:
        return text
    taken, used = [], 0
    for character in text:
        used += _width(character)
        if used > width - 1:
            break
        taken.append(character)
    return "".join(taken) + "…"


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
