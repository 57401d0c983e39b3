"""What is kept aside of a file because its process has one id: owner, mode and device; and who may change it."""

from __future__ import annotations

import errno
import zlib

from builda.isolation.emulated.credentials import (
    CHOWN,
    DAC_OVERRIDE,
    DAC_READ_SEARCH,
    FOWNER,
    FSETID,
    MKNOD,
    NO_ID,
    Credentials,
)
from builda.linux.acl import permits
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ATTRIBUTE = "user.containers.override_stat"
"""Of a regular file or directory: what is kept aside of it."""
NAMED = "user.builda.owners"
"""Of a directory: the owners of links and FIFOs in it, which can have no such attribute (`rows`)."""
ASIDE = "user.builda.aside."
"""Before the name of an attribute that the command's processes could not set (`fs.xattrs.ASIDE`)."""
HIDDEN = (ATTRIBUTE, NAMED)
"""Attributes that no process in the tree sees or sets."""

S_IFMT, S_IFDIR, S_IFCHR, S_IFBLK, S_IFREG, S_IFLNK = 0o170000, 0o040000, 0o020000, 0o060000, 0o100000, 0o120000
S_IFIFO, S_IFSOCK = 0o010000, 0o140000
S_ISUID, S_ISGID, S_ISVTX, S_IXGRP = 0o4000, 0o2000, 0o1000, 0o010
_KINDS = {b"char": S_IFCHR, b"block": S_IFBLK}
_WORDS = {kind: word for word, kind in _KINDS.items()}


class Kept(NamedTuple):
    """What is kept aside of one file.

    `mode` has the permission bits. They count if the file itself cannot hold them; a supervisor that runs with root's
    rights over files shows the file's own. `kind` is S_IFCHR or S_IFBLK for a device, whose number is `device` (major,
    minor), else 0.
    """

    uid: int
    gid: int
    mode: int
    kind: int = 0
    device: tuple[int, int] = (0, 0)

    def value(self) -> bytes:
        """The attribute that holds it."""
        text = b"%d:%d:%04o" % (self.uid, self.gid, self.mode & 0o7777)
        if self.kind:
            text += b":%b-%d-%d" % (_WORDS[self.kind], *self.device)
        return text


def parse_kept(value: bytes) -> Kept | None:
    """What an attribute holds; None if it is malformed."""
    try:
        uid, gid, mode, *rest = value.split(b":")
        if not rest:
            return Kept(int(uid), int(gid), int(mode, 8))
        word, major, minor = rest[0].split(b"-")
        return Kept(int(uid), int(gid), int(mode, 8), _KINDS[word], (int(major), int(minor)))
    except (ValueError, KeyError):
        return None


