"""Command lines of builda as logs may show them: without values that are probably secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from builda.display import HIDDEN
from builda.frontend.secretnames import names_a_secret

_PASSWORDS = frozenset({"--creds", "--src-creds", "--dest-creds", "--password", "--decryption-key"})
"""Options whose value is a password or has one in it."""
_SETTING = re.compile(r"(--[a-z-]+=)?([A-Za-z_][\w-]*)=.", re.DOTALL)
"""A word that gives a variable, a label or an argument a value."""
_INSIDE = re.compile(r"(?<![\w-])([A-Za-z_][\w-]*)=([^\s;&|\"']+)")
_OPTION = re.compile(r"(--(?:(?:src-|dest-)?creds|password|decryption-key)(?:=|\s+))[^\s;&|]+")
_HEADER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")


def masked(words: Sequence[str]) -> tuple[str, ...]:
    """The words behind `builda` with *** for each value that is probably a secret. Passwords of URLs stay."""
    return tuple(_masked(words))


def _masked(words: Sequence[str]) -> Iterator[str]:
    short = "-p" if "login" in words[:3] else None
    hides = False
    for word in words:
        option, equals, _ = word.partition("=")
        if hides:
            yield HIDDEN
        elif equals and option in _PASSWORDS:
            yield f"{option}={HIDDEN}"
        elif short is not None and word.startswith(short) and word != short:
            yield f"{short}{HIDDEN}"
        else:
            yield _without_values(word)
        hides = not hides and (word in _PASSWORDS or word == short)


def _without_values(word: str) -> str:
    found = _SETTING.match(word)
    if found is not None and names_a_secret(found[2]):
        return f"{found[1] or ''}{found[2]}={HIDDEN}"
    word = _INSIDE.sub(lambda one: f"{one[1]}={HIDDEN}" if names_a_secret(one[1]) else one[0], word)
    word = _OPTION.sub(rf"\1{HIDDEN}", word)
    return _HEADER.sub(rf"\1 {HIDDEN}", word)
