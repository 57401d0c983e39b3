"""Columns of text as Go's tabwriter lays them out, and the small units that tables show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PADDING = 3
"""Spaces that stand between two columns at least, as in Buildah's tables."""


def align(lines: Iterable[str]) -> str:
    """`lines` with each tab replaced by what aligns the columns; what follows a line's last tab is never padded.

    A column is aligned over consecutive lines that have it, as tabwriter does.
    """
    rows = [line.split("\t") for line in lines]
    widths = [[0] * (len(row) - 1) for row in rows]
    for column in range(max((len(row) - 1 for row in rows), default=0)):
        _widen(rows, widths, column)
    return "\n".join(
        "".join(cell.ljust(width) for cell, width in zip(row, (*sizes, 0), strict=True))
        for row, sizes in zip(rows, widths, strict=True)
    )


def _widen(rows: Sequence[Sequence[str]], widths: Sequence[list[int]], column: int) -> None:
    block: list[int] = []
    for i in range(len(rows) + 1):
        if i < len(rows) and len(rows[i]) - 1 > column:
            block.append(i)
            continue
        width = max((len(rows[j][column]) for j in block), default=0) + PADDING
        for j in block:
            widths[j][column] = width
        block = []


def human_size(size: int) -> str:
    """Bytes in decimal units with three significant digits: `3.4 KB`, `118 MB`."""
    value, units = float(size), ["B", "KB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.3g} {units[0]}" if value < 999.5 or len(units) == 1 else f"1 {units[1]}"


def human_time(seconds: float, digits: int = 1) -> str:
    """A duration: `3.4s`, with `digits` behind the point, from a minute on `12m34s` and `1h02m03s`."""
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def human_age(seconds: float) -> str:
    """How long ago, in Docker's words: `Less than a second ago`, `About an hour ago`, `3 weeks ago`."""
    return f"{_duration(seconds)} ago"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, size, unit in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < limit * 24:
            return f"{hours // 24 // size} {unit}"
    return f"{hours // 24 // 365} years"
