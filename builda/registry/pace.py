"""Connections that give up on a server which sends next to nothing, so that it cannot hold builda for ever.

A socket's own timeout starts again with each byte that comes. Here the time that is spent waiting counts.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from urllib3 import PoolManager


class Pace(NamedTuple):
    """An answer that has begun goes on with at least so many bytes in so many seconds of waiting for them."""

    least: int = 1024
    seconds: float = 60.0


class TooSlow(TimeoutError):
    """An answer came more slowly than the pace."""


class Paced(io.RawIOBase):
    """Reads from `raw`, and raises TooSlow when bytes come more slowly than `pace`.

    The wait for the first byte does not count: the socket's timeout is for that. Nor does the time between two reads.
    """

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        super().__init__()
        self._raw = raw
        self._pace = pace
        self._begun = False
        self._waited = 0.0
        self._came = 0

    def readable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:
        """The number of the next bytes, put into `buffer`."""
        if self._waited > self._pace.seconds:
            raise TooSlow(f"less than {self._pace.least} bytes in {self._pace.seconds:g} seconds")
        start = time.monotonic()
        count = self._raw.readinto(buffer)
        if self._begun:
            self._waited += time.monotonic() - start
            self._came += count or 0
        self._begun = True
        if self._came >= self._pace.least:
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        """Close the raw stream, too."""
        if not self.closed:
            super().close()
            self._raw.close()


def keep_pace(pool: PoolManager, pace: Pace) -> None:
    """All answers over connections of `pool` are read at this pace at least."""
    pool.pool_classes_by_scheme = {
        scheme: _paced_pool(kind, pace) for scheme, kind in pool.pool_classes_by_scheme.items()
    }


def _paced_pool(kind: Any, pace: Pace) -> Any:
    from http.client import HTTPResponse

    class PacedResponse(HTTPResponse):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            self.fp = io.BufferedReader(Paced(self.fp.detach(), pace))

    connection = type(kind.ConnectionCls.__name__, (kind.ConnectionCls,), {"response_class": PacedResponse})
    return type(kind.__name__, (kind,), {"ConnectionCls": connection})
