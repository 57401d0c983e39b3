"""Spans of time as Go writes them, which is how configurations, Containerfiles and options are written."""

from __future__ import annotations

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_LONGEST = 100  # characters; the largest span, 292 years, needs less
_LIMIT = 2**63


def nanoseconds(text: str) -> int | None:
    """Nanoseconds of `1h30m`, `2.5s` or `0`; None if malformed or too long for Go's 64 bits."""
    if text == "0":
        return 0
    if len(text) > _LONGEST:
        return None
    import re

    parts = re.findall(_PART, text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    total = sum(_times(number, _UNITS[unit]) for number, unit in parts)
    return total if total < _LIMIT else None


def _times(number: str, unit: int) -> int:
    """`number` times `unit`, rounded down to a nanosecond."""
    whole, _, fraction = number.partition(".")
    return int(whole or 0) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
