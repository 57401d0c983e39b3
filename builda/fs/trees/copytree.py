"""COPY and ADD: files and trees from source roots into a destination root, and what they hold as one digest.

One walk serves both: `copy_tree` hashes what it copies, `content_digest` hashes without copying, and they agree. All is
done by descriptor; links in the destination are followed inside its root, links in the sources are copied as links.
Semantics are those of BuildKit and Buildah (Dockerfile reference, "COPY"); where they differ a comment says which.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress

from builda.errors import AlreadyExists, InvalidValue
from builda.fs import content, nodes, owners, paths, standin, xattrs
from builda.fs.glob import glob
from builda.fs.ignore import Matcher
from builda.fs.modes import parse_mode
from builda.fs.sources import NOTHING, Filter, Rules, Source, Top, clean, resolve
from builda.oci.digest import Digest, Hasher, sha256
from builda.values import NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from builda.fs.modes import Mode

__all__ = [
    "CopyRequest",
    "CopyResult",
    "FileKey",
    "Source",
    "content_digest",
    "content_size",
    "copy_tree",
    "file_key",
    "glob",
    "parse_mode",
]

FileKey: TypeAlias = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds: while they are the same, so is the content of a file."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_DIRECTORY
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class CopyRequest(NamedTuple):
    """What to copy where, and what the copies shall look like.

    `destination` is a path inside the destination root; one that ends in `/`, an existing directory, and several files
    mean a directory. `owner` None keeps the owners (directories that have to be made above the destination are 0:0
    then), `mode` None the modes, `timestamp` None the times. `made_mode` is the mode of directories that have to be
    made. `excludes` are --exclude patterns, relative to the
    source's root or to the directory copied. `link` (--link) replaces links on the way instead of following them.
    """

    sources: tuple[Source, ...]
    destination: str
    owner: tuple[int, int] | None = None
    mode: Mode | None = None
    made_mode: int = 0o755
    timestamp: int | None = None
    excludes: tuple[str, ...] = ()
    parents: bool = False
    link: bool = False
    follow_symlinks: bool = True
    wildcards: bool = True
    allow_empty_wildcard: bool = False

    @property
    def rules(self) -> Rules:
        """How the sources are read."""
        return Rules(self.parents, self.follow_symlinks, self.wildcards, self.allow_empty_wildcard)


class CopyResult(NamedTuple):
    """What was copied: the digest of what the sources hold, regular files and their bytes.

    `made` are directories that had to be made above the copies, `skipped` the sources' sockets, which no image holds.
    """

    digest: Digest
    files: int
    bytes: int
    made: tuple[str, ...]
    skipped: tuple[str, ...]


def copy_tree(
    request: CopyRequest,
    root: int,
    *,
    remembered: MutableMapping[FileKey, bytes] | None = None,
    moved: content.Moved | None = None,
) -> CopyResult:
    """Copy the sources into the root directory `root`. NotFound before anything is written when one names nothing.

    AlreadyExists when a file would replace a directory or a directory a file; what was copied until then stays.
    `remembered` gets the digests of the files, for `content_digest`; `moved` is told of bytes as they are copied.
    """
    tops = resolve(request.sources, request.rules)
    placer = Placer(request, root, several=len(tops) > 1)
    copying = _Copying(request, root, moved)
    walk = Walk(request, copying, {} if remembered is None else remembered)
    for top in tops:
        place = placer.place(top)
        try:
            copying.where[place.parent] = place.path
            walk.top(top, place)
        finally:
            os.close(place.parent)
    placer.finish(copying)
    return CopyResult(walk.digest(), walk.files, walk.bytes, tuple(placer.made), tuple(walk.skipped))


def content_digest(
    request: CopyRequest,
    *,
    remembered: MutableMapping[FileKey, bytes] | None = None,
    moved: content.Moved | None = None,
) -> Digest:
    """The digest that `copy_tree` would give; nothing is written and no destination needed.

    It covers names, types, modes, links, attributes and contents, and owners if they are kept; never times, nor what
    --chown and --chmod make of it. Files found in `remembered` are not opened; those read are added to it, and `moved`
    is told of their bytes.
    """
    walk = Walk(request, _Hashing(moved), {} if remembered is None else remembered)
    for top in resolve(request.sources, request.rules):
        walk.top(top, _Place(NOWHERE, b"", b""))
    return walk.digest()


def content_size(request: CopyRequest) -> int:
    """The bytes of the regular files that `copy_tree` would copy; a file with several names counts once."""
    walk = _Measuring(request, _Hashing(None), {})
    for top in resolve(request.sources, request.rules):
        walk.top(top, _Place(NOWHERE, b"", b""))
    return walk.bytes


def file_key(info: os.stat_result) -> FileKey:
    """What `remembered` calls a file."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


