"""The child: from a fresh interpreter to the command, in namespaces of its own.

    builda ── outer ── init ── command
              │        pid 1 of the new pid namespace: builds the mount tree, reaps, forwards signals, and ends
              │        with the command; the kernel kills what is left in the namespace
              unshares the namespaces, waits for init; both die with their parent (PDEATHSIG)

Without a new pid namespace, init is a subreaper and kills its descendants itself. Descriptor 3 is a socket, by which
the parent sends all other descriptors. It passes the message (isolation.wire, by marshal of the same interpreter) as a
new descriptor 3, and reads reports from 4 until execve(2) closes it. On descriptor 5 the parent sends the addresses of
the network that it has made, on 6 it receives the terminal.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half: signal itself imports enum
import _socket
import errno
import marshal
import os
import sys

from builda.isolation.child.exec_command import execute
from builda.isolation.child.failure import Failure, refused
from builda.isolation.child.rootfs import Sources, Tree
from builda.linux import fork
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.child.id_mapping import Mapping
    from builda.isolation.child.relay import Relay
    from builda.isolation.child.supervision import Supervision
    from builda.isolation.wire import PlainTree, TracedTree, Wire

SPEC, REPORT, GO, CONSOLE = 3, 4, 5, 6
_MOST = 253
"""The kernel passes no more descriptors at once."""

# In the order in which they are entered: all before the fork, which alone enters the pid namespace.
_KINDS = (
    ("cgroup", sys_.CLONE_NEWCGROUP),
    ("ipc", sys_.CLONE_NEWIPC),
    ("uts", sys_.CLONE_NEWUTS),
    ("network", sys_.CLONE_NEWNET),
    ("pid", sys_.CLONE_NEWPID),
)
_FORWARDED = tuple(getattr(_signal, name) for name in "SIGINT SIGTERM SIGHUP SIGQUIT SIGUSR1 SIGUSR2 SIGWINCH".split())
_KEYBOARD = (_signal.SIGINT, _signal.SIGQUIT)
_PARENT_DIED = _signal.SIGRTMAX
_CLOSE_ON_EXEC = 4
_TIOCGPTPEER, _TIOCGPTN, _TIOCSPTLCK, _TIOCSCTTY, _TIOCSWINSZ = 0x5441, 0x80045430, 0x40045431, 0x540E, 0x5414


def main() -> None:
    """Run the command and exit with its status, or with 125 after a report of the failure. Never returns."""
    try:
        _die_with_parent(_signal.SIGKILL)
        _receive_descriptors()
        sys_.close_range(3, 0x7FFFFFFF, _CLOSE_ON_EXEC)
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
        _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
        status = _outer(_read_wire())
    except Failure as failure:
        report(failure.fields)
        status = 125
    except OSError as error:
        report(refused("set up the sandbox", error).fields)
        status = 125
    except BaseException as error:
        report(("BuildaError", f"internal error in the sandbox: {type(error).__name__}: {error}", None, None))
        sys.excepthook(type(error), error, error.__traceback__)
        status = 125
    os._exit(status)


def report(fields: tuple[str | int | None, ...]) -> None:
    """Send one message to the parent: its length, then marshal. It is shorter than PIPE_BUF, so one write sends all."""
    data = marshal.dumps(fields)
    os.write(REPORT, len(data).to_bytes(4, "little") + data)


def _receive_descriptors() -> None:
    """Have the descriptors that the parent sends, by the numbers that it says: one byte each."""
    connection = _socket.socket(fileno=SPEC)
    numbers, rights, _, _ = connection.recvmsg(_MOST, _socket.CMSG_SPACE(4 * _MOST))
    connection.detach()
    if not rights:
        os._exit(137)  # the parent has no work for this process, or is gone
    data = rights[0][2]
    received = [int.from_bytes(data[place : place + 4], sys.byteorder) for place in range(0, len(data), 4)]
    aside = range(max(*numbers, *received) + 1, max(*numbers, *received) + 1 + len(received))
    for source, target in (*zip(received, aside, strict=True), *zip(aside, numbers, strict=True)):
        os.dup2(source, target)  # in two steps, so that no source is overwritten by an earlier target
    for number in {*received, *aside} - {*numbers}:
        os.close(number)


def _read_wire() -> Wire:
    with open(SPEC, "rb") as file:
        wire: Wire = marshal.load(file)
    return wire


def _outer(wire: Wire) -> int:
    os.umask(0)
    private_pid = wire["namespaces"]["pid"] == "private"
    _die_with_parent(_signal.SIGKILL)
    if os.getppid() != wire["parent"]:
        os._exit(137)
    if wire["cgroup"]:
        _enter_cgroup(wire["cgroup"])
    mapping = _mapping(wire)
    mounts = wire["plain_tree"] is None and wire["traced_tree"] is None
    sources = Sources(wire, mapping) if mounts else None
    relay = _relay(wire["relay"])
    if sources is not None:
        # Joined with the caller's rights: the command's user namespace may not own them.
        _join_namespaces(wire["namespaces"])
    if mapping is not None:
        mapping.enter(keep_groups=wire["groups"] is None)
        _die_with_parent(_signal.SIGKILL)  # a change of ids clears it (prctl(2), PR_SET_PDEATHSIG)
    if sources is not None:
        _make_namespaces(wire["namespaces"])
    if relay is not None:
        relay.connect()
    if wire["network_by_parent"]:
        report(("network",))
        connection = os.read(GO, 64)
        if not connection:
            os._exit(125)  # the parent failed, and reports why
        _connect(connection)
    supervision = _supervision(wire)
    alive, keep = os.pipe()

    def child() -> int:
        os.close(keep)
        return _init(wire, sources, alive, private_pid, -1 if supervision is None else supervision.connection())

    init = fork.start(child)
    os.close(REPORT)
    if mapping is not None:
        # This process still has the caller's root directory, and the command may have all rights in the user namespace.
        sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
    _forward(init, group=False)
    if supervision is not None:
        supervision.serve(init, wire)
    return _wait_for(init, answers=not mounts)


def _supervision(wire: Wire) -> Supervision | None:
    """The supervisor of a command with one id; None if the kernel alone answers its calls."""
    if wire["emulation"] is None:
        return None
    from builda.isolation.child.supervision import Supervision

    return Supervision()


def _mapping(wire: Wire) -> Mapping | None:
    """Make or open the command's user namespace; None if it stays in the caller's."""
    if wire["users"] is None:
        return None
    # Later imports, done now: after it has entered the namespace, this process may not read builda's files.
    import fcntl  # noqa: F401
    import struct  # noqa: F401

    from builda.isolation.child.id_mapping import Mapping
    from builda.linux import netlink  # noqa: F401

    mapping = Mapping(*wire["users"])
    mapping.give(wire["owned_streams"], wire["uid"], wire["gid"])
    return mapping


def _relay(argv: tuple[str, ...] | None) -> Relay | None:
    if argv is None:
        return None
    from builda.isolation.child.relay import Relay, unavailable

    if not argv:
        raise unavailable()
    return Relay(argv)


def _connect(connection: bytes) -> None:
    """Configure eth0 by what the parent sent: address, netmask and gateway, four bytes each."""
    from builda.linux import netlink

    netlink.configure("eth0", address=connection[:4], netmask=connection[4:8], gateway=connection[8:])


def _init(wire: Wire, sources: Sources | None, alive: int, private_pid: bool, supervisor: int) -> int:
    """Build the sandbox and run the command; its exit status."""
    try:
        _die_with_parent(_signal.SIGKILL if private_pid else _PARENT_DIED)
        _check_alive(alive)
        sys_.prctl(sys_.PR_SET_DUMPABLE, 0)  # the command must not read this process in /proc
        sys_.set_process_name("builda-init")
        if wire["traced_tree"] is not None:
            os._exit(_run_traced(wire, wire["traced_tree"]))
        if sources is None:
            assert wire["plain_tree"] is not None
            return _run_in_tree(wire, wire["plain_tree"])
        sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)
        tree = Tree(wire, sources)
        terminal = _build(wire, tree, sources)
        if wire["runtime"] is None:
            tree.replace_null()
        children = None if private_pid else _open_children(tree, wire)
        if wire["runtime"] is None:
            sys.path.clear()  # else a late import would load a module of the container
            tree.enter(wire["pivot"])
        status = _run(wire, terminal, children, supervisor)
    except Failure as failure:
        report(failure.fields)
        status = 125
    except OSError as error:
        report(refused("set up the sandbox", error).fields)
        status = 125
    return status


def _build(wire: Wire, tree: Tree, sources: Sources) -> int | None:
    """Mount everything and set the host name. Returns the slave side of the terminal; None without one."""
    if wire["namespaces"]["network"] == "private" and not wire["network_by_parent"]:
        from builda.isolation.child import loopback

        loopback.raise_lo()
    if wire["runtime"] is not None:
        tree.prepare_for_runtime(wire, wire["runtime"], sources)
        return _open_terminal(wire, tree) if wire["terminal"] else None
    if wire["hostname"] is not None and wire["namespaces"]["uts"] == "private":
        sys_.sethostname(wire["hostname"])
    tree.mount_system(wire, sources)
    terminal = _open_terminal(wire, tree) if wire["terminal"] else None
    tree.mount_others(wire, sources)
    return terminal


def _run_in_tree(wire: Wire, plain_tree: PlainTree) -> int:
    """Run the command in a plain directory, and answer its calls about /proc and /dev until it ends."""
    from builda.isolation.child.notification import received
    from builda.isolation.child.proc_server import Supervisor, give_up

    root = os.open(plain_tree["root"], os.O_RDONLY | os.O_DIRECTORY)
    parent = os.getppid()
    terminal = _open_terminal(wire, None) if wire["terminal"] else None
    children = _open_children(None, wire)
    secrets = tuple(sys_.openat2(root, path, os.O_WRONLY | os.O_NOFOLLOW) for path in plain_tree["secrets"])
    _adopt_descendants(children, secrets)
    wake, notice = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    _signal.set_wakeup_fd(notice, warn_on_full_buffer=False)
    _signal.signal(_signal.SIGCHLD, lambda *_: None)
    ours, theirs = _socket.socketpair()

    def child() -> int:
        sys.path.clear()  # else a late import would load a module of the container
        return _become_command(wire, terminal, root, theirs.fileno())

    command = fork.start(child)
    theirs.close()
    give_up(plain_tree["given_up"])
    os.close(REPORT)
    if terminal is not None:
        os.close(terminal)
    _forward(command, group=wire["session"])
    if plain_tree["filter"] is None:
        status = _wait_for(command)
        _end_descendants(children)
        _empty(secrets)
        return status
    listener = received(ours)
    if listener is None:  # the command has reported why
        _empty(secrets)
        return _wait_for(command)
    statuses: list[int] = []
    Supervisor(listener, root, lambda: _end_with(parent)).run(wake, lambda: _reaped(command, statuses))
    _end_descendants(children)
    _empty(secrets)
    return statuses[0]


def _run_traced(wire: Wire, traced_tree: TracedTree) -> int:
    """Run the command in a directory that is not its root for the kernel, and answer its calls until it ends."""
    from builda.isolation.traced.run import Following

    sys_.capset(0, 0, 0)  # root's rights over files would hide where paths lead (`traced.tree`)
    root = os.open(traced_tree["root"], os.O_RDONLY | os.O_DIRECTORY)
    terminal = _open_terminal(wire, None) if wire["terminal"] else None
    children = _open_children(None, wire)
    secrets = tuple(sys_.openat2(root, path, os.O_WRONLY | os.O_NOFOLLOW) for path in traced_tree["secrets"])
    _adopt_descendants(children, secrets)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))
    ours, theirs = _socket.socketpair()
    protected = (os.getpid(), os.getppid(), wire["parent"])

    def child() -> int:
        sys.path.clear()  # else a late import would load a module of the container
        return _become_traced(wire, terminal, root, theirs, protected)

    command = fork.start(child)
    theirs.close()
    if terminal is not None:
        os.close(terminal)
    _forward(command, group=wire["session"])
    following = Following(wire, command, root)
    try:
        listener = following.begin(ours)
        os.close(REPORT)
        if listener is None:  # the command has reported why
            return _wait_for(command)
        # A signal that interrupted the injection of a descriptor would let the call return 0: they are read instead.
        signals = (_signal.SIGCHLD, *_FORWARDED, _PARENT_DIED)
        _signal.pthread_sigmask(_signal.SIG_BLOCK, signals)
        status = following.follow(listener, sys_.signal_descriptor(tuple(map(int, signals))))
        following.end(children)
    finally:
        following.restore()
        _empty(secrets)
    return _code(status)


def _become_traced(
    wire: Wire, terminal: int | None, root: int, connection: _socket.socket, protected: tuple[int, ...]
) -> int:
    """Execute the command where its calls are answered by the process at the other end of `connection`."""
    from builda.isolation.child.exec_command import execute_traced
    from builda.isolation.traced.run import submit

    try:
        _begin_session(wire, terminal)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, wire["signal_mask"])
        execute_traced(
            wire,
            lambda: submit(connection, root, wire["seccomp"], protected),
            lambda: report(("ready",)),
            {REPORT, root, connection.fileno()},
        )
    except Failure as failure:
        report(failure.fields)
        return failure.fields[3] or 125
    except OSError as error:
        report(refused("start the command", error).fields)
    return 125


def _reaped(wanted: int, statuses: list[int]) -> bool:
    """Reap all children that have ended. True if `wanted` was one of them; its exit status is appended."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == wanted:
            statuses.append(_code(status))
            return True
        if pid == 0:
            return False


