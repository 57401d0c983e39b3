"""The served end of a command: a process that the session forks becomes what the client is, and runs its command.

It takes over arguments, environment, directory, umask, descriptors, limits, priority, cgroup, ignored signals and
process group. What it cannot take over (other credentials, namespaces, root directory, session of processes) makes the
client start by itself. At its end it lets go of all that others may wait for and tells the client, which so need not
wait until the kernel has freed this process's memory.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has none
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from builda.linux import syscalls as sys_
from builda.session import client
from builda.session.writtenpages import Pages, faults
from builda.values import NamedTuple

PLAIN_VERBS = frozenset({"session", "unshare", "help", "completion"})
"""Verbs that start commands which are to have the client as their parent, and such as gain nothing."""
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_TUNABLES")
"""How the variables begin that only the start of an interpreter heeds."""
_LOCALE = ("LC_ALL", "LC_CTYPE", "LANG")
_STATUS = (
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
)
_NAMESPACES = ("user", "mnt", "net", "pid", "uts", "ipc", "cgroup")
_CREDENTIALS = struct.Struct("iII")
_ASIDE = 700
"""The lowest number of the connection while the command runs."""
_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})


class Request(NamedTuple):
    """The request of a client. `descriptors`: received ones, by the numbers that they have in the command."""

    code: str
    arguments: list[str]
    environ: dict[str, str]
    umask: int
    directory: int
    descriptors: dict[int, int]
    client: int  # its process
    files: tuple[int, int]  # its limits of open descriptors


class Identity(NamedTuple):
    """Properties of a process that a served command cannot take over."""

    status: tuple[str, ...]
    places: tuple[str, ...]
    root: tuple[int, int]
    session: int


class Unlike(Exception):
    """The client has something that its served command could not have."""


def run(
    connection: socket.socket, parent: int, mine: Identity, code: str, main: Callable[[], int], pages: Pages
) -> int:
    """Serve a client in this forked process, and return its exit status.

    `parent` is the session's process, and `mine` its identity. `pages` gets what memory the command wrote to.
    """
    before = faults()
    connection.setblocking(True)
    try:
        sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.closerange(3, connection.fileno())  # of the session, and of other clients
        sys_.close_range(connection.fileno() + 1, 0xFFFFFFFF)
        request = _taken_over(connection, mine, code) if os.getppid() == parent else None
        if request is not None:
            kept = _take_descriptors(request.descriptors, connection)
            resource.setrlimit(resource.RLIMIT_NOFILE, request.files)
            status = status_of(main)
            if kept is not None:
                _tell_end(kept, status)
                pages.note(before)
            return status  # which the session's process tells if it was not told yet
    except OSError as error:
        os.write(2, f"Error: the session cannot start the command: {error}\n".encode())
    return 125


def rehearse(mine: Identity, code: str) -> None:
    """Become what this process is already, as it does later for a client.

    What that writes to is copied by the kernel at the first write after a fork, which no client has to wait for then.
    """
    asking, asked = socket.socketpair()
    with asking, asked, suppress(Unlike, OSError, ValueError):
        client.ask(asking, ["images"], code, [0, 1, 2])
        request = _received(asked)
        _become(request, mine, code)
        for descriptor in (request.directory, *request.descriptors.values()):
            os.close(descriptor)


def _taken_over(connection: socket.socket, mine: Identity, code: str) -> Request | None:
    """The request of a client that this process has become like, which the client is told; None if it cannot."""
    try:
        request = _received(connection)
        _become(request, mine, code)
        _announce(connection)
    except (Unlike, OSError, ValueError):
        with suppress(OSError):
            connection.send(client.PLAIN)
        return None
    return request


def status_of(main: Callable[[], int]) -> int:
    """Run `main` and wait for its threads; returns its exit status."""
    status = main()
    threading = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    return status


def _tell_end(connection: int, status: int) -> None:
    """Close all files, leave the directory, and tell the client its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the session sends SIGTERM when the client is gone
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.closerange(0, connection)
    sys_.close_range(connection + 1, 0xFFFFFFFF)
    with suppress(OSError):  # the client was killed
        os.write(connection, client.ENDED + (status << 8).to_bytes(4, "little"))


