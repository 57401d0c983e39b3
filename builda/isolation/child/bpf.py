"""Seccomp filters that hand calls over to a supervisor, as BPF programs (seccomp(2), seccomp_unotify(2))."""

from __future__ import annotations

import _struct

from builda.values import NamedTuple

_RULE = _struct.Struct("=HBBI")
_NOTIFY, _ALLOW, _ERRNO = 0x7FC00000, 0x7FFF0000, 0x00050000  # SECCOMP_RET_…
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _AND, _LEAVE = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32 = 0x40000000

HANDING_OVER = 4
"""The flag of the sendmsg(2) that sends a filter's listener, MSG_DONTROUTE: it means nothing to AF_UNIX sockets.

A filter that hands sendmsg(2) over must let this one pass: nobody answers yet.
"""


class Condition(NamedTuple):
    """Hand a call over only if this holds for the low 32 bits of an argument.

    `op` is `any` (a bit of the one value is set), `in` (it is one of the values), or `masked` (as `in`, after an AND
    with `mask`).
    """

    argument: int
    op: str
    values: tuple[int, ...]
    mask: int = 0


class Catch(NamedTuple):
    """One call that is handed over: always, or if all conditions hold. With `errno` it fails with that instead."""

    number: int
    conditions: tuple[Condition, ...] = ()
    errno: int = 0


def program(arch: int, catches: tuple[Catch, ...]) -> bytes:
    """The filter: calls of other architectures, and all others, are allowed."""
    rows: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, arch),
        (_LEAVE, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_LEAVE, 0, 0, _ALLOW),
    ]
    for catch in catches:
        block = _block(catch)
        rows.append((_EQUAL, 0, len(block), catch.number))
        rows += block
    rows.append((_LEAVE, 0, 0, _ALLOW))
    return b"".join(_RULE.pack(*row) for row in rows)


def _block(catch: Catch) -> list[tuple[int, int, int, int]]:
    """What follows when the number of the call is that of `catch`. It ends in a result in any case."""
    rows: list[tuple[int, int, int, int]] = []
    for argument, op, values, mask in catch.conditions:
        rows.append((_LOAD, 0, 0, _ARGUMENTS + 8 * argument))
        if op == "masked":
            rows.append((_AND, 0, 0, mask))
        test = _ANY_OF if op == "any" else _EQUAL
        # Each test jumps over the rest and over the result of "no" if it holds.
        rows += [(test, len(values) - at, 0, value) for at, value in enumerate(values)]
        rows.append((_LEAVE, 0, 0, _ALLOW))
    rows.append((_LEAVE, 0, 0, _ERRNO | catch.errno if catch.errno else _NOTIFY))
    return rows
