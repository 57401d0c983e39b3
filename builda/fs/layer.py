"""Layers: a tree to a changeset and back (image-spec, layer.md).

Overlay keeps a deletion as a character device 0:0 and a replaced directory by an xattr; a layer says `.wh.name`
and `.wh..wh..opq`. Both directions are here, and the same for one flat tree, compared with what was unpacked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from builda.errors import CorruptContent
from builda.fs import paths
from builda.fs.tar import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FLUSH,
    HARD_LINK,
    REGULAR,
    SYMBOLIC_LINK,
    Content,
    Limits,
    TarEntry,
    TarWriter,
    iter_members,
)

if TYPE_CHECKING:
    from builda.fs.compress import ArchiveCompression
    from builda.fs.tar import Writable
    from builda.oci.digest import Digest, Readable

Whiteouts: TypeAlias = Literal["overlay", "plain"]

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")
_OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
NO_LIMITS = Limits()


class Clamp(NamedTuple):
    """What times a layer records: none later than `latest`, or all `exact`; None means as they are."""

    latest: int | None = None
    exact: int | None = None

    def __call__(self, seconds: int) -> int:
        if self.exact is not None:
            return self.exact
        return seconds if self.latest is None else min(seconds, self.latest)


AS_IS = Clamp()


def diff(upper: int, sink: Writable, *, clamp: Clamp = AS_IS, drop: Collection[str] = ()) -> tuple[str, ...]:
    """Write the changes that an overlay's upper directory holds; paths of sockets, which no layer can hold.

    `drop` names paths to leave out, absolute inside the root. The tar is a function of the tree alone: depth first,
    each directory's entries by the bytes of their names.
    """
    return _Walk(TarWriter(sink), clamp, frozenset(map(os.fsencode, drop)), overlay=True).run(upper)


def write_tree(root: int, sink: Writable, *, clamp: Clamp = AS_IS, drop: Collection[str] = ()) -> tuple[str, ...]:
    """Write a whole tree as one layer; paths of sockets, which no layer can hold."""
    return _Walk(TarWriter(sink), clamp, frozenset(map(os.fsencode, drop)), overlay=False).run(root)


def xattrs_of(fd: int | str) -> dict[str, bytes]:
    """The extended attributes that a layer records: capabilities, `user.*` and POSIX ACLs, never overlay's own."""
    try:
        names = os.listxattr(fd, follow_symlinks=False) if isinstance(fd, str) else os.listxattr(fd)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOENT):
            return {}
        raise
    kept = sorted(name for name in names if _is_recorded(name))
    follow = {"follow_symlinks": False} if isinstance(fd, str) else {}
    return {name: os.getxattr(fd, name, **follow) for name in kept}


def _is_recorded(name: str) -> bool:
    if name.startswith(_OVERLAY_XATTRS):
        return False
    return name == "security.capability" or name.startswith("user.") or name in _ACLS


