"""The child of a run, started before it is known what it shall do: its interpreter starts while that is found out.

It waits for a message with descriptors (`child.enter`).
"""

from __future__ import annotations

import _socket
import os
import signal
import sys
from contextlib import ExitStack, suppress

from builda.linux import process
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from builda.linux.stopping import Stop

_CHILD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child", "start.py")
_CONNECTION, _PYTHON = 3, 7  # the child's descriptors


class Begun:
    """A child that has been started and waits. One run takes it; if none does, it is ended with the block."""

    def __init__(self, stop: Stop | None) -> None:
        """`stop`: what ends the command on request."""
        # Off the main thread no signal can be passed on: without a Stop the command stays in builda's process group,
        # for ^C. With one it must not get ^C itself: it would end before the Stop is asked, and seem to have failed.
        self.leads_session = stop is not None or process.can_forward()
        self._child: tuple[int, _socket.socket] | None = _begin(leads_session=self.leads_session)

    def __enter__(self) -> Begun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            pid, connection = self._child
            connection.close()
            os.kill(pid, signal.SIGKILL)
            process.wait(pid)

    def take(self) -> tuple[int, _socket.socket]:
        """The child's pid, and where it waits for what it shall do; a new one if the first was taken before."""
        child, self._child = self._child or _begin(leads_session=self.leads_session), None
        return child


def _begin(*, leads_session: bool) -> tuple[int, _socket.socket]:
    """Start a child: its pid, and the connection that it waits at."""
    ours, theirs = _socket.socketpair()
    with ExitStack() as stack:
        stack.callback(theirs.close)
        descriptors = {_CONNECTION: theirs.fileno()}
        executable = None
        with suppress(OSError):  # without the right to mount, the child fails and names what it needs
            descriptors[_PYTHON] = read_only_python()
            stack.callback(os.close, descriptors[_PYTHON])
            executable = f"/proc/self/fd/{_PYTHON}"
        argv = [sys.executable, "-IS", _CHILD]
        pid = process.spawn(
            argv,
            executable=executable,
            environ=interpreter_environment(),
            descriptors=descriptors,
            leads_session=leads_session,
        )
    return pid, ours


def read_only_python() -> int:
    """The interpreter on a read-only mount: else a command could write to it by /proc/self/exe (CVE-2019-5736)."""
    fd = sys_.open_tree(sys_.AT_FDCWD, sys.executable, sys_.OPEN_TREE_CLONE)
    sys_.mount_setattr(fd, "", sys_.AT_EMPTY_PATH, attr_set=sys_.MOUNT_ATTR_RDONLY)
    return fd


def interpreter_environment() -> dict[str, str]:
    """The variables that the interpreter needs to start. No others: the child must not depend on the caller's."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
