"""COPY's sources, walked once: what they hold as one digest, and whatever a visitor does with it.

`copytree` is the visitor that copies; `content_digest` has one that only reads, and the digests agree. Links in the
sources are met as links.
"""

from __future__ import annotations

import os
import stat

from builda.errors import InvalidValue
from builda.fs import content, owners, paths, xattrs
from builda.fs.ignore import Matcher
from builda.fs.sources import NOTHING, Filter, Rules, Source, Top, resolve
from builda.oci.digest import Digest, Hasher, sha256
from builda.values import Generic, NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping
    from typing import TypeAlias, TypeVar

    from builda.fs.chmod import Mode
    from builda.fs.trees.target import Inode

    P = TypeVar("P")

FileKey: TypeAlias = tuple[int, int, int, int, int]
"""Device, inode, size, mtime and ctime in nanoseconds: while they are the same, so is the content of a file."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class CopyRequest(NamedTuple):
    """The sources and the destination of a copy, and the owners, modes and times of the copies.

    `destination` is a path inside the destination root; one that ends in `/`, an existing directory, and several files
    mean a directory. `owner` None keeps the owners (directories that have to be made above the destination are 0:0
    then), `mode` None the modes, `timestamp` None the times. `made_mode` is the mode of directories that have to be
    made. `excludes` are --exclude patterns, relative to the source's root or to the directory copied. `link` (--link)
    replaces links on the way instead of following them. `never` are directories that no copy may hold: the store's own.
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
    never: frozenset[Inode] = frozenset()

    @property
    def rules(self) -> Rules:
        """The options of resolving the sources."""
        return Rules(self.parents, self.follow_symlinks, self.wildcards, self.allow_empty_wildcard)


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
    walk = Walk(request, _Hashing(moved), remembered)
    for top in resolve(request.sources, request.rules):
        walk.top(top, None, b"")
    return walk.digest()


def content_size(request: CopyRequest) -> int:
    """The bytes of the regular files that `copy_tree` would copy; a file with several names counts once."""
    walk = _Measuring(request, _Hashing(None))
    for top in resolve(request.sources, request.rules):
        walk.top(top, None, b"")
    return walk.bytes


