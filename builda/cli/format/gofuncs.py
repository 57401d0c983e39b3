"""The functions of `--format` templates (Go's own and those that container tools add), and how Go prints a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Value: TypeAlias = "Any"


class Struct(Mapping[str, "Any"]):
    """A value whose fields are all known: `fields` by the names that templates use, `shown` what `json` prints."""

    def __init__(self, fields: Mapping[str, Any], shown: Any = None) -> None:
        self._fields = fields
        self.shown = dict(fields) if shown is None else shown

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class Nil:
    """A nil pointer: it prints as <nil> and is false."""

    def __bool__(self) -> bool:
        return False


class NilMap(dict[str, "Any"]):
    """A map that is nil in Go: empty, and null in JSON."""


class Set(dict[str, Struct]):
    """Go's set: a map to structs without fields, which it also gives for what is not in it."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        super().__init__((name, Struct({})) for name in names)


class NilSet(Set, NilMap):
    """A set that is nil in Go: empty, and null in JSON."""


class NilList(list["Any"]):
    """A list that is nil in Go: empty, and null in JSON."""


class Time:
    """A point in time, as RFC 3339 has it; templates print Go's form of it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        match = _RFC3339.fullmatch(self.text)
        if match is None:
            return self.text
        day, clock, fraction, sign, hours, minutes = match.groups()
        zone = (
            "+0000 UTC"
            if sign is None or hours == minutes == "00"
            else f"{sign}{hours}{minutes} {sign}{hours}{minutes}"
        )
        fraction = (fraction or "").rstrip("0").rstrip(".")
        return f"{day} {clock}{fraction} {zone}"


class Nanoseconds(int):
    """A span of time; templates print it as Go does: 1m30s."""

    def __str__(self) -> str:
        seconds, rest = divmod(abs(self), 10**9)
        sign = "-" if self < 0 else ""
        if not seconds:
            if not rest:
                return "0s"
            unit, size = next((unit, size) for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)) if rest >= size)
            return f"{sign}{_decimal(rest, size)}{unit}"
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        before = (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "")
        return f"{sign}{before}{_decimal(seconds * 10**9 + rest, 10**9)}s"


_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]+)?(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0") if rest else str(whole)


class TemplateFault(Exception):
    """A template that is well formed does not fit the value."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def is_true(value: Value) -> bool:
    """Go's truth: everything but false, 0, nil and what is empty; a struct is always true."""
    return isinstance(value, Struct) or bool(value)


def display(value: Value) -> str:
    """`value` as Go's `%v` prints it."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, Nil):
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Struct):
        return "{" + " ".join(display(item) for item in value.values()) + "}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{display(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, Sequence):
        return "[" + " ".join(display(item) for item in value) + "]"
    return str(value)


def plain(value: Value) -> Value:
    """`value` made of what the json module writes."""
    if isinstance(value, Struct):
        return plain(value.shown)
    if isinstance(value, Nil | NilMap | NilList):
        return None
    if isinstance(value, Time):
        return value.text
    if isinstance(value, Nanoseconds):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


def _float(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)


def _json(value: Value) -> str:
    import json  # six milliseconds that most templates do not need

    return json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False)


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        if value is None or isinstance(value, Nil):
            raise TemplateFault("index of untyped nil")
        if isinstance(value, Mapping):
            value = value.get(key, Struct({}) if isinstance(value, Set) else "")
        elif isinstance(value, str):
            value = value.encode()[_position(key, len(value.encode()))]
        elif isinstance(value, Sequence):
            value = value[_position(key, len(value))]
        else:
            raise TemplateFault(f"index cannot look into: {display(value)}")
    return value


def _position(key: Value, length: int) -> int:
    if not isinstance(key, int) or isinstance(key, bool):
        raise TemplateFault(f"index is not a number: {display(key)}")
    if not 0 <= key < length:
        raise TemplateFault(f"index out of range: {key}, there are {length}")
    return key


def _slice(value: Value, *bounds: int) -> Value:
    if len(bounds) > 2 or any(not 0 <= bound <= len(value) for bound in bounds):
        raise TemplateFault(f"slice out of range: {display(value)}")
    start, end = (*bounds, *(0, len(value))[len(bounds) :])
    return value[start:end]


def _length(value: Value) -> int:
    return len(value.encode()) if isinstance(value, str) else len(value)


def _join(items: Sequence[Value], separator: str) -> str:
    if isinstance(items, str):
        raise TemplateFault(f"join needs a list: {items}")
    return separator.join(display(item) for item in items or ())


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _title(text: str) -> str:
    return re.sub(r"(^|[\s])(\w)", lambda match: match[1] + match[2].upper(), text)


def _pad(text: str, before: int, after: int) -> str:
    return f"{' ' * before}{text}{' ' * after}" if text else text


def _truncate(text: str, length: int) -> str:
    return text[:length]


def _comparable(a: Value, b: Value) -> None:
    kinds = [_kind(a), _kind(b)]
    if kinds[0] != kinds[1]:
        raise TemplateFault(f"incompatible types for comparison: {display(a)} and {display(b)}")


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else type(value).__name__


def _equal(first: Value, *others: Value) -> bool:
    if not others:
        raise TemplateFault("eq needs an argument to compare with")
    for other in others:
        if first is not None and other is not None:
            _comparable(first, other)
    return any(first == other for other in others)


def _not_equal(a: Value, b: Value) -> bool:
    return not _equal(a, b)


def _less(a: Value, b: Value) -> bool:
    _comparable(a, b)
    return bool(a < b)


def _less_or_equal(a: Value, b: Value) -> bool:
    _comparable(a, b)
    return bool(a <= b)


def _print(*values: Value) -> str:
    """Go's Sprint: a space between two operands when neither is a string."""
    out = ""
    for i, value in enumerate(values):
        if i and not isinstance(value, str) and not isinstance(values[i - 1], str):
            out += " "
        out += display(value)
    return out


