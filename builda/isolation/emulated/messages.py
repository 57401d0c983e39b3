"""The ids that a process claims in a message to a socket (SCM_CREDENTIALS, unix(7))."""

from __future__ import annotations

import errno
import struct

from builda.isolation.emulated.credentials import NO_ID, SETGID, SETUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.emulated.credentials import Credentials

_HEADER = struct.Struct("=Qii")  # struct cmsghdr: length, level, type
_IDS = struct.Struct("=II")  # of struct ucred: uid, gid
_IDS_AT = _HEADER.size + 4  # pid
_CLAIM = (_HEADER.size + 12, 1, 2)  # SOL_SOCKET, SCM_CREDENTIALS

MESSAGE = struct.Struct("=QIxxxxQQQQixxxx")
"""struct msghdr: name, its length, vector, its length, control data, their length, flags."""
MANY_STRIDE = 64
"""Bytes from one message of sendmmsg(2) to the next (struct mmsghdr)."""
CONTROL_MAX = 4096
"""Bytes of control data that are looked at; the most descriptors that a message can have take 1,028."""


def with_kernels_ids(control: bytes, who: Credentials, ids: tuple[int, int]) -> bytes:
    """Control data of a message with the user and group that the kernel knows (`ids`) in place of what `who` claims.

    EPERM for other ids that `who` may not claim. What is malformed stays, and the kernel refuses it.
    """
    changed, at = bytearray(control), 0
    while at + _HEADER.size <= len(control):
        header = _HEADER.unpack_from(control, at)
        length = header[0]
        if not _HEADER.size <= length <= len(control) - at:
            break
        if header == _CLAIM:
            uid, gid = _IDS.unpack_from(control, at + _IDS_AT)
            if NO_ID not in (uid, gid):
                _check(who, uid, gid, ids)
                _IDS.pack_into(changed, at + _IDS_AT, *ids)
        at += length + 7 & ~7
    return bytes(changed)


def _check(who: Credentials, uid: int, gid: int, ids: tuple[int, int]) -> None:
    """What the kernel checks (scm_check_creds). Its own ids pass: the data may have been changed by an earlier call."""
    is_user = uid in (ids[0], who.ruid, who.euid, who.suid) or who.has(SETUID)
    is_group = gid in (ids[1], who.rgid, who.egid, who.sgid) or who.has(SETGID)
    if not (is_user and is_group):
        raise OSError(errno.EPERM, "not permitted")
