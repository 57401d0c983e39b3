"""Ends a transfer whose threads wait for a server: interrupts their connections and stops retries."""

from __future__ import annotations

import threading

from builda.values import Protocol


class Interruptible(Protocol):
    """A connection that another thread can end."""

    def interrupt(self) -> None:
        """End the connection; a thread that waits for the server gets an error."""


class Ending:
    """Whether requests that carry this are to end, and the connections that they use."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._busy: set[Interruptible] = set()

    @property
    def has_come(self) -> bool:
        """Whether `end` was called."""
        return self._event.is_set()

    def end(self) -> None:
        """End what is on its way, from another thread, and every later request at once."""
        self._event.set()
        with self._lock:
            for connection in self._busy:
                connection.interrupt()

    def rest(self, seconds: float) -> None:
        """Sleep, until the end at the latest."""
        self._event.wait(seconds)

    def begin(self, connection: Interruptible) -> None:
        """Register a connection that a request uses; interrupt it at once if the transfer has ended already."""
        with self._lock:
            self._busy.add(connection)
        if self.has_come:
            connection.interrupt()

    def done(self, connection: Interruptible) -> None:
        """No request uses the connection any more. Called before it is closed."""
        with self._lock:
            self._busy.discard(connection)