NOWHERE = -1
"""In place of a directory descriptor where nothing is written. Lower numbers are directories in a list."""


class _Place(NamedTuple):
    """Where a top goes: `name` in the directory `parent`, which is `path` in its root.

    A directory's contents go right into `parent`.
    """

    parent: int
    name: bytes
    path: bytes


class _Level(NamedTuple):
    """A directory being walked: the entries left, and its counterpart; `info` is None for the top."""

    prefix: bytes
    relative: str
    target: int
    entries: Iterator[tuple[bytes, str, os.stat_result]]
    info: os.stat_result | None
    values: Mapping[str, bytes]

    def close(self) -> None:
        if self.target >= 0:
            os.close(self.target)


def _listed(fd: int) -> Iterator[tuple[bytes, str, os.stat_result]]:
    with os.scandir(fd) as found:
        entries = [(os.fsencode(entry.name), entry.name, entry.stat(follow_symlinks=False)) for entry in found]
    entries.sort(key=_name)
    return iter(entries)


def _name(entry: tuple[bytes, str, os.stat_result]) -> bytes:
    return entry[0]


class _Target(Protocol):
    """What is done with what the walk meets. Descriptors of directories that `enter` gives are closed by the walk."""

    reads_all: bool

    def enter(self, parent: int, name: bytes) -> int: ...
    def leave(self, fd: int, info: os.stat_result, values: Mapping[str, bytes]) -> None: ...
    def regular(
        self, source: int, parent: int, name: bytes, info: os.stat_result, values: Mapping[str, bytes]
    ) -> bytes: ...
    def special(
        self, parent: int, name: bytes, info: os.stat_result, link: bytes, values: Mapping[str, bytes]
    ) -> None: ...
    def linked(self, parent: int, name: bytes, inode: tuple[int, int]) -> bool: ...


