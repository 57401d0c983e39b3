"""Whether this process may change owners and modes of files; if not, `owners` records them."""

from __future__ import annotations

import os
import stat

_CHOWN = 1  # the bit of CAP_CHOWN


def lacks_rights() -> bool:
    """Whether this process has no capability over owners and modes of files, as in mode `traced`."""
    fd = os.open("/proc/thread-self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 4096)
    finally:
        os.close(fd)
    at = text.find(b"\nCapEff:")
    return at >= 0 and not int(text[at + 8 :].split(None, 1)[0], 16) & _CHOWN


def needed(mode: int) -> int:
    """The permission bits that a process without capabilities must leave on a file of this type to use it."""
    return 0o700 if stat.S_ISDIR(mode) else 0o600 if stat.S_ISREG(mode) else 0
