"""Stop: a request to end that threads share. A thread registers its child processes; a request ends all of them."""

from __future__ import annotations

import os
import signal
from _thread import RLock  # threading takes a millisecond to import
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

GRACE = 3.0
"""Seconds that children have to end after a request, before they are killed."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a program to end."""


class Stopped(Exception):
    """The work was given up on request. It is not reported: the cause of the request is."""


class Stop:
    """May be used by many threads and by signal handlers."""

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._lock = RLock()  # reentrant: a signal handler may interrupt the thread that holds it
        self._children: dict[int, int] = {}  # pid -> pidfd: the pid alone may belong to another process by now
        self._killer: threading.Timer | None = None
        self.signal: int | None = None
        """Number of the signal that asked for it; None if it was no signal."""
        self.asked = False
        """True after a request: all work is to end."""

    def ask(self, number: int | None = None) -> None:
        """End all present and later children by signal `number` (None: SIGTERM). Kill them after the grace time."""
        with self._lock:
            if self.signal is None:
                self.signal = number
            self.asked = True
            self._send(number or signal.SIGTERM)
            if self._children:
                self._kill_later()

    def took(self, number: int) -> bool:
        """Treat the signal `number` as a request if it is one of ENDING; False for all others."""
        if number not in ENDING:
            return False
        self.ask(number)
        return True

    def kill(self) -> None:
        """Kill all present and later children at once."""
        with self._lock:
            self.asked, self._grace = True, 0.0
            self._send(signal.SIGKILL)

    def check(self) -> None:
        """Raise Stopped after a request."""
        if self.asked:
            raise Stopped

    @contextmanager
    def child(self, pid: int) -> Iterator[None]:
        """Register the child process `pid` for the block: a request ends it. It must not have been waited for."""
        import threading  # noqa: F401  # loaded before a signal handler needs it, which might interrupt the import

        descriptor = os.pidfd_open(pid)
        try:
            with self._lock:
                self._children[pid] = descriptor
                if self.asked:
                    self._send(signal.SIGTERM if self._grace else signal.SIGKILL)
                    self._kill_later()
            yield
        finally:
            with self._lock:
                self._children.pop(pid, None)
            os.close(descriptor)

    def close(self) -> None:
        """Cancel the timer of a request, after all children have ended."""
        with self._lock:
            if self._killer is not None:
                self._killer.cancel()

    def _kill_later(self) -> None:
        import threading

        if self._killer is None:
            self._killer = threading.Timer(self._grace, self.kill)
            self._killer.daemon = True
            self._killer.start()

    def _send(self, number: int) -> None:
        for descriptor in tuple(self._children.values()):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