class Walk:
    """One pass over the sources, sorted, that feeds a digest and a target."""

    def __init__(self, request: CopyRequest, target: _Target, remembered: MutableMapping[FileKey, bytes]) -> None:
        self.target = target
        self.remembered = remembered
        self.keeps_owners = request.owner is None
        self.excludes = Matcher.of(request.excludes)
        self.hasher = Hasher()
        self.links: dict[tuple[int, int], bytes] = {}
        self.skipped: list[str] = []
        self.aside = owners.keeps_aside()
        self.files = self.bytes = 0
        self.ignore = NOTHING
        self.root_prefix = ""
        self.filter: Filter | None = None
        self.avoid: tuple[int, int] | None = None

    def digest(self) -> Digest:
        """Of everything walked so far."""
        return self.hasher.digest()

    def top(self, top: Top, place: _Place) -> None:
        """A directory's contents, or a file."""
        self.ignore = top.source.ignore
        self.root_prefix = f"{top.path}/" if top.path else ""
        needed = self.ignore or self.excludes
        self.filter = Filter(self.ignore, self.excludes, self.root_prefix) if needed else None
        label = os.fsencode(top.kept or top.name)
        if top.kept:
            self.parents(top)
        if top.is_directory:
            self.top_directory(top, os.fsencode(f"{top.kept}/") if top.kept else b"", place)
        elif self.excludes.excludes(top.path, top.name):
            return
        elif stat.S_ISLNK(top.info.st_mode):
            with paths.parent_of(top.source.root, top.path) as (parent, name):
                self.other(parent, name, label, place.parent, place.name, top.info)
        else:
            self.top_file(top, label, place)

    def parents(self, top: Top) -> None:
        """With --parents the directories above a top are copied too."""
        for source, kept in parents_of(top):
            fd = paths.open_in_root(top.source.root, source, _OPEN)
            try:
                self.record(b"p", os.fsencode(kept), os.fstat(fd), xattrs.recorded(fd))
            finally:
                os.close(fd)

    def top_directory(self, top: Top, prefix: bytes, place: _Place) -> None:
        fd = paths.open_in_root(top.source.root, top.path, _OPEN)
        try:
            if place.parent >= 0:
                here = os.fstat(place.parent)
                self.avoid = (here.st_dev, here.st_ino)
            self.record(b"d", prefix, top.info, xattrs.recorded(fd))
            self.directory(fd, prefix, place.parent)
        finally:
            os.close(fd)

    def top_file(self, top: Top, label: bytes, place: _Place) -> None:
        if stat.S_ISSOCK(top.info.st_mode):
            self.skipped.append(os.fsdecode(label))
            return
        if not stat.S_ISREG(top.info.st_mode):
            self.special(label, place.parent, place.name, top.info, b"", {})
            return
        met = self.is_met_again(label, top.info)
        if self.linked(place.parent, place.name, top.info) if met else self.is_known(label, top.info):
            return
        fd = paths.open_regular(top.source.root, top.path)
        try:
            self.regular(fd, label, place.parent, place.name, os.fstat(fd), recorded=met)
        finally:
            os.close(fd)

    def directory(self, fd: int, prefix: bytes, target: int) -> None:
        """What the directory `fd` holds; `prefix` is its name in the digest. The stack is ours: trees may be deep."""
        stack = [_Level(prefix, "", target, _listed(fd), None, {})]
        try:
            with paths.Descent(fd) as at:
                while stack:
                    if (inner := self.entries(at, stack[-1])) is not None:
                        stack.append(inner)
                        continue
                    level = stack[-1]
                    if level.info is not None:
                        self.target.leave(level.target, level.info, level.values)
                        at.leave()
                        level.close()
                    stack.pop()
        finally:
            for level in stack[1:]:
                level.close()

    def entries(self, at: paths.Descent, level: _Level) -> _Level | None:
        """What is left of a directory: the next one inside, gone into, or None when it is done."""
        for name, text, info in level.entries:
            if self.filter is not None and self.filter.leaves_out(at.fd, level.relative + text, text, info):
                continue
            if stat.S_ISREG(info.st_mode):
                self.file(at.fd, name, level.prefix + name, level.target, info)
            elif not stat.S_ISDIR(info.st_mode):
                self.other(at.fd, name, level.prefix + name, level.target, name, info)
            elif (info.st_dev, info.st_ino) != self.avoid:  # a destination inside the source is not copied into itself
                return self.entered(at, level, name, text, info)
        return None

    def entered(self, at: paths.Descent, level: _Level, name: bytes, text: str, info: os.stat_result) -> _Level:
        at.enter(name)
        prefix = level.prefix + name + b"/"
        values = xattrs.recorded(at.fd)
        self.record(b"d", prefix, info, values)
        entries = _listed(at.fd)
        target = self.target.enter(level.target, name)
        return _Level(prefix, f"{level.relative}{text}/", target, entries, info, values)

    def file(self, parent: int, name: bytes, label: bytes, target: int, info: os.stat_result) -> None:
        met = self.is_met_again(label, info)
        if self.linked(target, name, info) if met else self.is_known(label, info):
            return
        try:
            fd = os.open(name, _READ, dir_fd=parent)
        except OSError as error:
            shown = os.fsdecode(label).removeprefix(self.root_prefix)  # --parents has it in front
            error.filename = self.root_prefix + shown  # the whole way, not the last name alone
            raise
        try:
            self.regular(fd, label, target, name, info, recorded=met)
        finally:
            os.close(fd)

    def is_known(self, label: bytes, info: os.stat_result) -> bool:
        """Record a file whose digest is remembered, when nothing but the digest is wanted."""
        known = None if self.target.reads_all else self.remembered.get(file_key(info))
        if known is not None:
            self.recorded_file(label, info, known)
        return known is not None

    def regular(self, fd: int, label: bytes, target: int, name: bytes, info: os.stat_result, *, recorded: bool) -> None:
        values = xattrs.recorded(fd)
        digest = self.target.regular(fd, target, name, info, values)
        if recorded:
            return
        if values:  # part of what is remembered: setting one changes the ctime
            digest = sha256(digest + _packed(values))
        self.remembered[file_key(info)] = digest
        self.recorded_file(label, info, digest)

    def recorded_file(self, label: bytes, info: os.stat_result, digest: bytes) -> None:
        self.files += 1
        self.bytes += info.st_size
        self.record(b"f", label, info, {}, digest)

    def is_met_again(self, label: bytes, info: os.stat_result) -> bool:
        """Whether the file was met before under another name; if so, that is recorded of it."""
        if info.st_nlink == 1:
            return False
        first = self.links.setdefault((info.st_dev, info.st_ino), label)
        if first == label:
            return False
        self.hasher.update(b"h\0%b\0%b\0" % (label, first))
        return True

    def linked(self, target: int, name: bytes, info: os.stat_result) -> bool:
        """Whether it could be linked to what it became under the other name: that may have been replaced since."""
        return self.target.linked(target, name, (info.st_dev, info.st_ino))

    def other(self, parent: int, name: bytes, label: bytes, target: int, new_name: bytes, info: os.stat_result) -> None:
        """A link, device or fifo; sockets are skipped."""
        if stat.S_ISSOCK(info.st_mode):
            self.skipped.append(os.fsdecode(label))
            return
        link = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(info.st_mode) else b""
        values = owners.values_of(parent, name) if self.aside else xattrs.recorded(xattrs.place_of(parent, name))
        self.special(label, target, new_name, info, link, values)

    def special(
        self,
        label: bytes,
        target: int,
        name: bytes,
        info: os.stat_result,
        link: bytes,
        values: Mapping[str, bytes],
    ) -> None:
        self.target.special(target, name, info, link, values)
        self.record(b"%o" % stat.S_IFMT(info.st_mode), label, info, values, link or b"%d" % info.st_rdev)

    def record(
        self, kind: bytes, label: bytes, info: os.stat_result, values: Mapping[str, bytes], extra: bytes = b""
    ) -> None:
        """Feed the digest: every field ends in NUL or follows its length."""
        mode = 0 if stat.S_ISLNK(info.st_mode) else info.st_mode & 0o7777
        owner = b"%d:%d" % (info.st_uid, info.st_gid) if self.keeps_owners else b""
        packed = _packed(values) if values else b""
        fields = (kind, label, mode, owner, len(packed), packed, len(extra), extra)
        self.hasher.update(b"%b\0%b\0%o\0%b\0%d\0%b%d\0%b" % fields)


