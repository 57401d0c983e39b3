"""Stop: a request to end, shared by threads. Whoever starts a child process registers it; a request ends them all."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE = 3.0
"""Seconds that children have to end after a request, before they are killed."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a program to end."""


class Stopped(Exception):
    """The work was given up because somebody else asked for that. Not an error of its own: nobody is told of it."""


class Stop:
    """May be used by many threads and by signal handlers."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._lock = threading.RLock()  # a signal handler may interrupt its owner
        self._children: dict[int, int] = {}  # descriptors, by pid: a pid alone may be another process's by now
        self._killer: threading.Timer | None = None
        self.signal: int | None = None
        """The signal that asked for it; None: none did."""
        self.asked = False
        """Whether everything is to end."""

    def ask(self, number: int | None = None) -> None:
        """End all children, and those that come later, by signal `number` (None: SIGTERM); kill what is left later."""
        with self._lock:
            if self.signal is None:
                self.signal = number
            self.asked = True
            self._send(number or signal.SIGTERM)
            if self._killer is None:
                self._killer = threading.Timer(self._grace, self.kill)
                self._killer.daemon = True
                self._killer.start()

    def took(self, number: int) -> bool:
        """Whether the signal `number` is a request to end, which is obeyed then."""
        if number not in ENDING:
            return False
        self.ask(number)
        return True

    def kill(self) -> None:
        """Kill all children now, and those that come later."""
        with self._lock:
            self.asked, self._grace = True, 0.0
            self._send(signal.SIGKILL)

    def check(self) -> None:
        """Raise Stopped if everything is to end."""
        if self.asked:
            raise Stopped

    @contextmanager
    def child(self, pid: int) -> Iterator[None]:
        """The child process `pid`, which nobody has waited for yet, ends on request while the block runs."""
        descriptor = os.pidfd_open(pid)
        try:
            with self._lock:
                self._children[pid] = descriptor
                if self.asked:
                    self._send(signal.SIGTERM if self._grace else signal.SIGKILL)
            yield
        finally:
            with self._lock:
                self._children.pop(pid, None)
            os.close(descriptor)

    def close(self) -> None:
        """The block that could be stopped has ended: no thread is left of a request."""
        with self._lock:
            if self._killer is not None:
                self._killer.cancel()

    def _send(self, number: int) -> None:
        for descriptor in tuple(self._children.values()):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
