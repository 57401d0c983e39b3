"""Files that stand in for device nodes where a process may make none, as in every user namespace.

An empty regular file holds the node's owner, mode and number in the attribute that other rootless tools use for it. A
layer made of the tree records the node. No image can bring such a file: an archive's own attributes of this sort are
not taken.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping

from builda.fs import xattrs

XATTR = xattrs.STAND_IN
_VALUE = rb"(\d{1,10}):(\d{1,10}):([0-7]{1,6})(?::(char|block)-(\d{1,10})-(\d{1,10}))?"


def make(parent: int, name: bytes, kind: int, device: tuple[int, int], owner: tuple[int, int], mode: int) -> None:
    """A new file `name` that stands in for a device of `kind` (S_IFCHR or S_IFBLK)."""
    word = "char" if kind == stat.S_IFCHR else "block"
    value = f"{owner[0]}:{owner[1]}:{mode & 0o7777:04o}:{word}-{device[0]}-{device[1]}".encode()
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        os.fchmod(fd, 0o600)  # which a default ACL of the directory may have denied
        record(fd, value)
    except PermissionError as error:
        raise xattrs.stands_for_nothing() from error
    finally:
        os.close(fd)


def record(fd: int, value: bytes) -> None:
    """Set the attribute of an open file or directory; Unsupported where the file system has none."""
    try:
        os.setxattr(fd, XATTR, value)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            raise xattrs.not_kept(fd) from error
        raise


def device_of(values: Mapping[str, bytes]) -> tuple[int, tuple[int, int]] | None:
    """Kind and number of the device that a file with these attributes stands in for; None for any other file."""
    found = _parsed(values.get(XATTR, b""))
    if found is None or found[4] is None:
        return None
    kind = stat.S_IFCHR if found[4] == b"char" else stat.S_IFBLK
    return kind, (int(found[5]), int(found[6]))


def owner_of(values: Mapping[str, bytes]) -> tuple[int, int] | None:
    """The owner that a file with these attributes should have; None for one that has its own."""
    found = _parsed(values.get(XATTR, b""))
    return None if found is None else (int(found[1]), int(found[2]))


def mode_of(values: Mapping[str, bytes]) -> int | None:
    """The permission bits that the attribute holds; None without one."""
    found = _parsed(values.get(XATTR, b""))
    return None if found is None else int(found[3], 8) & 0o7777


def owned(value: bytes, uid: int, gid: int, mode: int) -> bytes:
    """The attribute for this owner, with the device part of the present `value`."""
    found = _parsed(value)
    device = b"" if found is None or found[4] is None else b":%b-%b-%b" % (found[4], found[5], found[6])
    return b"%d:%d:%04o%b" % (uid, gid, mode & 0o7777, device)


def without(values: Mapping[str, bytes]) -> dict[str, bytes]:
    """The attributes that an image may bring, or a layer records."""
    return {name: value for name, value in values.items() if name != XATTR or not _parsed(value)}


def _parsed(value: bytes) -> re.Match[bytes] | None:
    return re.fullmatch(_VALUE, value) if value else None
