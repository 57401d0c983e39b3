"""--chmod: octal and symbolic modes (POSIX chmod), as functions of the mode a file has."""

from __future__ import annotations

import re
from collections.abc import Callable

from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

Mode: TypeAlias = "Callable[[int, bool], int]"
"""From the permission bits a file has, and whether it is a directory, to those it gets."""

_CLAUSE = r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)"
_ACTION = r"([-+=])([rwxXst]*(?![ugo])|[ugo])"
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


def parse_mode(text: str) -> Mode:
    """What `--chmod=TEXT` does: `0755`, `u=rwX,go=rX`, `+x`, `g=u` …; InvalidValue when it cannot mean anything.

    Without a letter in front, all three classes are meant: the result does not depend on the builder's umask.
    """
    fixed = octal_mode(text)
    if fixed is not None:
        if fixed > 0o7777:
            raise InvalidValue(f"mode has more than the bits 07777: {text}")
        return lambda mode, is_directory: fixed
    actions = _actions(text)

    def changed(mode: int, is_directory: bool) -> int:
        for classes, operator, permissions in actions:
            mode = _applied(mode, is_directory, classes, operator, permissions)
        return mode

    return changed


def octal_mode(text: str) -> int | None:
    """The mode that an octal `--chmod=TEXT` gives to everything; None for a symbolic one."""
    return int(text.lower().removeprefix("0o"), 8) if re.fullmatch(r"(0[oO])?[0-7]{1,5}", text) else None


def _actions(text: str) -> tuple[tuple[str, str, str], ...]:
    actions: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        match = re.fullmatch(_CLAUSE, clause)
        if match is None:
            raise InvalidValue(f"not a mode: {text}", hint="modes are octal (0755) or symbolic (u=rwX,go=rX)")
        classes = "ugo" if not match[1] or "a" in match[1] else match[1]
        actions += [(classes, operator, permissions) for operator, permissions in re.findall(_ACTION, match[2])]
    return tuple(actions)


def _applied(mode: int, is_directory: bool, classes: str, operator: str, permissions: str) -> int:
    named = _named(mode, is_directory, classes, permissions)
    if operator == "+":
        return mode | named
    if operator == "-":
        return mode & ~named
    return mode & ~_covered(classes, is_directory) | named


def _named(mode: int, is_directory: bool, classes: str, permissions: str) -> int:
    if permissions in _SHIFT and permissions:
        bits = mode >> _SHIFT[permissions] & 7
    else:
        bits = sum(_BITS[letter] for letter in set(permissions) & set("rwx"))
        if "X" in permissions and (is_directory or mode & 0o111):
            bits |= 1
    value = 0
    for letter in classes:
        value |= bits << _SHIFT[letter]
    if "s" in permissions:
        value |= (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
    if "t" in permissions:
        value |= 0o1000
    return value


def _covered(classes: str, is_directory: bool) -> int:
    """The bits that `=` clears; chmod(1) leaves a directory's set-id bits alone unless they are named."""
    covered = 0
    for letter in classes:
        covered |= 7 << _SHIFT[letter]
    if not is_directory:
        covered |= (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
    return covered | (0o1000 if classes == "ugo" and not is_directory else 0)
