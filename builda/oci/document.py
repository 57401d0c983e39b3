"""JSON documents of images: decoded strictly, because readers that disagree about a document can be played off against
each other (CVE-2021-41190), and encoded canonically.
"""

from __future__ import annotations

from collections.abc import Mapping

from builda import jsontext
from builda.errors import CorruptContent

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import Any, NoReturn

_INFINITE = float("inf")
_ESCAPE = r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)"


def decode(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """The JSON object in `data`; CorruptContent naming `what` for anything else and for more than `limit` bytes."""
    if len(data) > limit:
        raise CorruptContent(f"{what} has {len(data)} bytes, more than the limit of {limit}")
    value = decode_any(data, what)
    if not isinstance(value, dict):
        raise CorruptContent(f"{what} is not a JSON object")
    return value


def decode_any(data: bytes, what: str) -> Any:
    """The JSON value in `data`, which is UTF-8 and holds no numbers that JSON does not have.

    Half of a surrogate pair, which is no character, is U+FFFD, as Go reads it.
    """
    try:
        text = data.decode()
        if "\\ud" in text or "\\uD" in text:
            import re

            text = re.sub(_ESCAPE, _whole, text)
        return jsontext.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise CorruptContent(f"{what} is not JSON: {error}") from error


def encode(value: Mapping[str, Any]) -> bytes:
    """The canonical bytes: no spaces, text as UTF-8, keys in the order they have."""
    text = jsontext.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # halves of surrogate pairs, or bytes of an argument that is not UTF-8
        return jsontext.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _whole(escape: re.Match[str]) -> str:
    """The JSON escape itself, or U+FFFD for half of a surrogate pair. Python's surrogates for bytes (PEP 383) stay."""
    half = escape[1]
    return escape[0] if half is None or 0xDC80 <= int(half, 16) <= 0xDCFF else "\\ufffd"


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (_INFINITE, -_INFINITE):
        raise ValueError(f"number is too large: {text[:20]}")
    return number
