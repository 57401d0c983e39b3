"""`--chmod`: octal and symbolic modes (chmod(1), POSIX)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from builda.errors import InvalidValue

ModeChange: TypeAlias = Callable[[int, bool], int]
"""The new permission bits, from the old ones and whether it is a directory."""

_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*|[ugo])")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_SHIFT = {"u": 6, "g": 3, "o": 0}


def parse_mode(text: str) -> ModeChange:
    """The change that `text` asks for; InvalidValue when it is neither octal nor symbolic."""
    if re.fullmatch(r"0?[0-7]{1,4}", text):
        mode = int(text, 8)
        return lambda old, is_directory: mode
    clauses = []
    for part in text.split(","):
        match = _CLAUSE.fullmatch(part)
        if match is None:
            raise InvalidValue(f"invalid mode: {text}", hint="write it as 0755 or u=rwX,go=rX")
        clauses.append((match[1] or "a", match[2], match[3]))

    def change(old: int, is_directory: bool) -> int:
        for who, operator, what in clauses:
            old = _apply(old, is_directory, who, operator, what)
        return old

    return change


def _apply(old: int, is_directory: bool, who: str, operator: str, what: str) -> int:
    for name in "ugo" if "a" in who else dict.fromkeys(who):
        bits = _bits(old, is_directory, name, what, everyone="a" in who)
        mask = _WHO[name]
        if operator == "+":
            old |= bits
        elif operator == "-":
            old &= ~bits
        else:
            old = (old & ~mask) | bits
    return old


def _bits(old: int, is_directory: bool, name: str, what: str, *, everyone: bool) -> int:
    shift = _SHIFT[name]
    if what in ("u", "g", "o"):
        return ((old >> _SHIFT[what]) & 7) << shift
    bits = 0
    for char in what:
        if char in "rwx":
            bits |= {"r": 4, "w": 2, "x": 1}[char] << shift
        elif char == "X" and (is_directory or old & 0o111):
            bits |= 1 << shift
        elif char == "s" and name in "ug":
            bits |= 0o4000 if name == "u" else 0o2000
        elif char == "t" and (everyone or name == "o"):
            bits |= 0o1000
    return bits
