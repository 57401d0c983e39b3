"""A tree on disk that is written to, by descriptor; the other Target is `fs.lists.listwriter`."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from builda.fs import content, nodes, owners, paths, rights, standin, xattrs
from builda.fs.trees.target import Looks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.fs.tarread import Content
    from builda.fs.trees.target import Inode, Original

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY = _OPEN | os.O_NOFOLLOW
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeTarget:
    """The tree below the open directory `root`."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.skipped: set[str] = set()
        self.aside = owners.keeps_aside()
        self.unprivileged = self.aside and rights.lacks_rights()

    def open(self, path: bytes, *, follow: bool = True) -> int:
        return paths.open_in_root(self.root, path, _OPEN if follow or not path else _DIRECTORY)

    def close(self, directory: int) -> None:
        os.close(directory)

    def is_directory(self, path: bytes, *, follow: bool = True) -> bool:
        try:
            info = (paths.stat_in_root if follow else paths.lstat_in_root)(self.root, path)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return False
        return info is not None and stat.S_ISDIR(info.st_mode)

    def resolved(self, path: bytes) -> bytes:
        return paths.resolved(self.root, path)

    def identity(self, directory: int) -> Inode:
        info = os.fstat(directory)
        return info.st_dev, info.st_ino

    def time_of(self, directory: int) -> int:
        return os.fstat(directory).st_mtime_ns

    def set_time(self, directory: int, time_ns: int) -> None:
        os.utime(directory, ns=(time_ns, time_ns))

    def dress(self, directory: int, looks: Looks) -> None:
        """Also of a file. Owner first: chown(2) clears set-id bits and capabilities. Times last."""
        (uid, gid), mode, values, time_ns = looks
        if self.unprivileged:
            owners.dress(directory, uid, gid, xattrs.mode_given(mode, values) if values else mode)
        else:
            if self.aside:
                owners.own(directory)
            owners.give(directory, uid, gid)
            os.fchmod(directory, mode)
        if values:
            self.skipped.update(xattrs.write(directory, self.kept(values)))
            if self.aside and standin.device_of(values) is not None:
                standin.record(directory, standin.owned(values[standin.XATTR], uid, gid, mode))
        if time_ns is not None:
            os.utime(directory, ns=(time_ns, time_ns))

    def kept(self, values: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """Attributes of a source, without an owner that was kept aside of it."""
        return owners.without(values) if self.aside else values

    def enter(self, parent: int, name: bytes) -> int | None:
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            return None
        return fd

    def holds_directory(self, parent: int, name: bytes) -> bool:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)

    def link_at(self, parent: int, name: bytes) -> bytes | None:
        return paths.link_at(parent, name)

    def make(self, parent: int, name: bytes, mode: int = 0o700) -> int:
        os.mkdir(name, 0o700, dir_fd=parent)
        fd = paths.open_made(parent, name)
        if mode != 0o700:
            os.fchmod(fd, mode | 0o700 if self.unprivileged else mode)
        return fd

    def remove(self, parent: int, name: bytes) -> None:
        paths.remove_tree(parent, name)

    def link(self, parent: int, name: bytes, path: bytes) -> None:
        directory, old = paths.open_parent(self.root, path)
        try:
            info = os.stat(old, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode) or is_whiteout(info):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
            there = lstat(parent, name)
            if there is None or (there.st_dev, there.st_ino) != (info.st_dev, info.st_ino):
                os.link(old, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def original(self, info: os.stat_result, values: Mapping[str, bytes]) -> Original:
        if not self.aside:
            return (info.st_uid, info.st_gid), info.st_mode & 0o7777, values, info.st_mtime_ns
        return owners.seen(info, values), owners.seen_mode(info, values) & 0o7777, values, info.st_mtime_ns

    def copy(
        self,
        parent: int,
        name: bytes,
        source: int,
        info: os.stat_result,
        looks: Looks,
        moved: content.Moved | None,
    ) -> bytes:
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            digest = content.copy_hashed(source, fd, info, moved)
            self.dress(fd, looks)
        except BaseException:
            with suppress(OSError):  # the first error counts
                os.unlink(name, dir_fd=parent)  # half a file would look like a whole one
            raise
        finally:
            os.close(fd)
        return digest

    def write(self, parent: int, name: bytes, data: Content, size: int, looks: Looks) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            content.write_member(fd, size, data)
            self.dress(fd, looks)
        finally:
            os.close(fd)

    def special(self, parent: int, name: bytes, kind: int, link: bytes, device: int, looks: Looks) -> None:
        if kind == stat.S_IFLNK:
            os.symlink(link, name, dir_fd=parent)
        else:
            try:
                os.mknod(name, kind | 0o600, device, dir_fd=parent)
            except PermissionError:
                if kind not in (stat.S_IFCHR, stat.S_IFBLK):
                    raise
                standin.make(parent, name, kind, (os.major(device), os.minor(device)), looks.owner, looks.mode)
        looks = looks._replace(values=self.kept(looks.values)) if looks.values else looks
        self.skipped.update(nodes.dress(parent, name, kind, looks))


def look_like(fd: int, model: int) -> None:
    """Give a file or directory the owner, mode, attributes and time of another; Unsupported if it cannot have them."""
    target = TreeTarget(fd)
    looks = Looks(*target.original(os.fstat(model), xattrs.recorded(model)))
    try:
        target.dress(fd, looks)
    except OSError as error:
        owners.explain(error, *looks.owner)
        raise


def is_whiteout(info: os.stat_result) -> bool:
    """Whether it is overlay's mark of a deletion: a character device 0:0."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def lstat(parent: int, name: bytes) -> os.stat_result | None:
    """lstat(2) of `name`; None if it is missing."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
