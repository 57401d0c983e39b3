"""Changes modes, owners, sizes and times of files."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from builda.isolation.traced.calling import call, failure
from builda.isolation.traced.caught_calls import NUMBERS
from builda.isolation.traced.tree import AT_FDCWD, open_inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files

_NOFOLLOW = 0x100
_EMPTY_PATH = 0x1000
_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = _PATH | os.O_DIRECTORY
_TIME = struct.Struct("=qq")


class Changes:
    """Changes modes, owners, sizes and times of files."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.tree = files.tree
        self.processes = files.processes
        self.owners = files.owners
        self.memory = files.memory
        self.sys = NUMBERS[os.uname().machine]

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
        fd = self.files.in_tree(tid, a[0], a[1], follow=not flags & _NOFOLLOW)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.EOPNOTSUPP, "fchmodat2")
            self.owners.change_mode(self.processes[tid], b"/proc/self/fd/%d" % fd, a[2])
        finally:
            os.close(fd)
        return 0

    def fchmod(self, tid: int, a: Words) -> int:
        self.owners.change_mode(self.processes[tid], self.files.held(tid, a[0]), a[1])
        return 0

    def chown(self, tid: int, a: Words) -> int:
        return self.fchownat(tid, (AT_FDCWD, a[0], a[1], a[2], 0))

    def lchown(self, tid: int, a: Words) -> int:
        return self.fchownat(tid, (AT_FDCWD, a[0], a[1], a[2], _NOFOLLOW))

    def fchown(self, tid: int, a: Words) -> int:
        uid, gid = a[1] & 0xFFFFFFFF, a[2] & 0xFFFFFFFF
        self.owners.change_owner(self.processes[tid], self.files.held(tid, a[0]), uid, gid, None)
        return 0

    def fchownat(self, tid: int, a: Words) -> int:
        uid, gid, flags = a[2] & 0xFFFFFFFF, a[3] & 0xFFFFFFFF, a[4]
        if flags & ~(_NOFOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "fchownat")
        if flags & _EMPTY_PATH and not self.memory.text(tid, a[1]):
            return self.fchown(tid, (a[0], a[2], a[3]))
        fd = self.files.in_tree(tid, a[0], a[1], follow=not flags & _NOFOLLOW)
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
        state, path = self.files.at(tid, AT_FDCWD, a[0])
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
            fd = self.files.in_tree(tid, directory, address, follow=True)
            try:
                if call(number, AT_FDCWD, b"/proc/self/fd/%d" % fd, at, 0, 0) < 0:
                    raise failure()
            finally:
                os.close(fd)
            return 0
        parent, name = self.files.parent(tid, directory, address)
        try:
            if call(number, parent, name, at, _NOFOLLOW, 0) < 0:
                raise failure()
        finally:
            os.close(parent)
        return 0