def file_key(info: os.stat_result) -> FileKey:
    """The key of a file in `remembered`."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


class Visitor(Protocol["P"]):
    """The calls that a walk makes for what it meets. `P` is an open destination of a directory, until `close`."""

    reads_all: bool

    def enter(self, parent: P, name: bytes) -> P: ...
    def leave(self, place: P, info: os.stat_result, values: Mapping[str, bytes]) -> None: ...
    def close(self, place: P) -> None: ...
    def identity(self, place: P) -> Inode | None: ...
    def regular(
        self, source: int, parent: P, name: bytes, info: os.stat_result, values: Mapping[str, bytes]
    ) -> bytes: ...
    def special(
        self, parent: P, name: bytes, info: os.stat_result, link: bytes, values: Mapping[str, bytes]
    ) -> None: ...
    def linked(self, parent: P, name: bytes, inode: Inode) -> bool: ...


class _Level(NamedTuple, Generic["P"]):
    """A directory being walked: the entries left, and the place of its copy; `info` is None for the top."""

    prefix: bytes
    relative: str
    place: P
    entries: Iterator[tuple[bytes, str, os.stat_result]]
    info: os.stat_result | None
    values: Mapping[str, bytes]


def _listed(fd: int) -> Iterator[tuple[bytes, str, os.stat_result]]:
    with os.scandir(fd) as found:
        entries = [(os.fsencode(entry.name), entry.name, entry.stat(follow_symlinks=False)) for entry in found]
    entries.sort(key=_name)
    return iter(entries)


def _name(entry: tuple[bytes, str, os.stat_result]) -> bytes:
    return entry[0]


class Walk(Generic["P"]):
    """One pass over the sources, sorted, that feeds a digest and a visitor."""

    def __init__(
        self, request: CopyRequest, visitor: Visitor[P], remembered: MutableMapping[FileKey, bytes] | None = None
    ) -> None:
        self.visitor = visitor
        self.remembered = remembered
        self.keeps_owners = request.owner is None
        self.excludes = Matcher.of(request.excludes)
        self.hasher = Hasher()
        self.links: dict[Inode, bytes] = {}
        self.skipped: list[str] = []
        self.never = request.never
        self.aside = owners.keeps_aside()
        self.files = self.bytes = 0
        self.ignore = NOTHING
        self.root_prefix = ""
        self.filter: Filter | None = None
        self.left_out: list[str] = []
        self.avoid: Inode | None = None

    def digest(self) -> Digest:
        """Of everything walked so far."""
        return self.hasher.digest()

    def top(self, top: Top, place: P, name: bytes) -> None:
        """A directory's contents, which go right into `place`, or a file, which is called `name` there."""
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
            with paths.parent_of(top.source.root, top.path) as (parent, old):
                self.other(parent, old, label, place, name, top.info)
        else:
            self.top_file(top, label, place, name)

    def parents(self, top: Top) -> None:
        """With --parents the directories above a top are copied too."""
        for source, kept in parents_of(top):
            fd = paths.open_in_root(top.source.root, source, _OPEN)
            try:
                self.record(b"p", os.fsencode(kept), os.fstat(fd), xattrs.recorded(fd))
            finally:
                os.close(fd)

    def top_directory(self, top: Top, prefix: bytes, place: P) -> None:
        if (top.info.st_dev, top.info.st_ino) in self.never:
            raise InvalidValue(f"a directory of the store cannot be copied: {top.path or '.'}")
        fd = paths.open_in_root(top.source.root, top.path, _OPEN)
        try:
            self.avoid = self.visitor.identity(place)
            self.record(b"d", prefix, top.info, xattrs.recorded(fd))
            self.directory(fd, prefix, place)
        finally:
            os.close(fd)

    def top_file(self, top: Top, label: bytes, place: P, name: bytes) -> None:
        if stat.S_ISSOCK(top.info.st_mode):
            self.skipped.append(os.fsdecode(label))
            return
        if not stat.S_ISREG(top.info.st_mode):
            self.special(label, place, name, top.info, b"", {})
            return
        met = top.info.st_nlink > 1 and self.is_met_again(label, top.info)
        if self.linked(place, name, top.info) if met else self.is_known(label, top.info):
            return
        fd = paths.open_regular(top.source.root, top.path)
        try:
            self.regular(fd, label, place, name, os.fstat(fd), recorded=met)
        finally:
            os.close(fd)

    def directory(self, fd: int, prefix: bytes, place: P) -> None:
        """What the directory `fd` holds; `prefix` is its name in the digest. The stack is ours: trees may be deep."""
        stack = [_Level(prefix, "", place, _listed(fd), None, {})]
        try:
            with paths.Descent(fd) as at:
                while stack:
                    if (inner := self.entries(at, stack[-1])) is not None:
                        stack.append(inner)
                        continue
                    level = stack[-1]
                    if level.info is not None:
                        self.visitor.leave(level.place, level.info, level.values)
                        at.leave()
                        self.visitor.close(level.place)
                    stack.pop()
        finally:
            for level in stack[1:]:
                self.visitor.close(level.place)

    def entries(self, at: paths.Descent, level: _Level[P]) -> _Level[P] | None:
        """Visit the entries that are left, up to the next directory, which is entered and returned; None at the end."""
        for name, text, info in level.entries:
            if self.filter is not None and self.filter.leaves_out(at.fd, level.relative + text, text, info):
                continue
            if stat.S_ISREG(info.st_mode):
                self.file(at.fd, name, level.prefix + name, level.place, info)
            elif not stat.S_ISDIR(info.st_mode):
                self.other(at.fd, name, level.prefix + name, level.place, name, info)
            elif (inode := (info.st_dev, info.st_ino)) in self.never:
                self.left_out.append(os.fsdecode(level.prefix + name))
            elif inode != self.avoid:  # a destination inside the source is not copied into itself
                return self.entered(at, level, name, text, info)
        return None

    def entered(self, at: paths.Descent, level: _Level[P], name: bytes, text: str, info: os.stat_result) -> _Level[P]:
        at.enter(name)
        prefix = level.prefix + name + b"/"
        values = xattrs.recorded(at.fd)
        self.record(b"d", prefix, info, values)
        entries = _listed(at.fd)
        place = self.visitor.enter(level.place, name)
        return _Level(prefix, f"{level.relative}{text}/", place, entries, info, values)

    def file(self, parent: int, name: bytes, label: bytes, place: P, info: os.stat_result) -> None:
        met = info.st_nlink > 1 and self.is_met_again(label, info)
        if self.linked(place, name, info) if met else self.is_known(label, info):
            return
        try:
            fd = os.open(name, _READ, dir_fd=parent)
        except OSError as error:
            shown = os.fsdecode(label).removeprefix(self.root_prefix)  # --parents has it in front
            error.filename = self.root_prefix + shown  # the whole way, not the last name alone
            raise
        try:
            self.regular(fd, label, place, name, info, recorded=met)
        finally:
            os.close(fd)

    def is_known(self, label: bytes, info: os.stat_result) -> bool:
        """Record a file whose digest is remembered, when nothing but the digest is wanted."""
        if self.visitor.reads_all or self.remembered is None:
            return False
        known = self.remembered.get(file_key(info))
        if known is None:
            return False
        self.recorded_file(label, info, known)
        return True

    def regular(self, fd: int, label: bytes, place: P, name: bytes, info: os.stat_result, *, recorded: bool) -> None:
        values = xattrs.recorded(fd)
        digest = self.visitor.regular(fd, place, name, info, values)
        if recorded:
            return
        if values:  # part of what is remembered: setting one changes the ctime
            digest = sha256(digest + _packed(values))
        if self.remembered is not None:
            self.remembered[file_key(info)] = digest
        self.recorded_file(label, info, digest)

    def recorded_file(self, label: bytes, info: os.stat_result, digest: bytes) -> None:
        self.files += 1
        self.bytes += info.st_size
        self.record(b"f", label, info, {}, digest)

    def is_met_again(self, label: bytes, info: os.stat_result) -> bool:
        """Whether the file was met before under another name; if so, that is recorded of it."""
        first = self.links.setdefault((info.st_dev, info.st_ino), label)
        if first == label:
            return False
        self.hasher.update(b"h\0%b\0%b\0" % (label, first))
        return True

    def linked(self, place: P, name: bytes, info: os.stat_result) -> bool:
        """Whether it could be linked to what it became under the other name: that may have been replaced since."""
        return self.visitor.linked(place, name, (info.st_dev, info.st_ino))

    def other(self, parent: int, name: bytes, label: bytes, place: P, new_name: bytes, info: os.stat_result) -> None:
        """A link, device or fifo; sockets are skipped."""
        if stat.S_ISSOCK(info.st_mode):
            self.skipped.append(os.fsdecode(label))
            return
        link = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(info.st_mode) else b""
        values = owners.values_of(parent, name) if self.aside else xattrs.recorded(xattrs.place_of(parent, name))
        self.special(label, place, new_name, info, link, values)

    def special(
        self,
        label: bytes,
        place: P,
        name: bytes,
        info: os.stat_result,
        link: bytes,
        values: Mapping[str, bytes],
    ) -> None:
        self.visitor.special(place, name, info, link, values)
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


