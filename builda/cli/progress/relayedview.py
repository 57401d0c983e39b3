"""The events of a build, and what it prints, as the numbered lines that `builda.cluster.frames` describes."""

from __future__ import annotations

import io
import os
from _thread import allocate_lock
from collections.abc import Iterator
from contextlib import contextmanager

from builda.cluster.frames import Awaiting, Closed, Ended, Exited, Frame, Printed, Returned, Wrote, to_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.errors import BuildaError
    from builda.events import Event


_PIECE = 64 << 10  # bytes of a file in one line


class Relay:
    """Writes the lines to a descriptor; safe for many threads. `live`: the reader shows a live view.

    `platform` is what stages are called by, where others build for further ones.
    """

    def __init__(self, descriptor: int, *, live: bool, platform: str | None = None) -> None:
        self.live = live
        self.platform = platform
        self._descriptor = descriptor
        self._number = 0
        self._lock = allocate_lock()

    def close(self) -> None:
        """Leave the rest to a child process that goes on with the numbers."""
        os.close(self._descriptor)

    def show(self, event: Event) -> None:
        """Pass an event on."""
        self._write(event)

    def printed(self, text: str) -> None:
        """Pass on what the build prints."""
        if text:
            self._write(Printed(text))

    def awaits(self) -> None:
        """Ask the client for the contexts."""
        self._write(Awaiting())

    def wrote(self, stream: str, data: bytes) -> None:
        """Pass on what a script wrote."""
        self._write(Wrote(stream, data))

    def returns(self, name: str, data: bytes) -> None:
        """Give the client a file."""
        for start in range(0, len(data) or 1, _PIECE):
            piece = data[start : start + _PIECE]
            self._write(Returned(name, piece, start + _PIECE >= len(data)))

    def exited(self, status: int) -> None:
        """Say how a script ended."""
        self._write(Exited(status))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Say at the end that all steps are done, or none is any more."""
        outcome = "failed"
        try:
            yield
            outcome = "built"
        finally:
            self._write(Closed(outcome))

    def ended(self, error: BuildaError | None, *, is_last: bool = True) -> None:
        """Print how the build ended. `is_last` is False if another pod tries it again."""
        self._write(Ended(error, is_last))

    def _write(self, frame: Frame) -> None:
        with self._lock:
            self._number += 1
            left = to_line(self._number, frame).encode() + b"\n"
            while left:
                left = left[os.write(self._descriptor, left) :]


class RelayedOutput(io.TextIOBase):
    """A standard output whose text goes through a relay."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def write(self, text: str, /) -> int:
        """Pass on `text`."""
        self._relay.printed(text)
        return len(text)


class Unseen:
    """An observer that shows nothing."""

    def show(self, event: Event) -> None:
        """Show nothing."""
