"""The error that the child reports to its parent when the command cannot be started."""

from __future__ import annotations

import errno
import os

# Errnos that mean "this kernel or pod does not allow it" rather than "the caller asked for something wrong".
_REFUSED = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENODEV, errno.EINVAL, errno.ENOSPC, errno.EUSERS, errno.EROFS}
)

TOLD_LIMIT = 512
"""Bytes that are enough for what `told` returns."""


class Failure(Exception):
    """`kind` names a class of builda.errors. `status` is 126 or 127 if the command itself cannot be executed."""

    def __init__(self, kind: str, message: str, hint: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.fields = (kind, message, hint, status)


def refused(what: str, error: OSError, hint: str | None = None) -> Failure:
    """The failure "cannot `what`" with the kernel's reason, and a hint if none is given."""
    name = f": {error.filename}" if error.filename else ""
    kind = "IsolationUnavailable" if error.errno in _REFUSED else "BuildaError"
    if hint is None and error.errno in (errno.EPERM, errno.EACCES):
        hint = "it needs root with CAP_SYS_ADMIN and no seccomp filter in the way; --isolation chroot needs less"
    if hint is None and error.errno in (errno.ENOSPC, errno.EUSERS) and "namespace" in what:
        hint = "sysctl raises a limit, as in user.max_user_namespaces=15000"
    return Failure(kind, f"cannot {what}: {error.strerror}{name}", hint)


def told(error: OSError) -> bytes:
    """What a child writes into a pipe for `check_told`, which then raises this error in its parent."""
    return bytes([error.errno or errno.EIO]) + (error.strerror or "").encode()[: TOLD_LIMIT - 1]


def check_told(data: bytes) -> None:
    """Raise the OSError that a child `told`; EIO if it ended without a word. A zero byte means success."""
    number = data[0] if data else errno.EIO
    if number:
        raise OSError(number, data[1:].decode(errors="replace") or os.strerror(number))