class _Measuring(Walk[None]):
    """A pass that opens no files."""

    def top_file(self, top: Top, label: bytes, place: None, name: bytes) -> None:
        if stat.S_ISREG(top.info.st_mode):
            self.file(-1, name, label, None, top.info)

    def file(self, parent: int, name: bytes, label: bytes, place: None, info: os.stat_result) -> None:
        if info.st_nlink == 1 or not self.is_met_again(label, info):
            self.bytes += info.st_size

    def other(
        self, parent: int, name: bytes, label: bytes, place: None, new_name: bytes, info: os.stat_result
    ) -> None: ...


def _packed(values: Mapping[str, bytes]) -> bytes:
    return b"".join(b"%b=%d=%b" % (os.fsencode(name), len(value), value) for name, value in values.items())


class _Hashing:
    """The visitor that only wants digests."""

    reads_all = False

    def __init__(self, moved: content.Moved | None) -> None:
        self.moved = moved

    def enter(self, parent: None, name: bytes) -> None: ...

    def leave(self, place: None, info: os.stat_result, values: Mapping[str, bytes]) -> None: ...

    def close(self, place: None) -> None: ...

    def identity(self, place: None) -> None: ...

    def regular(
        self, source: int, parent: None, name: bytes, info: os.stat_result, values: Mapping[str, bytes]
    ) -> bytes:
        return content.copy_hashed(source, None, info, self.moved)

    def special(
        self, parent: None, name: bytes, info: os.stat_result, link: bytes, values: Mapping[str, bytes]
    ) -> None: ...

    def linked(self, parent: None, name: bytes, inode: Inode) -> bool:
        return True


def parents_of(top: Top) -> list[tuple[str, str]]:
    """With --parents: the directories above a top that are kept, as (path in the source root, kept path)."""
    parts = top.kept.split("/")[:-1]
    base = top.path.removesuffix(top.kept)
    return [(base + "/".join(parts[:count]), "/".join(parts[:count])) for count in range(1, len(parts) + 1)]
