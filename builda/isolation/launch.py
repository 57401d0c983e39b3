"""The parent's half of every isolation: it checks what a run needs, starts the child, and follows it to its end.

The child is a fresh interpreter, executed and not forked: a fork of this process would copy its threads' locks in any
state, and leave its memory (credentials, other builds) in a process that the command may come to control. The
interpreter takes half of the 14 ms that a run costs, so it is started before it is known what it shall do (`begun`).
"""

from __future__ import annotations

import _socket
import marshal
import os
import signal
import sys
from contextlib import ExitStack, contextmanager, suppress

from builda.errors import BuildaError, CommandFailed, IsolationUnavailable, Unsupported
from builda.isolation import oom, rlimits
from builda.isolation.begun import Begun
from builda.isolation.wire import Acquired, Checked, Method, to_wire
from builda.linux import caps, detached, process
from builda.linux import syscalls as sys_
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

    from builda.events import Emit
    from builda.isolation.kinds import Kind
    from builda.isolation.spec import Device, Process, Sandbox
    from builda.isolation.streams import Streams
    from builda.isolation.wire import Wire
    from builda.linux.mount import Mount

_SPEC, _REPORT, _GO, _CONSOLE, _MOUNTS = 3, 4, 5, 6, 8  # the child's descriptors; mounts from the last on
_NATIVE = Method()


