"""What this process may do with files of a tree, as far as it decides how owners and modes are kept."""

from __future__ import annotations

import os
import stat

_CHOWN = 1  # the bit of CAP_CHOWN


def lacks_rights() -> bool:
    """Whether this process may give no file away and has no right over modes, as in mode `traced`."""
    fd = os.open("/proc/thread-self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    at = text.find(b"\nCapEff:")
    return at >= 0 and not int(text[at + 8 :].split(None, 1)[0], 16) & _CHOWN


def needed(mode: int) -> int:
    """The permission bits that a file of this kind keeps where its owner has no right but these."""
    return 0o700 if stat.S_ISDIR(mode) else 0o600 if stat.S_ISREG(mode) else 0