def _received(connection: socket.socket) -> Request:
    """The request; ValueError if it is none of this version's."""
    length, descriptors, flags, _ = socket.recv_fds(connection, 8, client.MOST_DESCRIPTORS + 1)
    if flags & socket.MSG_CTRUNC or len(length) != 8 or not descriptors:
        raise ValueError("descriptors are lacking")
    left = int.from_bytes(length, "little")
    parts = []
    while left:
        data = connection.recv(min(left, 1 << 20))
        if not data:
            raise ValueError("the client is gone")
        parts.append(data)
        left -= len(data)
    protocol, code, umask, numbers, count, *words = b"".join(parts).split(b"\0")
    if protocol != client.PROTOCOL:
        raise ValueError("another version")
    arguments = [os.fsdecode(word) for word in words[: int(count)]]
    variables = (os.fsdecode(word).partition("=") for word in words[int(count) :])
    received = [int(number) for number in numbers.split(b",") if number]
    pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return Request(
        os.fsdecode(code),
        arguments,
        {name: value for name, _, value in variables},
        int(umask),
        descriptors[0],
        dict(zip(received, descriptors[1:], strict=True)),
        pid,
        resource.prlimit(pid, resource.RLIMIT_NOFILE),
    )


def status(pid: int | str) -> dict[str, str]:
    """The lines of /proc/PID/status, by what stands before the colon."""
    lines = _read(f"/proc/{pid}/status").decode(errors="replace").split("\n")
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def _read(path: str) -> bytes:
    """The content of a small file of the kernel; `open` would take four times as long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def write_small(path: str, data: bytes) -> None:
    """Write to a file of the kernel."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def identity(pid: int | str, said: Mapping[str, str]) -> Identity:
    """The properties of the process with this `status` that a served command cannot take over."""
    lines = [said.get(name, "") for name in _STATUS]
    places = [os.readlink(f"/proc/{pid}/ns/{name}") for name in _NAMESPACES]
    for name in ("personality", "attr/current"):
        with suppress(OSError):  # the kernel has no such file, or no security module
            places.append(_read(f"/proc/{pid}/{name}").decode("ascii"))
    root = os.stat(f"/proc/{pid}/root")
    number = os.getsid(0 if pid == "self" else int(pid))
    return Identity(tuple(lines), tuple(places), (root.st_dev, root.st_ino), number)


def _become(request: Request, mine: Identity, code: str) -> None:
    """Take over from the client what can be lacking; Unlike or OSError if this process cannot."""
    if request.code != code or _verb_of(request.arguments) in PLAIN_VERBS:
        raise Unlike
    if not _starts_alike(request.environ, os.environ):
        raise Unlike
    pid = request.client
    said = status(pid)
    if identity(pid, said) != mine:
        raise Unlike
    _join_cgroup(pid)
    _take_priority(pid)
    _take_limits(pid, request.files)
    _take_signals(int(said["SigIgn"], 16))
    os.fchdir(request.directory)
    os.umask(request.umask)
    if (group := os.getpgid(pid)) != os.getpgrp():
        os.setpgid(0, group)
    _take_variables({**request.environ, client.CALLER: f"{os.getpid()} {pid}"})
    sys.argv = ["builda", *request.arguments]


def _verb_of(arguments: list[str]) -> str:
    """The first word that may be the verb; a value of a global option may be taken for one, which does no harm."""
    return next((word for word in arguments if not word.startswith("-")), "")


def _starts_alike(asked: Mapping[str, str], mine: Mapping[str, str]) -> bool:
    """Whether an interpreter would start with these variables as this one did."""
    names = {name for name in (*asked, *mine) if name.startswith(_READ_AT_START)}
    return all(asked.get(name) == mine.get(name) for name in names) and _is_utf8(asked) == _is_utf8(mine)


