"""Events for the time that this process waits for a lock: what it waited for, and which process held the lock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.events import LockWaited


class Waits:
    """Tells of each wait for a lock when it begins, and when it is over (by a signal, too).

    `tell` may be called from any thread.
    """

    def __init__(self, tell: Callable[[LockWaited], None] | None = None) -> None:
        self.tell = tell

    @contextmanager
    def waiting(self, what: str, path: str) -> Iterator[None]:
        """Tell of the block, in which a thread waits for the lock file or directory at `path`."""
        if self.tell is None:
            yield
            return
        pid = holder(path)
        program = "" if pid is None else _program(pid)
        from builda.events import LockWaited

        began = time.monotonic()
        self.tell(LockWaited(what=what, seconds=0.0, pid=pid, program=program, done=False))
        try:
            yield
        finally:
            self.tell(LockWaited(what=what, seconds=time.monotonic() - began, pid=pid, program=program))


def holder(path: str) -> int | None:
    """The process that took the flock(2) lock of a file alone; None if this process cannot see it, or none has."""
    with suppress(OSError, ValueError):
        info = os.stat(path)
        inode = f"{os.major(info.st_dev):02x}:{os.minor(info.st_dev):02x}:{info.st_ino}"
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:
                words = line.split()
                if words[1:2] == ["FLOCK"] and words[3] == "WRITE" and words[5] == inode and int(words[4]) > 0:
                    return int(words[4])
    return None


def _program(pid: int) -> str:
    with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return ""
