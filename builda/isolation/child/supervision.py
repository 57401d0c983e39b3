"""The process outside the sandbox as the supervisor of a command with one id (`emulator`)."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half: signal itself imports enum
import _socket
import os
import sys

from builda.isolation.child.notification import Listener, received
from builda.isolation.emulated.credentials import started
from builda.isolation.single.emulator import Emulator
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.wire import Wire

_SYS_PTRACE, _SYS_ADMIN, _SYS_CHROOT = 19, 21, 18


class Supervision:
    """Made before the sandbox: it holds /proc of this process's pid namespace, which the command cannot reach."""

    def __init__(self) -> None:
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        self._ours, self._theirs = _socket.socketpair()

    def connection(self) -> int:
        """In the forked process: the socket that takes the filter's listener."""
        self._ours.close()
        os.close(self._proc)
        return self._theirs.detach()

    def serve(self, init: int, wire: Wire) -> None:
        """Answer the command's calls until `init` ends, which this leaves to be waited for."""
        self._theirs.close()
        wake, notice = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(notice, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        listener = received(self._ours)
        if listener is None:  # the command has reported why
            return
        self._enter(init)
        held = sys_.capget()[1]
        wanted = wire["capabilities"] & held
        limited = wanted | held & 1 << _SYS_PTRACE
        sys_.capset(limited, limited, 0)
        first = started(wire["uid"], wire["gid"], wire["groups"] or (), wanted, wanted)
        emulator = Emulator(
            Listener(listener),
            first._replace(no_new_privileges=wire["no_new_privileges"]),
            other_roots=bool(wanted & 1 << _SYS_ADMIN),
        )
        try:
            emulator.listener.serve(emulator.one, wake, lambda _: _has_ended(init))
        except Exception as error:  # a fault of builda's: the command would get ENOSYS for its calls from now on
            said = f"builda: internal error in the supervisor of a command: {type(error).__name__}: {error}\n"
            os.write(2, os.fsencode(said))
            os._exit(125)  # init and the command end with this process

    def _enter(self, init: int) -> None:
        """Take the command's root directory, and /proc as working directory."""
        sys.path.clear()  # else a late import would load a module of the container
        os.fchdir(self._proc)
        os.chroot(f"{init}/root")


def _has_ended(pid: int) -> bool:
    """Whether a child has ended. It stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