class _Walk:
    """One pass over a tree into a tar."""

    def __init__(self, tar: TarWriter, clamp: Clamp, drop: frozenset[bytes], *, overlay: bool) -> None:
        self.tar = tar
        self.clamp = clamp
        self.drop = drop
        self.overlay = overlay
        self.links: dict[tuple[int, int], bytes] = {}
        self.sockets: list[str] = []

    def run(self, root: int) -> tuple[str, ...]:
        self.directory(root, b"")
        self.tar.close()
        return tuple(self.sockets)

    def directory(self, fd: int, prefix: bytes) -> None:
        """Everything in the directory `fd`, whose path is `prefix` (empty, or with a slash at its end)."""
        if self.overlay and prefix and _is_opaque(fd):
            self.tar.add(TarEntry(prefix + OPAQUE, REGULAR, mode=0o600, mtime=self.clamp(0)))
        with os.scandir(fd) as found:
            entries = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
        entries.sort()
        for name, info in entries:
            path = prefix + name
            if self.drop and b"/" + path in self.drop:
                continue
            self.entry(fd, name, path, info)

    def entry(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFREG:
            self.regular(parent, name, path, info)
        elif kind == stat.S_IFDIR:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self.tar.add(self.header(path + b"/", DIRECTORY, info, xattrs=xattrs_of(fd)))
                self.directory(fd, path + b"/")
            finally:
                os.close(fd)
        elif kind == stat.S_IFCHR and info.st_rdev == 0 and self.overlay:
            head, _, tail = path.rpartition(b"/")
            whiteout = (head + b"/" if head else b"") + WHITEOUT + tail
            self.tar.add(TarEntry(whiteout, REGULAR, mode=0o600, mtime=self.clamp(0)))
        elif kind == stat.S_IFSOCK:
            self.sockets.append("/" + os.fsdecode(path))
        elif not self.linked(path, info):
            self.special(parent, name, path, info, kind)

    def special(self, parent: int, name: bytes, path: bytes, info: os.stat_result, kind: int) -> None:
        where = f"/proc/self/fd/{parent}/{os.fsdecode(name)}"
        xattrs = xattrs_of(where)
        if kind == stat.S_IFLNK:
            link = os.readlink(name, dir_fd=parent)
            self.tar.add(self.header(path, SYMBOLIC_LINK, info, link=link, xattrs=xattrs, mode=0o777))
        elif kind == stat.S_IFIFO:
            self.tar.add(self.header(path, FIFO, info, xattrs=xattrs))
        else:
            number = CHARACTER if kind == stat.S_IFCHR else BLOCK
            device = (os.major(info.st_rdev), os.minor(info.st_rdev))
            self.tar.add(self.header(path, number, info, device=device, xattrs=xattrs))

    def regular(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        if self.linked(path, info):
            return
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self.tar.add(self.header(path, REGULAR, info, size=info.st_size, xattrs=xattrs_of(fd)))
            left = info.st_size
            while left:
                data = os.read(fd, min(left, FLUSH))
                if not data:
                    raise CorruptContent(f"file shrank while it was read: /{os.fsdecode(path)}")
                self.tar.data(data)
                left -= len(data)
            self.tar.pad(info.st_size)
        finally:
            os.close(fd)

    def linked(self, path: bytes, info: os.stat_result) -> bool:
        """Write a hard link when this inode has been written already."""
        if info.st_nlink < 2:
            return False
        first = self.links.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        self.tar.add(self.header(path, HARD_LINK, info, link=first))
        return True

    def header(
        self,
        path: bytes,
        kind: bytes,
        info: os.stat_result,
        *,
        size: int = 0,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        xattrs: Mapping[str, bytes] | None = None,
        mode: int | None = None,
    ) -> TarEntry:
        return TarEntry(
            path,
            kind,
            size,
            info.st_mode & 0o7777 if mode is None else mode,
            info.st_uid,
            info.st_gid,
            self.clamp(info.st_mtime_ns // 10**9),
            link,
            *device,
            xattrs or {},
        )


def _is_opaque(fd: int) -> bool:
    for name in _OPAQUE_XATTRS:
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


class Fingerprint(NamedTuple):
    """What tells whether a path of a flat tree was changed since it was recorded."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int


def fingerprints(root: int) -> dict[bytes, Fingerprint]:
    """Every path below `root`, without a leading slash, and what tells of its changes."""
    found: dict[bytes, Fingerprint] = {}
    for path, info in _iter_tree(root, b""):
        found[path] = _fingerprint(info)
    return found


def _fingerprint(info: os.stat_result) -> Fingerprint:
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    return Fingerprint(info.st_mode, info.st_uid, info.st_gid, size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


def _iter_tree(fd: int, prefix: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(fd) as found:
        entries = sorted((os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found)
    for name, info in entries:
        yield prefix + name, info
        if stat.S_ISDIR(info.st_mode):
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                yield from _iter_tree(child, prefix + name + b"/")
            finally:
                os.close(child)


def diff_trees(
    before: Mapping[bytes, Fingerprint],
    root: int,
    sink: Writable,
    *,
    clamp: Clamp = AS_IS,
    drop: Collection[str] = (),
) -> tuple[str, ...]:
    """Write what changed in a flat tree since `before` was recorded, deletions as whiteouts; paths of sockets."""
    walk = _Changes(TarWriter(sink), clamp, frozenset(map(os.fsencode, drop)), before)
    return walk.run(root)


class _Changes(_Walk):
    """A walk that writes only what differs from `before`, and directories that hold something that does."""

    def __init__(
        self, tar: TarWriter, clamp: Clamp, drop: frozenset[bytes], before: Mapping[bytes, Fingerprint]
    ) -> None:
        super().__init__(tar, clamp, drop, overlay=False)
        self.before = before
        self.children: dict[bytes, set[bytes]] = {}
        for path in before:
            head, _, tail = path.rpartition(b"/")
            self.children.setdefault(head, set()).add(tail)

    def directory(self, fd: int, prefix: bytes) -> None:
        with os.scandir(fd) as found:
            entries = {os.fsencode(entry.name): entry.stat(follow_symlinks=False) for entry in found}
        gone = self.children.get(prefix.rstrip(b"/"), set()) - entries.keys()
        for name in sorted(entries.keys() | gone):
            path = prefix + name
            if b"/" + path in self.drop:
                continue
            if name in gone:
                self.tar.add(TarEntry(prefix + WHITEOUT + name, REGULAR, mode=0o600, mtime=self.clamp(0)))
            else:
                self.entry(fd, name, path, entries[name])

    def entry(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        known = self.before.get(path)
        if not stat.S_ISDIR(info.st_mode):
            if known != _fingerprint(info):
                super().entry(parent, name, path, info)
            elif info.st_nlink > 1:
                self.links.setdefault((info.st_dev, info.st_ino), path)
            return
        same = known is not None and known[:3] == _fingerprint(info)[:3] and known.mtime_ns == info.st_mtime_ns
        if same:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self.directory(fd, path + b"/")
            finally:
                os.close(fd)
        else:
            super().entry(parent, name, path, info)


class Applied(NamedTuple):
    """What unpacking a layer did: entries and content bytes."""

    entries: int
    bytes: int


def unpack_blob(
    source: Readable,
    compression: ArchiveCompression,
    root: int,
    *,
    diff_id: Digest | None,
    whiteouts: Whiteouts,
    userxattr: bool = False,
    limits: Limits = NO_LIMITS,
) -> Applied:
    """Unpack a stored layer into the directory `root`; CorruptContent unless its tar is `diff_id`.

    Reading and decompressing run ahead on one thread, hashing on another. What was unpacked before an error stays;
    the caller throws the directory away.
    """
    from builda.fs.compress import decompressing
    from builda.fs.pipeline import Ahead, Hashing

    ahead = Ahead(decompressing(source, compression))
    hashing = Hashing(ahead)
    try:
        applied = apply(hashing, root, whiteouts=whiteouts, userxattr=userxattr, limits=limits)
        found = hashing.digest()
    finally:
        hashing.stop()
        ahead.stop()
    if diff_id is not None and found != diff_id:
        raise CorruptContent(f"layer unpacks to {found}, but the image configuration promises {diff_id}")
    return applied


def apply(
    source: Readable,
    root: int,
    *,
    whiteouts: Whiteouts,
    userxattr: bool = False,
    limits: Limits = NO_LIMITS,
) -> Applied:
    """Unpack an uncompressed layer into the directory `root`, reading `source` to its end.

    `overlay`: `root` is this layer's own directory, and deletions become overlay's. `plain`: `root` holds the layers
    below, and deletions are done. Nothing is written outside `root`, whatever the archive says.
    """
    unpacker = _Unpacker(root, whiteouts, "user.overlay.opaque" if userxattr else "trusted.overlay.opaque")
    count = total = 0
    try:
        for member in iter_members(source, limits):
            count += 1
            total += member.entry.size
            unpacker.member(member.entry, member.content)
        unpacker.finish()
    finally:
        unpacker.close()
    return Applied(count, total)


def extract(
    source: Readable, root: int, *, uid: int | None = None, gid: int | None = None, limits: Limits = NO_LIMITS
) -> Applied:
    """Unpack an ordinary archive into the directory `root`, as ADD does: `.wh.` names mean nothing special.

    `uid` and `gid` replace the recorded owners.
    """
    unpacker = _Unpacker(root, None, "")
    count = total = 0
    try:
        for member in iter_members(source, limits):
            count += 1
            total += member.entry.size
            entry = member.entry
            if uid is not None or gid is not None:
                entry = entry._replace(uid=uid or 0, gid=gid or 0)
            unpacker.member(entry, member.content)
        unpacker.finish()
    finally:
        unpacker.close()
    return Applied(count, total)


class _Unpacker:
    """Makes the entries of one layer. The last parent directory stays open, as entries come sorted."""

    def __init__(self, root: int, whiteouts: Whiteouts | None, opaque: str) -> None:
        self.root = root
        self.whiteouts = whiteouts
        self.opaque = opaque
        self.parent_path: bytes | None = None
        self.parent = -1
        self.made: set[bytes] = set()  # this layer's own paths, which its whiteouts do not hide
        self.times: dict[bytes, tuple[int, int]] = {}  # directories get theirs last: their entries change them

    def close(self) -> None:
        if self.parent >= 0:
            os.close(self.parent)
        self.parent, self.parent_path = -1, None

    def member(self, entry: TarEntry, content: Content) -> None:
        path = _clean(entry.name)
        if path == b"":
            if entry.type == DIRECTORY:
                self.directory_attributes(self.root, entry, path)
            return
        head, _, name = path.rpartition(b"/")
        parent = self.open_parent(head)
        if self.whiteouts is not None and name.startswith(WHITEOUT):
            self.whiteout(parent, head, name)
            return
        try:
            self.make(parent, name, path, entry, content)
        except OSError as error:
            text = f"cannot unpack {os.fsdecode(path)!r}: {error.strerror}"
            if error.errno == errno.EPERM and entry.type in (CHARACTER, BLOCK):
                raise CorruptContent(text, hint="device nodes need CAP_MKNOD in the initial user namespace") from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES):
                raise
            raise CorruptContent(text) from error
        self.made.add(path)

    def finish(self) -> None:
        """The times of directories, deepest first."""
        for path in sorted(self.times, reverse=True):
            try:
                fd = paths.open_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:  # replaced by something else later in the layer
                continue
            try:
                os.utime(fd, ns=self.times[path])
            finally:
                os.close(fd)

    def open_parent(self, head: bytes) -> int:
        if head == self.parent_path:
            return self.parent
        self.close()
        try:
            self.parent = paths.open_in_root(self.root, head, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            self.make_parents(head)
            self.parent = paths.open_in_root(self.root, head, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise CorruptContent(f"cannot unpack below {os.fsdecode(head)!r}: {error.strerror}") from error
        self.parent_path = head
        return self.parent

    def make_parents(self, head: bytes) -> None:
        """Directories that the layer forgot to list; a file in the way gives way."""
        done = b""
        for part in head.split(b"/"):
            with paths.parent_of(self.root, done + b"/" + part) as (parent, name):
                info = paths.stat_in_root(self.root, done + b"/" + part)
                if info is None or not stat.S_ISDIR(info.st_mode):
                    paths.remove_tree(parent, name)
                    os.mkdir(name, 0o755, dir_fd=parent)
            done += b"/" + part

    def whiteout(self, parent: int, head: bytes, name: bytes) -> None:
        if name == OPAQUE:
            if self.whiteouts == "overlay":
                if head:
                    os.setxattr(parent, self.opaque, b"y")
            else:
                self.empty_old(parent, head)
            return
        if name.startswith(b".wh..wh."):
            return  # AUFS's own bookkeeping, which layer.md tells to ignore
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise CorruptContent(f"whiteout of no file: {os.fsdecode(head)}/{os.fsdecode(name)}")
        path = head + b"/" + hidden if head else hidden
        if path in self.made:
            if self.whiteouts == "overlay":
                self.make_opaque(parent, hidden)
        elif self.whiteouts == "plain":
            paths.remove_tree(parent, hidden)
        else:
            paths.remove_tree(parent, hidden)
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)

    def make_opaque(self, parent: int, name: bytes) -> None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except NotADirectoryError:
            return  # a file hides what is below it anyhow
        try:
            os.setxattr(fd, self.opaque, b"y")
        finally:
            os.close(fd)

    def empty_old(self, parent: int, head: bytes) -> None:
        for name in map(os.fsencode, os.listdir(parent)):
            path = head + b"/" + name if head else name
            if path not in self.made and not any(made.startswith(path + b"/") for made in self.made):
                paths.remove_tree(parent, name)

    def make(self, parent: int, name: bytes, path: bytes, entry: TarEntry, content: Content) -> None:
        existing = _lstat(parent, name)
        if entry.type == DIRECTORY:
            self.directory(parent, name, path, entry, existing)
            return
        if existing is not None:
            if stat.S_ISDIR(existing.st_mode):
                self.close()  # it may be below what goes
                with paths.parent_of(self.root, path) as (again, _):
                    paths.remove_tree(again, name)
                parent = self.open_parent(path.rpartition(b"/")[0])
            else:
                os.unlink(name, dir_fd=parent)
        if entry.type == REGULAR:
            self.regular(parent, name, entry, content)
        elif entry.type == HARD_LINK:
            self.hard_link(parent, name, entry)
        else:
            self.special(parent, name, entry)

    def directory(
        self, parent: int, name: bytes, path: bytes, entry: TarEntry, existing: os.stat_result | None
    ) -> None:
        opaque = existing is not None and stat.S_ISCHR(existing.st_mode) and existing.st_rdev == 0
        if existing is not None and not stat.S_ISDIR(existing.st_mode):
            os.unlink(name, dir_fd=parent)
            existing = None
        if existing is None:
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            self.directory_attributes(fd, entry, path)
            if opaque and self.whiteouts == "overlay":
                os.setxattr(fd, self.opaque, b"y")
        finally:
            os.close(fd)

    def directory_attributes(self, fd: int, entry: TarEntry, path: bytes) -> None:
        _attributes(fd, entry)
        self.times[path] = (entry.mtime_ns, entry.mtime_ns)

    def regular(self, parent: int, name: bytes, entry: TarEntry, content: Content) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            _write_content(fd, entry.size, content)
            _attributes(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def hard_link(self, parent: int, name: bytes, entry: TarEntry) -> None:
        target = _clean(entry.link)
        with paths.parent_of(self.root, target) as (directory, old):
            info = _lstat(directory, old)
            if info is None or stat.S_ISDIR(info.st_mode):
                raise CorruptContent(f"hard link to what is not in the layer: {os.fsdecode(entry.link)!r}")
            os.link(old, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)

    def special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        if entry.type == SYMBOLIC_LINK:
            if not entry.link:
                raise CorruptContent(f"symbolic link without a target: {os.fsdecode(entry.name)!r}")
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.type == FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.type in (CHARACTER, BLOCK):
            if entry.type == CHARACTER and entry.major == entry.minor == 0 and self.whiteouts == "overlay":
                raise CorruptContent(f"character device 0:0, which is overlay's whiteout: {os.fsdecode(entry.name)!r}")
            kind = stat.S_IFCHR if entry.type == CHARACTER else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        else:
            raise CorruptContent(f"tar entry of unknown type {entry.type!r}: {os.fsdecode(entry.name)!r}")
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.type != SYMBOLIC_LINK:
            os.chmod(name, entry.mode, dir_fd=parent)
        where = f"/proc/self/fd/{parent}/{os.fsdecode(name)}"
        _set_xattrs(lambda key, value: os.setxattr(where, key, value, follow_symlinks=False), entry)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)


def _clean(name: bytes) -> bytes:
    """The path without a leading slash or dots; CorruptContent when it climbs out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise CorruptContent(f"archive entry leads out of its root: {os.fsdecode(name)!r}")
            parts.pop()
            continue
        if len(part) > 255:
            raise CorruptContent(f"file name is longer than 255 bytes: {os.fsdecode(part[:60])!r}…")
        parts.append(part)
    return b"/".join(parts)


def _lstat(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _attributes(fd: int, entry: TarEntry) -> None:
    """Owner first: chown(2) clears setuid bits and capabilities."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    if entry.xattrs:
        _set_xattrs(lambda key, value: os.setxattr(fd, key, value), entry)


def _set_xattrs(setter: Callable[[str, bytes], None], entry: TarEntry) -> None:
    for key, value in entry.xattrs.items():
        if not _is_recorded(key):
            continue  # SELinux labels and the like belong to the host, overlay's to the kernel
        try:
            setter(key, value)
        except OSError as error:
            if error.errno != errno.ENOTSUP or key == "security.capability":
                raise


_ZERO_BLOCK = bytes(65536)


def _write_content(fd: int, size: int, content: Content) -> None:
    """The file's bytes; blocks of zeros become holes."""
    pieces = content.sparse if content.sparse is not None else ((0, size),)
    has_hole = content.sparse is not None
    for offset, length in pieces:
        os.lseek(fd, offset, os.SEEK_SET)
        while length:
            data = content.read(min(length, FLUSH))
            length -= len(data)
            if len(data) >= len(_ZERO_BLOCK) and data.count(0) == len(data):
                os.lseek(fd, len(data), os.SEEK_CUR)
                has_hole = True
                continue
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
    if has_hole:
        os.ftruncate(fd, size)
