"""A layer, or an archive, to a tree. What is in it is hostile: all is done by descriptor, nothing leaves the root.

Directories on the way to an entry are resolved by the kernel inside the root; the entry itself is never followed.
Order within a layer does not matter for whiteouts: they hide what is below the layer, never what it holds itself.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from builda.errors import BuildaError, CorruptContent, Unsupported
from builda.fs import nodes, owners, paths, standin, xattrs
from builda.fs.content import HOLE, write_all, write_sparse
from builda.fs.tar import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FLUSH,
    HARD_LINK,
    NO_LIMITS,
    REGULAR,
    SYMBOLIC_LINK,
    Content,
    Limits,
    TarEntry,
    clean,
    iter_members,
    shown,
)
from builda.fs.whiteouts import OPAQUE, WHITEOUT, hidden_by
from builda.linux.userns import unmapped
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal, TypeAlias

    from builda.oci.digest import Readable

Whiteouts: TypeAlias = "Literal['overlay', 'files', 'plain']"

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLLOW_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {SYMBOLIC_LINK: stat.S_IFLNK, FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}
_MACHINE = frozenset(
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTSUP, errno.ENOSYS),
    ]
)
"""What is wrong with the machine, not with the archive."""


class Applied(NamedTuple):
    """Result of unpacking: the number of entries and of bytes of content.

    `implied`: directories that the archive uses and does not list (see `inherit_directories`).
    `skipped`: names of extended attributes that could not be kept here.
    `hides_all`: the layer hides every layer below it. Overlayfs cannot express that, so the caller leaves those out.
    `hidden`: paths that whiteouts hide (see `drop_idle_whiteouts`).
    """

    entries: int
    bytes: int
    implied: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    hides_all: bool = False
    hidden: tuple[str, ...] = ()


def apply(
    source: Readable, root: int, *, whiteouts: Whiteouts, userxattr: bool = False, limits: Limits = NO_LIMITS
) -> Applied:
    """Unpack an uncompressed layer into the directory `root`, reading `source` to its end.

    `overlay`: `root` is this layer's own directory, and deletions become overlay's; with `files` they stay the files
    that an archive has for them, as fuse-overlayfs wants it. `plain`: `root` holds the layers below, and deletions are
    done. CorruptContent, naming the entry, for what is malformed or leads out of the root; what was unpacked until then
    stays.
    """
    if whiteouts == "plain":
        return _unpack(source, _Flat(root, b""), limits)
    if whiteouts == "files":
        return _unpack(source, _Files(root, b""), limits)
    return _unpack(
        source, _Overlay(root, b"", "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"), limits
    )


def extract(
    source: Readable,
    root: int,
    directory: paths.Path = b"",
    *,
    owner: tuple[int, int] | None = None,
    timestamp: int | None = None,
    keep_top: bool = False,
    limits: Limits = NO_LIMITS,
) -> Applied:
    """Unpack an ordinary archive into `directory`, which exists inside `root`, as ADD does.

    `.wh.` names mean nothing special, and links to directories that are there already are kept and followed inside the
    root. `owner` and `timestamp` replace what is recorded. With `keep_top` the directory itself keeps its looks,
    whatever the archive's own root has.
    """
    time_ns = None if timestamp is None else timestamp * 10**9
    return _unpack(source, _Extracting(root, os.fsencode(directory).strip(b"/"), owner, time_ns, keep_top), limits)


def inherit_directories(root: int, lowers: Sequence[int], implied: Sequence[str]) -> None:
    """Make the directories that a layer did not list look as in the layers below, the topmost first in `lowers`.

    Without that a layer that holds only `root/x` would make /root readable by all. Needed once all lower layers are
    unpacked; for a flat tree never.
    """
    for path in sorted(map(os.fsencode, implied), reverse=True):
        for lower in lowers:
            model = _directory_in(lower, path)
            if model is not None:
                try:
                    _look_like(root, model, path)
                finally:
                    os.close(model)
            if model is not None or _shows(lower, path) is not None:  # what is further below does not show
                break


def drop_idle_whiteouts(root: int, lowers: Sequence[int], hidden: Sequence[str]) -> None:
    """Remove whiteouts of what no lower layer shows: in a directory of one layer alone overlay would list their names.

    Needed once all lower layers are unpacked, the topmost first in `lowers`.
    """
    for path in map(os.fsencode, hidden):
        head, _, name = path.rpartition(b"/")
        with suppress(OSError):  # links that lead in a circle by now
            head = paths.resolved(root, head)  # the layer's own links were followed
        directory = _directory_in(root, head)
        if directory is None:
            continue  # replaced later in the layer
        try:
            whiteout = _lstat(directory, name)
            if whiteout is None or not _is_whiteout(whiteout):
                continue
            if _is_cut_off(root, head) or not _is_shown(lowers, head + b"/" + name if head else name):
                time = os.fstat(directory).st_mtime_ns
                os.unlink(name, dir_fd=directory)
                os.utime(directory, ns=(time, time))
        finally:
            os.close(directory)


def _is_shown(lowers: Sequence[int], path: bytes) -> bool:
    return next((found for lower in lowers if (found := _shows(lower, path)) is not None), False)


def _shows(layer: int, path: bytes) -> bool | None:
    """Whether the layer has `path` (True), hides what lower layers have there (False), or says nothing of it (None)."""
    head, _, name = path.rpartition(b"/")
    cut_off = False
    fd = os.dup(layer)
    try:
        for part in head.split(b"/") if head else ():
            inner = _child(fd, part)
            if inner is None:
                return False if cut_off or _lstat(fd, part) or _lstat(fd, WHITEOUT + part) else None
            os.close(fd)
            fd = inner
            cut_off = cut_off or xattrs.is_opaque(fd)
        info = _lstat(fd, name)
        if info is not None:
            return not _is_whiteout(info)
        return False if cut_off or _lstat(fd, WHITEOUT + name) else None
    finally:
        os.close(fd)


def _is_cut_off(layer: int, path: bytes) -> bool:
    """Whether nothing of lower layers shows in the layer's directory `path`, as it or one above it is opaque."""
    fd = os.dup(layer)
    try:
        for part in path.split(b"/") if path else ():
            inner = _child(fd, part)
            if inner is None:
                return False
            os.close(fd)
            fd = inner
            if xattrs.is_opaque(fd):
                return True
        return False
    finally:
        os.close(fd)


