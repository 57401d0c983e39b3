"""The process of a session: it starts the script, waits for it, and ends what the script leaves running."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from builda.errors import CommandFailed
from builda.linux import fork
from builda.linux import syscalls as sys_
from builda.linux.process import exit_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.session.server import Server

GRACE = 2.0
"""Seconds that processes which outlive the script have between SIGTERM and SIGKILL."""
_ASKED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals to this process that are meant for the script."""
_KEYS = (signal.SIGINT, signal.SIGQUIT)
"""Signals that a terminal sends to the script as well."""


class Supervisor:
    """Starts the script, waits for it, and meanwhile has its commands served."""

    def __init__(self) -> None:
        self._script = 0
        self._early: list[int] = []  # signals for the script that came before it was started
        self._status = 0  # the script's wait status
        self._server: Server | None = None
        self._before = frozenset(_children())  # of a shell that became this process by `exec`

    def run(self, command: Sequence[str], environ: Mapping[str, str], server: Server | None = None) -> int:
        """Run the script; its exit status, 128 + N when signal N ended it. CommandFailed if it cannot be started."""
        sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)
        for number in (*_ASKED, *_KEYS):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._forward)
        self._script = _start(command, environ)
        for early in self._early:
            self._send(early)
        self._server = server
        with _child_events() as events:
            if server is not None:
                server.begin(events)
            while self._script:
                if server is not None:
                    server.poll()
                else:
                    select.select([events], [], [])
                with suppress(BlockingIOError):
                    os.read(events, 512)
                self._reap()
        if server is not None:
            server.refuse()
        return exit_status(self._status)

    def _reap(self) -> None:
        """Take note of the children that ended or were stopped."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if pid == 0:
                    return
                if os.WIFSTOPPED(status):
                    if self._server is not None:
                        self._server.stopped(pid)
                elif pid == self._script:
                    self._script, self._status = 0, status
                elif self._server is not None:
                    self._server.ended(pid, status)

    def _forward(self, number: int, _frame: object) -> None:
        if not self._script:
            self._early.append(number)
        elif not (number in _KEYS and _has_terminal()):
            self._send(number)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._script, number)

    def follow(self, pid: int) -> int:
        """Wait for a child that this process does its last work in, and send signals on to it; its exit status."""
        self._script = pid
        for number in (*_ASKED, *_KEYS):
            signal.signal(number, self._forward)
        status = os.waitpid(pid, 0)[1]
        self._script = 0
        self.ignore_signals()
        return exit_status(status)

    def ignore_signals(self) -> None:
        """Ignore all signals but SIGKILL from now on, because the work that follows must be completed."""
        for number in (*_ASKED, *_KEYS):
            signal.signal(number, signal.SIG_IGN)

    def end_others(self) -> tuple[str, ...]:
        """End all processes of the session; the names of those that the script left running."""
        self._reap()
        ended: dict[int, str] = {}
        deadline = time.monotonic() + GRACE
        while left := [pid for pid in _children() if pid not in self._before]:
            late = time.monotonic() > deadline
            for pid in left:
                if late or pid not in ended:
                    ended.setdefault(pid, self._name_of(pid))
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                        os.kill(pid, signal.SIGCONT)
            if late and time.monotonic() > deadline + GRACE:  # it sleeps in the kernel, or is another user's
                break
            self._reap()
            time.sleep(0.001)
        return tuple(f"{name} ({pid})" for pid, name in ended.items() if name)

    def _name_of(self, pid: int) -> str:
        """The command name of a process; "" if it has ended, or serves a command: the script has that one's client."""
        return "" if self._server is not None and self._server.serves(pid) else _name_of(pid)


def _has_terminal() -> bool:
    """Whether this process is in the foreground of its terminal, which then sends its signals to the script, too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextmanager
def _child_events() -> Iterator[int]:
    """A descriptor that can be read whenever a child has ended or was stopped."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.write(writer, b" ")  # for a child that ended before
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(reader)
        os.close(writer)


def _children() -> list[int]:
    """The children of this process."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and _parent_of(int(pid)) == os.getpid()]


def _parent_of(pid: int) -> int:
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def _name_of(pid: int) -> str:
    """The command name of a process; "" if it has ended."""
    with suppress(OSError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] == b"Z":
                return ""
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    return ""


def _start(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Start the script, which is killed when this process is; its process ID."""
    reader, writer = os.pipe()  # closed by the exec, unless that fails
    parent = os.getpid()
    pid = fork.start(lambda: _become(command, environ, parent, writer))
    os.close(writer)
    with open(reader, "rb") as pipe:
        refused = pipe.read()
    if refused:
        os.waitpid(pid, 0)
        raise _refused(command[0], int(refused))
    return pid


def _become(command: Sequence[str], environ: Mapping[str, str], parent: int, told: int) -> int:
    """Become the script; an exit status if that fails."""
    try:
        sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return 1
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], list(command), environ)
    except OSError as error:
        os.write(told, str(error.errno or 0).encode())
    return 127


def _refused(name: str, number: int) -> CommandFailed:
    import errno

    if number == errno.ENOENT and "/" in name and os.path.exists(name):
        return CommandFailed(f"the interpreter in the first line does not exist: {name}", status=127)
    if number == errno.ENOENT:
        near = "/" not in name and os.path.exists(name)
        hint = f"a file of this directory is written ./{name}" if near else None
        return CommandFailed(f"no such command: {name}", status=127, hint=hint)
    if number == errno.EACCES and os.path.isfile(name):
        hint = f"make it executable (chmod +x {name}), or name its shell: builda session bash {name}"
        return CommandFailed(f"command cannot be executed: {name}", status=126, hint=hint)
    if number == errno.ENOEXEC:
        hint = f"begin it with #!/bin/bash, or name its shell: builda session bash {name}"
        return CommandFailed(f"script does not say its interpreter: {name}", status=126, hint=hint)
    return CommandFailed(f"command cannot be executed, {os.strerror(number).lower()}: {name}", status=126)
