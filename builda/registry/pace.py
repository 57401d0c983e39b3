"""A reader that gives up on a server which sends next to nothing, so that it cannot hold builda for ever.

A socket's own timeout starts again with each byte that comes. Here the time spent waiting is added up.
"""

from __future__ import annotations

import time

from builda.values import NamedTuple, Protocol


class Pace(NamedTuple):
    """The slowest answer that is read: at least so many bytes in so many seconds of waiting."""

    least: int = 1024
    seconds: float = 60.0


class TooSlow(TimeoutError):
    """An answer came more slowly than the pace."""


class TakenTooSlowly(TimeoutError):
    """The server takes what it is sent too slowly."""


class Receiving(Protocol):
    """A socket, or something that is read like one."""

    def recv(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; b"" at the end."""


class Paced:
    """Reads from `raw`, and raises TooSlow if bytes come more slowly than `pace`.

    The wait for an answer's first byte does not count: the socket's timeout limits it. Nor does the time between reads.
    """

    def __init__(self, raw: Receiving, pace: Pace) -> None:
        self._raw = raw
        self._pace = pace
        self.begin()

    def begin(self) -> None:
        """Expect a new answer."""
        self._begun = False
        self._waited = 0.0
        self._came = 0

    def recv(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; b"" at the end."""
        if self._waited > self._pace.seconds:
            raise TooSlow(f"less than {self._pace.least} bytes in {self._pace.seconds:g} seconds")
        start = time.monotonic()
        data = self._raw.recv(size)
        if self._begun:
            self._waited += time.monotonic() - start
            self._came += len(data)
        self._begun = True
        if self._came >= self._pace.least:
            self._waited, self._came = 0.0, 0
        return data
