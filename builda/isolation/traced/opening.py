"""Opens files for a command: each path inside the tree, by descriptor, which is then put into the caller."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from builda.isolation.traced.calling import call, signed
from builda.isolation.traced.fifos import Fifos
from builda.isolation.traced.injecting import Injecting
from builda.isolation.traced.tree import AT_FDCWD, Root, names_directory, open_inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files

_HOW = struct.Struct("=QQQ")
_PATH = os.O_PATH | os.O_CLOEXEC
_DIRECTORY = _PATH | os.O_DIRECTORY
_TEMPORARY = 0o20000000  # O_TMPFILE's own bit
_CREATED = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_NEW = os.O_CREAT | os.O_EXCL
_VALID = 0o37777703  # the flags that open(2) looks at; it ignores others
_NO_MAGIC, _BENEATH, _IN_ROOT = 0x02, 0x08, 0x10  # RESOLVE_…


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
        self.injecting = Injecting(files.listener)
        self.fifos = Fifos(files.listener)

    def open(self, tid: int, a: Words) -> int | None:
        return self.opened(tid, AT_FDCWD, a[0], a[1], a[2])

    def creat(self, tid: int, a: Words) -> int | None:
        return self.opened(tid, AT_FDCWD, a[0], _CREATED, a[1])

    def openat(self, tid: int, a: Words) -> int | None:
        return self.opened(tid, a[0], a[1], a[2], a[3])

    def openat2(self, tid: int, a: Words) -> int | None:
        size = a[3]
        if size < _HOW.size:
            raise OSError(errno.EINVAL, "openat2")
        if size > 4096:
            raise OSError(errno.E2BIG, "openat2")
        flags, mode, resolve = _HOW.unpack(self.memory.read(tid, a[2], _HOW.size))
        if size > _HOW.size and any(self.memory.read(tid, a[2] + _HOW.size, size - _HOW.size)):
            raise OSError(errno.E2BIG, "openat2")
        _check_flags(flags, mode, resolve)
        if flags & os.O_PATH:  # such a descriptor cannot be handed over; callers know kernels without this call
            raise OSError(errno.ENOSYS, "openat2")
        if resolve:
            return self.resolved_as_asked(tid, a, flags, mode, resolve)
        return self.opened(tid, a[0], a[1], flags, mode)

    def resolved_as_asked(self, tid: int, a: Words, flags: int, mode: int, resolve: int) -> int | None:
        """openat2(2) with RESOLVE_…: the kernel keeps to them. /proc and devices are out of their reach: EXDEV."""
        path = self.files.path(tid, a[1])
        if resolve & _BENEATH and path[:1] == b"/":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        root, fd = self.states[tid].root, -1
        try:
            if resolve & (_BENEATH | _IN_ROOT):
                root, start = self.tree.start(self.states[tid], tid, signed(a[0]), b".")
                fd = root.open(start, _DIRECTORY)
            else:
                root, path = self.files.at(tid, a[0], a[1])
                resolve |= _IN_ROOT
            directory = root.fd if fd < 0 else fd
            resolve |= _NO_MAGIC
            try:
                opened = self.open_as_asked(tid, directory, path, flags, mode, resolve)
            except OSError as error:
                if error.errno != errno.ENXIO or flags & 3 != os.O_WRONLY or flags & os.O_NONBLOCK:
                    raise
                opened = -1
            if opened >= 0:
                return self.hand_over(tid, opened, flags)
            held = open_inside(directory, path, _PATH, 0, resolve)
            if not stat.S_ISFIFO(os.fstat(held).st_mode):
                os.close(held)
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            self.fifos.open(self.files.identity, tid, held, flags)
            return None
        except PermissionError as error:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV)) from error
        finally:
            if fd >= 0:
                os.close(fd)

    def open_as_asked(self, tid: int, directory: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
        """As `open_file`, by openat2(2) from `directory` on."""
        makes = flags & (os.O_CREAT | _TEMPORARY)
        umask = self.states[tid].umask
        given = mode | 0o600
        if makes:
            self.files.take_umask(umask)
            exclusive = flags | os.O_NOCTTY | (os.O_EXCL if flags & os.O_CREAT else 0)
            try:
                fd = open_inside(directory, path, exclusive, given, resolve)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
            else:
                self.owners.made(self.processes[tid], fd, mode, umask)
                return fd
        if flags & os.O_TRUNC:
            self.truncates(tid, lambda how: open_inside(directory, path, how, 0, resolve), flags)
        try:
            found = self.open_at_once(lambda how: open_inside(directory, path, how, 0, resolve), flags & ~os.O_CREAT)
            return _no_directory(found) if makes else found
        except OSError as error:
            if not makes or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
        fd = open_inside(directory, path, flags | os.O_NOCTTY, given, resolve)  # the target of a link
        self.owners.made(self.processes[tid], fd, mode, umask)
        return fd

    def opened(self, tid: int, directory: int, address: int, flags: int, mode: int) -> int | None:
        flags &= _VALID
        try:
            root, path = self.files.at(tid, directory, address)
        except OSError:
            _check_flags(flags, 0, 0)
            raise
        try:
            fd = self.open_file(tid, root, path, flags, mode)
        except PermissionError:
            if flags & os.O_CREAT and names_directory(path):
                os.close(self.files.parent(tid, directory, address)[0])
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
            state = self.states[tid]
            follow = not flags & os.O_NOFOLLOW and flags & _NEW != _NEW
            place = self.tree.walk(
                state,
                tid,
                root,
                path,
                follow=follow,
                parent=follow and flags & _TEMPORARY == _TEMPORARY,
                makes=bool(flags & os.O_CREAT),
            )
            if place.outside:
                self.fifos.let_go()
                fd = self.outside.open(state, tid, place.path, flags)
                if fd < 0:
                    self.fifos.open(self.files.identity, tid, os.open(place.path, _PATH), flags)
                    return None
            else:
                path = place.path
                fd = self.open_file(tid, root, path, flags, mode)
        except OSError as error:
            if error.errno != errno.ENXIO or flags & 3 != os.O_WRONLY or flags & os.O_NONBLOCK:
                raise
            if not _is_fifo(root, path):
                raise
            fd = -1
        if fd < 0:
            self.fifos.open(self.files.identity, tid, root.open(path, _PATH), flags)
            return None
        return self.hand_over(tid, fd, flags)

    def open_file(self, tid: int, root: Root, path: bytes, flags: int, mode: int) -> int:
        """Open a file of the tree; -1 for a FIFO whose other end must be waited for."""
        if flags & (os.O_CREAT | _TEMPORARY):
            return self.create(tid, root, path, flags, mode)
        if flags & os.O_TRUNC:
            self.truncates(tid, lambda how: root.open(path, how), flags)
        return self.open_at_once(lambda how: root.open(path, how), flags)

    def truncates(self, tid: int, opener: Callable[[int], int], flags: int) -> None:
        """The caller opens the file of `opener` with O_TRUNC next; the kernel says then what is wrong with it."""
        try:
            fd = opener(_PATH | flags & os.O_NOFOLLOW)
        except OSError:
            return
        try:
            self.owners.opened_to_write(self.processes[tid], b"/proc/self/fd/%d" % fd, os.fstat(fd))
        finally:
            os.close(fd)

    def create(self, tid: int, root: Root, path: bytes, flags: int, mode: int) -> int:
        umask = self.states[tid].umask
        given = mode & 0o7777 | 0o600
        self.files.take_umask(umask)
        if self.processes[tid].fsuid:
            self.check_making(tid, root, path, flags)
        if flags & _TEMPORARY:
            fd = root.open(path, flags, given)
        else:
            try:
                fd = root.open(path, flags | os.O_EXCL | os.O_NOCTTY, given)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
                try:
                    found = self.open_file(tid, root, path, flags & ~os.O_CREAT, 0)
                    return found if flags & os.O_ACCMODE else _no_directory(found)  # no directory opens to write
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                        raise
                    # a link that leads to nothing: its target is made, or the kernel says why not
                    fd = root.open(path, flags | os.O_NOCTTY, given)
        self.owners.made(self.processes[tid], fd, mode, umask)
        return fd

    def check_making(self, tid: int, root: Root, path: bytes, flags: int) -> None:
        """EACCES if the caller is no root and may not make the file, or not open the one that is there."""
        wanted = 3
        try:
            if flags & _TEMPORARY:
                fd = root.open(path, _PATH)
            else:
                fd, wanted = root.open(path, _PATH), (4, 2, 6, 0)[flags & 3]
        except FileNotFoundError:
            fd = root.open(path.rstrip(b"/").rpartition(b"/")[0] or b"/", _PATH)
        try:
            is_checked = stat.S_IFMT(os.fstat(fd).st_mode) in (stat.S_IFREG, stat.S_IFDIR)
            if is_checked and not self.owners.may(self.processes[tid], b"/proc/self/fd/%d" % fd, wanted):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        finally:
            os.close(fd)

    def hand_over(self, tid: int, fd: int, flags: int) -> int | None:
        """Put the descriptor into the caller, whose call returns its number, and close it here."""
        try:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
                self.written_to(tid, fd, flags)
            return self.injecting.inject(tid, self.files.identity, fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)

    def written_to(self, tid: int, fd: int, flags: int) -> None:
        """The caller gets this descriptor to write."""
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode):
            if flags & os.O_TRUNC and self.owners.capabilities(fd, info):
                self.owners.emptied(fd)
            self.owners.opened_to_write(self.processes[tid], fd, info)

    def open_at_once(self, opener: Callable[[int], int], flags: int) -> int:
        """Open a file that is there; -1 for a FIFO whose other end must be waited for. `opener` gets the flags."""
        if flags & os.O_DIRECTORY:
            return opener(flags | os.O_NOCTTY)
        if self.fifos.waits(opener, flags):
            return -1
        fd = opener(flags | os.O_NONBLOCK | os.O_NOCTTY)
        if self.fifos.look(fd) and not flags & os.O_NONBLOCK and flags & 3 != os.O_RDWR:
            os.close(fd)
            return -1
        if not flags & os.O_NONBLOCK:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC))
        return fd


def _is_fifo(root: Root, path: bytes) -> bool:
    fd = root.open(path, _PATH)
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _no_directory(fd: int) -> int:
    """The descriptor; EISDIR for one of a directory, as open(2) with O_CREAT has it."""
    if fd >= 0 and stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    return fd


def _check_flags(flags: int, mode: int, resolve: int) -> None:
    """EINVAL for flags that open(2) refuses before it looks for the file."""
    how = ctypes.create_string_buffer(_HOW.pack(flags, mode, resolve), _HOW.size)
    if call(437, AT_FDCWD, b"", ctypes.addressof(how), _HOW.size, 0) < 0 and ctypes.get_errno() == errno.EINVAL:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
