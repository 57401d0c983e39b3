"""A command in mode `traced`: what its process does before execve(2), and the supervisor that follows it to its end."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half: signal itself imports enum
import _socket
import errno
import os
import sys

from builda.isolation.child.failure import Failure, refused
from builda.isolation.child.notification import Listener, hand_over
from builda.isolation.emulated.credentials import started
from builda.isolation.emulated.processes import Processes
from builda.isolation.traced import stops
from builda.isolation.traced.answering import Supervisor
from builda.isolation.traced.caught_calls import supervisor_filter, tracer_filter
from builda.isolation.traced.tracer import OPTIONS, Tracer
from builda.isolation.traced.tree import State, Tree
from builda.linux import ptrace
from builda.linux import syscalls as sys_
from builda.linux.landlock import confine_to, queues

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.stops import Stops
    from builda.isolation.wire import Wire

_RLIMIT_CORE = 4
_AT_ONCE = os.WNOHANG | ptrace.WAIT_ALL
_MOST_PROGRAMS = 10_000
_ALIASES = ("/tmp", "/var/tmp", "/dev/shm")


def submit(connection: _socket.socket, root: int, seccomp: bytes | None, protected: tuple[int, ...]) -> None:
    """Give this process's calls to the supervisor at the other end of the connection, for ever.

    From then on paths lie in the tree, and the process has the ids of the command.
    """
    machine = os.uname().machine
    syncs = not sys_.is_in_memory(root)
    first, second = supervisor_filter(machine, protected, syncs=syncs), tracer_filter(machine)
    try:
        sys_.prctl(sys_.PR_SET_DUMPABLE, 1)  # else nobody may trace this process: the supervisor is not dumpable
        sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
        connection.send(b"r")
        if connection.recv(1) != b"g":
            os._exit(125)  # the supervisor failed, and reports why
        of_pod = queues()
        is_confined = confine_to(root, of_pod)
        if not is_confined:  # a thread can win a race for a directory outside: no memory is to be dumped there
            sys_.setrlimit(_RLIMIT_CORE, 0, 0)
        for fd in (root, of_pod):
            if fd >= 0:
                os.close(fd)
        number = connection.detach()
        try:
            hand_over(number, first)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EBUSY):
                raise
            # No calls are handed over here; EBUSY: they are handed to somebody else.
            stops.hand_over(number, machine, protected, syncs=syncs)
        sys_.set_seccomp_filter(second)
        if seccomp is not None:
            sys_.set_seccomp_filter(seccomp)
    except OSError as error:
        raise refused("hand over the calls of the command", error) from error


class Following:
    """The supervisor's side of one command: `command` is its first process, `root` a descriptor of its tree."""

    def __init__(self, wire: Wire, command: int, root: int) -> None:
        self.command = command
        self.tree = Tree(root, hostname=wire["hostname"])
        held = wire["capabilities"]
        who = started(wire["uid"], wire["gid"], tuple(wire["groups"] or ()), held, held)
        self.processes = Processes(who._replace(no_new_privileges=wire["no_new_privileges"]))
        state = State(command, self.tree.root, wire["umask"], b"/")
        self.states = {command: state}
        self.tracer = Tracer(self.tree, self.processes, self.states, self.alias, self.named, self.refuse)
        self.directory: str | None = None
        self.names: dict[bytes, bytes] = {}
        self.scratch = os.fsencode(wire["scratch"])
        self.programs: dict[tuple[bytes, bytes], bytes] = {}
        self.refused: set[str] = set()

    def begin(self, connection: _socket.socket) -> Listener | Stops | None:
        """Trace the command's process and receive what its calls are answered by; None if the process ended before."""
        if not connection.recv(1):
            return None
        try:
            ptrace.seize(self.command, OPTIONS)
        except OSError as error:
            raise _not_traced(error) from error
        connection.send(b"g")
        data, ancillary, _, _ = connection.recvmsg(4, _socket.CMSG_SPACE(8))
        connection.close()
        if not data or not ancillary:
            return None
        fds = [int.from_bytes(ancillary[0][2][at : at + 4], sys.byteorder) for at in range(0, len(ancillary[0][2]), 4)]
        if len(fds) == 1:
            return Listener(fds[0], no_signals=True)
        return stops.Stops(fds[0], fds[1], int.from_bytes(data, sys.byteorder), os.uname().machine)

    def follow(self, listener: Listener | Stops, signals: int) -> int:
        """Answer the calls of all processes until the command's first one ends; its wait status.

        `signals` is a descriptor of the signals that end this process or are passed on. From now on it gets no others.
        """
        _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        supervisor = Supervisor(listener, self.tree, self.processes, self.states)
        self.tracer.supervisor = supervisor
        statuses: list[int] = []

        def ended(records: bytes) -> bool:
            _handle(records)
            status = self.waited()
            statuses.extend(() if status is None else (status,))
            return status is not None

        if isinstance(listener, stops.Stops):
            self.tracer.answer_by(listener)
            listener.serve(signals, ended)
        else:
            listener.serve(lambda: _one(listener, supervisor), signals, ended)
        return statuses[0]

    def waited(self) -> int | None:
        """Deal with all that wait(2) has to tell; the status of the command if it has ended."""
        while True:
            try:
                tid, status = self.tracer.seen.pop() if self.tracer.seen else os.waitpid(-1, _AT_ONCE)
            except ChildProcessError:
                return 0
            if tid == 0:
                return None
            if status & 0xFF == 0x7F:
                self.tracer.stopped(tid, status)
                continue
            self.tracer.ended(tid)
            if tid == self.command:
                return status

    def end(self, children: int) -> None:
        """Kill and reap all processes that are left, and take back what was changed for the command."""
        while True:
            os.lseek(children, 0, os.SEEK_SET)
            for pid in os.read(children, 65536).split():
                try:
                    os.kill(int(pid), _signal.SIGKILL)
                except ProcessLookupError:
                    continue
            try:
                os.waitpid(-1, ptrace.WAIT_ALL)
            except ChildProcessError:
                break
        self.restore()

    def restore(self) -> None:
        """Take back what was changed for the command."""
        if self.tracer.supervisor is not None:
            self.tracer.supervisor.owners.settle()
            self.tracer.supervisor.owners.written.close()
        self.tree.reopen()
        if self.directory is not None:
            for name in os.listdir(self.directory):
                os.unlink(f"{self.directory}/{name}")
            os.rmdir(self.directory)
            self.directory = None

    def alias(self, path: bytes) -> bytes:
        """A short path of a directory: the address of a socket has room for 108 bytes."""
        if path not in self.names:
            if self.directory is None:
                self.directory = self._made()
            name = os.fsencode(f"{self.directory}/{len(self.names)}")
            os.symlink(path, name)
            self.names[path] = name
        return self.names[path]

    def named(self, program: bytes, name: bytes) -> bytes:
        """A path of the program that ends with `name`, which is what the kernel calls the process then (comm).

        Programs that look for processes by name (pgrep, killall) would otherwise see the name of the loader.
        """
        if program.rpartition(b"/")[2] == name or name in (b"", b".", b".."):
            return program
        key = program, name
        if key not in self.programs and len(self.programs) < _MOST_PROGRAMS:
            path = b"%b/program-%d" % (self.scratch, len(self.programs))
            os.mkdir(path, 0o700)
            self.programs[key] = path + b"/" + name
            os.symlink(program, self.programs[key])
        return self.programs.get(key, program)

    def _made(self) -> str:
        for place in _ALIASES:
            path = f"{place}/.builda-{os.getpid()}"
            try:
                os.mkdir(path, 0o700)
            except OSError:
                continue
            return path
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def refuse(self, message: str) -> None:
        """Say once on the command's standard error why something cannot work."""
        if message not in self.refused and len(self.refused) < 16:
            self.refused.add(message)
            os.write(2, f"builda: {message}\n".encode(errors="replace"))


def _one(listener: Listener, supervisor: Supervisor) -> None:
    """Answer one call."""
    request = listener.receive()
    if request is not None:
        supervisor.answer(request[0], request[1], request[3], request[6:])


def _handle(records: bytes) -> None:
    """Call the handlers of signals that were read from a descriptor."""
    for at in range(0, len(records), 128):
        number = int.from_bytes(records[at : at + 4], sys.byteorder)
        handler = _signal.getsignal(number)
        if callable(handler):
            handler(number, None)


def _not_traced(error: OSError) -> Failure:
    hint = "Yama forbids it where kernel.yama.ptrace_scope is 2 or 3: on the node, sysctl -w kernel.yama.ptrace_scope=1"
    return Failure("IsolationUnavailable", f"the command's process may not be traced: {error.strerror}", hint)