def _is_utf8(environ: Mapping[str, str]) -> bool:
    """Whether Python encodes text as UTF-8 here, which it does in the C locale too."""
    said = next((environ[name] for name in _LOCALE if environ.get(name)), "C")
    return said in ("C", "POSIX") or said.rpartition(".")[2].lower().replace("-", "").startswith("utf8")


def _take_limits(pid: int, files: tuple[int, int]) -> None:
    """Take the limits of a process but that of descriptors, which follows when the descriptors are in place.

    Their numbers may lie above it.
    """
    for limit in _LIMITS:
        asked = resource.prlimit(pid, limit)
        had = resource.getrlimit(limit)
        if limit == resource.RLIMIT_NOFILE:
            if files[1] > had[1]:
                raise Unlike
        elif asked != had:
            resource.setrlimit(limit, asked)


def _join_cgroup(pid: int) -> None:
    asked = _read(f"/proc/{pid}/cgroup")
    if asked == _read("/proc/self/cgroup"):
        return
    version, _, path = os.fsdecode(asked).strip().partition("::")
    if version != "0" or "\n" in path:  # cgroups of version 1
        raise Unlike
    with open(f"/sys/fs/cgroup{path}/cgroup.procs", "w", encoding="ascii") as file:
        file.write(str(os.getpid()))


def _take_priority(pid: int) -> None:
    if (asked := os.getpriority(os.PRIO_PROCESS, pid)) != os.getpriority(os.PRIO_PROCESS, 0):
        os.setpriority(os.PRIO_PROCESS, 0, asked)
    if (processors := os.sched_getaffinity(pid)) != os.sched_getaffinity(0):
        os.sched_setaffinity(0, processors)
    if os.sched_getscheduler(pid) != os.sched_getscheduler(0):
        raise Unlike
    score = _read(f"/proc/{pid}/oom_score_adj")
    if score != _read("/proc/self/oom_score_adj"):
        write_small("/proc/self/oom_score_adj", score)


def _take_signals(ignored: int) -> None:
    """Signals are handled as at the start of a program; those of the bits `ignored` are ignored."""
    for number in _signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        handler = _signal.SIG_IGN if ignored >> (number - 1) & 1 else _signal.SIG_DFL
        if _signal.getsignal(number) != handler:
            _signal.signal(number, handler)
    if _signal.getsignal(signal.SIGINT) == _signal.SIG_DFL:
        _signal.signal(signal.SIGINT, signal.default_int_handler)


def _take_variables(asked: Mapping[str, str]) -> None:
    """Have the environment `asked`; most of it is that of the session's process already."""
    zone = os.environ.get("TZ")
    for name in [name for name in os.environ if name not in asked]:
        del os.environ[name]
    for name, value in asked.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    if asked.get("TZ") != zone:
        time.tzset()


def _announce(connection: socket.socket) -> None:
    process = os.pidfd_open(os.getpid())
    socket.send_fds(connection, [client.RUNNING], [process])


def _take_descriptors(descriptors: Mapping[int, int], connection: socket.socket) -> int | None:
    """Have what the client has open, by the same numbers, and but for the connection nothing else.

    The number of the connection, which is none that the client's caller may mean; None if there is no such number.
    """
    import fcntl

    high = max((*descriptors, *descriptors.values(), 2)) + 1
    aside = {number: fcntl.fcntl(found, fcntl.F_DUPFD, high) for number, found in descriptors.items()}
    kept = None
    with suppress(OSError):  # the limit of open descriptors is low
        kept = fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, max(high, _ASIDE))
    encoding, errors = sys.stdin.encoding, sys.stdin.errors
    os.closerange(0, high)
    for number, descriptor in aside.items():
        os.dup2(descriptor, number)
    if kept is not None:
        sys_.close_range(high, kept - 1)
    sys_.close_range(high if kept is None else kept + 1, 0xFFFFFFFF)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = None
        if number in descriptors:
            stream = open(  # noqa: SIM115  # stays open
                number,
                "w" if number else "r",
                encoding=encoding,
                errors=errors,
                closefd=False,
                buffering=1 if number == 2 or os.isatty(number) else -1,
            )
        setattr(sys, name, stream)
    return kept
