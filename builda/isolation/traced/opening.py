"""Opens files for a command: each path inside the tree, by descriptor, which is then put into the caller."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from builda.isolation.traced.calling import call, failure, signed
from builda.isolation.traced.tree import AT_FDCWD, State, open_inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files

_HOW = struct.Struct("=QQQ")
_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = _PATH | os.O_DIRECTORY
_TEMPORARY = 0o20000000  # O_TMPFILE's own bit
_CREATED = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_MOST_WAITING = 256


class Opening:
    """Opens files for a command: each path inside the tree, by descriptor, which is then put into the caller."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.tree = files.tree
        self.processes = files.processes
        self.states = files.states
        self.owners = files.owners
        self.memory = files.memory
        self.outside = files.outside
        self.listener = files.listener
        self.waiting = 0

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
        path = self.files.path(tid, a[1])
        base = self.tree.absolute(state, tid, signed(a[0]), b".")
        start = open_inside(state.root.fd, base, _DIRECTORY)
        try:
            if path[:1] == b"/" and not resolve & 0x18:  # absolute, and neither BENEATH nor IN_ROOT
                os.close(start)
                start = open_inside(state.root.fd, b"/", _DIRECTORY)
            if not resolve & 0x08:
                resolve |= 0x10
            how = ctypes.create_string_buffer(_HOW.pack(flags | os.O_CLOEXEC, mode & ~state.umask, resolve), _HOW.size)
            fd = call(437, start, path, ctypes.addressof(how), _HOW.size, 0)
            if fd < 0:
                raise failure()
        finally:
            os.close(start)
        return self.hand_over(fd, flags)

    def opened(self, tid: int, directory: int, address: int, flags: int, mode: int) -> int | None:
        state, path = self.files.at(tid, directory, address)
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
            return self.listener.inject(self.files.identity, fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)

    def wait_for_reader(self, state: State, path: bytes, flags: int) -> int | None:
        """Open a FIFO on a thread, which waits for the other end as the caller would."""
        import _thread

        if self.waiting >= _MOST_WAITING:
            raise OSError(errno.EAGAIN, "too many processes wait for the other end of a FIFO")
        held = open_inside(state.root.fd, path, _PATH)
        identity = self.files.identity

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
