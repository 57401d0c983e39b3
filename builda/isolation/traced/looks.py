"""Answers what files are: stat(2) and its relatives, access(2), readlink(2), getcwd(2), statfs(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from builda.isolation.emulated.ownership import may_access
from builda.isolation.emulated.statbuffers import STATX_SIZE
from builda.isolation.traced.calling import failure, plain_call, quick_call, signed
from builda.isolation.traced.caught_calls import NUMBERS
from builda.isolation.traced.kept_aside import shown_mode, shown_owner
from builda.isolation.traced.tree import AT_FDCWD, Root, asks_for_directory
from builda.linux.ptrace import iovec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files

_NOFOLLOW = 0x100
_EMPTY_PATH = 0x1000
_EACCESS = 0x200
_STAT_FLAGS = _NOFOLLOW | 0x800 | _EMPTY_PATH  # and AT_NO_AUTOMOUNT
_SYNC = 0x6000  # AT_STATX_SYNC_TYPE
_PATH = os.O_PATH | os.O_CLOEXEC
_LINK = _PATH | os.O_NOFOLLOW
_OWNER = struct.Struct("=II")
_MODE, _MODE16 = struct.Struct("=I"), struct.Struct("=H")
_DEVICE = struct.Struct("=II")
_BASIC = 0x7FF  # STATX_BASIC_STATS
_WITH_ATTRIBUTES = frozenset((stat.S_IFREG, stat.S_IFDIR))
# Of struct stat: device, inode, mode, owner, and the two words of st_ctim.
_FIELDS = {"x86_64": "=QQ8xIII68xqq", "aarch64": "=QQI4xII72xqq"}
_FIELDS_OF_STATX = struct.Struct("=20xIIH2xQ56xqI28xII").unpack_from  # owner, mode, inode, stx_ctime, device
_buffer = ctypes.create_string_buffer(STATX_SIZE)
_at = ctypes.addressof(_buffer)
_here = iovec(_at, STATX_SIZE)
_LAYOUT = {"x86_64": (144, 24, 28, 40), "aarch64": (128, 16, 24, 32)}  # of struct stat: size; mode, owner and rdev at


class Looks:
    """Answers what files are: stat(2) and its relatives, access(2), readlink(2), getcwd(2), statfs(2)."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.tree = files.tree
        self.processes = files.processes
        self.states = files.states
        self.owners = files.owners
        self.outside = files.outside
        machine = os.uname().machine
        self.sys = NUMBERS[machine]
        self.number = self.sys["newfstatat"]
        self.memory = files.memory
        self.stat_size, self.mode_at, self.owner_at, self.device_at = _LAYOUT[machine]
        self.fields = struct.Struct(_FIELDS[machine]).unpack_from
        self.here = iovec(_at, self.stat_size)

    def stat(self, tid: int, a: Words) -> int:
        return self.newfstatat(tid, (AT_FDCWD, a[0], a[1], 0))

    def lstat(self, tid: int, a: Words) -> int:
        return self.newfstatat(tid, (AT_FDCWD, a[0], a[1], _NOFOLLOW))

    def fstat(self, tid: int, a: Words) -> int:
        if signed(a[0]) < 0:  # also AT_FDCWD
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.status_of_held(tid, a[0], a[1])

    def newfstatat(self, tid: int, a: Words) -> int:
        flags = a[3] & 0xFFFFFFFF
        if flags & ~_STAT_FLAGS:
            raise OSError(errno.EINVAL, "newfstatat")
        if flags & _EMPTY_PATH and self.is_empty(tid, a[1]):
            return self.status_of_held(tid, a[0], a[2])
        files = self.files
        root, path = files.at(tid, a[0], a[1])
        fd = files.place(tid, root, path, follow=not flags & _NOFOLLOW)
        try:
            self.status(fd, b"", _EMPTY_PATH)
        finally:
            os.close(fd)
        files.write_from(tid, a[2], self.here, self.stat_size)
        return 0

    def is_empty(self, tid: int, address: int) -> bool:
        """Whether the path at an address is empty; a null pointer's is, as to stat(2) from Linux 6.11 on."""
        return not address or self.memory.some(tid, address, 1) == b"\0"

    def held(self, tid: int, number: int) -> bytes:
        """The path in /proc of a descriptor of the caller, or of its directory; it may not be open."""
        number = signed(number)
        return b"/proc/%d/cwd" % tid if number == AT_FDCWD else b"/proc/%d/fd/%d" % (tid, number)

    def status_of_held(self, tid: int, number: int, address: int) -> int:
        """Write a struct stat of a descriptor of the caller, or of its directory."""
        place = self.held(tid, number)
        try:
            self.status(AT_FDCWD, place, 0, place)
        except FileNotFoundError as error:
            raise _not_open(number) from error
        self.files.write_from(tid, address, self.here, self.stat_size)
        return 0

    def status(self, directory: int, path: bytes, flags: int, place: bytes = b"") -> None:
        """Have a struct stat of a file in the buffer; `place` is its path in /proc if `directory` is another file."""
        if quick_call(self.number, directory, path, _buffer, flags) < 0:
            raise failure()
        device, inode, mode, uid, gid, seconds, nanoseconds = self.fields(_buffer)
        key = (device, inode)
        if key in self.tree.marks:
            if quick_call(self.number, AT_FDCWD, self.tree.marks[key], _buffer, 0) < 0:
                raise failure()
            return
        looks = self.looks(place or directory, device, inode, seconds * 10**9 + nanoseconds, mode)
        if looks is None:
            self.show_owner(self.owner_at, uid, gid)
        else:
            _MODE.pack_into(_buffer, self.mode_at, looks[0])
            _OWNER.pack_into(_buffer, self.owner_at, *looks[1])
            if looks[2] is not None:
                major, minor = looks[2]
                struct.pack_into("=Q", _buffer, self.device_at, os.makedev(major, minor))

    def show_owner(self, at: int, uid: int, gid: int) -> None:
        """The supervisor's own ids stand for root."""
        ids = self.owners.ids
        if uid == ids[0] or gid == ids[1]:
            _OWNER.pack_into(_buffer, at, *shown_owner(uid, gid, ids))

    def looks(
        self, place: bytes | int, device: int, inode: int, changed: int, mode: int
    ) -> tuple[int, tuple[int, int], tuple[int, int] | None] | None:
        """(mode, owner, device) that are kept aside; None if nothing is. `place` is a path in /proc or a descriptor."""
        kind, key = mode & 0o170000, (device, inode, changed)
        if kind in _WITH_ATTRIBUTES:
            if key in self.owners.plain:
                return None
            path = b"/proc/self/fd/%d" % place if isinstance(place, int) else place
            kept = self.owners.kept(path, device, inode, changed, mode)
            if kept is None:
                return None
            return shown_mode(mode, kept), (kept.uid, kept.gid), kept.device if kept.kind else None
        if kind not in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK) or key in self.owners.nameless:
            return None
        owner = self.files.owner_of_name(b"/proc/self/fd/%d" % place if isinstance(place, int) else place)
        if owner is None:
            self.owners.remember_nameless(key)
            return None
        return mode, owner, None

    def statx(self, tid: int, a: Words) -> int:
        flags, mask = a[2] & 0xFFFFFFFF, a[3] & 0xFFFFFFFF
        if flags & ~(_STAT_FLAGS | _SYNC) or flags & _SYNC == _SYNC or mask >> 31:
            raise OSError(errno.EINVAL, "statx")
        if flags & _EMPTY_PATH and self.is_empty(tid, a[1]):
            place = self.held(tid, a[0])
            try:
                self.extended(AT_FDCWD, place, flags & ~_EMPTY_PATH & ~_NOFOLLOW, mask, place)
            except FileNotFoundError as error:
                raise _not_open(a[0]) from error
        else:
            root, path = self.files.at(tid, a[0], a[1])
            fd = self.files.place(tid, root, path, follow=not flags & _NOFOLLOW)
            try:
                self.extended(fd, b"", flags | _EMPTY_PATH, mask)
            finally:
                os.close(fd)
        self.files.write_from(tid, a[4], _here, STATX_SIZE)
        return 0

    def extended(self, directory: int, path: bytes, flags: int, mask: int, place: bytes = b"") -> None:
        """A struct statx, as `status`."""
        number, mask = self.sys["statx"], mask | _BASIC
        if quick_call(number, directory, path, flags, mask, _buffer) < 0:
            raise failure()
        uid, gid, mode, inode, seconds, nanoseconds, *numbers = _FIELDS_OF_STATX(_buffer)
        device = os.makedev(*numbers)
        if (device, inode) in self.tree.marks:
            flags &= ~(_EMPTY_PATH | _NOFOLLOW)
            if quick_call(number, AT_FDCWD, self.tree.marks[device, inode], flags, mask, _buffer) < 0:
                raise failure()
            return
        looks = self.looks(place or directory, device, inode, seconds * 10**9 + nanoseconds, mode)
        if looks is None:
            self.show_owner(20, uid, gid)
        else:
            _MODE16.pack_into(_buffer, 28, looks[0])
            _OWNER.pack_into(_buffer, 20, *looks[1])
            if looks[2] is not None:
                _DEVICE.pack_into(_buffer, 128, *looks[2])

    def access(self, tid: int, a: Words) -> int:
        return self.faccessat2(tid, (AT_FDCWD, a[0], a[1], 0))

    def faccessat(self, tid: int, a: Words) -> int:
        return self.faccessat2(tid, (a[0], a[1], a[2], 0))

    def faccessat2(self, tid: int, a: Words) -> int:
        flags, wanted = a[3] & 0xFFFFFFFF, a[2] & 0xFFFFFFFF
        if wanted & ~7 or flags & ~(_NOFOLLOW | _EACCESS | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "access")
        real = not flags & _EACCESS
        found = self.files.at_or_open(tid, a[0], a[1], flags)
        if isinstance(found, bytes):
            return self.allowed(tid, found, None, wanted, real=real)
        fd = self.files.place(tid, *found, follow=not flags & _NOFOLLOW)
        try:
            info = os.fstat(fd)
            stands_for = self.tree.marks.get((info.st_dev, info.st_ino))
            if stands_for is not None:
                return self.allowed(tid, stands_for, None, wanted, real=real)
            return self.allowed(tid, b"/proc/self/fd/%d" % fd, info, wanted, real=real)
        finally:
            os.close(fd)

    def allowed(self, tid: int, place: bytes, info: os.stat_result | None, wanted: int, *, real: bool) -> int:
        if wanted:
            file = self.owners.seen(place, info)
            has_attributes = stat.S_IFMT(file.mode) in (stat.S_IFREG, stat.S_IFDIR)
            owner = file.owner if has_attributes else self.files.owner_of_name(place) or file.owner
            who, acl = self.processes[tid], lambda: self.owners.acl_or_none(place)
            if not may_access(who, file.mode, owner, wanted, acl=acl, real=real):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            if wanted & 3:
                _check_mount(place, file.mode, wanted)
        return 0

    def readlink(self, tid: int, a: Words) -> int:
        return self.readlinkat(tid, (AT_FDCWD, a[0], a[1], a[2]))

    def readlinkat(self, tid: int, a: Words) -> int:
        size = signed(a[3])
        if size <= 0:
            raise OSError(errno.EINVAL, "readlink")
        found = self.files.at_or_open(tid, a[0], a[1], _EMPTY_PATH)
        link = self.text_of_open_link(tid, found) if isinstance(found, bytes) else self.text_of_link(tid, *found)
        self.files.write(tid, a[2], link[:size])
        return min(len(link), size)

    def text_of_open_link(self, tid: int, place: bytes) -> bytes:
        """The text of a link that the caller has opened with O_PATH; ENOENT for what is no link."""
        fd = os.open(place, _PATH)
        try:
            text = os.readlink(b"", dir_fd=fd)
            path = os.readlink(b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)
        return self.outside.readlink(self.states[tid], tid, path) if path.startswith(b"/proc/") else text

    def text_of_link(self, tid: int, root: Root, path: bytes) -> bytes:
        """The text of the link at a path."""
        try:
            fd = root.open(path, _LINK)
        except PermissionError:
            state = self.states[tid]
            place = self.tree.walk(state, tid, root, path, follow=False)
            if place.outside:
                text = self.outside.readlink(state, tid, place.path)
                if not asks_for_directory(path):
                    return text
                number = errno.EINVAL if stat.S_ISDIR(os.stat(place.path).st_mode) else errno.ENOTDIR
                raise OSError(number, "readlink") from None
            fd = root.open(place.path, _LINK)
        try:
            return os.readlink(b"", dir_fd=fd)
        except FileNotFoundError as error:  # so says the kernel of a descriptor that is no link's
            raise OSError(errno.EINVAL, "readlink") from error
        finally:
            os.close(fd)

    def getcwd(self, tid: int, a: Words) -> int:
        found = os.readlink(b"/proc/%d/cwd" % tid)
        path = self.tree.seen(self.states[tid], found) + b"\0"
        if path.endswith(b" (deleted)\0") and not os.path.exists(found):
            raise OSError(errno.ENOENT, "getcwd")
        if len(path) > a[1]:
            raise OSError(errno.ERANGE, "getcwd")
        self.files.write(tid, a[0], path)
        return len(path)

    def statfs(self, tid: int, a: Words) -> int:
        fd = self.tree.instead(self.files.place(tid, *self.files.at(tid, AT_FDCWD, a[0]), follow=True))
        try:
            if plain_call(self.sys["fstatfs"], fd, _at, 0, 0) < 0:
                raise failure()
        finally:
            os.close(fd)
        self.files.write(tid, a[1], _buffer.raw[:120])
        return 0


def _not_open(number: int) -> OSError:
    """The error for a descriptor that the caller has not open, or for its directory if it has none any more."""
    error = errno.ENOENT if signed(number) == AT_FDCWD else errno.EBADF
    return OSError(error, os.strerror(error))


def _check_mount(place: bytes, mode: int, wanted: int) -> None:
    """What access(2) says of a file whose mount lets nobody write or execute it: EROFS or EACCES."""
    flags = os.statvfs(place).f_flag
    number = 0
    if wanted & 1 and flags & os.ST_NOEXEC and stat.S_ISREG(mode):
        number = errno.EACCES
    elif wanted & 2 and flags & os.ST_RDONLY and stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        number = errno.EROFS
    if number:
        raise OSError(number, os.strerror(number))