def _adopt_descendants(children: int, secrets: tuple[int, ...] = ()) -> None:
    """Become a subreaper. If the parent dies, kill all descendants, empty the secrets in the tree, and exit."""

    def end(*_: object) -> None:
        _end_descendants(children)
        _empty(secrets)
        os._exit(137)

    sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)
    _signal.signal(_PARENT_DIED, end)


def _empty(files: tuple[int, ...]) -> None:
    """Empty the files. builda removes them, but may have been killed."""
    for fd in files:
        os.ftruncate(fd, 0)


def _run(wire: Wire, terminal: int | None, children: int | None, supervisor: int) -> int:
    if children is not None:
        _adopt_descendants(children)
    command = fork.start(lambda: _become_command(wire, terminal, supervisor=supervisor))
    if supervisor >= 0:
        os.close(supervisor)
    os.close(REPORT)
    if terminal is not None:
        os.close(terminal)
    _forward(command, group=wire["session"])
    status = _wait_for(command)
    if children is not None:
        _end_descendants(children)
    return status


def _become_command(wire: Wire, terminal: int | None, root: int = -1, supervisor: int = -1) -> int:
    """Execute the command; an exit status if that fails.

    For a plain tree `root` is its directory. `supervisor` is the socket to which a filter's listener is sent.
    """
    try:
        if wire["namespaces"]["pid"] != "private":
            _die_with_parent(_signal.SIGKILL)
        if terminal is not None and wire["runtime"] is None and wire["emulation"] is None:
            os.fchown(terminal, wire["uid"], -1)
        _begin_session(wire, terminal)
        if wire["users"] is None:  # else `Mapping.give` did it, before the user namespace took the right away
            for fd in wire["owned_streams"]:
                os.fchown(fd, wire["uid"], wire["gid"])
        _signal.pthread_sigmask(_signal.SIG_SETMASK, wire["signal_mask"])
        queues = -1
        if wire["plain_tree"] is not None:
            from builda.linux.landlock import queues as message_queues

            queues = message_queues()  # the pod's: a path leads there no more after chroot(2)
            _enter_tree(root)
        runtime = wire["runtime"]
        if runtime is not None:
            report(("ready",))
            os.execve(runtime["args"][0], runtime["args"], dict(runtime["env"]))
        execute(wire, lambda: report(("ready",)), REPORT, supervisor, queues)
    except Failure as failure:
        report(failure.fields)
        return failure.fields[3] or 125
    except OSError as error:
        report(refused("start the command", error).fields)
    return 125