class _Measuring(Walk):
    """A pass that opens no files."""

    def top_file(self, top: Top, label: bytes, place: _Place) -> None:
        if stat.S_ISREG(top.info.st_mode):
            self.file(place.parent, place.name, label, NOWHERE, top.info)

    def file(self, parent: int, name: bytes, label: bytes, target: int, info: os.stat_result) -> None:
        if not self.is_met_again(label, info):
            self.bytes += info.st_size

    def other(
        self, parent: int, name: bytes, label: bytes, target: int, new_name: bytes, info: os.stat_result
    ) -> None: ...


def _packed(values: Mapping[str, bytes]) -> bytes:
    return b"".join(b"%b=%d=%b" % (os.fsencode(name), len(value), value) for name, value in values.items())


class _Hashing:
    """The target that only wants digests."""

    reads_all = False

    def __init__(self, moved: content.Moved | None) -> None:
        self.moved = moved

    def enter(self, parent: int, name: bytes) -> int:
        return NOWHERE

    def leave(self, fd: int, info: os.stat_result, values: Mapping[str, bytes]) -> None: ...

    def regular(
        self, source: int, parent: int, name: bytes, info: os.stat_result, values: Mapping[str, bytes]
    ) -> bytes:
        return content.copy_hashed(source, None, info, self.moved)

    def special(
        self, parent: int, name: bytes, info: os.stat_result, link: bytes, values: Mapping[str, bytes]
    ) -> None: ...

    def linked(self, parent: int, name: bytes, inode: tuple[int, int]) -> bool:
        return True


