"""Standard output and error of this process and its children, led to a child process that does something with them."""

from __future__ import annotations

import os
import select
import signal

from builda.linux import fork
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 32 << 10
_LEFT = 2.0
"""Seconds without output after which the child ends when this process has, though something holds the streams open."""


class Led(NamedTuple):
    """The child, and the descriptor on which it is told the exit status."""

    pid: int
    told: int

    def end(self, status: int) -> None:
        """Nothing more is written: let the child finish with this status, and wait for it."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.write(self.told, b"%d\n" % status)
        os.close(self.told)
        os.waitpid(self.pid, 0)


class WholeLines:
    """Writes what several streams say to one descriptor, line by line, so that no line is inside another."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun: dict[str, bytearray] = {}

    def wrote(self, stream: str, data: bytes) -> None:
        """Write the lines that are complete with `data`, and keep what follows them."""
        begun = self._begun.setdefault(stream, bytearray())
        end = data.rfind(b"\n") + 1
        if end:
            self._write(bytes(begun) + data[:end])
            begun.clear()
        begun += data[end:]

    def end(self) -> None:
        """Write what no line's end came for, as a line."""
        for begun in self._begun.values():
            if begun:
                self._write(bytes(begun) + b"\n")
        self._begun.clear()

    def _write(self, left: bytes) -> None:
        while left:
            left = left[os.write(self._descriptor, left) :]


def lead(wrote: Callable[[str, bytes], None], ended: Callable[[int], None]) -> Led:
    """Fork a child that calls `wrote` with `stdout` or `stderr` and each piece, and `ended` with the exit status.

    From now on this process writes into pipes of the child. The status is 255 if it ends without `Led.end`.
    """
    pipes = {name: os.pipe2(os.O_CLOEXEC) for name in ("stdout", "stderr", "status")}

    def child() -> int:
        for _, writer in pipes.values():
            os.close(writer)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the parent ends, and then this process
        ended(_pump(wrote, {reader: name for name, (reader, _) in pipes.items()}))
        return 0

    pid = fork.start(child)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(pipes[name][1], number)
        os.close(pipes[name][1])
    for reader, _ in pipes.values():
        os.close(reader)
    return Led(pid, pipes["status"][1])


def _pump(wrote: Callable[[str, bytes], None], streams: dict[int, str]) -> int:
    poll = select.poll()
    for reader in streams:
        poll.register(reader, select.POLLIN)
    status, limit = b"", None
    while streams:
        ready = poll.poll(limit)
        if not ready and limit is not None:
            break
        for reader, _ in ready:
            data = os.read(reader, _PIECE)
            if not data:
                poll.unregister(reader)
                if streams.pop(reader) == "status":
                    limit = _LEFT * 1000
            elif streams[reader] == "status":
                status += data
            else:
                wrote(streams[reader], data)
    return int(status or 255)
