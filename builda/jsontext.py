"""JSON texts, as the standard library's json reads and writes them.

That package imports re, for its Python versions of what `_json` does in C. Both take six milliseconds to import, longer
than most verbs work. It is imported only to say what is wrong with a text, and where `_json` does not exist.
"""

from __future__ import annotations

from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BLANKS = " \t\n\r"


def loads(
    text: str | bytes,
    *,
    parse_constant: Callable[[str], Any] = float,
    parse_float: Callable[[str], Any] = float,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value that a text, or UTF-8, means; ValueError if it is no JSON, or nested too deep.

    json.loads says what the options mean. It takes UTF-16 and marks of byte order, too, which JSON on a wire never has.
    """
    text = text.decode() if isinstance(text, bytes) else text
    try:
        return _loads(text, parse_constant, parse_float, object_pairs_hook)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _loads(
    text: str,
    parse_constant: Callable[[str], Any],
    parse_float: Callable[[str], Any],
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None,
) -> Any:
    with suppress(ImportError, StopIteration):
        from _json import make_scanner

        rules: Any = _Rules(parse_constant, parse_float, object_pairs_hook)
        value, end = make_scanner(rules)(text, len(text) - len(text.lstrip(_BLANKS)))
        if not text[end:].strip(_BLANKS):
            return value
    import json

    constant = None if parse_constant is float else parse_constant
    return json.loads(text, parse_constant=constant, parse_float=parse_float, object_pairs_hook=object_pairs_hook)


def dumps(
    value: object, *, separators: tuple[str, str] = (", ", ": "), ensure_ascii: bool = True, allow_nan: bool = True
) -> str:
    """`value` as a text without line breaks. json.dumps says what the options mean."""
    try:
        import _json
    except ImportError:
        import json

        return json.dumps(value, separators=separators, ensure_ascii=ensure_ascii, allow_nan=allow_nan)
    texts = _json.encode_basestring_ascii if ensure_ascii else _json.encode_basestring
    between, after_key = separators
    encode = _json.make_encoder({}, _refuse, texts, None, after_key, between, False, False, allow_nan)
    return "".join(encode(value, 0))


class _Rules:
    """The settings that the scanner in C reads."""

    strict = True
    object_hook = None
    array_hook = None  # of Python 3.15
    parse_int = int

    def __init__(
        self,
        parse_constant: Callable[[str], Any],
        parse_float: Callable[[str], Any],
        object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None,
    ) -> None:
        self.parse_constant = parse_constant
        self.parse_float = parse_float
        self.object_pairs_hook = object_pairs_hook


def _refuse(value: object) -> object:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
