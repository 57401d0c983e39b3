"""Answers calls that name files, for a command that has no root directory of its own.

Each path is opened inside the tree, and what the call asks is done with the descriptor or, where a name counts, in the
opened directory that holds it. Files of the pod are reached by no other way than those that `outside` allows.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from builda.isolation.child.notification import GO_ON, Listener
from builda.isolation.emulated import idcalls
from builda.isolation.emulated.credentials import Credentials
from builda.isolation.emulated.ownership import check_node, may_access
from builda.isolation.emulated.processes import Processes
from builda.isolation.traced.caught_calls import ANSWERED, NUMBERS
from builda.isolation.traced.kept_aside import Owners, check_attribute, shown_mode, shown_names, stored_name
from builda.isolation.traced.outside import Outside
from builda.isolation.traced.tree import AT_FDCWD, Place, Root, State, Tree, open_inside
from builda.linux.ptrace import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    Words: TypeAlias = Sequence[int]

_INODE = struct.Struct("=Q")
_HOW = struct.Struct("=QQQ")

_NOFOLLOW, _REMOVEDIR, _FOLLOW, _EMPTY_PATH = 0x100, 0x200, 0x400, 0x1000
_PATH = os.O_PATH | os.O_CLOEXEC
_LINK = _PATH | os.O_NOFOLLOW
_DIRECTORY = _PATH | os.O_DIRECTORY
_TEMPORARY = 0o20000000  # O_TMPFILE's own bit
_CREATED = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_STAT = struct.Struct("=QQ")
_OWNER = struct.Struct("=II")
_MODE, _MODE16 = struct.Struct("=I"), struct.Struct("=H")
_TIME = struct.Struct("=qq")
_DEVICE = struct.Struct("=II")
_CHANGED = 104  # offset of st_ctim on both architectures
_BASIC = 0x7FF  # STATX_BASIC_STATS
_MOST_WAITING = 256

_libc = ctypes.CDLL(None, use_errno=True)
_long = ctypes.c_long
_call = ctypes.CFUNCTYPE(_long, _long, _long, ctypes.c_char_p, _long, _long, _long, use_errno=True)(("syscall", _libc))
_plain_call = ctypes.CFUNCTYPE(_long, _long, _long, _long, _long, _long, use_errno=True)(("syscall", _libc))
_rename = ctypes.CFUNCTYPE(_long, _long, _long, ctypes.c_char_p, _long, ctypes.c_char_p, _long, use_errno=True)(
    ("syscall", _libc)
)
_buffer = ctypes.create_string_buffer(256)
_at = ctypes.addressof(_buffer)
_SYS = {
    "x86_64": {"newfstatat": 262, "utimensat": 280, "renameat2": 316, "statx": 332, "fstatfs": 138, "truncate": 76},
    "aarch64": {"newfstatat": 79, "utimensat": 88, "renameat2": 276, "statx": 291, "fstatfs": 44, "truncate": 45},
}
_LAYOUT = {"x86_64": (144, 24, 28, 40), "aarch64": (128, 16, 24, 32)}  # of struct stat: size; mode, owner and rdev at


class Supervisor:
    """Answers the calls of all processes of a command.

    `states` has what is known of each thread; the tracer keeps it and `processes` up to date.
    """

    def __init__(self, listener: int, tree: Tree, processes: Processes, states: dict[int, State]) -> None:
        self.listener = Listener(listener)
        self.tree = tree
        self.processes = processes
        self.states = states
        self.memory = Memory()
        self.owners = Owners((os.getuid(), os.getgid()))
        self.outside = Outside(tree, states, processes)
        self.identity = 0
        machine = os.uname().machine
        self.sys = _SYS[machine]
        self.stat_size, self.mode_at, self.owner_at, self.device_at = _LAYOUT[machine]
        self.waiting = 0
        numbers = NUMBERS[machine]
        self.serve: dict[int, Callable[[int, Words], int | None]] = {
            numbers[name]: getattr(self, name) for name in ANSWERED if name in numbers and name not in idcalls.CALLS
        }
        self.ids = {numbers[name]: name for name in idcalls.CALLS if name in numbers}

    def one(self) -> None:
        """Answer one call."""
        request = self.listener.receive()
        if request is None:
            return
        identity, tid, _, number, _, _, *arguments = request
        self.identity = identity
        try:
            name = self.ids.get(number)
            value = self.serve[number](tid, arguments) if name is None else self.answer_id(name, tid, arguments)
            if value is None:
                return
            answer = (value, 0, 0)
        except OSError as error:
            answer = (0, -(error.errno or errno.EIO), 0)
        except (OverflowError, ValueError, struct.error):  # arguments that no file has
            answer = (0, -errno.EINVAL, 0)
        self.listener.send(identity, answer)

    def go_on(self) -> None:
        """Let the kernel perform the call."""
        self.listener.send(self.identity, GO_ON)

    # The caller's memory.

    def path(self, tid: int, address: int) -> bytes:
        """The path at an address; ENOENT for an empty one."""
        path = self.memory.text(tid, address)
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return path

    def write(self, tid: int, address: int, data: bytes) -> None:
        """Write into the caller's memory if the call still waits: its number may be another thread's by now."""
        self.listener.check(self.identity)
        self.memory.write(tid, address, data)

    # Finding files.

    def at(self, tid: int, directory: int, address: int) -> tuple[State, bytes]:
        """The caller's state, and the path of a call from the caller's root on."""
        state = self.states[tid]
        path = self.path(tid, address)
        return state, path if path[:1] == b"/" else self.tree.absolute(state, tid, _signed(directory), path)

    def open_place(self, state: State, tid: int, path: bytes, *, follow: bool) -> int:
        """An O_PATH descriptor of what is at `path`, in the tree or in the part of the pod that the command may see."""
        try:
            return open_inside(state.root.fd, path, _PATH if follow else _LINK)
        except PermissionError:
            place = self.tree.walk(state, tid, path, follow=follow)
        if place.outside:
            self.outside.check_seen(state, tid, place.path)
            return os.open(place.path, _PATH if follow else _LINK)
        return open_inside(state.root.fd, place.path, _LINK)

    def in_tree(self, tid: int, directory: int, address: int, *, follow: bool) -> int:
        """An O_PATH descriptor of a file of the tree; EPERM for what lies outside it."""
        state, path = self.at(tid, directory, address)
        try:
            return open_inside(state.root.fd, path, _PATH if follow else _LINK)
        except PermissionError:
            place = self.tree.walk(state, tid, path, follow=follow)
        if place.outside:
            return self.descriptor_in_tree(state, place)
        return open_inside(state.root.fd, place.path, _LINK)

    def descriptor_in_tree(self, state: State, place: Place) -> int:
        """The file of the tree that a path such as /proc/self/fd/3 leads to."""
        fd = os.open(place.path, _PATH)
        if state.root.inside(os.readlink(b"/proc/self/fd/%d" % fd)) is None and not self.is_of_caller(place.path):
            os.close(fd)
            raise PermissionError(errno.EPERM, "")
        return fd

    def is_of_caller(self, path: bytes) -> bool:
        """Whether a path is that of a descriptor of one of the command's processes that is no file with a path."""
        parts = path.split(b"/")
        if len(parts) != 5 or parts[3] != b"fd" or not parts[2].isdigit() or int(parts[2]) not in self.states:
            return False
        return not os.readlink(path).startswith(b"/") or b" (deleted)" in os.readlink(path)

    def parent(self, tid: int, directory: int, address: int) -> tuple[int, bytes]:
        """An open directory of the tree and the name in it that a path means; links at the end are not followed."""
        state, path = self.at(tid, directory, address)
        whole = path.rstrip(b"/")
        above, _, name = whole.rpartition(b"/")
        if not name:
            return open_inside(state.root.fd, b"/", _DIRECTORY), b"."
        try:
            fd = open_inside(state.root.fd, above or b"/", _DIRECTORY)
        except PermissionError:
            place = self.tree.walk(state, tid, above, follow=True)
            if place.outside:
                raise
            fd = open_inside(state.root.fd, place.path, _DIRECTORY)
        return fd, name + path[len(whole) :]

    def held(self, tid: int, number: int) -> bytes:
        """The path in /proc of a descriptor of the caller; EBADF if it has no such descriptor."""
        path = b"/proc/%d/fd/%d" % (tid, _signed(number))
        try:
            os.readlink(path)
        except OSError as error:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error
        return path

    # Opening files.

    def open(self, tid: int, a: Words) -> int | None:
        return self.opened(tid, AT_FDCWD, a[0], a[1], a[2])

    def creat(self, tid: int, a: Words) -> int | None:
        return self.opened(tid, AT_FDCWD, a[0], _CREATED, a[1])

    def openat(self, tid: int, a: Words) -> int | None:
        return self.opened(tid, a[0], a[1], a[2], a[3])

    def openat2(self, tid: int, a: Words) -> int | None:
        if a[3] < _HOW.size:
            raise OSError(errno.EINVAL, "openat2")
        flags, mode, resolve = _HOW.unpack(self.memory.read(tid, a[2], _HOW.size))
        if any(self.memory.read(tid, a[2] + _HOW.size, min(a[3], 4096) - _HOW.size)):
            raise OSError(errno.E2BIG, "openat2")
        if flags & os.O_PATH:  # such a descriptor cannot be handed over; callers know kernels without this call
            raise OSError(errno.ENOSYS, "openat2")
        unused_mode = mode and not flags & (os.O_CREAT | _TEMPORARY)
        if unused_mode or mode & ~0o7777 or flags > 0x7FFFFFFF or resolve & ~0x3F:
            raise OSError(errno.EINVAL, "openat2")
        if resolve:
            return self.resolved_as_asked(tid, a, flags, mode, resolve)
        return self.opened(tid, a[0], a[1], flags, mode)

    def resolved_as_asked(self, tid: int, a: Words, flags: int, mode: int, resolve: int) -> int | None:
        """openat2(2) with RESOLVE_…: the kernel keeps to them, from the caller's directory on."""
        state = self.states[tid]
        path = self.path(tid, a[1])
        base = self.tree.absolute(state, tid, _signed(a[0]), b".")
        start = open_inside(state.root.fd, base, _DIRECTORY)
        try:
            if path[:1] == b"/" and not resolve & 0x18:  # absolute, and neither BENEATH nor IN_ROOT
                os.close(start)
                start = open_inside(state.root.fd, b"/", _DIRECTORY)
            if not resolve & 0x08:
                resolve |= 0x10
            how = ctypes.create_string_buffer(_HOW.pack(flags | os.O_CLOEXEC, mode & ~state.umask, resolve), _HOW.size)
            fd = _call(437, start, path, ctypes.addressof(how), _HOW.size, 0)
            if fd < 0:
                raise _failure()
        finally:
            os.close(start)
        return self.hand_over(fd, flags)

    def opened(self, tid: int, directory: int, address: int, flags: int, mode: int) -> int | None:
        state, path = self.at(tid, directory, address)
        flags &= 0x7FFFFFFF
        try:
            fd = self.open_file(state, tid, path, flags, mode)
        except PermissionError:
            place = self.tree.walk(state, tid, path, follow=not flags & os.O_NOFOLLOW)
            if place.outside:
                fd = self.outside.open(state, tid, place.path, flags)
            else:
                fd = self.open_file(state, tid, place.path, flags, mode)
        except OSError as error:
            if error.errno == errno.ENXIO and flags & 3 == os.O_WRONLY and not flags & os.O_NONBLOCK:
                return self.wait_for_reader(state, path, flags)
            raise
        if fd < 0:
            return self.wait_for_reader(state, path, flags)
        return self.hand_over(fd, flags)

    def open_file(self, state: State, tid: int, path: bytes, flags: int, mode: int) -> int:
        """Open a file of the tree; -1 for a FIFO whose other end must be waited for."""
        if flags & (os.O_CREAT | _TEMPORARY):
            return self.create(state, tid, path, flags, mode)
        if flags & os.O_DIRECTORY or flags & os.O_NONBLOCK:
            return open_inside(state.root.fd, path, flags | os.O_NOCTTY)
        fd = open_inside(state.root.fd, path, flags | os.O_NONBLOCK | os.O_NOCTTY)
        if stat.S_ISFIFO(os.fstat(fd).st_mode) and flags & 3 != os.O_RDWR:
            os.close(fd)
            return -1
        fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))
        return fd

    def create(self, state: State, tid: int, path: bytes, flags: int, mode: int) -> int:
        wanted = mode & 0o7777 & ~state.umask
        if flags & _TEMPORARY:
            fd = open_inside(state.root.fd, path, flags, wanted | 0o600)
            self.made(tid, b"/proc/self/fd/%d" % fd, wanted, state, path)
            return fd
        try:
            fd = open_inside(state.root.fd, path, flags | os.O_EXCL | os.O_NOCTTY, wanted | 0o600)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            try:
                return self.open_file(state, tid, path, flags & ~os.O_CREAT, 0)
            except FileNotFoundError:  # a link that leads to nothing: its target is made
                fd = open_inside(state.root.fd, path, flags | os.O_NOCTTY, wanted | 0o600)
        self.made(tid, b"/proc/self/fd/%d" % fd, wanted, state, path.rstrip(b"/").rpartition(b"/")[0])
        return fd

    def made(self, tid: int, place: bytes, mode: int, state: State, above: bytes) -> None:
        """Keep aside what a new file in the directory `above` cannot hold."""
        parent = open_inside(state.root.fd, above or b"/", _PATH)
        try:
            self.owners.new(self.processes[tid], place, mode, b"/proc/self/fd/%d" % parent)
        finally:
            os.close(parent)

    def hand_over(self, fd: int, flags: int) -> int | None:
        """Put the descriptor into the caller, whose call returns its number, and close it here."""
        try:
            return self.listener.inject(self.identity, fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)

    def wait_for_reader(self, state: State, path: bytes, flags: int) -> int | None:
        """Open a FIFO on a thread, which waits for the other end as the caller would."""
        import _thread

        if self.waiting >= _MOST_WAITING:
            raise OSError(errno.EAGAIN, "too many processes wait for the other end of a FIFO")
        held = open_inside(state.root.fd, path, _PATH)
        identity = self.identity

        def wait() -> None:
            try:
                fd = os.open(b"/proc/self/fd/%d" % held, flags | os.O_CLOEXEC)
                try:
                    self.listener.inject(identity, fd, flags & os.O_CLOEXEC)
                finally:
                    os.close(fd)
            except OSError:  # the caller was killed
                pass
            finally:
                os.close(held)
                self.waiting -= 1

        self.waiting += 1
        _thread.start_new_thread(wait, ())
        return None

    # What files look like.

    def stat(self, tid: int, a: Words) -> int:
        return self.newfstatat(tid, (AT_FDCWD, a[0], a[1], 0))

    def lstat(self, tid: int, a: Words) -> int:
        return self.newfstatat(tid, (AT_FDCWD, a[0], a[1], _NOFOLLOW))

    def fstat(self, tid: int, a: Words) -> int:
        self.write(tid, a[1], self.status(self.held(tid, a[0]), None))
        return 0

    def newfstatat(self, tid: int, a: Words) -> int:
        flags = a[3]
        path = self.memory.text(tid, a[1]) if a[1] else b""
        if not path:
            if not flags & _EMPTY_PATH:
                raise OSError(errno.EFAULT if not a[1] else errno.ENOENT, "")
            place = b"/proc/%d/cwd" % tid if _signed(a[0]) == AT_FDCWD else self.held(tid, a[0])
            self.write(tid, a[2], self.status(place, None))
            return 0
        state = self.states[tid]
        if path[:1] != b"/":
            path = self.tree.absolute(state, tid, _signed(a[0]), path)
        fd = self.open_place(state, tid, path, follow=not flags & _NOFOLLOW)
        try:
            data = self.status(b"/proc/self/fd/%d" % fd, fd, state, path)
        finally:
            os.close(fd)
        self.write(tid, a[2], data)
        return 0

    def status(self, place: bytes, fd: int | None, state: State | None = None, path: bytes = b"") -> bytes:
        """A struct stat of what is at `place`, which `fd` is a descriptor of; `path` is the caller's."""
        number = self.sys["newfstatat"]
        result = (
            _call(number, AT_FDCWD, place, _at, 0, 0) if fd is None else _call(number, fd, b"", _at, _EMPTY_PATH, 0)
        )
        if result < 0:
            raise _failure()
        data = bytearray(_buffer.raw[: self.stat_size])
        key = _STAT.unpack_from(data, 0)
        if key in self.tree.marks:
            number = _call(self.sys["newfstatat"], AT_FDCWD, self.tree.marks[key], _at, 0, 0)
            return _buffer.raw[: self.stat_size] if number == 0 else bytes(data)
        (mode,) = _MODE.unpack_from(data, self.mode_at)
        seconds, nanoseconds = _TIME.unpack_from(data, _CHANGED)
        looks = self.looks(place, key, seconds * 10**9 + nanoseconds, mode, state, path)
        if looks is None:
            self.show_owner(data, self.owner_at)
        else:
            _MODE.pack_into(data, self.mode_at, looks[0])
            _OWNER.pack_into(data, self.owner_at, *looks[1])
            if looks[2] is not None:
                major, minor = looks[2]
                struct.pack_into("=Q", data, self.device_at, os.makedev(major, minor))
        return bytes(data)

    def show_owner(self, data: bytearray, at: int) -> None:
        """The supervisor's own ids stand for root."""
        uid, gid = _OWNER.unpack_from(data, at)
        ours = self.owners.ids
        _OWNER.pack_into(data, at, 0 if uid == ours[0] else uid, 0 if gid == ours[1] else gid)

    def looks(
        self, place: bytes, key: tuple[int, ...], changed: int, mode: int, state: State | None, path: bytes
    ) -> tuple[int, tuple[int, int], tuple[int, int] | None] | None:
        """(mode, owner, device) that are kept aside; None if nothing is."""
        kind = mode & 0o170000
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            kept = self.owners.kept(place, key[0], key[1], changed, mode)
            if kept is None:
                return None
            return shown_mode(mode, kept), (kept.uid, kept.gid), kept.device if kept.kind else None
        if state is None or kind not in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK):
            return None
        try:
            above, _, name = path.rstrip(b"/").rpartition(b"/")
            parent = open_inside(state.root.fd, above or b"/", _DIRECTORY)
        except OSError:
            return None
        try:
            owner = self.owners.named((parent, name))
        finally:
            os.close(parent)
        return None if owner is None else (mode, owner, None)

    def statx(self, tid: int, a: Words) -> int:
        flags, mask = a[2] & 0xFFFFFFFF, a[3] & 0xFFFFFFFF
        path = self.memory.text(tid, a[1]) if a[1] else b""
        if not path:
            if not flags & _EMPTY_PATH:
                raise OSError(errno.EFAULT if not a[1] else errno.ENOENT, "")
            place = b"/proc/%d/cwd" % tid if _signed(a[0]) == AT_FDCWD else self.held(tid, a[0])
            self.write(tid, a[4], self.extended(place, None, flags & ~_EMPTY_PATH & ~_NOFOLLOW, mask))
            return 0
        state = self.states[tid]
        if path[:1] != b"/":
            path = self.tree.absolute(state, tid, _signed(a[0]), path)
        fd = self.open_place(state, tid, path, follow=not flags & _NOFOLLOW)
        try:
            data = self.extended(b"/proc/self/fd/%d" % fd, fd, flags | _EMPTY_PATH, mask, state, path)
        finally:
            os.close(fd)
        self.write(tid, a[4], data)
        return 0

    def extended(
        self, place: bytes, fd: int | None, flags: int, mask: int, state: State | None = None, path: bytes = b""
    ) -> bytes:
        """A struct statx, as `status`."""
        number = self.sys["statx"]
        where, name = (AT_FDCWD, place) if fd is None else (fd, b"")
        if _call(number, where, name, flags, mask | _BASIC, _at) < 0:
            raise _failure()
        data = bytearray(_buffer.raw)
        (inode,) = _INODE.unpack_from(data, 32)
        key = (os.makedev(*_DEVICE.unpack_from(data, 136)), inode)
        if key in self.tree.marks:
            _call(number, AT_FDCWD, self.tree.marks[key], flags & ~_EMPTY_PATH, mask | _BASIC, _at)
            return _buffer.raw
        (mode,) = _MODE16.unpack_from(data, 28)
        seconds, nanoseconds = struct.unpack_from("=qI", data, 96)
        looks = self.looks(place, key, seconds * 10**9 + nanoseconds, mode, state, path)
        if looks is None:
            self.show_owner(data, 20)
        else:
            _MODE16.pack_into(data, 28, looks[0])
            _OWNER.pack_into(data, 20, *looks[1])
            if looks[2] is not None:
                _DEVICE.pack_into(data, 128, *looks[2])
        return bytes(data)

    def access(self, tid: int, a: Words) -> int:
        return self.faccessat2(tid, (AT_FDCWD, a[0], a[1], 0))

    def faccessat(self, tid: int, a: Words) -> int:
        return self.faccessat2(tid, (a[0], a[1], a[2], 0))

    def faccessat2(self, tid: int, a: Words) -> int:
        flags, wanted = a[3], a[2]
        if wanted & ~7 or flags & ~(_NOFOLLOW | _REMOVEDIR | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "access")
        if flags & _EMPTY_PATH and not self.memory.some(tid, a[1], 1).strip(b"\0"):
            return self.allowed(tid, self.held(tid, a[0]), wanted, real=not flags & _REMOVEDIR)
        state, path = self.at(tid, a[0], a[1])
        fd = self.open_place(state, tid, path, follow=not flags & _NOFOLLOW)
        try:
            place = b"/proc/self/fd/%d" % fd
            info = os.fstat(fd)
            if (info.st_dev, info.st_ino) in self.tree.marks:
                place = self.tree.marks[info.st_dev, info.st_ino]
            return self.allowed(tid, place, wanted, real=not flags & _REMOVEDIR)
        finally:
            os.close(fd)

    def allowed(self, tid: int, place: bytes, wanted: int, *, real: bool) -> int:
        if wanted:
            file = self.owners.seen(place)
            if not may_access(self.processes[tid], file.mode, file.owner, wanted, real=real):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return 0

    def readlink(self, tid: int, a: Words) -> int:
        return self.readlinkat(tid, (AT_FDCWD, a[0], a[1], a[2]))

    def readlinkat(self, tid: int, a: Words) -> int:
        size = _signed(a[3])
        if size <= 0:
            raise OSError(errno.EINVAL, "readlink")
        text = self.memory.text(tid, a[1])
        state = self.states[tid]
        if not text:
            link = os.readlink(b"", dir_fd=self._borrowed(tid, a[0]))
            self.write(tid, a[2], link[:size])
            return min(len(link), size)
        path = text if text[:1] == b"/" else self.tree.absolute(state, tid, _signed(a[0]), text)
        try:
            fd = open_inside(state.root.fd, path, _LINK)
        except PermissionError:
            place = self.tree.walk(state, tid, path, follow=False)
            if place.outside:
                link = self.outside.readlink(state, tid, place.path)
                self.write(tid, a[2], link[:size])
                return min(len(link), size)
            fd = open_inside(state.root.fd, place.path, _LINK)
        try:
            link = os.readlink(b"", dir_fd=fd)
        except FileNotFoundError as error:  # so says the kernel of a descriptor that is no link's
            raise OSError(errno.EINVAL, "readlink") from error
        finally:
            os.close(fd)
        self.write(tid, a[2], link[:size])
        return min(len(link), size)

    def _borrowed(self, tid: int, number: int) -> int:
        """A descriptor of the link that the caller has opened with O_PATH."""
        raise OSError(errno.ENOENT, "readlink")  # the kernel gives no other process such a descriptor

    def getcwd(self, tid: int, a: Words) -> int:
        state = self.states[tid]
        try:
            path = self.tree.seen(state, os.readlink(b"/proc/%d/cwd" % tid)) + b"\0"
        except OSError as error:
            raise OSError(errno.ENOENT, "getcwd") from error
        if path.endswith(b" (deleted)\0"):
            raise OSError(errno.ENOENT, "getcwd")
        if len(path) > a[1]:
            raise OSError(errno.ERANGE, "getcwd")
        self.write(tid, a[0], path)
        return len(path)

    def statfs(self, tid: int, a: Words) -> int:
        state, path = self.at(tid, AT_FDCWD, a[0])
        fd = self.open_place(state, tid, path, follow=True)
        try:
            if _plain_call(self.sys["fstatfs"], fd, _at, 0, 0) < 0:
                raise _failure()
        finally:
            os.close(fd)
        self.write(tid, a[1], _buffer.raw[:120])
        return 0

    # Names.

    def mkdir(self, tid: int, a: Words) -> int:
        return self.mkdirat(tid, (AT_FDCWD, a[0], a[1]))

    def mkdirat(self, tid: int, a: Words) -> int:
        parent, name = self.parent(tid, a[0], a[1])
        try:
            mode = a[2] & 0o1777 & ~self.states[tid].umask
            os.mkdir(name, mode | 0o700, dir_fd=parent)
            fd = open_inside(parent, name, _DIRECTORY | os.O_NOFOLLOW)
            try:
                place = b"/proc/self/fd/%d" % fd
                self.owners.new(self.processes[tid], place, mode, b"/proc/self/fd/%d" % parent)
            finally:
                os.close(fd)
        finally:
            os.close(parent)
        return 0

    def mknod(self, tid: int, a: Words) -> int:
        return self.mknodat(tid, (AT_FDCWD, a[0], a[1], a[2]))

    def mknodat(self, tid: int, a: Words) -> int:
        who = self.processes[tid]
        kind = a[2] & 0o170000 or stat.S_IFREG
        mode = a[2] & 0o7777 & ~self.states[tid].umask
        check_node(who, kind)
        parent, name = self.parent(tid, a[0], a[1])
        try:
            device = (0, 0, 0)
            if kind in (stat.S_IFCHR, stat.S_IFBLK):
                device = (kind, os.major(a[3] & 0xFFFFFFFF), os.minor(a[3] & 0xFFFFFFFF))
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600, dir_fd=parent))
            elif kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
                os.mknod(name, kind | mode | (0o600 if kind == stat.S_IFREG else 0), 0, dir_fd=parent)
            else:
                raise OSError(errno.EINVAL, "mknod")
            if kind in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK):
                fd = open_inside(parent, name, _LINK)
                try:
                    self.owners.new(who, b"/proc/self/fd/%d" % fd, mode, b"/proc/self/fd/%d" % parent, device)
                finally:
                    os.close(fd)
            else:
                self.name_new(who, parent, name)
        finally:
            os.close(parent)
        return 0

    def name_new(self, who: Credentials, parent: int, name: bytes) -> None:
        """Keep aside the owner of a new link or FIFO, also that it is root again where another had this name."""
        self.owners.name((parent, name.rstrip(b"/")), (who.fsuid, who.fsgid))

    def symlink(self, tid: int, a: Words) -> int:
        return self.symlinkat(tid, (a[0], AT_FDCWD, a[1]))

    def symlinkat(self, tid: int, a: Words) -> int:
        target = self.path(tid, a[0])
        parent, name = self.parent(tid, a[1], a[2])
        try:
            os.symlink(target, name, dir_fd=parent)
            self.name_new(self.processes[tid], parent, name)
        finally:
            os.close(parent)
        return 0

    def rmdir(self, tid: int, a: Words) -> int:
        return self.unlinkat(tid, (AT_FDCWD, a[0], _REMOVEDIR))

    def unlink(self, tid: int, a: Words) -> int:
        return self.unlinkat(tid, (AT_FDCWD, a[0], 0))

    def unlinkat(self, tid: int, a: Words) -> int:
        if a[2] & ~_REMOVEDIR:
            raise OSError(errno.EINVAL, "unlinkat")
        parent, name = self.parent(tid, a[0], a[1])
        try:
            if a[2]:
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)
        return 0

    def rename(self, tid: int, a: Words) -> int:
        return self.renameat2(tid, (AT_FDCWD, a[0], AT_FDCWD, a[1], 0))

    def renameat(self, tid: int, a: Words) -> int:
        return self.renameat2(tid, (a[0], a[1], a[2], a[3], 0))

    def renameat2(self, tid: int, a: Words) -> int:
        old, old_name = self.parent(tid, a[0], a[1])
        try:
            new, new_name = self.parent(tid, a[2], a[3])
            try:
                owner = self.owners.named((old, old_name))
                if _rename(self.sys["renameat2"], old, old_name, new, new_name, a[4] & 0xFFFFFFFF) < 0:
                    raise _failure()
                if owner is not None or self.owners.named((new, new_name)) is not None:
                    self.renamed((old, old_name), (new, new_name), owner)
            finally:
                os.close(new)
        finally:
            os.close(old)
        return 0

    def renamed(self, old: tuple[int, bytes], new: tuple[int, bytes], owner: tuple[int, int] | None) -> None:
        """Take the owner that a directory keeps of a link or FIFO along with its name."""
        self.owners.name(old, (0, 0))
        self.owners.name(new, owner or (0, 0))

    def link(self, tid: int, a: Words) -> int:
        return self.linkat(tid, (AT_FDCWD, a[0], AT_FDCWD, a[1], 0))

    def linkat(self, tid: int, a: Words) -> int:
        flags = a[4]
        if flags & ~(_FOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "linkat")
        parent, name = self.parent(tid, a[2], a[3])
        try:
            if flags & _EMPTY_PATH and not self.memory.text(tid, a[1]):
                os.link(self.held(tid, a[0]), name, dst_dir_fd=parent, follow_symlinks=True)
                return 0
            if flags & _FOLLOW:
                fd = self.in_tree(tid, a[0], a[1], follow=True)
                try:
                    os.link(b"/proc/self/fd/%d" % fd, name, dst_dir_fd=parent, follow_symlinks=True)
                finally:
                    os.close(fd)
                return 0
            old, old_name = self.parent(tid, a[0], a[1])
            try:
                os.link(old_name, name, src_dir_fd=old, dst_dir_fd=parent, follow_symlinks=False)
                owner = self.owners.named((old, old_name))
                if owner is not None or self.owners.named((parent, name)) is not None:
                    self.owners.name((parent, name), owner or (0, 0))
            finally:
                os.close(old)
        finally:
            os.close(parent)
        return 0

    # Modes, owners, times, sizes, attributes.

    def chmod(self, tid: int, a: Words) -> int:
        return self.fchmodat2(tid, (AT_FDCWD, a[0], a[1], 0))

    def fchmodat(self, tid: int, a: Words) -> int:
        return self.fchmodat2(tid, (a[0], a[1], a[2], 0))

    def fchmodat2(self, tid: int, a: Words) -> int:
        flags = a[3]
        if flags & ~(_NOFOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "fchmodat2")
        if flags & _EMPTY_PATH and not self.memory.text(tid, a[1]):
            return self.fchmod(tid, (a[0], a[2]))
        fd = self.in_tree(tid, a[0], a[1], follow=not flags & _NOFOLLOW)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.EOPNOTSUPP, "fchmodat2")
            self.owners.change_mode(self.processes[tid], b"/proc/self/fd/%d" % fd, a[2])
        finally:
            os.close(fd)
        return 0

    def fchmod(self, tid: int, a: Words) -> int:
        self.owners.change_mode(self.processes[tid], self.held(tid, a[0]), a[1])
        return 0

    def chown(self, tid: int, a: Words) -> int:
        return self.fchownat(tid, (AT_FDCWD, a[0], a[1], a[2], 0))

    def lchown(self, tid: int, a: Words) -> int:
        return self.fchownat(tid, (AT_FDCWD, a[0], a[1], a[2], _NOFOLLOW))

    def fchown(self, tid: int, a: Words) -> int:
        uid, gid = a[1] & 0xFFFFFFFF, a[2] & 0xFFFFFFFF
        self.owners.change_owner(self.processes[tid], self.held(tid, a[0]), uid, gid, None)
        return 0

    def fchownat(self, tid: int, a: Words) -> int:
        uid, gid, flags = a[2] & 0xFFFFFFFF, a[3] & 0xFFFFFFFF, a[4]
        if flags & ~(_NOFOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "fchownat")
        if flags & _EMPTY_PATH and not self.memory.text(tid, a[1]):
            return self.fchown(tid, (a[0], a[2], a[3]))
        fd = self.in_tree(tid, a[0], a[1], follow=not flags & _NOFOLLOW)
        try:
            place = b"/proc/self/fd/%d" % fd
            parent = None
            if stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                above, _, name = os.readlink(place).rpartition(b"/")
                inside = self.tree.root.inside(above)
                if inside is not None:
                    parent = (open_inside(self.tree.root.fd, inside, _DIRECTORY), name)
            try:
                self.owners.change_owner(self.processes[tid], place, uid, gid, parent)
            finally:
                if parent is not None:
                    os.close(parent[0])
        finally:
            os.close(fd)
        return 0

    def truncate(self, tid: int, a: Words) -> int:
        state, path = self.at(tid, AT_FDCWD, a[0])
        if a[1] >> 63:
            raise OSError(errno.EINVAL, "truncate")
        fd = open_inside(state.root.fd, path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            os.ftruncate(fd, a[1])
        finally:
            os.close(fd)
        return 0

    def utime(self, tid: int, a: Words) -> int:
        times = self.memory.read(tid, a[1], 16) if a[1] else None
        if times is not None:
            first, second = _TIME.unpack(times)
            times = struct.pack("=qqqq", first, 0, second, 0)
        return self.set_times(tid, AT_FDCWD, a[0], times, follow=True)

    def utimes(self, tid: int, a: Words) -> int:
        return self.futimesat(tid, (AT_FDCWD, a[0], a[1]))

    def futimesat(self, tid: int, a: Words) -> int:
        times = self.memory.read(tid, a[2], 32) if a[2] else None
        if times is not None:
            words = struct.unpack("=qqqq", times)
            if not 0 <= words[1] < 10**6 or not 0 <= words[3] < 10**6:
                raise OSError(errno.EINVAL, "utimes")
            times = struct.pack("=qqqq", words[0], words[1] * 1000, words[2], words[3] * 1000)
        return self.set_times(tid, a[0], a[1], times, follow=True)

    def utimensat(self, tid: int, a: Words) -> int:
        times = self.memory.read(tid, a[2], 32) if a[2] else None
        if a[3] & ~(_NOFOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "utimensat")
        return self.set_times(tid, a[0], a[1], times, follow=not a[3] & _NOFOLLOW)

    def set_times(self, tid: int, directory: int, address: int, times: bytes | None, *, follow: bool) -> int:
        buffer = None if times is None else ctypes.create_string_buffer(times, 32)
        at = 0 if buffer is None else ctypes.addressof(buffer)
        number = self.sys["utimensat"]
        if follow:
            fd = self.in_tree(tid, directory, address, follow=True)
            try:
                if _call(number, AT_FDCWD, b"/proc/self/fd/%d" % fd, at, 0, 0) < 0:
                    raise _failure()
            finally:
                os.close(fd)
            return 0
        parent, name = self.parent(tid, directory, address)
        try:
            if _call(number, parent, name, at, _NOFOLLOW, 0) < 0:
                raise _failure()
        finally:
            os.close(parent)
        return 0

    def setxattr(self, tid: int, a: Words) -> int:
        return self.set_attribute(tid, self.in_tree(tid, AT_FDCWD, a[0], follow=True), a)

    def lsetxattr(self, tid: int, a: Words) -> int:
        return self.set_attribute(tid, self.in_tree(tid, AT_FDCWD, a[0], follow=False), a)

    def fsetxattr(self, tid: int, a: Words) -> int:
        return self.set_attribute(tid, self.held_in_tree(tid, a[0]), a)

    def set_attribute(self, tid: int, fd: int, a: Words) -> int:
        try:
            name = os.fsdecode(self.memory.text(tid, a[1], 256))
            value = self.memory.read(tid, a[2], a[3]) if a[3] else b""
            check_attribute(self.processes[tid], name)
            os.setxattr(b"/proc/self/fd/%d" % fd, stored_name(name), value, a[4] & 0xFFFFFFFF)
        finally:
            os.close(fd)
        return 0

    def getxattr(self, tid: int, a: Words) -> int:
        return self.attribute(tid, self.seen_at(tid, a[0], follow=True), a)

    def lgetxattr(self, tid: int, a: Words) -> int:
        return self.attribute(tid, self.seen_at(tid, a[0], follow=False), a)

    def fgetxattr(self, tid: int, a: Words) -> int:
        return self.attribute(tid, self.held_in_tree(tid, a[0]), a)

    def attribute(self, tid: int, fd: int, a: Words) -> int:
        try:
            name = os.fsdecode(self.memory.text(tid, a[1], 256))
            value = os.getxattr(b"/proc/self/fd/%d" % fd, stored_name(name))
        finally:
            os.close(fd)
        return self.returned(tid, value, a[2], a[3])

    def listxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.seen_at(tid, a[0], follow=True), a)

    def llistxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.seen_at(tid, a[0], follow=False), a)

    def flistxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.held_in_tree(tid, a[0]), a)

    def attributes(self, tid: int, fd: int, a: Words) -> int:
        try:
            names = os.listxattr(b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)
        value = b"".join(os.fsencode(name) + b"\0" for name in shown_names(names))
        return self.returned(tid, value, a[1], a[2])

    def removexattr(self, tid: int, a: Words) -> int:
        return self.remove_attribute(tid, self.in_tree(tid, AT_FDCWD, a[0], follow=True), a)

    def lremovexattr(self, tid: int, a: Words) -> int:
        return self.remove_attribute(tid, self.in_tree(tid, AT_FDCWD, a[0], follow=False), a)

    def fremovexattr(self, tid: int, a: Words) -> int:
        return self.remove_attribute(tid, self.held_in_tree(tid, a[0]), a)

    def remove_attribute(self, tid: int, fd: int, a: Words) -> int:
        try:
            name = os.fsdecode(self.memory.text(tid, a[1], 256))
            check_attribute(self.processes[tid], name)
            os.removexattr(b"/proc/self/fd/%d" % fd, stored_name(name))
        finally:
            os.close(fd)
        return 0

    def returned(self, tid: int, value: bytes, address: int, size: int) -> int:
        """What getxattr(2) and listxattr(2) return for a buffer of this size; 0 asks for the length."""
        if size:
            if len(value) > size:
                raise OSError(errno.ERANGE, "getxattr")
            if value:
                self.write(tid, address, value)
        return len(value)

    def seen_at(self, tid: int, address: int, *, follow: bool) -> int:
        state, path = self.at(tid, AT_FDCWD, address)
        return self.open_place(state, tid, path, follow=follow)

    def held_in_tree(self, tid: int, number: int) -> int:
        return os.open(self.held(tid, number), _PATH)

    # Processes.

    def umask(self, tid: int, a: Words) -> int | None:
        self.states[tid].umask = a[0] & 0o777
        self.go_on()
        return None

    def chroot(self, tid: int, a: Words) -> int:
        state, path = self.at(tid, AT_FDCWD, a[0])
        if not self.processes[tid].has(18):  # CAP_SYS_CHROOT
            raise OSError(errno.EPERM, "chroot")
        fd = open_inside(state.root.fd, path, _DIRECTORY)
        state.root = Root(fd)  # it stays open as long as the command: few processes change their root
        return 0

    def answer_id(self, name: str, tid: int, a: Words) -> int:
        who = self.processes[tid]
        result, after = idcalls.answer(name, a, who, _CallersMemory(self, tid), lambda pid: pid in (0, tid))
        if after is not who:
            self.processes[tid] = after
        return result


class _CallersMemory:
    """The memory of a caller, for the calls about ids."""

    def __init__(self, supervisor: Supervisor, tid: int) -> None:
        self.supervisor = supervisor
        self.tid = tid

    def read(self, address: int, size: int) -> bytes:
        return self.supervisor.memory.read(self.tid, address, size)

    def write(self, address: int, data: bytes) -> None:
        self.supervisor.write(self.tid, address, data)


def _signed(word: int) -> int:
    word &= 0xFFFFFFFF
    return word - (1 << 32) if word >> 31 else word


def _failure() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
