"""Files with known names in trees that are not trusted: read only if they are regular.

To open a device can be an act (a watchdog starts, a tape rewinds), and to open a FIFO can take for ever. So a path is
first resolved without opening what it leads to (O_PATH), looked at, and then opened by its descriptor.
"""

from __future__ import annotations

import errno
import os
import stat


def open_regular(found: int, name: str | bytes) -> int:
    """A descriptor for reading of the regular file that `found`, opened with O_PATH, refers to; `found` is closed.

    OSError (EINVAL, naming `name`) for what is no regular file, which is not opened.
    """
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(name))
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
