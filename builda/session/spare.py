"""A process that the session forks before a command asks for it, so that the command need not wait for the fork.

It waits for the connection of a client and serves that. Until then it belongs to no command: signals to the session's
process group pass it by, it ends with the session's process, and where memory lacks the kernel ends it first.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from builda.linux import fork
from builda.linux import syscalls as sys_
from builda.session import served

PAUSE = 3
"""Milliseconds that it leaves to the command before, which may need all processors, before it gets ready."""
_PASSING = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
)
"""Signals that a terminal, or a process that ends a process group, sends to the session's group as a whole."""


class Spare:
    """The waiting process, seen from the session's."""

    def __init__(self, serve: Callable[[socket.socket], int], rehearse: Callable[[], None]) -> None:
        """Fork it; OSError if there can be no process. It does `rehearse`, waits, and ends as `serve`."""
        self._asking, asked = socket.socketpair()
        try:
            self.pid = fork.start(lambda: _wait(asked, serve, rehearse))
        except OSError:
            self._asking.close()
            raise
        finally:
            asked.close()

    def take(self, connection: socket.socket) -> bool:
        """Have it serve a client; False if that cannot be, and then it has ended.

        One that was stopped or killed before it could answer harms no client: the session tells the client so before
        any other answer came, and the client then starts by itself.
        """
        try:
            socket.send_fds(self._asking, [b"S"], [connection.fileno()], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            self.end()
            return False
        self._asking.close()
        return True

    def end(self) -> None:
        """End it, as it is not needed."""
        self._asking.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _wait(asked: socket.socket, serve: Callable[[socket.socket], int], rehearse: Callable[[], None]) -> int:
    for number in _PASSING:
        signal.signal(number, signal.SIG_IGN)
    sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.closerange(3, asked.fileno())  # of the session, and of clients
    sys_.close_range(asked.fileno() + 1, 0xFFFFFFFF)
    _yield_memory()
    waiting = select.poll()
    waiting.register(asked, select.POLLIN)
    if not waiting.poll(PAUSE):
        with suppress(MemoryError):  # of `ulimit -v`: the command says what is wrong
            rehearse()
    _, descriptors, _, _ = socket.recv_fds(asked, 1, 1)
    if not descriptors:
        return 0  # the session's process has ended
    for number in _PASSING:
        signal.signal(number, signal.SIG_DFL)
    return serve(socket.socket(fileno=descriptors[0]))


def _yield_memory() -> None:
    """Be what the kernel ends first where memory lacks; `serve` takes the client's score.

    A process without rights may take its former score again (proc_pid_oom_score_adj(5)).
    """
    with suppress(OSError):
        served.write_small("/proc/self/oom_score_adj", b"1000")