def check(process: Process, sandbox: Sandbox, kind: Kind, cache: Path | None) -> Checked:
    """Find what the run needs of this process and the kernel. An error names what they cannot give."""
    from builda.isolation.relay_program import relay_command
    from builda.linux.seccomp import filter_program
    from builda.linux.userns import in_user_namespace

    inside = in_user_namespace()
    return Checked(
        parent=os.getpid(),
        in_user_namespace=inside,
        capabilities=_checked_capabilities(process.capabilities),
        rlimits=rlimits.checked(process.rlimits),
        devices=tuple((device.source, _checked_target(device, kind)) for device in sandbox.devices),
        seccomp=filter_program(sandbox.seccomp, process.capabilities, cache),
        relay=relay_command() if sandbox.network == "private" and inside else None,
        window_size=_terminal_size() if process.terminal else (0, 0),
        signal_mask=tuple(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        emulation=_emulation() if sandbox.emulates_ids else None,
    )


def run_child(
    command: Process,
    sandbox: Sandbox,
    emit: Emit,
    *,
    checked: Checked,
    method: Method = _NATIVE,
    begun: Begun | None = None,
) -> int:
    """Start the child, follow it, and return the command's exit status. No process of the run is left afterwards.

    The child is that of `begun`, if one was.

    CommandFailed if the command cannot be executed or the kernel killed it for lack of memory, KeyboardInterrupt if the
    user interrupted it.
    """
    from builda.isolation.streams import Streams

    forward = process.can_forward()
    received: set[int] = set()

    def noted(number: int) -> bool:
        received.add(number)
        streams.resize(number)
        return command.stop is not None and command.stop.took(number)

    with ExitStack() as stack:
        begun = begun or stack.enter_context(Begun(command.stop))
        cgroup = _limits(stack, sandbox)
        kills = oom.Kills(cgroup)
        sandbox, mounts = _served(stack, sandbox)
        streams = stack.enter_context(Streams(command, emit))
        acquired = Acquired(
            cgroup,
            session=command.terminal or begun.leads_session,
            owned_streams=streams.owned if _gives_streams(command, sandbox) else (),
        )
        wire = to_wire(command, sandbox, checked, method, acquired)
        release = stack.enter_context(process.held_back())  # until they can be passed on
        pid, connection = begun.take()
        with _ended(pid) as wait:
            reader, go = _tell(stack, connection, wire, streams, mounts)
            if forward:
                stack.enter_context(process.forwarding(pid, noted))
            release()
            if command.stop is not None:
                stack.enter_context(command.stop.child(pid))
            failure = _follow(reader, pid, go, stack)
            if failure is None:
                streams.relay()
            status = wait()
    if failure is not None:
        raise failure
    if status == 128 + signal.SIGINT and signal.SIGINT in received:
        raise KeyboardInterrupt  # the user asked for it: the command did not fail
    if status and kills.happened():
        raise CommandFailed(oom.described(status), status=status, hint=kills.way_out(), command=command.args)
    return status


def _limits(stack: ExitStack, sandbox: Sandbox) -> str | None:
    """The directory of a cgroup with the limits of the sandbox; None if it has none."""
    if not (sandbox.resources or sandbox.cgroup_parent):
        return None
    from builda.isolation.cgroups import limited

    return stack.enter_context(limited(sandbox.resources, sandbox.cgroup_parent))


def _served(stack: ExitStack, sandbox: Sandbox) -> tuple[Sandbox, dict[int, int]]:
    """Start fuse-overlayfs for the mounts that it serves.

    Returns the sandbox with these mounts replaced by detached ones, and their descriptors: child's number -> ours. The
    child cannot start the programs: they would be in the command's namespaces.
    """
    made: dict[int, int] = {}

    def handed(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
        return tuple(_handed(stack, mount, made) if mount.type == detached.FUSE else mount for mount in mounts)

    if not any(mount.type == detached.FUSE for mount in (*sandbox.rootfs, *sandbox.mounts)):
        return sandbox, made
    return replace(sandbox, rootfs=handed(sandbox.rootfs), mounts=handed(sandbox.mounts)), made


def _handed(stack: ExitStack, mount: Mount, made: dict[int, int]) -> Mount:
    number = _MOUNTS + len(made)
    made[number] = _serve(stack, mount)
    part, options = detached.split_part(mount.options)
    words = tuple(word for word in options if word in detached.ATTRIBUTES)
    words += () if part is None else (part,)
    return mount._replace(type=detached.DETACHED, source=str(number), options=words, lower=())


def _serve(stack: ExitStack, mount: Mount) -> int:
    from builda.linux.fuse import served

    try:
        return stack.enter_context(served(mount.lower, detached.split_part(mount.options)[1]))
    except OSError as error:
        raise IsolationUnavailable(f"cannot mount the files of the container: {error.strerror}") from error


def _tell(
    stack: ExitStack, connection: _socket.socket, wire: Wire, streams: Streams, mounts: dict[int, int]
) -> tuple[int, int]:
    """Send the child its message; the descriptors of its reports, and of the signal to go on."""
    with ExitStack() as theirs:
        theirs.callback(connection.close)
        spec = _owned(theirs, os.memfd_create("builda-spec"))
        with open(os.dup(spec), "wb") as file:
            marshal.dump(wire, file)  # type: ignore[arg-type]  # typeshed wants a dict, which a TypedDict is
        os.lseek(spec, 0, os.SEEK_SET)
        reader, writer = os.pipe()
        _owned(stack, reader)
        waiter, go = os.pipe()
        _owned(stack, go)
        descriptors = {
            _SPEC: spec,
            _REPORT: _owned(theirs, writer),
            _GO: _owned(theirs, waiter),
            **streams.theirs,
            **mounts,
        }
        rights = b"".join(number.to_bytes(4, sys.byteorder) for number in descriptors.values())
        with suppress(BrokenPipeError, ConnectionResetError):  # it was killed, which its reports show
            connection.sendmsg([bytes(descriptors)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        streams.started()
    return reader, go


def _owned(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


@contextmanager
def _ended(pid: int) -> Iterator[Callable[[], int]]:
    """Yield a function that waits for the child and returns its exit status. The block kills a child it did not wait
    for."""
    waited = False

    def wait() -> int:
        nonlocal waited
        status = process.wait(pid)
        waited = True
        return status

    try:
        yield wait
    finally:
        if not waited:
            os.kill(pid, signal.SIGKILL)
            process.wait(pid)


def _follow(reader: int, pid: int, go: int, stack: ExitStack) -> BuildaError | None:
    """Read the child's reports until the command is executed (None), or the error that says why it cannot be."""
    ready = False
    failure = None
    for message in _messages(reader):
        if message == ("ready",):
            ready = True
        elif message == ("network",):
            from builda.isolation.network import connect

            os.write(go, b"".join(connect(pid)))
        else:
            failure = _error(*message)
    if failure is None and not ready:
        failure = IsolationUnavailable("the sandbox ended before the command was started")
    return failure


def _messages(reader: int) -> Iterator[tuple[Any, ...]]:
    with open(reader, "rb", closefd=False) as file:
        while header := file.read(4):
            size = int.from_bytes(header, "little")
            data = file.read(size)
            if len(data) < size:  # the child was killed while it wrote
                return
            yield marshal.loads(data)


def _error(kind: str, message: str, hint: str | None, status: int | None) -> BuildaError:
    import builda.errors

    if status is not None:
        return CommandFailed(message, status=status, hint=hint)
    error: BuildaError = getattr(builda.errors, kind)(message, hint=hint)
    return error


def _gives_streams(command: Process, sandbox: Sandbox) -> bool:
    """Whether the command's user is not the owner of the pipes that builda makes."""
    return not sandbox.emulates_ids and (command.user.uid != 0 or sandbox.users is not None)


def _emulation() -> bytes:
    from builda.isolation.child.emulated_calls import filter_program

    return filter_program(os.uname().machine)


def _checked_capabilities(names: tuple[str, ...]) -> int:
    """The capabilities as bits. IsolationUnavailable if the caller asked for one that this process lacks.

    The default ones and those of `ALL` may be missing: the command gets what there is.
    """
    held = sys_.capget()[1]
    wanted = caps.to_bits(names)
    lacking = caps.from_bits(wanted & ~held & ~caps.to_bits(caps.DEFAULT))
    if lacking and held & ~wanted:
        raise IsolationUnavailable(
            f"builda itself lacks the capability: {lacking[0]}",
            hint="in a pod, add it to the capabilities of the container",
        )
    return wanted


def _checked_target(device: Device, kind: Kind) -> str:
    """The path of the device inside. Unsupported if the isolation cannot restrict access to it as asked."""
    if not kind.restricts_devices and not {"r", "w"} <= set(device.permissions):
        raise Unsupported(
            f"{kind.name} isolation gives a device for reading and writing or not at all: "
            f"{device.target}:{device.permissions}",
            hint="root can restrict it by --isolation oci, with runc or (where only cgroup v2 is) with crun",
        )
    return device.target


def _terminal_size() -> tuple[int, int]:
    for fd in (0, 1, 2):
        with suppress(OSError):
            size = os.get_terminal_size(fd)
            return size.lines, size.columns
    return 24, 80
