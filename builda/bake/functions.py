"""The functions of bake files' expressions: those of the field's that are about texts, lists and numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from builda.bake.documents import kind_of
from builda.bake.fields import text
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def as_text(value: Any) -> str:
    """A scalar as text; nothing for null."""
    return "" if value is None else text(value)


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidValue(f"a number, not {kind_of(value)}")
    if isinstance(value, str):
        value = float(value) if "." in value else int(value)
    if abs(value) > 1e15:
        raise InvalidValue("a number that is too large")
    found: int | float = value
    return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidValue(f"a list, not {kind_of(value)}")
    return value


def _join(between: Any, *lists: Any) -> str:
    return as_text(between).join(as_text(item) for one in lists for item in _list(one))


def _replace(value: Any, old: Any, new: Any) -> str:
    old, new = as_text(old), as_text(new)
    value = as_text(value)
    if len(value) * max(1, len(new)) > 1 << 22:
        raise InvalidValue("a text that is too long")
    return str(value.replace(old, new))


def _divided(left: Any, right: Any) -> int | float:
    found = _number(left) / _number(right)
    return int(found) if found == int(found) else found


def _distinct(value: Any) -> list[Any]:
    found: list[Any] = []
    for item in _list(value):
        if item not in found:
            found.append(item)
    return found


def _flat(value: Any) -> list[Any]:
    return [inner for item in _list(value) for inner in (item if isinstance(item, list) else [item])]


def _substr(value: Any, at: Any, length: Any) -> str:
    at, length = int(_number(at)), int(_number(length))
    return as_text(value)[at:] if length < 0 else as_text(value)[at : at + length]


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": lambda left, right: _number(left) + _number(right),
    "and": lambda left, right: left is True and right is True,
    "coalesce": lambda *values: next(value for value in values if value not in (None, "")),
    "compact": lambda value: [item for item in _list(value) if item not in (None, "")],
    "concat": lambda *values: [item for value in values for item in _list(value)],
    "contains": lambda value, item: item in _list(value),
    "distinct": _distinct,
    "divide": _divided,
    "element": lambda value, at: _list(value)[int(_number(at)) % len(_list(value))],
    "equal": lambda left, right: left == right,
    "flatten": _flat,
    "join": _join,
    "keys": lambda value: sorted(value),
    "length": len,
    "lookup": lambda value, key, default: value.get(as_text(key), default),
    "lower": lambda value: as_text(value).lower(),
    "max": lambda *values: max(map(_number, values)),
    "merge": lambda *values: {key: item for value in values for key, item in value.items()},
    "min": lambda *values: min(map(_number, values)),
    "modulo": lambda left, right: _number(left) % _number(right),
    "multiply": lambda left, right: _number(left) * _number(right),
    "not": lambda value: value is False,
    "notequal": lambda left, right: left != right,
    "or": lambda left, right: left is True or right is True,
    "replace": _replace,
    "reverse": lambda value: _list(value)[::-1],
    "sanitize": lambda value: re.sub(r"[^A-Za-z0-9_-]", "_", as_text(value)),
    "sort": lambda value: sorted(map(as_text, _list(value))),
    "split": lambda between, value: as_text(value).split(as_text(between)),
    "substr": _substr,
    "subtract": lambda left, right: _number(left) - _number(right),
    "trim": lambda value, cut: as_text(value).strip(as_text(cut)),
    "trimprefix": lambda value, cut: as_text(value).removeprefix(as_text(cut)),
    "trimspace": lambda value: as_text(value).strip(),
    "trimsuffix": lambda value, cut: as_text(value).removesuffix(as_text(cut)),
    "upper": lambda value: as_text(value).upper(),
    "values": lambda value: [value[key] for key in sorted(value)],
    "<": lambda left, right: _number(left) < _number(right),
    ">": lambda left, right: _number(left) > _number(right),
    "<=": lambda left, right: _number(left) <= _number(right),
    ">=": lambda left, right: _number(left) >= _number(right),
}
