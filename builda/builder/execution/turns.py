"""Turns of builds that do the same step at the same time: one performs it, the others wait and find its result.

A turn is a lock. Its name is made of the step's parent and its instruction. A stage that performs steps takes the turn
of the next step before it gives up the last one, so that no other build comes between. It only ever waits for a step
that follows the one it holds, so two builds cannot wait for each other. On a file system without such locks, steps are
performed twice.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from builda.events import Warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.events import Emit
    from builda.oci.digest import Digest

_BUSY = (11, 13)  # EAGAIN, EACCES
_LEAST, _MOST = 0.002, 0.05
_TELLING = 5.0
"""Seconds of waiting after which it is said."""


class Turns:
    """The turns of one build's stages. Threads may share it; each has its own stage."""

    def __init__(self, path: str, check: Callable[[], None], emit: Emit) -> None:
        """`path` is the lock file; `check` raises if the build is to end, so that no wait goes on."""
        self._path = path
        self._check = check
        self._emit = emit
        self._held: dict[int, int] = {}

    def take(self, index: int, name: Digest, what: str) -> None:
        """Wait until the stage has the turn `name`, then give up the turn that it had."""
        fd = self._taken(int(name.encoded[:15], 16), what)
        self.give_up(index)
        if fd is not None:
            self._held[index] = fd

    def give_up(self, index: int) -> None:
        """Give up the stage's turn, if it has one."""
        fd = self._held.pop(index, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Give up the turns of all stages."""
        for index in list(self._held):
            self.give_up(index)

    def _taken(self, offset: int, what: str) -> int | None:
        """A descriptor that holds the lock of one byte; None where there are no such locks."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return None
        try:
            if self._waited(fd, offset, what):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _waited(self, fd: int, offset: int, what: str) -> bool:
        wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        began, pause, told = time.monotonic(), _LEAST, False
        while True:
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
                return True
            except OSError as error:
                if error.errno not in _BUSY:
                    return False
            self._check()
            if not told and time.monotonic() - began > _TELLING:
                told = True
                self._emit(
                    Warned(message=f"another build does this step now, and its result is waited for: {what}", note=True)
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _MOST)
