"""POSIX ACLs as the kernel keeps them in attributes: entries of tag, permissions and id behind a version."""

from __future__ import annotations

import struct

NAMES = ("system.posix_acl_access", "system.posix_acl_default")
"""The attributes: of a file, and what files get that are made in a directory."""
_VERSION, _ENTRY = struct.Struct("=I"), struct.Struct("=HHI")
_USER, _NAMED_USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NAMED = (_NAMED_USER, _NAMED_GROUP)


def is_acl(value: bytes) -> bool:
    """Whether the kernel would take the value: entries in the order of their tags, and a mask if any has a name."""
    if len(value) < _VERSION.size or (len(value) - _VERSION.size) % _ENTRY.size:
        return False
    tags = [tag for tag, _, _ in _entries(value)]
    once = [tag for tag in tags if tag not in _NAMED]
    wanted = [_USER, _GROUP, _MASK, _OTHER] if _MASK in tags or len(once) < len(tags) else [_USER, _GROUP, _OTHER]
    return _VERSION.unpack_from(value)[0] == 2 and tags == sorted(tags) and once == wanted


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


def _entries(value: bytes) -> list[tuple[int, int, int]]:
    end = _VERSION.size + (len(value) - _VERSION.size) // _ENTRY.size * _ENTRY.size
    return [*_ENTRY.iter_unpack(value[_VERSION.size : end])]
