"""Reading files with known names in trees that are not trusted: only regular files are opened.

Opening a device can have an effect (a watchdog starts, a tape rewinds), and opening a FIFO can block for ever. So a
path is first resolved by O_PATH, which opens nothing, then its type is checked, then that descriptor is opened.
"""

from __future__ import annotations

import errno
import os
import stat


def open_regular(found: int, name: str | bytes) -> int:
    """Open for reading the regular file that the O_PATH descriptor `found` refers to. Closes `found`.

    OSError (EINVAL, naming `name`) if it is not a regular file, which is not opened then.
    """
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(name))
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