def _begin_session(wire: Wire, terminal: int | None) -> None:
    """Lead a session of this process's own if the run has one, with the terminal as streams."""
    if wire["session"]:
        os.setsid()
    if terminal is not None:
        sys_.ioctl(terminal, _TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            os.dup2(terminal, fd)


def _enter_tree(root: int) -> None:
    os.fchdir(root)
    try:
        os.chroot(".")
    except OSError as error:
        raise refused("change the root directory", error, "it needs CAP_SYS_CHROOT") from error


def _die_with_parent(number: int) -> None:
    sys_.prctl(sys_.PR_SET_PDEATHSIG, number)


def _end_with(parent: int) -> None:
    """Ask for the signal of the parent's death again, and send it if the parent died meanwhile."""
    _die_with_parent(_PARENT_DIED)
    if os.getppid() != parent:
        os.kill(os.getpid(), _PARENT_DIED)


def _check_alive(alive: int) -> None:
    """Exit if the parent died before PDEATHSIG was set: only it holds the other end of the pipe `alive`."""
    os.set_blocking(alive, False)
    try:
        os.read(alive, 1)
    except BlockingIOError:
        os.close(alive)
        return
    os._exit(137)


def _enter_cgroup(path: str) -> None:
    try:
        with open(path + "/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")
    except OSError as error:
        raise refused(f"enter the cgroup {path}", error) from error


def _join_namespaces(namespaces: dict[str, str]) -> None:
    joined = [(kind, flag, namespaces[kind][3:]) for kind, flag in _KINDS if namespaces[kind].startswith("ns:")]
    opened = [(kind, flag, path, _open_namespace(path)) for kind, flag, path in joined]
    for kind, flag, path, fd in opened:
        try:
            sys_.setns(fd, flag)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise Failure("InvalidValue", f"not a {kind} namespace: {path}") from error
            raise refused(f"join the {kind} namespace {path}", error) from error
        os.close(fd)


def _make_namespaces(namespaces: dict[str, str]) -> None:
    for kind, flag in (("mount", sys_.CLONE_NEWNS), *_KINDS):
        if kind == "mount" or namespaces[kind] == "private":
            try:
                sys_.unshare(flag)
            except OSError as error:
                raise refused(f"make a {kind} namespace", error) from error


def _open_namespace(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Failure("NotFound", f"cannot open the namespace: {path}: {error.strerror}") from error


def _open_terminal(wire: Wire, tree: Tree | None) -> int:
    """A pseudo terminal of the container's own devpts: its master goes to the parent, its slave to /dev/console.

    An OCI runtime gets one of the host's devpts and copies to one in the container. A command in a plain tree gets one
    of the host's too.
    """
    own = tree is not None and wire["runtime"] is None
    name, directory = ("ptmx", tree.devpts) if tree is not None and own else ("/dev/ptmx", None)
    master = os.open(name, os.O_RDWR | os.O_NOCTTY, dir_fd=directory)
    sys_.ioctl(master, _TIOCSPTLCK, bytes(4))
    number = int.from_bytes(sys_.ioctl(master, _TIOCGPTN, bytes(4))[1], "little")
    sys_.ioctl(master, _TIOCSWINSZ, b"".join(size.to_bytes(2, sys.byteorder) for size in (*wire["window_size"], 0, 0)))
    slave = sys_.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)[0]
    os.set_inheritable(slave, False)
    parent = _socket.socket(fileno=CONSOLE)
    parent.sendmsg([b"t"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, sys.byteorder))])
    os.close(master)
    if tree is not None and own:
        console = sys_.open_tree(tree.devpts, str(number), sys_.OPEN_TREE_CLONE)
        tree.attach(console, "/dev/console", directory=False)
    return slave


