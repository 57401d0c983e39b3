"""The exec form of instructions: a JSON array of strings."""

from __future__ import annotations

from builda.errors import CorruptContent
from builda.oci.document import decode_any


class NotStrings(ValueError):
    """A JSON array with an element that is no string."""


def exec_form(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None for other text, which is the shell form. NotStrings for other arrays."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = decode_any(text.encode(), "exec form")
    except CorruptContent:
        return None
    if not isinstance(value, list):  # pragma: no cover  # it begins with a bracket
        return None
    if not all(isinstance(item, str) for item in value):
        raise NotStrings
    return tuple(value)