_Inode: TypeAlias = tuple[int, int]
_Name: TypeAlias = tuple[int, int, bytes]


class _Copying:
    """The target that writes copies. `where` are the paths, in the root, of the directories that are open."""

    reads_all = True

    def __init__(self, request: CopyRequest, root: int, moved: content.Moved | None = None) -> None:
        self.root = root
        self.moved = moved
        self.owner = request.owner
        self.aside = owners.keeps_aside()
        self.mode = request.mode
        self.link = request.link
        self.time = None if request.timestamp is None else (request.timestamp * 10**9,) * 2
        self.where: dict[int, bytes] = {}
        self.copies: dict[_Inode, dict[_Name, bytes]] = {}  # of a file with several links: the names and where they are
        self.copied: dict[_Name, _Inode] = {}

    def enter(self, parent: int, name: bytes) -> int:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            fd = self.existing(parent, name)
        else:
            fd = os.open(name, _DIRECTORY, dir_fd=parent)
        self.where[fd] = self.where[parent] + b"/" + name
        return fd

    def existing(self, parent: int, name: bytes) -> int:
        """The directory that is there already, or that a link there leads to inside the root."""
        path = self.where[parent] + b"/" + name
        kind = stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        if kind == stat.S_IFDIR:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        if self.link:
            self.make_way(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
            return os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            return paths.open_in_root(self.root, path, _OPEN)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
                raise
            raise in_the_way(path, "directory", "file") from error

    def leave(self, fd: int, info: os.stat_result, values: Mapping[str, bytes]) -> None:
        self.attributes(fd, info, values)

    def regular(
        self, source: int, parent: int, name: bytes, info: os.stat_result, values: Mapping[str, bytes]
    ) -> bytes:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self.make_way(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            if info.st_nlink > 1:
                self.copies[info.st_dev, info.st_ino] = {}
                self.note_copy(parent, name, (info.st_dev, info.st_ino))
            digest = content.copy_hashed(source, fd, info, self.moved)
            self.attributes(fd, info, values)
        except BaseException:
            with suppress(OSError):  # the first error counts
                os.unlink(name, dir_fd=parent)  # half a file would look like a whole one
            raise
        finally:
            os.close(fd)
        return digest

    def attributes(self, fd: int, info: os.stat_result, values: Mapping[str, bytes]) -> None:
        """Owner first: chown(2) clears set-id bits and capabilities. Times last."""
        mode = info.st_mode & 0o7777
        owner = self.owner_of(info, values)
        owners.fchown(fd, *owner)
        os.fchmod(fd, mode if self.mode is None else self.mode(mode, stat.S_ISDIR(info.st_mode)))
        if values:
            xattrs.write(fd, self.kept(values))
            if self.aside and standin.device_of(values) is not None:
                os.setxattr(fd, standin.XATTR, standin.owned(values[standin.XATTR], *owner, mode))
        os.utime(fd, ns=self.time or (info.st_mtime_ns, info.st_mtime_ns))

    def owner_of(self, info: os.stat_result, values: Mapping[str, bytes]) -> tuple[int, int]:
        if self.owner is not None:
            return self.owner
        return owners.seen(info, values) if self.aside else (info.st_uid, info.st_gid)

    def kept(self, values: Mapping[str, bytes]) -> Mapping[str, bytes]:
        """The attributes to copy; without access ACLs with --chmod, because an ACL contains a mode of its own."""
        if self.aside:
            values = owners.without(values)
        return values if self.mode is None else {name: values[name] for name in values if name not in xattrs.ACLS}

    def special(self, parent: int, name: bytes, info: os.stat_result, link: bytes, values: Mapping[str, bytes]) -> None:
        try:
            self.make_special(parent, name, info, link)
        except FileExistsError:
            self.make_way(parent, name)
            self.make_special(parent, name, info, link)
        mode, owner = info.st_mode & 0o7777, self.owner_of(info, values)
        mode = mode if self.mode is None else self.mode(mode, False)
        time = self.time[0] if self.time else info.st_mtime_ns
        try:
            nodes.dress(parent, name, stat.S_IFMT(info.st_mode), nodes.Looks(owner, mode, self.kept(values), time))
        except OSError as error:
            owners.explain(error, *owner)
            raise

    def make_special(self, parent: int, name: bytes, info: os.stat_result, link: bytes) -> None:
        if link:
            os.symlink(link, name, dir_fd=parent)
        else:
            kind, device = stat.S_IFMT(info.st_mode), (os.major(info.st_rdev), os.minor(info.st_rdev))
            try:
                os.mknod(name, kind | 0o600, info.st_rdev, dir_fd=parent)
            except PermissionError:
                if kind not in (stat.S_IFCHR, stat.S_IFBLK):
                    raise
                standin.make(parent, name, kind, device, (info.st_uid, info.st_gid), info.st_mode)

    def linked(self, parent: int, name: bytes, inode: tuple[int, int]) -> bool:
        if self.name_of(parent, name) in self.copies[inode]:
            return True
        with suppress(FileNotFoundError):
            self.make_way(parent, name)
        copies = self.copies[inode]
        if not copies:
            return False
        with paths.parent_of(self.root, next(iter(copies.values()))) as (directory, old):
            os.link(old, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        self.note_copy(parent, name, inode)
        return True

    def name_of(self, parent: int, name: bytes) -> _Name:
        """A name by its directory itself, to which several paths may lead."""
        info = os.fstat(parent)
        return info.st_dev, info.st_ino, name

    def note_copy(self, parent: int, name: bytes, inode: tuple[int, int]) -> None:
        known = self.name_of(parent, name)
        self.copies[inode][known] = self.where[parent] + b"/" + name
        self.copied[known] = inode

    def forget_copies(self, prefix: bytes) -> None:
        """Those below a directory are gone; with --link, which goes through no link, there is one path to each."""
        for inode, copies in self.copies.items():
            self.copies[inode] = {known: path for known, path in copies.items() if not path.startswith(prefix)}
        self.copied = {known: inode for known, inode in self.copied.items() if known in self.copies[inode]}

    def make_way(self, parent: int, name: bytes) -> None:
        """Remove what a file replaces. Links are replaced, not written through: they may be the image's traps."""
        if self.copied:
            known = self.name_of(parent, name)
            inode = self.copied.pop(known, None)
            if inode is not None:
                self.copies[inode].pop(known, None)
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(name, dir_fd=parent)
        elif self.link:
            paths.remove_tree(parent, name)
            self.forget_copies(self.where[parent] + b"/" + name + b"/")
        else:
            raise in_the_way(self.where[parent] + b"/" + name, "file", "directory")


def in_the_way(path: bytes, new: str, old: str) -> AlreadyExists:
    return AlreadyExists(f"cannot replace a {old} with a {new}: /{os.fsdecode(path).lstrip('/')}")


def parents_of(top: Top) -> list[tuple[str, str]]:
    """With --parents: the directories above a top that are kept, as (path in the source root, kept path)."""
    parts = top.kept.split("/")[:-1]
    base = top.path.removesuffix(top.kept)
    return [(base + "/".join(parts[:count]), "/".join(parts[:count])) for count in range(1, len(parts) + 1)]


class Placer:
    """Finds where tops go, and makes the directories they need.

    BuildKit's rules: what has to be made above a copy belongs to --chown's owner; a directory made to take another's
    contents looks like that one; one that was there keeps its looks.
    """

    def __init__(self, request: CopyRequest, root: int, *, several: bool) -> None:
        if not request.destination:
            raise InvalidValue("copy needs a destination")
        self.request = request
        self.root = root
        self.destination = clean(request.destination)
        ends = request.destination.endswith(("/", "/.")) or request.destination == "."
        self.is_directory = ends or several or request.parents or self.is_there()
        self.made: list[str] = []
        self.times: dict[str, int] = {}  # of directories that were there, by path
        self.like: dict[str, tuple[int, str]] = {}  # directories made here, and the source's that they shall look like

    def is_there(self) -> bool:
        look = paths.lstat_in_root if self.request.link else paths.stat_in_root
        info = look(self.root, self.destination)
        return info is not None and stat.S_ISDIR(info.st_mode)

    def place(self, top: Top) -> _Place:
        """Where `top` goes; the caller closes the descriptor."""
        directory, name = self.split(top)
        new = {path.lstrip("/") for path in self.make(directory)}
        self.made += sorted(new)
        pairs = [(source, f"{self.destination}/{kept}".lstrip("/")) for source, kept in parents_of(top)]
        if top.is_directory:
            pairs.append((top.path, directory))
        self.like.update({path: (top.source.root, source) for source, path in pairs if path in new})
        return _Place(self.open(directory), os.fsencode(name), os.fsencode(directory))

    def open(self, directory: str) -> int:
        return paths.open_in_root(self.root, directory, _OPEN)

    def split(self, top: Top) -> tuple[str, str]:
        """The directory and the name in it, "" for a directory's contents."""
        if self.request.parents:
            path = clean(f"{self.destination}/{top.kept}")
            return (path, "") if top.is_directory else _split(path)
        if top.is_directory:
            return self.destination, ""
        if not self.is_directory:
            return _split(self.destination)
        if "/" in top.name or top.name in ("", ".", ".."):
            raise InvalidValue(f"not a file name: {top.name!r}")
        return self.destination, top.name

    def make(self, directory: str) -> tuple[str, ...]:
        uid, gid = self.request.owner or (0, 0)
        mode, mtime = self.request.made_mode, self.made_time
        self.keep_time(directory)
        try:
            return paths.make_directories(
                self.root, directory, mode=mode, uid=uid, gid=gid, mtime=mtime, replace=self.request.link
            )
        except NotADirectoryError as error:
            raise AlreadyExists(
                f"cannot make a directory where a file is: /{directory}",
                hint="a destination that ends in / is a directory",
            ) from error

    @property
    def made_time(self) -> int | None:
        """The time of directories that are made; None for now. A layer of --link is the same whenever it is made."""
        return 0 if self.request.timestamp is None and self.request.link else self.request.timestamp

    def keep_time(self, directory: str) -> None:
        """With --link, remember the time of the deepest directory on the way that is there: no layer holds it then."""
        if not self.request.link:
            return
        path = directory
        info = paths.lstat_in_root(self.root, path)
        while path and (info is None or not stat.S_ISDIR(info.st_mode)):
            path = _split(path)[0]
            info = paths.lstat_in_root(self.root, path)
        if info is not None and path not in self.made:
            self.times.setdefault(path, info.st_mtime_ns)

    def finish(self, copying: _Copying) -> None:
        """The looks of the directories that were made, deepest first, as their entries changed their times."""
        self.made_looks(copying)
        for path, time in self.times.items():
            with suppress(FileNotFoundError, NotADirectoryError):  # replaced by a later source
                fd = paths.open_in_root(self.root, path, _OPEN)
                if os.fstat(fd).st_mtime_ns != time:  # to set it anyhow would be a change to the layer
                    os.utime(fd, ns=(time, time))
                os.close(fd)

    def made_looks(self, copying: _Copying) -> None:
        for path in sorted(self.made, reverse=True):
            fd = paths.open_in_root(self.root, path, _OPEN)
            try:
                if path in self.like:
                    self.look_like(fd, *self.like[path], copying)
                elif self.made_time is not None:
                    os.utime(fd, (self.made_time, self.made_time))
            finally:
                os.close(fd)

    def look_like(self, fd: int, source_root: int, source: str, copying: _Copying) -> None:
        model = paths.open_in_root(source_root, source, _OPEN)
        try:
            copying.attributes(fd, os.fstat(model), xattrs.recorded(model))
        finally:
            os.close(model)


def _split(path: str) -> tuple[str, str]:
    head, _, tail = path.rpartition("/")
    return head, tail
