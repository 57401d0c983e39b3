"""Changing owners, with words for the ids that a user namespace does not have."""

from __future__ import annotations

import errno
import os

from builda.errors import Unsupported
from builda.linux.userns import unmapped


def fchown(fd: int, uid: int, gid: int) -> None:
    """fchown(2); Unsupported when an id has no place in this user namespace."""
    try:
        os.fchown(fd, uid, gid)
    except OSError as error:
        _explain(error, uid, gid)
        raise


def chown(name: str | bytes, uid: int, gid: int, *, dir_fd: int | None = None) -> None:
    """fchownat(2), following no link; Unsupported when an id has no place in this user namespace."""
    try:
        os.chown(name, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
    except OSError as error:
        _explain(error, uid, gid)
        raise


def check(uid: int, gid: int, what: str) -> None:
    """Unsupported, beginning with `what`, when an id has no place in this user namespace."""
    lacking = unmapped(uid, gid)
    if lacking is not None:
        raise Unsupported(f"{what}: {lacking}", hint=_HINT)


def _explain(error: OSError, uid: int, gid: int) -> None:
    if error.errno == errno.EINVAL:
        lacking = unmapped(uid, gid)
        if lacking is not None:
            raise Unsupported(f"cannot give a file to {uid}:{gid}: {lacking}", hint=_HINT) from error


_HINT = "a larger range in /etc/subuid and /etc/subgid, or another owner"
