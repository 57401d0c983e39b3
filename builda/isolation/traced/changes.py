"""Changes modes, owners, sizes and times of files."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from contextlib import suppress

from builda.isolation.child.notification import GO_ON
from builda.isolation.traced.calling import call, failure, signed
from builda.isolation.traced.caught_calls import NUMBERS
from builda.isolation.traced.files import Unchanged
from builda.isolation.traced.outside import flags_of
from builda.isolation.traced.tree import AT_FDCWD
from builda.linux.syscalls import renew_access_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files

_NOFOLLOW = 0x100
_EMPTY_PATH = 0x1000
_OMIT, _NOW = 0x3FFFFFFE, 0x3FFFFFFF  # UTIME_…
_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = _PATH | os.O_DIRECTORY
_TIME = struct.Struct("=qq")
_S_IFMT = 0o170000
_READ_OR_WRITE = 0o600
_SYNC_FLAGS = 7  # SYNC_FILE_RANGE_…
_HAVE_ATTRIBUTES = (stat.S_IFREG, stat.S_IFDIR)


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
        flags = a[3] & 0xFFFFFFFF
        if flags & ~(_NOFOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "fchmodat2")
        return self.change_mode(tid, self.files.changed(tid, a[0], a[1], flags), a[2])

    def fchmod(self, tid: int, a: Words) -> int:
        return self.change_mode(tid, self.files.changed_by_descriptor(tid, a[0]), a[1])

    def change_mode(self, tid: int, found: tuple[int, os.stat_result], mode: int) -> int:
        fd, info = found
        try:
            who, place, kind = self.processes[tid], b"/proc/self/fd/%d" % fd, info.st_mode & _S_IFMT
            if kind == stat.S_IFLNK:
                raise OSError(errno.EOPNOTSUPP, "fchmodat2")
            if kind in _HAVE_ATTRIBUTES:
                self.owners.change_mode(who, place, info, mode)
            else:
                with self.files.noting_directory(place) as parent:
                    self.owners.change_mode(who, place, info, mode, parent)
        finally:
            os.close(fd)
        return 0

    def chown(self, tid: int, a: Words) -> int:
        return self.fchownat(tid, (AT_FDCWD, a[0], a[1], a[2], 0))

    def lchown(self, tid: int, a: Words) -> int:
        return self.fchownat(tid, (AT_FDCWD, a[0], a[1], a[2], _NOFOLLOW))

    def fchown(self, tid: int, a: Words) -> int:
        return self.change_owner(tid, self.files.changed_by_descriptor(tid, a[0]), a[1], a[2])

    def fchownat(self, tid: int, a: Words) -> int:
        flags = a[4] & 0xFFFFFFFF
        if flags & ~(_NOFOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "fchownat")
        return self.change_owner(tid, self.files.changed(tid, a[0], a[1], flags), a[2], a[3])

    def change_owner(self, tid: int, found: tuple[int, os.stat_result], uid: int, gid: int) -> int:
        fd, info = found
        try:
            who, place, owner = self.processes[tid], b"/proc/self/fd/%d" % fd, (uid & 0xFFFFFFFF, gid & 0xFFFFFFFF)
            if info.st_mode & _S_IFMT in _HAVE_ATTRIBUTES:
                self.owners.change_owner(who, place, info, *owner)
            else:
                with self.files.noting_directory(place) as parent:
                    self.owners.change_owner(who, place, info, *owner, parent)
        finally:
            os.close(fd)
        return 0

    def truncate(self, tid: int, a: Words) -> int:
        if a[1] >> 63:
            raise OSError(errno.EINVAL, "truncate")
        try:
            fd, info = self.files.changed(tid, AT_FDCWD, a[0])
        except Unchanged as error:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from error
        try:
            place = b"/proc/self/fd/%d" % fd
            self.owners.opened_to_write(self.processes[tid], place, info)
            os.truncate(place, a[1])
            self.owners.emptied(place)
        finally:
            os.close(fd)
        return 0

    def utime(self, tid: int, a: Words) -> int:
        times = self.memory.read(tid, a[1], 16) if a[1] else None
        if times is not None:
            first, second = _TIME.unpack(times)
            times = struct.pack("=qqqq", first, 0, second, 0)
        return self.set_times(self.files.changed(tid, AT_FDCWD, a[0]), times)

    def utimes(self, tid: int, a: Words) -> int:
        return self.futimesat(tid, (AT_FDCWD, a[0], a[1]))

    def futimesat(self, tid: int, a: Words) -> int:
        times = self.memory.read(tid, a[2], 32) if a[2] else None
        if times is not None:
            words = struct.unpack("=qqqq", times)
            if not 0 <= words[1] < 10**6 or not 0 <= words[3] < 10**6:
                raise OSError(errno.EINVAL, "utimes")
            times = struct.pack("=qqqq", words[0], words[1] * 1000, words[2], words[3] * 1000)
        if not a[1] and signed(a[0]) != AT_FDCWD:
            return self.set_times(self.files.changed_by_descriptor(tid, a[0]), times)
        return self.set_times(self.files.changed(tid, a[0], a[1]), times)

    def utimensat(self, tid: int, a: Words) -> int:
        flags = a[3] & 0xFFFFFFFF
        times = self.memory.read(tid, a[2], 32) if a[2] else None
        if times is not None and struct.unpack("=8xq8xq", times) == (_OMIT, _OMIT):
            return 0
        if flags & ~(_NOFOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "utimensat")
        try:
            found = self.files.changed(tid, a[0], a[1], flags)
        except Unchanged as unchanged:
            if times is not None and not all(map(_is_valid, struct.unpack("=8xq8xq", times))):
                raise OSError(errno.EINVAL, "utimensat") from unchanged
            raise
        return self.set_times(found, times)

    def mmap(self, tid: int, a: Words) -> None:
        """mmap(2) of a file that the caller may change in memory, which the kernel performs.

        The file gets a new ctime, by which the layer's walk finds it: on tmpfs, stores to a page that was read before
        change no time.
        """
        place = b"/proc/%d/fd/%d" % (tid, signed(a[4]))
        with suppress(OSError, Unchanged):
            if flags_of(place) & os.O_ACCMODE == os.O_RDWR:
                fd, _ = self.files.own(os.open(place, _PATH))
                try:
                    renew_access_time(b"/proc/self/fd/%d" % fd)
                finally:
                    os.close(fd)
        self.files.listener.send(self.files.identity, GO_ON)

    def fsync(self, tid: int, a: Words) -> int | None:
        """fsync(2) of what is in the tree waits for nothing: a working tree need not outlive a power cut."""
        place = b"/proc/%d/fd/%d" % (tid, signed(a[0]))
        with suppress(OSError):
            is_opened = os.lstat(place).st_mode & _READ_OR_WRITE  # with O_PATH it is neither
            is_ours = self.tree.root.inside(os.readlink(place)) is not None
            if is_opened and is_ours and stat.S_IFMT(os.stat(place).st_mode) in _HAVE_ATTRIBUTES:
                return 0
        self.files.listener.send(self.files.identity, GO_ON)
        return None

    def fdatasync(self, tid: int, a: Words) -> int | None:
        return self.fsync(tid, a)

    def syncfs(self, tid: int, a: Words) -> int | None:
        return self.fsync(tid, a)

    def sync_file_range(self, tid: int, a: Words) -> int | None:
        start, length, flags = a[1:4]
        if (start | length | start + length) >> 63 or flags & 0xFFFFFFFF & ~_SYNC_FLAGS:
            self.files.listener.send(self.files.identity, GO_ON)
            return None
        return self.fsync(tid, a)

    def set_times(self, found: tuple[int, os.stat_result], times: bytes | None) -> int:
        fd, _ = found
        try:
            buffer = None if times is None else ctypes.create_string_buffer(times, 32)
            at = 0 if buffer is None else ctypes.addressof(buffer)
            if call(self.sys["utimensat"], fd, b"", at, _EMPTY_PATH, 0) < 0:
                raise failure()
        finally:
            os.close(fd)
        return 0


def _is_valid(nanoseconds: int) -> bool:
    """Whether utimensat(2) takes the nanoseconds of a time."""
    return 0 <= nanoseconds < 10**9 or nanoseconds in (_OMIT, _NOW)
