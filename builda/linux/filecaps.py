"""The capabilities of files as `security.capability` holds them (capabilities(7)): five words, and the root user of a
user namespace in version 3, in which alone they count then.

A process with one id can name no other root user. It sets such capabilities in disguise instead, as of version 2: the
kernel then takes them away where it would take the real ones.
"""

from __future__ import annotations

import struct

NAME = "security.capability"
_WORDS, _ROOT = struct.Struct("<5I"), struct.Struct("<I")
_VERSION_2, _VERSION_3, _EFFECTIVE = 0x02000000, 0x03000000, 1
_NO_ID = 0xFFFFFFFF
# The upper words of both sets have nine capabilities. A disguise has more above them: 23 bits of the root user; the
# others, whether capabilities are effective, and a mark.
_KNOWN, _LOW_BITS, _MARK = 0x1FF, 23, 0x15AD


def is_valid(value: bytes) -> bool:
    """Whether the kernel of a machine with all ids would take the value."""
    version = int.from_bytes(value[:4], "little") & ~_EFFECTIVE
    if len(value) == _WORDS.size:
        return version == _VERSION_2
    return len(value) == _WORDS.size + _ROOT.size and version == _VERSION_3 and _root_of(value) != _NO_ID


def has_root(value: bytes) -> bool:
    """Whether a valid value is for namespaces with a root user that is not root outside."""
    return len(value) > _WORDS.size and _root_of(value) != 0


def shown(value: bytes) -> bytes:
    """What the kernel shows of a valid value: version 2 if root of the present namespace is meant."""
    if len(value) == _WORDS.size or has_root(value):
        return value
    first, *sets = _WORDS.unpack_from(value)
    return _WORDS.pack(_VERSION_2 | first & _EFFECTIVE, *sets)


def disguised(value: bytes) -> bytes:
    """A value of version 2, never effective, from which `revealed` gets the valid `value`.

    Empty if there is no need, as it has no root user, or no place, as it has capabilities that no kernel knows.
    """
    if not has_root(value):
        return b""
    first, permitted, inheritable, high, inheritable_high = _WORDS.unpack_from(value)
    root = _root_of(value)
    rest = root >> _LOW_BITS | (first & _EFFECTIVE) << 9 | _MARK << 10
    if (high | inheritable_high) & ~_KNOWN:
        return b""
    return _WORDS.pack(
        _VERSION_2,
        permitted,
        inheritable,
        high | (root & (1 << _LOW_BITS) - 1) << 9,
        inheritable_high | rest << 9,
    )


def revealed(value: bytes) -> bytes:
    """The value that `value` is the disguise of; `value` itself if it is none."""
    if len(value) != _WORDS.size:
        return value
    first, permitted, inheritable, high, inheritable_high = _WORDS.unpack(value)
    if first != _VERSION_2 or inheritable_high >> 19 != _MARK:
        return value
    effective = inheritable_high >> 18 & 1
    root = high >> 9 | (inheritable_high >> 9 & 0x1FF) << _LOW_BITS
    sets = (permitted, inheritable, high & _KNOWN, inheritable_high & _KNOWN)
    return _WORDS.pack(_VERSION_3 | effective, *sets) + _ROOT.pack(root)


def _root_of(value: bytes) -> int:
    return int(_ROOT.unpack_from(value, _WORDS.size)[0])
