"""Makes, renames and removes entries of directories: done in the opened directory that holds them."""

from __future__ import annotations

import errno
import os
import stat

from builda.isolation.emulated.credentials import Credentials
from builda.isolation.emulated.ownership import check_node
from builda.isolation.traced.calling import failure, rename
from builda.isolation.traced.caught_calls import NUMBERS
from builda.isolation.traced.tree import AT_FDCWD, DEVICES, open_inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files

_REMOVEDIR = 0x200
_FOLLOW = 0x400
_EMPTY_PATH = 0x1000
_PATH = os.O_PATH | os.O_CLOEXEC
_LINK = _PATH | os.O_NOFOLLOW
_DIRECTORY = _PATH | os.O_DIRECTORY
_STANDING = frozenset((b"proc", b"pts", *DEVICES))
_EXCHANGE = 2  # RENAME_EXCHANGE
_NODES = frozenset((stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK))


class Entries:
    """Makes, renames and removes entries of directories: done in the opened directory that holds them."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.processes = files.processes
        self.states = files.states
        self.owners = files.owners
        self.sys = NUMBERS[os.uname().machine]

    def mkdir(self, tid: int, a: Words) -> int:
        return self.mkdirat(tid, (AT_FDCWD, a[0], a[1]))

    def mkdirat(self, tid: int, a: Words) -> int:
        parent, name = self.files.parent(tid, a[0], a[1])
        try:
            mode, umask = a[2] & 0o1777, self.states[tid].umask
            self.files.take_umask(umask)
            self.check_making(tid, parent, name)
            os.mkdir(name, mode | 0o700, dir_fd=parent)
            fd = open_inside(parent, name, _DIRECTORY | os.O_NOFOLLOW)
            try:
                self.owners.new(self.processes[tid], b"/proc/self/fd/%d" % fd, os.fstat(fd), mode, umask, parent)
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
        mode, umask = a[2] & 0o7777, self.states[tid].umask
        if kind == stat.S_IFDIR:
            raise OSError(errno.EPERM, "mknod")
        if kind not in _NODES:
            raise OSError(errno.EINVAL, "mknod")
        parent, name = self.files.parent(tid, a[0], a[1])
        try:
            if not _exists(parent, name):
                check_node(who, kind)
                self.owners.check_making(who, b"/proc/self/fd/%d" % parent)
            if name.endswith(b"/"):  # "/" itself, too
                raise OSError(
                    errno.EEXIST if name == b"/" or _exists(parent, name.rstrip(b"/")) else errno.ENOENT, "mknod"
                )
            device = (0, 0, 0)
            self.files.take_umask(umask)
            if kind in (stat.S_IFCHR, stat.S_IFBLK):
                device = (kind, os.major(a[3] & 0xFFFFFFFF), os.minor(a[3] & 0xFFFFFFFF))
                os.close(
                    os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode | 0o600, dir_fd=parent)
                )
            elif kind == stat.S_IFREG:
                os.mknod(name, kind | mode | 0o600, 0, dir_fd=parent)
            else:
                with self.files.whole_umask(umask):
                    os.mknod(name, kind | self.owners.mode_in(who, parent, mode), 0, dir_fd=parent)
            if kind in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK):
                fd = open_inside(parent, name, _LINK)
                try:
                    self.owners.new(who, b"/proc/self/fd/%d" % fd, os.fstat(fd), mode, umask, parent, device)
                finally:
                    os.close(fd)
            else:
                self.name_new(who, parent, name)
        finally:
            os.close(parent)
        return 0

    def name_new(self, who: Credentials, parent: int, name: bytes) -> None:
        """Keep aside the owner of a new link or FIFO, also that it is root again where another had this name."""
        self.owners.name((parent, name.rstrip(b"/")), self.owners.of_new(who, parent))

    def check_making(self, tid: int, parent: int, name: bytes) -> None:
        """EACCES if the caller may make nothing in the directory, where it would make something."""
        who = self.processes[tid]
        if who.fsuid and not _exists(parent, name.rstrip(b"/")):
            self.owners.check_making(who, b"/proc/self/fd/%d" % parent)

    def symlink(self, tid: int, a: Words) -> int:
        return self.symlinkat(tid, (a[0], AT_FDCWD, a[1]))

    def symlinkat(self, tid: int, a: Words) -> int:
        target = self.files.path(tid, a[0])
        parent, name = self.files.parent(tid, a[1], a[2])
        try:
            self.check_making(tid, parent, name)
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
        flags = a[2] & 0xFFFFFFFF
        if flags & ~_REMOVEDIR:
            raise OSError(errno.EINVAL, "unlinkat")
        parent, name = self.files.parent(tid, a[0], a[1])
        try:
            self.check_not_standing(parent, name)
            if flags and name == b"." and self.files.path(tid, a[1]).rstrip(b"/").endswith(b".."):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))  # above a directory that was removed
            if flags:
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
        flags = a[4] & 0xFFFFFFFF
        if flags & ~7 or (flags & _EXCHANGE and flags & ~_EXCHANGE):
            raise OSError(errno.EINVAL, "renameat2")
        old, old_name = self.inner_parent(tid, a[0], a[1])
        try:
            new, new_name = self.inner_parent(tid, a[2], a[3])
            try:
                self.check_not_standing(old, old_name)
                self.check_not_standing(new, new_name)
                owner = replaced = None
                if flags & _EXCHANGE or not _has_attributes(old, old_name):
                    owner, replaced = self.owners.named((old, old_name)), self.owners.named((new, new_name))
                if rename(self.sys["renameat2"], old, old_name, new, new_name, flags) < 0:
                    raise failure()
                if owner is not None or replaced is not None:
                    self.owners.name((old, old_name), (flags & _EXCHANGE and replaced) or (0, 0))
                    self.owners.name((new, new_name), owner or (0, 0))
            finally:
                os.close(new)
        finally:
            os.close(old)
        return 0

    def inner_parent(self, tid: int, directory: int, address: int) -> tuple[int, bytes]:
        """As `Files.parent`, with a name that is in the tree: `/` would be on another file system."""
        parent, name = self.files.parent(tid, directory, address)
        return parent, b"." if name == b"/" else name

    def check_not_standing(self, parent: int, name: bytes) -> None:
        """EBUSY for /proc and the devices of the pod, as for mount points."""
        if name.rstrip(b"/") not in _STANDING:
            return
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError:
            return
        if (info.st_dev, info.st_ino) in self.files.tree.marks:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def link(self, tid: int, a: Words) -> int:
        return self.linkat(tid, (AT_FDCWD, a[0], AT_FDCWD, a[1], 0))

    def linkat(self, tid: int, a: Words) -> int:
        flags = a[4] & 0xFFFFFFFF
        if flags & ~(_FOLLOW | _EMPTY_PATH):
            raise OSError(errno.EINVAL, "linkat")
        found = self.files.at_or_open(tid, a[0], a[1], flags)
        if isinstance(found, bytes):
            fd = os.open(found, _PATH)
        else:
            fd = self.files.place(tid, *found, follow=bool(flags & _FOLLOW))
        try:
            self.link_open(tid, fd, a)
        finally:
            os.close(fd)
        return 0

    def link_open(self, tid: int, fd: int, a: Words) -> None:
        """Give an open file a new name. EXDEV for one that is not of the tree."""
        parent, name = self.files.parent(tid, a[2], a[3])
        try:
            is_ours = self.files.is_ours(fd)
            if not is_ours:
                _check_free(parent, name)
                # No name can be made in /proc and in a directory that has been removed, which has no links.
                takes_names = self.files.is_ours(parent) and os.fstat(parent).st_nlink
                number = errno.EXDEV if takes_names else errno.ENOENT
                raise OSError(number, os.strerror(number))
            place = b"/proc/self/fd/%d" % fd
            special = is_ours and stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFREG, stat.S_IFDIR)
            owner = self.files.owner_of_name(place) if special else None
            os.link(place, name, dst_dir_fd=parent, follow_symlinks=True)
            if owner is not None or self.owners.named((parent, name)) is not None:
                self.owners.name((parent, name), owner or (0, 0))
        finally:
            os.close(parent)


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _has_attributes(directory: int, name: bytes) -> bool:
    """Whether a name is a regular file's or directory's: what is kept of the name counts for no such file."""
    try:
        mode = os.lstat(name, dir_fd=directory).st_mode
    except OSError:
        return False
    return stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFDIR)


def _check_free(directory: int, name: bytes) -> None:
    """EEXIST for a name that is there; ENOENT for one that is not, but has a slash behind it."""
    bare = name.rstrip(b"/") or name
    try:
        os.stat(bare, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if bare == name:
            return
        raise
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
