"""Gives calls that a process must make itself other arguments: programs to execute, directories, sockets (ptrace(2)).

What is written into the process's memory lies below its stack pointer, out of the way of the program; with a stack of
the program's own, such as a goroutine's, far below in the first thread's (`Tracer.room`). Another thread may change it
before the kernel reads it: then the kernel is led to another place, where Landlock forbids to execute and to make
sockets, and from where the supervisor answers no path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys

from builda.isolation.emulated.execution import Program, changes_nothing, executed
from builda.isolation.emulated.messages import CONTROL_MAX, MANY_STRIDE, MESSAGE, with_kernels_ids
from builda.isolation.emulated.ownership import may_access
from builda.isolation.traced import programs
from builda.isolation.traced.calling import signed
from builda.isolation.traced.caught_calls import NUMBERS, STOPPED
from builda.isolation.traced.kept_aside import shown_owner
from builda.isolation.traced.outside import flags_of
from builda.isolation.traced.programs import Dynamic, Foreign, Script, Vector
from builda.isolation.traced.tree import AT_FDCWD, Place, State, Tree
from builda.linux import ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.isolation.emulated.credentials import Credentials
    from builda.isolation.emulated.processes import Processes
    from builda.isolation.traced.answering import Supervisor
    from builda.isolation.traced.stops import Stops

OPTIONS = (
    ptrace.TRACE_SYSGOOD
    | ptrace.TRACE_FORK
    | ptrace.TRACE_VFORK
    | ptrace.TRACE_CLONE
    | ptrace.TRACE_EXEC
    | ptrace.TRACE_SECCOMP
    | ptrace.EXIT_KILL
)
_MADE = (ptrace.EVENT_FORK, ptrace.EVENT_VFORK, ptrace.EVENT_CLONE)
_STOPS = frozenset((19, 20, 21, 22))  # SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU
_RED_ZONE = 256
_MAPPED = {"x86_64": 0x7000 << 32, "aarch64": 0xF000 << 32}
"""Where mmap(2) and the kernel place stacks: from these addresses on. Below are a program's own data, and Go's heap."""
_FAR, _FAR_SLOTS, _FAR_SIZE = 7 << 20, 64, 1 << 16
_MOST_INTERPRETERS = 5
_MOST_ARGUMENTS = 1 << 20
_MOST_BOUND = 10_000
_MOST_MESSAGES = 1024  # of one sendmmsg(2)
_NAME = struct.Struct("=QI")  # the first fields of struct msghdr
_CONTROL_AT = 32  # another
_EMPTY_PATH, _NOFOLLOW, _DONT_FOLLOW = 0x1000, 0x100, 0x02000000
_INOTIFY = 0xF700EFFF  # ALL_INOTIFY_BITS: events and options of inotify_add_watch(2)
_AF_UNIX = 1
_SOCKET_PATH = 108
_ADDRESS = 110  # bytes of struct sockaddr_un
_LONGEST = 128  # of struct sockaddr_storage
_PATH = os.O_PATH | os.O_CLOEXEC
_PEER = struct.Struct("=iII")  # struct ucred
_REMOVED = b" (deleted)"  # at the end of a link of /proc that leads to a file without a name


class Image:
    """What a process is about to execute: the file that the kernel gets, the program it shows, and credentials.

    `loader` is the first argument, if a loader starts the program.
    """

    __slots__ = ("credentials", "exe", "loader", "path", "vector")

    def __init__(self, path: bytes, vector: Vector, exe: bytes, credentials: Credentials, loader: bytes = b"") -> None:
        self.path = path
        self.loader = loader
        self.vector = vector
        self.exe = exe
        self.credentials = credentials


class Tracer:
    """Follows all threads of a command. `refuse` is told of programs that cannot run here."""

    def __init__(
        self,
        tree: Tree,
        processes: Processes,
        states: dict[int, State],
        aliases: Callable[[bytes], bytes],
        named: Callable[[bytes, bytes], bytes],
        refuse: Callable[[str], None],
    ) -> None:
        self.tree = tree
        self.processes = processes
        self.states = states
        self.aliases = aliases
        self.named = named
        self.refuse = refuse
        self.machine = os.uname().machine
        self.registers = ptrace.Registers(self.machine)
        self.memory = ptrace.Memory()
        self.numbers = NUMBERS[self.machine]
        self.names = {
            self.numbers[name]: name
            for name in (*STOPPED, "sendto", "getsockopt", "open", "openat", "close_range")
            if name in self.numbers
        }
        self.supervisor: Supervisor | None = None
        self.stops: Stops | None = None
        self.seen: list[tuple[int, int]] = []
        """What wait(2) has returned of threads that were waited for alone, and has not been dealt with."""
        self.early: set[int] = set()  # threads that have stopped before their parent's event
        self.pending: dict[int, Image] = {}
        self.asking: dict[int, Callable[[], None]] = {}  # what changes the result of a thread's call, also a failed one
        self.bound: dict[bytes, bytes] = {}  # addresses of sockets on this machine, and what the command calls them
        self.loaders: dict[tuple[int, int, int], bool] = {}
        self.mapped = _MAPPED[self.machine]
        self.far: dict[int, int] = {}
        """By thread: its part of the far end of the first thread's stack, 0 if there is none."""

    def answer_by(self, stops: Stops) -> None:
        """Have the supervisor answer calls at which threads stop for this tracer."""
        self.stops = stops
        stops.attach(self.registers, self.memory, self.room, self._resume, self.asking)

    def stopped(self, tid: int, status: int) -> None:
        """Deal with a stop that wait(2) has returned."""
        signal, event = status >> 8 & 0xFF, status >> 16
        if event == ptrace.EVENT_SECCOMP:
            self._call(tid)
            if self.stops is None or tid not in self.stops.waiting:
                self._resume(tid)
            return
        if event in _MADE:
            self._made(tid)
        elif event == ptrace.EVENT_EXEC:
            self._executed(tid)
        elif event == ptrace.EVENT_STOP:
            if tid not in self.states:
                self.early.add(tid)
                return
            if signal in _STOPS:
                ptrace.stay_stopped(tid)
                return
        elif event == 0 and signal == ptrace.RETURNED:
            self._returned(tid)
        elif event == 0 and signal:
            ptrace.go_on(tid, signal)
            return
        ptrace.go_on(tid)

    def _resume(self, tid: int) -> None:
        """Let a thread that has stopped before a call go on."""
        if self.stops is not None and tid in self.stops.receiving:
            ptrace.go_on_until_return(tid)
            _, status = os.waitpid(tid, ptrace.WAIT_ALL)
            if status >> 8 == ptrace.RETURNED:
                self._returned(tid)
                ptrace.go_on(tid)
            else:  # it was killed
                self.stops.forget(tid)
                self.seen.append((tid, status))
        elif tid in self.asking:
            ptrace.go_on_until_return(tid)
        else:
            ptrace.go_on(tid)

    def ended(self, tid: int) -> None:
        """A thread has ended."""
        self.states.pop(tid, None)
        self.processes.ended(tid)
        self.pending.pop(tid, None)
        self.asking.pop(tid, None)
        self.far.pop(tid, None)
        self.early.discard(tid)
        if self.supervisor is not None:
            self.supervisor.fifos.ended(tid)
        if self.stops is not None:
            self.stops.forget(tid)

    def _made(self, tid: int) -> None:
        try:
            child = ptrace.event_message(tid)
        except OSError:  # it was killed
            return
        state = self.states[tid]
        is_thread = os.path.exists(f"/proc/{state.pid}/task/{child}")
        self.states[child] = state if is_thread else state.copy(child)
        self.processes.made(tid, child)
        if self.supervisor is not None:
            self.supervisor.injecting.made(tid, child)
        if child in self.early:
            self.early.discard(child)
            ptrace.go_on(child)

    def _executed(self, tid: int) -> None:
        try:
            former = ptrace.event_message(tid)  # the thread that called execve: it has the leader's number now
        except OSError:
            return
        image = self.pending.pop(former, None)
        self.far.pop(tid, None)
        state = self.states[tid] = self.states.get(former, self.states[tid]).copy(tid)
        self.processes.executed(former, tid, self.processes[former] if image is None else image.credentials)
        if former != tid:
            self.states.pop(former, None)
        if image is not None:
            state.exe, state.loader = image.exe, image.loader

    def _call(self, tid: int) -> None:
        registers = self.registers
        try:
            registers.read(tid)
        except OSError:  # it was killed
            return
        name = self.names.get(registers.number)
        if self.stops is not None and (name is None or self._opens_to_use(name)):
            assert self.supervisor is not None
            self.supervisor.answer(tid, tid, registers.number, tuple(map(registers.argument, range(6))))
            return
        try:
            try:
                if name is not None:
                    getattr(self, name)(tid, self.states[tid])
            except (ValueError, OverflowError, struct.error):
                registers.skip(tid, -errno.EINVAL)
            except OSError as error:
                registers.skip(tid, -(error.errno or errno.EIO))
        except OSError:  # it was killed
            return

    def _opens_to_use(self, name: str) -> bool:
        """Whether a call opens a file with another flag than O_PATH."""
        flags = {"open": 1, "openat": 2}.get(name)
        return flags is not None and not self.registers.argument(flags) & os.O_PATH

    # Paths.

    def found(self, state: State, tid: int, directory: int, path: bytes, *, follow: bool) -> tuple[int, Place]:
        """An O_PATH descriptor of what a path means, and its place, on this machine."""
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        root, whole = self.tree.start(state, tid, directory, path)
        flags = _PATH if follow else _PATH | os.O_NOFOLLOW
        try:
            fd = root.open(whole, flags)
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) in self.tree.marks:
                os.close(fd)
                raise PermissionError
        except PermissionError:
            place = self.tree.walk(state, tid, root, whole, follow=follow)
            if place.outside:
                assert self.supervisor is not None
                self.supervisor.outside.check_seen(state, tid, place.path)
                return os.open(place.path, flags), place
            fd = root.open(place.path, _PATH | os.O_NOFOLLOW)
        return fd, Place(os.readlink(b"/proc/self/fd/%d" % fd))

    def room(self, tid: int, size: int) -> int:
        """The address of `size` bytes out of the way of the program: below the thread's stack pointer.

        Below a stack that the program has made inside its own data there may be other data: then they are at the far
        end of the first thread's stack.
        """
        stack = self.registers.stack
        if stack < self.mapped and size <= _FAR_SIZE:
            far = self.far.get(tid)
            if far is None:
                far = self.far[tid] = ptrace.far_in_stack(tid, _FAR - tid % _FAR_SLOTS * _FAR_SIZE)
            if far:
                return far
        return (stack - _RED_ZONE - size) & ~15

    def below_stack(self, tid: int, *items: bytes) -> list[int]:
        """Write the items into `room`; their addresses."""
        sizes = [len(item) + 7 & ~7 for item in items]
        at = self.room(tid, sum(sizes))
        self.memory.write(tid, at, b"".join(item.ljust(size, b"\0") for item, size in zip(items, sizes, strict=True)))
        addresses = []
        for size in sizes:
            addresses.append(at)
            at += size
        return addresses

    def replaced(self, tid: int, number: int, path: bytes) -> None:
        """Give the call another path as an argument."""
        (address,) = self.below_stack(tid, path + b"\0")
        self.registers.set_argument(number, address)
        self.registers.write(tid)

    def chdir(self, tid: int, state: State) -> None:
        path = self.memory.text(tid, self.registers.argument(0))
        fd, place = self.found(state, tid, AT_FDCWD, path, follow=True)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            stays = _is_start(tid, AT_FDCWD, fd)
        finally:
            os.close(fd)
        self.replaced(tid, 0, b"." if stays else place.path)  # it may have been removed

    def open(self, tid: int, state: State) -> None:
        self._open(tid, state, AT_FDCWD, 0)

    def openat(self, tid: int, state: State) -> None:
        self._open(tid, state, signed(self.registers.argument(0)), 1)

    def _open(self, tid: int, state: State, directory: int, at: int) -> None:
        """open(2) with O_PATH, for which the kernel takes no descriptor from another process."""
        path = self.memory.text(tid, self.registers.argument(at))
        follow = not self.registers.argument(at + 1) & os.O_NOFOLLOW
        fd, place = self.found(state, tid, directory, path, follow=follow)
        try:
            stays = path[:1] != b"/" and place.path.endswith(_REMOVED) and _is_start(tid, directory, fd)
        finally:
            os.close(fd)
        slash = b"/" if path.endswith(b"/") and not place.path.endswith(b"/") else b""
        self.replaced(tid, at, b"." if stays else place.path + slash)

    def close_range(self, tid: int, state: State) -> None:
        """Spare the descriptor by which others come: the call is made for those below it, and then for those above."""
        registers = self.registers
        assert self.stops is not None
        kept = self.stops.channel
        first, last = registers.argument(0) & 0xFFFFFFFF, registers.argument(1) & 0xFFFFFFFF
        if not first <= kept <= last:
            return
        if first == kept == last:
            registers.skip(tid, 0)
            return

        def make_again() -> None:
            if registers.result < 0:
                return
            registers.set_argument(1, last)
            registers.again(tid, self.numbers["close_range"], kept + 1)

        if first == kept:
            registers.set_argument(0, kept + 1)
        else:
            registers.set_argument(1, kept - 1)
            if kept < last:
                self.asking[tid] = make_again
        registers.write(tid)

    def inotify_add_watch(self, tid: int, state: State) -> None:
        mask = self.registers.argument(2)
        if not mask & _INOTIFY:
            raise OSError(errno.EINVAL, "inotify_add_watch")
        self._check_link(tid, self.registers.argument(0), (b"inotify", b"anon_inode:inotify"), errno.EINVAL)
        path = self.memory.text(tid, self.registers.argument(1))
        follow = not mask & _DONT_FOLLOW
        fd, place = self.found(state, tid, AT_FDCWD, path, follow=follow)
        os.close(fd)
        self.replaced(tid, 1, place.path)

    def _check_socket(self, tid: int) -> None:
        """EBADF or ENOTSOCK unless the first argument of the call is a socket."""
        self._check_link(tid, self.registers.argument(0), (b"socket:",), errno.ENOTSOCK)

    def _check_link(self, tid: int, number: int, starts: tuple[bytes, ...], error: int) -> None:
        """EBADF for a descriptor of a thread that is not open, and `error` for one whose link begins otherwise."""
        try:
            link = os.readlink(b"/proc/%d/fd/%d" % (tid, signed(number)))
        except OSError as missing:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from missing
        if not link.startswith(starts):
            raise OSError(error, os.strerror(error))

    # Sockets.

    def bind(self, tid: int, state: State) -> None:
        self._address(tid, state, 1, make=True)

    def connect(self, tid: int, state: State) -> None:
        self._address(tid, state, 1)

    def sendto(self, tid: int, state: State) -> None:
        self._address(tid, state, 4)

    def getsockopt(self, tid: int, state: State) -> None:
        """SO_PEERCRED: show what the process at the other end is now."""
        at, length_at = self.registers.argument(3), self.registers.argument(4)

        def show() -> None:
            if self.registers.result < 0:
                return
            length = int.from_bytes(self.memory.read(tid, length_at, 4), sys.byteorder)
            data = self.memory.read(tid, at, min(length, _PEER.size))
            if len(data) == _PEER.size:
                self.memory.write(tid, at, _PEER.pack(*self._peer(*_PEER.unpack(data))))

        self.asking[tid] = show

    def getsockname(self, tid: int, state: State) -> None:
        """Show the path that the command gave a socket, which the kernel knows by its path on this machine."""
        at, length_at = self.registers.argument(1), self.registers.argument(2)
        try:
            size = int.from_bytes(self.memory.read(tid, length_at, 4), sys.byteorder, signed=True)
        except OSError:  # the kernel says what is wrong
            return
        if size < 0:
            return
        # The caller's own buffer may be too short for what tells the path, and would show the path on this machine.
        found, found_length = self.below_stack(tid, bytes(_LONGEST), _LONGEST.to_bytes(4, sys.byteorder))
        self.registers.set_argument(1, found)
        self.registers.set_argument(2, found_length)
        self.registers.write(tid)

        def show() -> None:
            self.registers.set_argument(1, at)
            self.registers.set_argument(2, length_at)
            if self.registers.result >= 0:
                length = int.from_bytes(self.memory.read(tid, found_length, 4), sys.byteorder)
                address = self._shown_address(state, self.memory.read(tid, found, min(length, _LONGEST)))
                try:
                    self.memory.write(tid, length_at, len(address).to_bytes(4, sys.byteorder))
                    if size:
                        self.memory.write(tid, at, address[:size])
                except OSError:
                    self.registers.set_result(-errno.EFAULT)
            self.registers.write(tid)

        self.asking[tid] = show

    getpeername = getsockname

    def _shown_address(self, state: State, address: bytes) -> bytes:
        """What the command sees for the address of a socket."""
        path = address[2:].partition(b"\0")[0]
        if int.from_bytes(address[:2], sys.byteorder) != _AF_UNIX or not path:
            return address
        shown = self.bound.get(path) or state.root.inside(path)
        return address if shown is None else address[:2] + shown + b"\0"

    def _returned(self, tid: int) -> None:
        """A call has returned whose result is to be changed."""
        change = self.asking.pop(tid, None)
        try:
            if self.stops is not None and tid in self.stops.receiving:
                self.stops.received(tid)
                return
            self.registers.read(tid)
            if change is not None:
                change()
        except OSError:  # it was killed, or has no such memory any more
            return

    def _peer(self, pid: int, uid: int, gid: int) -> tuple[int, int, int]:
        """What a process shows itself as at a socket; the supervisor's own ids stand for root."""
        if pid in self.states:
            who = self.processes[pid]
            return pid, who.euid, who.egid
        assert self.supervisor is not None
        return pid, *shown_owner(uid, gid, self.supervisor.owners.ids)

    def sendmsg(self, tid: int, state: State) -> None:
        self._check_socket(tid)
        at = self.registers.argument(1)
        message = self.memory.read(tid, at, MESSAGE.size)
        name, length, vector, count, control, size, flags = MESSAGE.unpack(message)
        address = self.translated(tid, state, name, length) if name else None
        claims = self._with_claims(tid, control, size)
        if address is None and claims is None:
            return
        name_copy, control_copy, copy = self.below_stack(tid, address or b"", claims or b"", message)
        if address is not None:
            name, length = name_copy, len(address)
        if claims is not None:
            control = control_copy
        self.memory.write(tid, copy, MESSAGE.pack(name, length, vector, count, control, size, flags))
        self.registers.set_argument(1, copy)
        self.registers.write(tid)

    def _with_claims(self, tid: int, control: int, size: int) -> bytes | None:
        """Control data with the ids that the kernel takes; None if they may stay as they are."""
        if not control or not 0 < size <= CONTROL_MAX:
            return None
        assert self.supervisor is not None
        data = self.memory.read(tid, control, size)
        claims = with_kernels_ids(data, self.processes[tid], self.supervisor.owners.ids)
        return claims if claims != data else None

    def sendmmsg(self, tid: int, state: State) -> None:
        """As sendmsg(2), in the caller's own headers, into which the kernel writes: they are as before when it returns.

        A message that is refused ends the call before it; its error counts if it is the first.
        """
        self._check_socket(tid)
        at, count = self.registers.argument(1), min(self.registers.argument(2) & 0xFFFFFFFF, _MOST_MESSAGES)
        changes: list[tuple[int, bytes, bytes, bytes]] = []  # address of a header, the header, address, claims
        for number in range(count):
            try:
                message = self.memory.read(tid, at + number * MANY_STRIDE, MESSAGE.size)
                name, length, _, _, control, size, _ = MESSAGE.unpack(message)
                address = self.translated(tid, state, name, length) if name else None
                claims = self._with_claims(tid, control, size)
            except OSError:
                if not number:
                    raise
                self.registers.set_argument(2, number)
                self.registers.write(tid)
                break
            if address is not None or claims is not None:
                changes.append((at + number * MANY_STRIDE, message, address or b"", claims or b""))
        if not changes:
            return
        copies = iter(self.below_stack(tid, *(item for _, _, *items in changes for item in items)))
        for place, _, address, claims in changes:
            name_copy, control_copy = next(copies), next(copies)
            if address:
                self.memory.write(tid, place, _NAME.pack(name_copy, len(address)))
            if claims:
                self.memory.write(tid, place + _CONTROL_AT, control_copy.to_bytes(8, sys.byteorder))

        def restore() -> None:
            for place, message, *_ in changes:
                self.memory.write(tid, place, message[: _NAME.size])
                self.memory.write(tid, place + _CONTROL_AT, message[_CONTROL_AT : _CONTROL_AT + 8])

        self.asking[tid] = restore

    def _address(self, tid: int, state: State, at: int, *, make: bool = False) -> None:
        length = self.registers.argument(at + 1) & 0xFFFFFFFF
        address = self.translated(tid, state, self.registers.argument(at), length, make=make)
        if address is None:
            return
        (place,) = self.below_stack(tid, address)
        self.registers.set_argument(at, place)
        self.registers.set_argument(at + 1, len(address))
        self.registers.write(tid)

    def translated(self, tid: int, state: State, at: int, length: int, *, make: bool = False) -> bytes | None:
        """The address of a socket with its path in the tree; None for an address without one.

        With `make` the socket is to be made there: a link at the end is not followed.
        """
        if length <= 2 or length > _ADDRESS:  # the kernel refuses a longer one
            return None
        data = self.memory.read(tid, at, length)
        if int.from_bytes(data[:2], "little") != _AF_UNIX or not data[2]:
            return None
        path = data[2:].partition(b"\0")[0]
        if make:
            whole = path.rstrip(b"/")
            above, slash, name = whole.rpartition(b"/")
            fd, place = self.found(state, tid, AT_FDCWD, above + slash or b".", follow=True)
            try:
                if name in (b"", b".", b".."):
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                if place.outside and os.path.lexists(b"/proc/self/fd/%d/%b" % (fd, name)):
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                if not place.outside and not os.path.lexists(b"/proc/self/fd/%d/%b" % (fd, name)):
                    self._own_name(tid, fd, name)
            finally:
                os.close(fd)
            name += path[len(whole) :][:1]  # the kernel says what a slash at the end means
        else:
            fd, place = self.found(state, tid, AT_FDCWD, path, follow=True)
            is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
            os.close(fd)
            if not is_socket:
                raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            above, _, name = place.path.rpartition(b"/")
            place = Place(above or b"/", place.outside)
        if place.outside:
            made = errno.ENOENT if place.path.startswith(b"/proc") else errno.EACCES
            number = made if make else errno.ECONNREFUSED
            raise OSError(number, os.strerror(number))
        whole = place.path + b"/" + name
        if len(whole) >= _SOCKET_PATH:
            whole = self.aliases(place.path) + b"/" + name
        if len(whole) >= _SOCKET_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if make and len(self.bound) < _MOST_BOUND:
            self.bound[whole] = path
        return data[:2] + whole + b"\0"

    def _own_name(self, tid: int, parent: int, name: bytes) -> None:
        """Keep aside the owner of a socket that is to be made; root, if another file of this name had an owner."""
        assert self.supervisor is not None
        owners = self.supervisor.owners
        if stat.S_ISDIR(os.fstat(parent).st_mode):
            owners.name((parent, name), owners.of_new(self.processes[tid], parent))

    # Programs.

    def execve(self, tid: int, state: State) -> None:
        path = self.memory.text(tid, self.registers.argument(0))
        self._execute(tid, state, AT_FDCWD, path, flags=0, arguments=1)

    def execveat(self, tid: int, state: State) -> None:
        flags = self.registers.argument(4) & 0xFFFFFFFF
        path = self.memory.text(tid, self.registers.argument(1))
        if not path and not flags & _EMPTY_PATH:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if flags & ~(_EMPTY_PATH | _NOFOLLOW):
            raise OSError(errno.EINVAL, "execveat")
        self._execute(tid, state, signed(self.registers.argument(0)), path, flags=flags, arguments=2)

    def _execute(self, tid: int, state: State, directory: int, path: bytes, *, flags: int, arguments: int) -> None:
        assert self.supervisor is not None
        self.supervisor.owners.settle()
        registers = self.registers
        at, environment = registers.argument(arguments), registers.argument(arguments + 1)
        words = self.memory.words(tid, at, _MOST_ARGUMENTS) if at else []
        zeroth = self.memory.text(tid, words[0], 1 << 17) if words else b""
        image = self.image(state, tid, directory, path, zeroth, flags)
        first, rest = image.vector
        strings = b"".join(word + b"\0" for word in (image.path, *first))
        kept = words[rest:]
        size = 8 * (len(first) + len(kept) + 1)
        start = self.room(tid, size + len(strings))
        at_strings, pointers, place = start + size, [], start + size + len(image.path) + 1
        for word in first:
            pointers.append(place)
            place += len(word) + 1
        data = struct.pack(f"={len(first) + len(kept) + 1}Q", *pointers, *kept, 0) + strings
        try:
            self.memory.write(tid, start, data)
        except OSError as error:  # the stack cannot grow so far
            raise OSError(errno.E2BIG, "execve") from error
        self.pending[tid] = image
        if arguments == 2:
            registers.set_number(tid, self.numbers["execve"])
        registers.set_argument(0, at_strings)
        registers.set_argument(1, start)
        registers.set_argument(2, environment)
        registers.write(tid)

    def image(self, state: State, tid: int, directory: int, path: bytes, zeroth: bytes, flags: int) -> Image:
        """What the kernel must get to execute `path` with this argv[0]."""
        vector = Vector((zeroth,), 1)
        name, shown = path, path
        called = os.path.basename(path)  # what the kernel calls the process, be it a script
        by_descriptor = directory != AT_FDCWD and path[:1] != b"/"
        for _ in range(_MOST_INTERPRETERS):
            if not name and flags & _EMPTY_PATH:
                if directory != AT_FDCWD and not os.path.lexists(b"/proc/%d/fd/%d" % (tid, directory)):
                    raise OSError(errno.EBADF, os.strerror(errno.EBADF))
                name = shown = b"." if directory == AT_FDCWD else b"/proc/self/fd/%d" % directory
                called = os.path.basename(shown)
                flags = 0
            fd, place = self.found(state, tid, directory, name, follow=not flags & _NOFOLLOW)
            try:
                if stat.S_ISLNK(os.fstat(fd).st_mode):  # not to be followed, or open itself
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                found, program = self.read(state, tid, fd, place, shown)
                exe = self._real(state, fd, place)
            finally:
                os.close(fd)
            if not isinstance(found, Script):
                break
            if by_descriptor:
                shown, by_descriptor = _path_of_script(tid, directory, path), False
            vector = programs.through_script(vector, found, shown)
            name, shown, directory, flags = found.interpreter, found.interpreter, AT_FDCWD, 0
        else:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if called == b"chroot" and self.is_chroot_refused():
            self.refuse(
                "chroot(2) is refused by this pod's seccomp profile, to commands as well; "
                "seccompProfile: {type: Unconfined} allows it"
            )
        who = self.processes[tid]
        after = who if changes_nothing(who, program) else executed(who, program)
        inside = state.root.inside(exe)
        if isinstance(found, Dynamic):
            fd, loader = self.found(state, tid, AT_FDCWD, found.loader, follow=True)
            try:
                takes_name = self.takes_name(fd)
            finally:
                os.close(fd)
            if inside is None:
                inside = shown  # a file without a path
            if not takes_name and os.path.basename(inside) != os.path.basename(vector.first[0]):
                inside = self.tree.start(state, tid, directory, shown)[1]  # the loader shows this as argv[0]
            given = vector.first[0] if takes_name else None
            vector = programs.through_loader(vector, found.loader, inside, name=given)
            return Image(self.named(loader.path, called), vector, exe, after, found.loader)
        return Image(self.named(exe, called), vector, exe, after)

    def _real(self, state: State, fd: int, place: Place) -> bytes:
        """The path on this machine that a program is executed by."""
        if not place.outside:
            return place.path
        if place.path.endswith(b"/exe"):
            return state.exe
        real = os.readlink(b"/proc/self/fd/%d" % fd)
        if state.root.inside(real) is not None:
            return real if _is_at(fd, real) else place.path
        if real[:1] == b"/" and not real.startswith(b"/memfd:"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return place.path

    def read(
        self, state: State, tid: int, fd: int, place: Place, shown: bytes
    ) -> tuple[programs.Static | Dynamic | Script, Program]:
        """What the file is, and what it makes of credentials; EACCES if it may not be executed."""
        path = self._real(state, fd, place)
        if place.outside and path == state.exe:
            fd = os.open(path, _PATH)
            try:
                return self.read(state, tid, fd, Place(path), shown)
            finally:
                os.close(fd)
        assert self.supervisor is not None
        here = b"/proc/self/fd/%d" % fd
        owners = self.supervisor.owners
        file = owners.seen(here, os.fstat(fd))
        who = self.processes[tid]
        may = may_access(who, file.mode, file.owner, 1, acl=lambda: owners.acl_or_none(here))
        if not stat.S_ISREG(file.mode) or not may:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        with open(here, "rb", buffering=0) as opened:
            _check_not_written(opened.fileno())
            head = opened.read(programs.HEAD)
            number = opened.fileno()
            found = programs.parse(head, self.machine, lambda size, at: os.pread(number, size, at))
        if isinstance(found, Foreign):
            self.refuse(f"a program for another architecture cannot run in mode traced: {os.fsdecode(shown)}")
            raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))
        return found, Program(file.mode, *file.owner, owners.capabilities(here, file.info))

    def is_chroot_refused(self) -> bool:
        """Whether a filter refuses chroot(2) before the supervisor could answer it: the kernel would miss the path."""
        try:
            os.chroot("/proc/self/nothing")
        except PermissionError:
            return True
        except OSError:
            return False
        return False

    def takes_name(self, fd: int) -> bool:
        """Whether a loader knows --argv0: glibc from 2.33 on, and musl."""
        info = os.fstat(fd)
        key = (info.st_dev, info.st_ino, info.st_ctime_ns)
        if key not in self.loaders:
            with open(b"/proc/self/fd/%d" % fd, "rb") as file:
                self.loaders[key] = b"argv0" in file.read(8 << 20)
        return self.loaders[key]


def _is_start(tid: int, directory: int, fd: int) -> bool:
    """Whether an open file is the directory in which relative paths of a call begin, so that `.` leads to it."""
    start = b"/proc/%d/cwd" % tid if directory == AT_FDCWD else b"/proc/%d/fd/%d" % (tid, directory)
    return os.path.samestat(os.fstat(fd), os.stat(start))


def _path_of_script(tid: int, directory: int, path: bytes) -> bytes:
    """What the kernel calls a script that execveat(2) got as a path from a descriptor of a thread.

    ENOENT for a descriptor that is closed before the interpreter could open the script.
    """
    if flags_of(b"/proc/%d/fd/%d" % (tid, directory)) & os.O_CLOEXEC:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return b"/dev/fd/%d" % directory + (b"/" + path if path else b"")


def _is_at(fd: int, path: bytes) -> bool:
    """Whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False


def _check_not_written(fd: int) -> None:
    """ETXTBSY for a file that is open for writing: of such a file nobody gets a lease for reading (fcntl(2))."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY)) from error
        return  # another user's, or the file system has no leases
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