def _child(parent: int, name: bytes) -> int | None:
    """A descriptor of the directory `name` in `parent`; None if it is missing or no directory."""
    try:
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return None


def _directory_in(layer: int, path: bytes) -> int | None:
    """A descriptor of the layer's own directory `path`, to which no link leads; None when it has none."""
    fd = os.dup(layer)
    for part in path.split(b"/") if path else ():
        try:
            inner = _child(fd, part)
        finally:
            os.close(fd)
        if inner is None:
            return None
        fd = inner
    return fd


def _look_like(root: int, model: int, path: bytes) -> None:
    fd = _directory_in(root, path)
    if fd is None:
        return  # replaced later in the layer
    try:
        info = os.fstat(model)
        owners.give(fd, info.st_uid, info.st_gid)
        os.fchmod(fd, info.st_mode & 0o7777)
        values = xattrs.recorded(model)  # an owner that is kept aside among them
        values.pop(owners.NAMED, None)
        xattrs.write(fd, values)
        os.utime(fd, ns=(info.st_mtime_ns, info.st_mtime_ns))
    finally:
        os.close(fd)


def _unpack(source: Readable, unpacker: _Unpacker, limits: Limits) -> Applied:
    count = total = 0
    try:
        for entry, content in iter_members(source, limits):
            count += 1
            total += entry.size
            unpacker.member(entry, content)
        unpacker.finish()
    finally:
        unpacker.close()
    implied = tuple(os.fsdecode(path) for path in sorted(unpacker.implied))
    hidden = tuple(os.fsdecode(path) for path in sorted(unpacker.hidden))
    return Applied(count, total, implied, tuple(sorted(unpacker.skipped)), unpacker.hides_all, hidden)