def _println(*values: Value) -> str:
    return " ".join(display(value) for value in values) + "\n"


_VERB = re.compile(r"%([-+# 0]*)([0-9]+|\*)?(?:\.([0-9]+|\*))?(.)", re.DOTALL)


def _printf(pattern: str, *values: Value) -> str:
    """Go's Sprintf for the verbs that make sense of strings, numbers, truth values and lists."""
    left = list(values)

    def filled(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        width = str(left.pop(0)) if width == "*" and left else width
        precision = str(left.pop(0)) if precision == "*" and left else precision
        if not left:
            return f"%!{verb}(MISSING)"
        return _formatted(verb, flags, width, precision, left.pop(0))

    text = _VERB.sub(filled, pattern)
    if left:
        text += "%!(EXTRA " + ", ".join(f"{_go_type(value)}={display(value)}" for value in left) + ")"
    return text


def _formatted(verb: str, flags: str, width: str | None, precision: str | None, value: Value) -> str:
    bad = precision is not None and _measure(precision) is None
    text = _converted(verb, flags, None if bad else precision, value)
    if text is not None and bad:
        text = f"%!(BADPREC){text}"
    if text is None:
        return f"%!{verb}({_go_type(value)}={display(value)})"
    if width is None:
        return text
    size = _measure(width)
    if size is None:
        return f"%!(BADWIDTH){text}"
    if "-" in flags:
        return text.ljust(size)
    return text.zfill(size) if "0" in flags and verb not in "sqv" else text.rjust(size)


def _measure(text: str) -> int | None:
    """A width or precision; None for one that Go does not take either."""
    return int(text) if len(text) < 8 and text.isdecimal() and int(text) <= 10**6 else None


def _converted(verb: str, flags: str, precision: str | None, value: Value) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb in "sv":
        if verb == "s" and (number or isinstance(value, bool)):
            return None
        text = display(value)
        return text if precision is None else text[: int(precision)]
    if verb == "q":
        return _all_quoted(value)
    if verb == "t":
        return display(value) if isinstance(value, bool) else None
    if verb == "T":
        return _go_type(value)
    if verb == "c":
        return chr(value) if number and isinstance(value, int) and 0 <= value < 0x110000 else None
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb in "dxXob" and isinstance(value, int) and number:
        sign = "+" if "+" in flags else ""
        return format(value, f"{sign}{'#' if '#' in flags else ''}{verb}")
    if verb in "feEgG" and isinstance(value, float):
        return format(value, f"{'+' if '+' in flags else ''}.{precision if precision is not None else 6}{verb}")
    return None


def _all_quoted(value: Value) -> str | None:
    """`value` with each text in it quoted; None for what has none."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Time | Nanoseconds):
        return _quoted(str(value))
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return _quoted_character(value)
    if isinstance(value, Struct):
        return "{" + " ".join(_quoted_or_not(item) for item in value.values()) + "}"
    if isinstance(value, Mapping):
        rows = (f"{_quoted(str(key))}:{_quoted_or_not(item)}" for key, item in sorted(value.items()))
        return f"map[{' '.join(rows)}]"
    if isinstance(value, Sequence):
        return "[" + " ".join(_quoted_or_not(item) for item in value) + "]"
    return None


def _quoted_or_not(value: Value) -> str:
    text = _all_quoted(value)
    return f"%!q({_go_type(value)}={display(value)})" if text is None else text


_ESCAPED = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


def _quoted_character(number: int) -> str:
    text = chr(number) if 0 <= number < 0x110000 else "\ufffd"
    return {"'": "'\\''", '"': "'\"'"}.get(text) or f"'{_quoted(text)[1:-1]}'"


def _quoted(text: str) -> str:
    """`text` as a Go string literal."""
    return '"' + "".join(_ESCAPED.get(c) or (c if c.isprintable() else _code(ord(c))) for c in text) + '"'


def _code(number: int) -> str:
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _go_type(value: Value) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", type(None): "<nil>"}
    return names.get(type(value), "map[string]interface {}" if isinstance(value, Mapping) else "[]interface {}")


def _html(*values: Value) -> str:
    import html

    return html.escape(_print(*values)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def _urlquery(*values: Value) -> str:
    from urllib.parse import quote_plus

    return quote_plus(_print(*values))


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "json": _json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": str.lower,
    "upper": str.upper,
    "pad": _pad,
    "truncate": _truncate,
    "index": _index,
    "slice": _slice,
    "len": _length,
    "not": lambda value: not is_true(value),
    "eq": _equal,
    "ne": _not_equal,
    "lt": _less,
    "le": _less_or_equal,
    "gt": lambda a, b: not _less_or_equal(a, b),
    "ge": lambda a, b: not _less(a, b),
    "print": _print,
    "println": _println,
    "printf": _printf,
    "html": _html,
    "urlquery": _urlquery,
}


def _until(operands: list[Callable[[], Value]], *, truth: bool) -> Value:
    """The first operand of this truth, else the last one; those behind it are not evaluated."""
    value: Value = None
    for operand in operands:
        value = operand()
        if is_true(value) is truth:
            break
    return value


LAZY: Mapping[str, Callable[[list[Callable[[], Value]]], Value]] = {
    "and": partial(_until, truth=False),
    "or": partial(_until, truth=True),
}
"""Functions that take their operands unevaluated and in order."""