def parse_rows(value: bytes) -> dict[int, tuple[int, int]]:
    """The owners in a NAMED attribute by `row_key` of the name: rows of three numbers of 32 bits."""
    numbers = [int.from_bytes(value[at : at + 4], "little") for at in range(0, len(value) // 12 * 12, 4)]
    return {numbers[at]: (numbers[at + 1], numbers[at + 2]) for at in range(0, len(numbers), 3)}


def rows_value(rows: dict[int, tuple[int, int]]) -> bytes:
    """The NAMED attribute with these rows."""
    return b"".join(number.to_bytes(4, "little") for key, owner in rows.items() for number in (key, *owner))


def row_key(name: bytes) -> int:
    """The number that stands for a name in a NAMED attribute."""
    return zlib.crc32(name)


def given(who: Credentials, owner: tuple[int, int], uid: int, gid: int) -> tuple[int, int]:
    """The owner after chown(2) by `who` of a file of this owner; EPERM if it may not do that."""
    if not who.has(CHOWN):
        if uid not in (NO_ID, owner[0]) or (who.fsuid != owner[0] and uid != NO_ID):
            raise OSError(errno.EPERM, "chown")
        if gid != NO_ID and (who.fsuid != owner[0] or not (gid == owner[1] or who.is_member(gid))):
            raise OSError(errno.EPERM, "chown")
    return owner[0] if uid == NO_ID else uid, owner[1] if gid == NO_ID else gid


def mode_after_chown(who: Credentials, mode: int, owner: tuple[int, int], gid: int) -> int:
    """The mode after chown(2) of a file of `owner` to the group `gid`: it takes set-id bits from what is no directory.

    EPERM if it would take one, and `who` may not change the mode. As with chmod(2), a set-group-id bit goes then if
    `who` is no member of the new group.
    """
    if not mode & (S_ISUID | S_ISGID) or mode & S_IFMT == S_IFDIR:
        return mode
    drops_group = mode & S_IXGRP or not (who.has(FSETID) or who.is_member(owner[1]))
    left = mode & ~S_ISUID & ~(S_ISGID if drops_group else 0)
    if left == mode:
        return mode
    if who.fsuid != owner[0] and not who.has(FOWNER):
        raise OSError(errno.EPERM, "chown")
    return left if who.has(FSETID) or who.is_member(gid) else left & ~S_ISGID


def check_node(who: Credentials, mode: int) -> None:
    """EPERM if `who` may not make a node of this mode by mknod(2)."""
    if mode & S_IFMT in (S_IFCHR, S_IFBLK) and not who.has(MKNOD):
        raise OSError(errno.EPERM, "mknod")


def owner_of_new(who: Credentials, parent_mode: int, parent_gid: int) -> tuple[int, int]:
    """The owner of a file that `who` makes in a directory; a set-group-id directory gives its group."""
    return who.fsuid, parent_gid if parent_mode & S_ISGID else who.fsgid


def no_acl() -> bytes:
    """The ACL of a file that can have none."""
    return b""


def mode_of_new(who: Credentials, mode: int, parent_mode: int, gid: int) -> int:
    """The mode for a file, no directory, that `who` makes in a directory of the group `gid`.

    The group of a set-group-id directory is given to others' files without the right to run as that group.
    """
    runs_as_group = mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP
    if not runs_as_group or not parent_mode & S_ISGID or who.has(FSETID) or who.is_member(gid):
        return mode
    return mode & ~S_ISGID


def changed_mode(who: Credentials, mode: int, owner: tuple[int, int]) -> int:
    """The mode after chmod(2) to `mode` by `who` of a file of this owner; EPERM if it may not do that."""
    if who.fsuid != owner[0] and not who.has(FOWNER):
        raise OSError(errno.EPERM, "chmod")
    return mode if who.has(FSETID) or who.is_member(owner[1]) else mode & ~S_ISGID


def check_attribute_of_users(
    who: Credentials, mode: int, owner: tuple[int, int], wanted: int, acl: Callable[[], bytes]
) -> None:
    """EACCES or EPERM if `who` may not read (4) or change (2) an attribute `user.…` of a regular file or directory."""
    others_directory = mode & S_IFMT == S_IFDIR and mode & S_ISVTX and who.fsuid != owner[0] and not who.has(FOWNER)
    if wanted == 2 and others_directory:
        raise OSError(errno.EPERM, "setxattr")
    if not may_access(who, mode, owner, wanted, acl=acl):
        raise OSError(errno.EACCES, "setxattr")


def may_access(
    who: Credentials,
    mode: int,
    owner: tuple[int, int],
    wanted: int,
    *,
    acl: Callable[[], bytes] = no_acl,
    real: bool = False,
) -> bool:
    """Whether `who` may read (4), write (2) or execute (1) a file, by its mode and its ACL.

    `acl` reads the ACL, empty without one; it is called if the answer may depend on it. With `real` the real ids count
    and root's capabilities by the real user, as in access(2).
    """
    uid, gid = (who.ruid, who.rgid) if real else (who.fsuid, who.fsgid)
    held = who.effective
    if real:
        held = who.permitted if who.ruid == 0 else 0
    is_directory = mode & S_IFMT == S_IFDIR
    if held >> DAC_OVERRIDE & 1 and (is_directory or not wanted & 1 or mode & 0o111):
        return True
    if held >> DAC_READ_SEARCH & 1 and not wanted & (2 if is_directory else 3):
        return True
    if uid == owner[0]:
        return not wanted & ~(mode >> 6)
    value = acl() if mode & 0o070 else b""
    if value:
        return permits(value, wanted, uid, owner[1], lambda group: group == gid or group in who.groups)
    return not wanted & ~(mode >> (3 if owner[1] == gid or owner[1] in who.groups else 0))
