"""Attributes that users may give to files (xattr(7), "Extended user attributes"), and which file systems have them."""

from __future__ import annotations

import errno
import os

WHY_NONE = "its file system keeps no attributes of users, in which owners and devices are recorded"
WHERE = "ext4, xfs or btrfs keep them, and tmpfs from Linux 6.6 on"


def keeps_attributes(place: str | int) -> bool:
    """Whether the file system of a file or directory keeps attributes of users. It is only looked at."""
    try:
        os.getxattr(place, "user.builda")
    except OSError as error:
        return error.errno != errno.ENOTSUP
    return True
