"""Variables in the texts of compose files: `$NAME`, `${NAME}` and the forms with `:-`, `-`, `:?`, `?`, `:+`, `+`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builda.bake.documents import SIZE_LIMIT, Place, fault

_DEPTH = 20
_PLAIN = re.compile(r"\$(\$|[A-Za-z_][A-Za-z0-9_]*)")
_BEGIN = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:?[-?+])?")


def interpolate(text: str, place: Place, environ: Mapping[str, str], unset: set[str]) -> str:
    """The text with the variables' values; names without a value go into `unset` and stand for nothing."""
    if "$" not in text:
        return text
    found, at = _upto(text, 0, place, environ, unset, 0)
    if at < len(text):
        raise fault(place, f"text cannot be read behind {text[:at]!r}")
    return found


def _upto(text: str, at: int, place: Place, environ: Mapping[str, str], unset: set[str], depth: int) -> tuple[str, int]:
    """The value of a text up to a closing brace of the variable around it, or the end; and where that is."""
    if depth > _DEPTH:
        raise fault(place, f"variables are nested deeper than the limit, {_DEPTH}")
    parts: list[str] = []
    size = 0
    while at < len(text):
        if depth and text[at] == "}":
            break
        if text[at] != "$":
            end = next((i for i in range(at, len(text)) if text[i] == "$" or (depth and text[i] == "}")), len(text))
            part, at = text[at:end], end
        elif (short := _PLAIN.match(text, at)) is not None:
            part = "$" if short[1] == "$" else _value(short[1], environ, unset)
            at = short.end()
        else:
            part, at = _braced(text, at, place, environ, unset, depth)
        parts.append(part)
        size += len(part)
        if size > SIZE_LIMIT:
            raise fault(place, f"text is longer than the limit, {SIZE_LIMIT} characters")
    return "".join(parts), at


def _braced(
    text: str, at: int, place: Place, environ: Mapping[str, str], unset: set[str], depth: int
) -> tuple[str, int]:
    begun = _BEGIN.match(text, at)
    if begun is None:
        raise fault(place, f"$ begins no variable: {text[at:]!r}", "$$ is a dollar")
    name, operator = begun[1], begun[2]
    if operator is None:
        other, at = "", begun.end()
    else:
        other, at = _upto(
            text, begun.end(), place, environ, set() if _has(name, operator, environ) else unset, depth + 1
        )
    if text[at : at + 1] != "}":
        raise fault(place, f"variable is not closed: {text[begun.start() :]!r}")
    at += 1
    if operator is None:
        return _value(name, environ, unset), at
    has = _has(name, operator, environ)
    match operator[-1]:
        case "-":
            return (environ[name] if has else other), at
        case "+":
            return (other if has else ""), at
        case _:
            if not has:
                raise fault(place, f"variable {name} is needed: {other or 'it has no value'}")
            return environ[name], at


def _has(name: str, operator: str, environ: Mapping[str, str]) -> bool:
    """Whether a variable counts as given: with a colon an empty one does not."""
    return bool(environ.get(name)) if operator.startswith(":") else name in environ


def _value(name: str, environ: Mapping[str, str], unset: set[str]) -> str:
    if name not in environ:
        unset.add(name)
    return environ.get(name, "")