class _Unpacker:
    """Makes the entries of one archive. The last parent directory stays open, as entries come sorted."""

    def __init__(self, root: int, base: bytes) -> None:
        self.root = root
        self.base = base  # where in the root entries go, "" or a path
        self.parent_path: bytes | None = None
        self.parent = -1
        self.times: dict[bytes, int] = {}  # directories get theirs last: their entries change them
        self.implied: set[bytes] = set()
        self.skipped: set[str] = set()
        self.hides_all = False
        self.hidden: set[bytes] = set()

    def close(self) -> None:
        if self.parent >= 0:
            os.close(self.parent)
        self.parent, self.parent_path = -1, None

    def member(self, entry: TarEntry, content: Content) -> None:
        path = self.located(_clean(entry.name))
        try:
            if path == self.base:
                self.top(entry)
                return
            head, _, name = path.rpartition(b"/")
            parent = self.open_parent(head)
            if not self.marker(parent, head, name):
                self.make(parent, name, path, entry, content)
                self.made(path)
        except OSError as error:
            if error.errno in _MACHINE:
                raise
            raise _failure(entry, error) from error

    def located(self, path: bytes) -> bytes:
        return path if not self.base else self.base + b"/" + path if path else self.base

    def marker(self, parent: int, head: bytes, name: bytes) -> bool:
        """Whether the entry was a whiteout, and is done."""
        return False

    def made(self, path: bytes) -> None:
        """The archive holds `path`."""

    def top(self, entry: TarEntry) -> None:
        """The archive's own root."""
        if entry.type == DIRECTORY:
            fd = paths.open_in_root(self.root, self.base, _FOLLOW_DIRECTORY)
            try:
                self.directory_attributes(fd, entry, self.base)
            finally:
                os.close(fd)

    def finish(self) -> None:
        """The times of directories, deepest first."""
        self.close()
        for path in sorted(self.times, reverse=True):
            try:
                fd = paths.open_in_root(self.root, path, _OPEN_DIRECTORY if path else _FOLLOW_DIRECTORY)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # replaced later in the archive
                    continue
                raise
            try:
                os.utime(fd, ns=(self.times[path], self.times[path]))
            finally:
                os.close(fd)

    def open_parent(self, head: bytes) -> int:
        if head == self.parent_path:
            return self.parent
        self.close()
        try:
            self.parent = paths.open_in_root(self.root, head, _FOLLOW_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            self.make_parents(head)
            self.parent = paths.open_in_root(self.root, head, _FOLLOW_DIRECTORY)
        self.parent_path = head
        self.parent_opened(head)
        return self.parent

    def parent_opened(self, head: bytes) -> None:
        """A directory is about to be changed."""

    def make_parents(self, head: bytes) -> None:
        """Directories that the archive forgot to list, where links lead to them; a file in the way gives way."""
        done = b""
        for part in paths.resolved(self.root, head).split(b"/"):
            done = done + b"/" + part if done else part
            info = paths.lstat_in_root(self.root, done)
            if info is not None and stat.S_ISDIR(info.st_mode):
                continue
            with paths.parent_of(self.root, done) as (parent, name):
                paths.remove_tree(parent, name)
                paths.make_directory(parent, name, 0o755)
            self.implied.add(done)
            self.times[done] = 0  # not now: equal layers make equal trees
            self.made(done)

    def make(self, parent: int, name: bytes, path: bytes, entry: TarEntry, content: Content) -> None:
        if entry.type == REGULAR:
            self.regular(parent, name, entry, content)
        elif entry.type == DIRECTORY:
            self.directory(parent, name, path, entry)
        elif entry.type == HARD_LINK:
            self.hard_link(parent, name, entry)
        else:
            self.special(parent, name, entry)

    def make_way(self, parent: int, name: bytes) -> None:
        """Remove what an entry replaces."""
        paths.remove_tree(parent, name)

    def directory(self, parent: int, name: bytes, path: bytes, entry: TarEntry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
            fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except FileExistsError:
            fd = self.existing_directory(parent, name, path)
            owners.own(fd)
        try:
            self.implied.discard(path)
            self.directory_attributes(fd, entry, path)
        finally:
            os.close(fd)

    def existing_directory(self, parent: int, name: bytes, path: bytes) -> int:
        """The directory `name`, merged with what it holds; anything else gives way."""
        try:
            return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o700, dir_fd=parent)
        return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)

    def directory_attributes(self, fd: int, entry: TarEntry, path: bytes) -> None:
        self.attributes(fd, entry)
        self.times[path] = self.time_of(entry)

    def regular(self, parent: int, name: bytes, entry: TarEntry, content: Content) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self.make_way(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            _write_content(fd, entry.size, content)
            self.attributes(fd, entry)
            time = self.time_of(entry)
            os.utime(fd, ns=(time, time))
        finally:
            os.close(fd)

    def hard_link(self, parent: int, name: bytes, entry: TarEntry) -> None:
        target = self.located(_clean(entry.link))
        try:
            directory, old = paths.open_parent(self.root, target)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.no_target(entry) from error
        try:
            info = _lstat(directory, old)
            if info is None or stat.S_ISDIR(info.st_mode) or _is_whiteout(info):
                raise self.no_target(entry)
            there = _lstat(parent, name)
            if there is not None and (there.st_dev, there.st_ino) == (info.st_dev, info.st_ino):
                return
            if there is not None:
                self.make_way(parent, name)
            os.link(old, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def no_target(self, entry: TarEntry) -> CorruptContent:
        return CorruptContent(f"hard link {shown(entry.name)} to what is not there: {shown(entry.link)}")

    def special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        try:
            self.make_special(parent, name, entry)
        except FileExistsError:
            self.make_way(parent, name)
            self.make_special(parent, name, entry)
        looks = nodes.Looks(self.owner_of(entry), entry.mode, entry.xattrs, self.time_of(entry))
        self.skipped.update(nodes.dress(parent, name, _KINDS[entry.type], looks))

    def make_special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        if entry.type == SYMBOLIC_LINK:
            if not entry.link:
                raise CorruptContent(f"symbolic link without a target: {shown(entry.name)}")
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.type == FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif entry.type in (CHARACTER, BLOCK):
            kind = _KINDS[entry.type]
            try:
                os.mknod(name, kind | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
            except PermissionError:
                standin.make(parent, name, kind, (entry.major, entry.minor), self.owner_of(entry), entry.mode)
        else:
            raise CorruptContent(f"tar entry of unknown type {entry.type!r}: {shown(entry.name)}")

    def attributes(self, fd: int, entry: TarEntry) -> None:
        """Owner first: chown(2) clears set-id bits and capabilities."""
        owners.give(fd, *self.owner_of(entry))
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self.skipped.update(xattrs.write(fd, entry.xattrs))

    def owner_of(self, entry: TarEntry) -> tuple[int, int]:
        return entry.uid, entry.gid

    def time_of(self, entry: TarEntry) -> int:
        return entry.mtime_ns


class _Layer(_Unpacker):
    """A layer in a directory of its own: what is there, is this layer's."""

    def hide(self, parent: int, name: bytes) -> None:
        """What lower layers call `name` is deleted."""
        raise NotImplementedError

    def is_hidden(self, parent: int, name: bytes) -> bool:
        """Whether `hide` was called for it."""
        raise NotImplementedError

    def make_opaque(self, fd: int) -> None:
        """The directory hides what is below it."""
        raise NotImplementedError

    def marker(self, parent: int, head: bytes, name: bytes) -> bool:
        hidden = hidden_by(head, name)
        if hidden is None:
            return False
        if hidden == OPAQUE:
            if head:
                self.make_opaque(parent)
            else:
                self.hides_all = True
        elif hidden and not self.made_opaque(parent, hidden):
            self.hide(parent, hidden)
            self.hidden.add(head + b"/" + hidden if head else hidden)
        return True

    def made_opaque(self, parent: int, name: bytes) -> bool:
        """Whether the layer holds `name` itself: as a directory it then hides the one below, a file does anyhow."""
        info = _lstat(parent, name)
        if info is None:
            return False
        if stat.S_ISDIR(info.st_mode):
            self.make_opaque_at(parent, name)
        return True

    def make_opaque_at(self, parent: int, name: bytes) -> None:
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            self.make_opaque(fd)
        finally:
            os.close(fd)

    def make_parents(self, head: bytes) -> None:
        hidden = self.whiteouts_above(head)
        super().make_parents(head)
        for path in hidden:
            with paths.parent_of(self.root, path) as (parent, name):
                self.make_opaque_at(parent, name)

    def whiteouts_above(self, head: bytes) -> list[bytes]:
        parts = paths.resolved(self.root, head).split(b"/")
        found = []
        for step in (b"/".join(parts[: count + 1]) for count in range(len(parts))):
            try:
                with paths.parent_of(self.root, step) as (parent, name):
                    if self.is_hidden(parent, name):
                        found.append(step)
            except (FileNotFoundError, NotADirectoryError):
                break
        return found


class _Overlay(_Layer):
    """A layer for the kernel's overlay."""

    def __init__(self, root: int, base: bytes, opaque: str) -> None:
        super().__init__(root, base)
        self.opaque = opaque

    def hide(self, parent: int, name: bytes) -> None:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)

    def is_hidden(self, parent: int, name: bytes) -> bool:
        info = _lstat(parent, name)
        return info is not None and _is_whiteout(info)

    def make_opaque(self, fd: int) -> None:
        os.setxattr(fd, self.opaque, b"y")

    def existing_directory(self, parent: int, name: bytes, path: bytes) -> int:
        hidden = self.is_hidden(parent, name)
        fd = super().existing_directory(parent, name, path)
        if hidden:
            self.make_opaque(fd)
        return fd

    def make_special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        if entry.type == CHARACTER and entry.major == entry.minor == 0:
            raise CorruptContent(f"character device 0:0, which is overlay's whiteout: {shown(entry.name)}")
        super().make_special(parent, name, entry)


class _Files(_Layer):
    """A layer for fuse-overlayfs, where no whiteout of overlay's can be made, as on an overlay."""

    def __init__(self, root: int, base: bytes) -> None:
        super().__init__(root, base)
        self.hides = False

    def hide(self, parent: int, name: bytes) -> None:
        _make_mark(parent, WHITEOUT + name)
        self.hides = True

    def is_hidden(self, parent: int, name: bytes) -> bool:
        return self.hides and _lstat(parent, WHITEOUT + name) is not None

    def make_opaque(self, fd: int) -> None:
        _make_mark(fd, OPAQUE)

    def make(self, parent: int, name: bytes, path: bytes, entry: TarEntry, content: Content) -> None:
        super().make(parent, name, path, entry, content)
        if self.is_hidden(parent, name):
            self.reveal(parent, name)

    def make_parents(self, head: bytes) -> None:
        hidden = self.whiteouts_above(head)
        super().make_parents(head)
        for path in hidden:
            with paths.parent_of(self.root, path) as (parent, name):
                os.unlink(WHITEOUT + name, dir_fd=parent)

    def reveal(self, parent: int, name: bytes) -> None:
        """The layer holds `name` after all, in place of what it deletes."""
        os.unlink(WHITEOUT + name, dir_fd=parent)
        self.made_opaque(parent, name)

    def make_special(self, parent: int, name: bytes, entry: TarEntry) -> None:
        if entry.type == CHARACTER and entry.major == entry.minor == 0:
            raise CorruptContent(f"character device 0:0, which is overlay's whiteout: {shown(entry.name)}")
        super().make_special(parent, name, entry)


def _make_mark(parent: int, name: bytes) -> None:
    with suppress(FileExistsError):
        os.close(os.open(name, _CREATE, 0o600, dir_fd=parent))


class _Flat(_Unpacker):
    """A layer over the layers below it in one tree."""

    def __init__(self, root: int, base: bytes) -> None:
        super().__init__(root, base)
        self.own: dict[bytes, set[bytes]] = {}  # by directory, the names that the layer holds, listed or implied

    def made(self, path: bytes) -> None:
        while path:
            head, _, name = path.rpartition(b"/")
            names = self.own.setdefault(head, set())
            if name in names:
                return
            names.add(name)
            path = head

    def parent_opened(self, head: bytes) -> None:
        """A directory that the layer does not list keeps its time, as it would under overlay."""
        if head not in self.times:
            self.times[head] = os.fstat(self.parent).st_mtime_ns

    def marker(self, parent: int, head: bytes, name: bytes) -> bool:
        hidden = hidden_by(head, name)
        if hidden is None:
            return False
        if hidden == OPAQUE:
            self.purge(parent, head)
        elif hidden:
            self.remove(parent, head + b"/" + hidden if head else hidden, hidden)
        return True

    def remove(self, parent: int, path: bytes, name: bytes) -> None:
        """Remove `name` as far as it comes from the layers below."""
        if name not in self.own.get(path.rpartition(b"/")[0], ()):
            paths.remove_tree(parent, name)
            return
        fd = _child(parent, name)
        if fd is not None:
            try:
                self.purge(fd, path)
            finally:
                os.close(fd)

    def purge(self, directory: int, path: bytes) -> None:
        """The same of all that the directory at `path` holds."""
        with paths.Descent(directory) as at:
            stack = [(path, os.listdir(at.fd))]
            while stack:
                here, names = stack[-1]
                if not names:
                    stack.pop()
                    if stack:
                        at.leave()
                    continue
                name = os.fsencode(names.pop())
                if name not in self.own.get(here, ()):
                    paths.remove_tree(at.fd, name)
                elif (info := _lstat(at.fd, name)) is not None and stat.S_ISDIR(info.st_mode):
                    at.enter(name)
                    stack.append((here + b"/" + name if here else name, os.listdir(at.fd)))


class _Extracting(_Unpacker):
    """An ordinary archive into a tree that may have links to directories."""

    def __init__(
        self, root: int, base: bytes, owner: tuple[int, int] | None, time_ns: int | None, keep_top: bool
    ) -> None:
        super().__init__(root, base)
        self.keep_top = keep_top
        self.owner = owner
        self.time_ns = time_ns

    def existing_directory(self, parent: int, name: bytes, path: bytes) -> int:
        info = paths.stat_in_root(self.root, path)
        if info is not None and stat.S_ISDIR(info.st_mode):
            return paths.open_in_root(self.root, path, _FOLLOW_DIRECTORY)
        return super().existing_directory(parent, name, path)

    def top(self, entry: TarEntry) -> None:
        if not self.keep_top:
            super().top(entry)

    def owner_of(self, entry: TarEntry) -> tuple[int, int]:
        return self.owner or (entry.uid, entry.gid)

    def time_of(self, entry: TarEntry) -> int:
        return entry.mtime_ns if self.time_ns is None else self.time_ns

    def make_parents(self, head: bytes) -> None:
        super().make_parents(head)
        if self.owner is not None or self.time_ns is not None:
            for path in self.implied:
                self.times[path] = self.time_ns or 0


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _clean(name: bytes) -> bytes:
    """The path of `name` as `tar.clean` has it; CorruptContent when a part is longer than a file's name can be."""
    path = clean(name)
    for part in path.split(b"/"):
        if len(part) > 255:
            raise CorruptContent(f"file name is longer than 255 bytes: {shown(part[:60])}…")
    return path


def _lstat(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _failure(entry: TarEntry, error: OSError) -> BuildaError:
    text = f"cannot unpack {shown(entry.name)}: {error.strerror}"
    if error.errno == errno.EPERM:
        return Unsupported(text, hint="keeping owners and attributes needs root, or a user namespace with its ids")
    if error.errno == errno.EINVAL:
        lacking = unmapped(entry.uid, entry.gid)
        if lacking is not None:
            return Unsupported(text, hint=lacking)
    return CorruptContent(text)


def _write_content(fd: int, size: int, content: Content) -> None:
    """The file's bytes; long zeros become holes."""
    if content.sparse is None:
        if size < HOLE:
            while data := content.read(FLUSH):
                write_all(fd, data)
            return
        pieces: tuple[tuple[int, int], ...] = ((0, size),)
        has_hole = False
    else:
        pieces, has_hole = content.sparse, True
    for offset, length in pieces:
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        while length:
            data = content.read(min(length, FLUSH))
            length -= len(data)
            has_hole |= write_sparse(fd, data)
    if has_hole:
        os.ftruncate(fd, size)
