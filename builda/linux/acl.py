"""POSIX ACLs as the kernel keeps them in attributes: entries of tag, permissions and id behind a version.

A process with one id can set no ACL that names other users or groups. It sets one in disguise instead: the kernel then
applies modes to it, and hands default ACLs down, as it would with the real one.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("system.posix_acl_access", "system.posix_acl_default")
"""The attributes: of a file, and what files get that are made in a directory."""
_VERSION, _ENTRY = struct.Struct("=I"), struct.Struct("=HHI")
_USER, _NAMED_USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NAMED = (_NAMED_USER, _NAMED_GROUP)
_NO_ID = 0xFFFFFFFF
_MORE = 4  # the bit of an entry that says that another digit follows
_IDS = 1 << 33  # ids of 32 bits, and a bit that says which of them are groups


def is_acl(value: bytes) -> bool:
    """Whether the kernel of a machine with all ids would take the value.

    It wants entries in the order of their tags, with permissions and ids that exist, and a mask if any has a name.
    """
    if len(value) < _VERSION.size or (len(value) - _VERSION.size) % _ENTRY.size:
        return False
    if any(bits > 7 or (tag in _NAMED and number == _NO_ID) for tag, bits, number in _entries(value)):
        return False
    tags = [tag for tag, _, _ in _entries(value)]
    once = [tag for tag in tags if tag not in _NAMED]
    wanted = [_USER, _GROUP, _MASK, _OTHER] if _MASK in tags or len(once) < len(tags) else [_USER, _GROUP, _OTHER]
    return _VERSION.unpack_from(value)[0] == 2 and tags == sorted(tags) and once == wanted


def is_removal(value: bytes) -> bool:
    """Whether the kernel removes the ACL of a file that is given this one: it has no entries."""
    return not value or value == _VERSION.pack(2)


def names_others(value: bytes) -> bool:
    """Whether an entry is for a user or group that is not root: a process with one id can set no such ACL."""
    return any(tag in _NAMED and number for tag, _, number in _entries(value))


def says_more_than_a_mode(value: bytes) -> bool:
    """Whether a mode cannot say the same: the kernel keeps no other ACL."""
    return any(tag == _MASK for tag, _, _ in _entries(value))


def mode_of(value: bytes) -> int:
    """The permission bits that a file has with this ACL."""
    bits = {tag: permissions for tag, permissions, _ in _entries(value)}
    return bits[_USER] << 6 | bits.get(_MASK, bits[_GROUP]) << 3 | bits[_OTHER]


def with_mode(value: bytes, mode: int) -> bytes:
    """The ACL after its file was given this mode."""
    entries = [*_entries(value)]
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP
    bits = {_USER: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return value[: _VERSION.size] + b"".join(
        _ENTRY.pack(tag, bits.get(tag, old), number) for tag, old, number in entries
    )


def permits(value: bytes, wanted: int, user: int, group: int, is_member: Callable[[int], bool]) -> bool:
    """Whether an ACL lets `user`, who does not own the file, read (4), write (2) or execute (1) it.

    `group` is that of the file; `is_member` tells of which groups the user is a member.
    """
    mask, in_group = 7, False
    for tag, bits, _ in _entries(value):
        mask = bits if tag == _MASK else mask
    for tag, bits, number in _entries(value):
        if tag == _NAMED_USER and number == user:
            return not wanted & ~(bits & mask)
        if tag in (_GROUP, _NAMED_GROUP) and is_member(group if tag == _GROUP else number):
            in_group = True
            if not wanted & ~bits:
                return not wanted & ~mask
        if tag == _OTHER:
            return not in_group and not wanted & ~bits
    return False


def disguised(value: bytes, own: int) -> bytes:
    """An ACL from which `revealed` gets `value`, whose entries with names are all for the user `own`.

    They hold permissions and names as digits. They give nobody rights: `own` must be the owner of the file.
    """
    entries = [*_entries(value)]
    hidden = [
        (_NAMED_USER, digit, own)
        for tag, permissions, number in entries
        if tag in _NAMED
        for digit in (permissions, *_digits(number << 1 | (tag == _NAMED_GROUP)))
    ]
    return value[: _VERSION.size] + b"".join(
        _ENTRY.pack(*entry) for entry in (entries[0], *hidden, *(each for each in entries[1:] if each[0] not in _NAMED))
    )


def revealed(value: bytes) -> bytes:
    """The ACL that `value` is the disguise of; `value` itself if it is none."""
    entries = [*_entries(value)]
    hidden = _named(entries)
    if hidden is None:
        return value
    users = [entry for entry in hidden if entry[0] == _NAMED_USER]
    groups = [entry for entry in hidden if entry[0] == _NAMED_GROUP]
    others = [entry for entry in entries if entry[0] not in _NAMED]
    return value[: _VERSION.size] + b"".join(
        _ENTRY.pack(*entry) for entry in (*others[:1], *users, *others[1:2], *groups, *others[2:])
    )


def is_disguise(value: bytes) -> bool:
    """Whether the value hides another ACL: no tool makes such a one, with several entries for one user."""
    return _named([*_entries(value)]) is not None


def _named(entries: list[tuple[int, int, int]]) -> list[tuple[int, int, int]] | None:
    """The entries with names that others hide; None if they hide none."""
    hidden = [entry for entry in entries if entry[0] in _NAMED]
    if len(hidden) < 2 or len({(tag, number) for tag, _, number in hidden}) > 1 or hidden[0][0] != _NAMED_USER:
        return None
    found, digits = [], iter([digit for _, digit, _ in hidden])
    for permissions in digits:
        number = place = 0
        while True:
            digit = next(digits, None)
            if digit is None:
                return None
            number |= (digit & ~_MORE) << place
            place += 2
            if not digit & _MORE:
                break
        if number >= _IDS:
            return None
        found.append((_NAMED_GROUP if number & 1 else _NAMED_USER, permissions, number >> 1))
    return found


def _digits(number: int) -> list[int]:
    """The number as digits of two bits, the lowest first; all but the last have the bit that says so."""
    digits = [number & 3]
    while number := number >> 2:
        digits[-1] |= _MORE
        digits.append(number & 3)
    return digits


def _entries(value: bytes) -> list[tuple[int, int, int]]:
    end = _VERSION.size + (len(value) - _VERSION.size) // _ENTRY.size * _ENTRY.size
    return [*_ENTRY.iter_unpack(value[_VERSION.size : end])]