def _forward(pid: int, *, group: bool) -> None:
    """Pass signals on to `pid`. Those of the keyboard go to its process group if it leads one, as from a terminal."""

    def forward(number: int, _frame: object) -> None:
        if group and number in _KEYBOARD and _kill(-pid, number):
            return
        _kill(pid, number)

    for number in _FORWARDED:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, forward)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _FORWARDED)


def _kill(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _wait_for(wanted: int, *, answers: bool = False) -> int:
    """Reap children until `wanted` ends; its exit status.

    With `answers` it answers the calls of the command, which ends with it: say so if it was killed.
    """
    while True:
        pid, status = os.wait()
        if pid == wanted:
            if answers and os.WIFSIGNALED(status):
                signal = os.WTERMSIG(status)
                os.write(2, b"builda: signal %d killed the process that answers the command's calls\n" % signal)
            return _code(status)


def _code(status: int) -> int:
    """The exit status as shells show it: 128 + N for signal N."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _open_children(tree: Tree | None, wire: Wire) -> int:
    pid = os.getpid()
    path = f"proc/{pid}/task/{pid}/children"
    try:
        if tree is None or wire["runtime"] is not None:
            return os.open("/" + path, os.O_RDONLY)
        return sys_.openat2(tree.root, path, os.O_RDONLY)
    except OSError as error:
        raise refused("list the processes of a run without a pid namespace", error) from error


def _end_descendants(children: int) -> int:
    """Kill and reap until no child is left: the children of a killed process become ours (subreaper)."""
    while True:
        os.lseek(children, 0, os.SEEK_SET)
        for pid in os.read(children, 65536).split():
            _kill(int(pid), _signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return 0
