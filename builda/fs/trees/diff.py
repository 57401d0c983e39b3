"""A tree to a layer: one walk in the order of path bytes, by descriptor, into a deterministic tar.

A layer is a function of the tree alone. Directories are named, and sorted, with the slash at their end, which puts each
parent in front of what it holds and everything in the order of the bytes of its name in the archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence

from builda.errors import InUse
from builda.fs import owners, paths, standin, xattrs
from builda.fs.content import data_ranges
from builda.fs.tar import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FLUSH,
    HARD_LINK,
    REGULAR,
    SYMBOLIC_LINK,
    TarEntry,
    TarWriter,
)
from builda.fs.tarread import iter_members
from builda.fs.trees.beneath import Beneath, has_look, is_copy
from builda.fs.whiteouts import OPAQUE, WHITEOUT, is_marked_opaque, is_no_name
from builda.linux.syscalls import birth_time_ns
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from builda.fs.tar import Writable
    from builda.oci.digest import Readable

Marks: TypeAlias = "Literal['overlay', 'files']"
"""How a directory of changes says what is deleted: as the kernel's overlay does, or by files as fuse-overlayfs does."""

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NONE: Mapping[str, bytes] = {}


class Clamp(NamedTuple):
    """The times that a layer records: none later than `latest`, or all `exact`; None means unchanged."""

    latest: int | None = None
    exact: int | None = None

    def __call__(self, seconds: int) -> int:
        if self.exact is not None:
            return self.exact
        return seconds if self.latest is None else min(seconds, self.latest)


AS_IS = Clamp()

_Found: TypeAlias = tuple[bytes, bytes, os.stat_result]
"""The name in the archive, the name in the directory ("" for a whiteout of nothing there), and what it is."""


class Look(NamedTuple):
    """Permissions and owner of the root directory, which a layer records if they differ from those below."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    @classmethod
    def of(cls, info: os.stat_result) -> Look:
        """That of a directory."""
        return cls(info.st_mode & 0o7777, info.st_uid, info.st_gid)


def diff(
    upper: int,
    sink: Writable,
    *,
    clamp: Clamp = AS_IS,
    marks: Marks = "overlay",
    below: Look | None = None,
    lowers: Sequence[int] | None = None,
) -> tuple[str, ...]:
    """Write the changes that an overlay's upper directory holds; paths of sockets, which no layer can hold.

    `below` is the root directory under it: if that looks otherwise, the layer says how the root looks now. `lowers` are
    the directories of the layers below, topmost first: what looks as it does there is no change. Without them the layer
    has a mark for each directory that may hide something.
    Unsupported for a file that is called like a whiteout.
    """
    kind = _Upper if marks == "overlay" else _FileMarks
    with Beneath(lowers, by_files=marks == "files") as beneath:
        return kind(TarWriter(sink), clamp, beneath, below=below).run(upper)


def write_tree(root: int, sink: Writable, *, clamp: Clamp = AS_IS) -> tuple[str, ...]:
    """Write a whole tree as one layer; paths of sockets, which no layer can hold.

    The root itself is an entry only when it does not look as roots do (0755, 0:0, no attributes).
    """
    return _Walk(TarWriter(sink), clamp).run(root)


def with_times(layer: Readable, sink: Writable, clamp: Clamp) -> None:
    """Write the tar `layer`, which builda made, again with other times."""
    tar = TarWriter(sink)
    for entry, content in iter_members(layer):
        tar.add(entry._replace(mtime=clamp(entry.mtime)))
        while data := content.read(FLUSH):
            tar.data(data)
        tar.pad(entry.size)
    tar.close()


def add_file(tar: TarWriter, fd: int, info: os.stat_result) -> bool:
    """Write a file's content, holes as zeros; False if it became shorter than `info` says."""
    at = 0
    for start, length in data_ranges(fd, info):
        tar.zeros(start - at)
        if tar.read_from(fd, length) != length:
            return False
        at = start + length
    tar.zeros(info.st_size - at)
    return True


class Fingerprint(NamedTuple):
    """Recorded attributes of a path in a flat tree, to find out later whether it changed.

    A file that is made in a directory and removed again changes the directory's ctime. For directories, `ctime_ns` is
    therefore a hash of the attributes. `content` is one of a regular file's content and attributes: its ctime also
    changes when it is given the mode or the owner that it has. 0 of all else, and of files with several names.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int
    content: int = 0


def fingerprints(root: int) -> dict[bytes, Fingerprint]:
    """The root, as b"", and every path below it, without a leading slash, and what tells of its changes."""
    return dict(_iter_fingerprints(root))


def diff_trees(
    before: Mapping[bytes, Fingerprint],
    root: int,
    sink: Writable,
    *,
    clamp: Clamp = AS_IS,
    after: dict[bytes, Fingerprint] | None = None,
) -> tuple[str, ...]:
    """Write what changed in a flat tree since `before` was recorded, deletions as whiteouts; paths of sockets.

    Directories above a change are recorded too, as overlay would have copied them up. `after` gets what
    `fingerprints` would find now.
    """
    return _Changes(TarWriter(sink), clamp, before, {} if after is None else after).run(root)


class _Walk:
    """One pass over a tree into a tar."""

    def __init__(self, tar: TarWriter, clamp: Clamp, *, below: Look | None = None) -> None:
        self.tar = tar
        self.root_below = below
        self.clamp = clamp
        self.pending: list[TarEntry] = []  # unchanged directories down to here, of which none is written yet
        self.aside = owners.keeps_aside()
        self.links: dict[tuple[int, int], bytes] = {}
        self.owners_of_links: dict[tuple[int, int], tuple[int, int, int]] = {}  # owners and modes that are kept aside
        self.sockets: list[str] = []

    def run(self, root: int) -> tuple[str, ...]:
        self.root(root)
        self.below(root)
        self.tar.close()
        return tuple(self.sockets)

    def below(self, root: int) -> None:
        """Everything below the root. The stack is ours: trees may be deeper than Python recurses."""
        with paths.Descent(root) as at:
            stack = [(b"", iter(self.sorted_entries(at.fd, b"")))]
            while stack:
                prefix, entries = stack[-1]
                for key, name, info in entries:
                    if name and key.endswith(b"/"):
                        at.enter(name)
                        self.enter(at.fd, prefix + key, info)
                        stack.append((prefix + key, iter(self.sorted_entries(at.fd, prefix + key))))
                        break
                    self.entry(at.fd, name, prefix + key, info)
                else:
                    stack.pop()
                    if stack:
                        self.leave(prefix)
                        at.leave()

    def add(self, entry: TarEntry) -> None:
        """Write an entry, and before it the directories above it."""
        for above in self.pending:
            self.tar.add(above)
        self.pending.clear()
        self.tar.add(entry)

    def root(self, fd: int) -> None:
        """The root is recorded when it does not look as the one below it, or as roots do and the layer has files."""
        info, values = os.fstat(fd), xattrs.recorded(fd)
        entry = self.header(b"./", DIRECTORY, info, xattrs=values)
        changed = self.root_below not in (None, Look.of(info))
        unusual = bool(entry.xattrs) or Look(entry.mode, entry.uid, entry.gid) != Look()
        if changed or (unusual and (self.root_below is None or os.listdir(fd))):
            self.add(entry)

    def enter(self, fd: int, path: bytes, info: os.stat_result) -> None:
        """A directory begins."""
        self.add(self.header(path, DIRECTORY, info, xattrs=xattrs.recorded(fd)))

    def leave(self, path: bytes) -> None:
        """A directory ends."""
        if self.pending and self.pending[-1].name == path:
            self.pending.pop()

    def sorted_entries(self, fd: int, prefix: bytes) -> list[_Found]:
        """The entries of the directory that the layer records, in the order of the archive."""
        entries = self.listed(fd, prefix)
        entries.sort(key=_archive_order)
        return entries

    def listed(self, fd: int, prefix: bytes) -> list[_Found]:
        """The entries of the directory that the layer records, by their names in the archive."""
        with os.scandir(fd) as found:
            entries = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
        return [(self.archive_name(name, info, prefix), name, info) for name, info in entries]

    def archive_name(self, name: bytes, info: os.stat_result, prefix: bytes) -> bytes:
        if name.startswith(WHITEOUT):
            raise is_no_name(prefix + name)
        return name + b"/" if stat.S_ISDIR(info.st_mode) else name

    def entry(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        kind = stat.S_IFMT(info.st_mode)
        if not name:
            self.add(TarEntry(path, REGULAR, mode=0o600, mtime=self.clamp(0)))
        elif kind == stat.S_IFREG:
            self.regular(parent, name, path, info)
        elif kind == stat.S_IFSOCK:
            self.sockets.append("/" + os.fsdecode(path))
        elif info.st_nlink < 2 or not self.linked(path, info):
            self.special(parent, name, path, info, kind)

    def special(self, parent: int, name: bytes, path: bytes, info: os.stat_result, kind: int) -> None:
        values = owners.values_of(parent, name) if self.aside else xattrs.recorded(xattrs.place_of(parent, name))
        if kind == stat.S_IFLNK:
            link = os.readlink(name, dir_fd=parent)
            self.add(self.header(path, SYMBOLIC_LINK, info, link=link, xattrs=values, mode=0o777))
        elif kind == stat.S_IFIFO:
            self.add(self.header(path, FIFO, info, xattrs=values))
        else:
            number = CHARACTER if kind == stat.S_IFCHR else BLOCK
            device = (os.major(info.st_rdev), os.minor(info.st_rdev))
            self.add(self.header(path, number, info, device=device, xattrs=values))

    def regular(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        if info.st_nlink > 1 and self.linked(path, info):
            return
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            size = info.st_size
            values = xattrs.recorded(fd)
            if self.is_unchanged(fd, name, info, values):
                return
            if standin.XATTR in values and self.stands_in(path, info, values):
                return
            self.add(self.header(path, REGULAR, info, size=size, xattrs=values))
            if not add_file(self.tar, fd, info):
                raise InUse(f"file became shorter while it was read: /{os.fsdecode(path)}")
            self.tar.pad(size)
        finally:
            os.close(fd)

    def is_unchanged(self, fd: int, name: bytes, info: os.stat_result, values: Mapping[str, bytes]) -> bool:
        """Whether an open file is the one that the layers below have there."""
        return False

    def stands_in(self, path: bytes, info: os.stat_result, values: Mapping[str, bytes]) -> bool:
        """Write the device that this file stands in for; False for an ordinary file."""
        found = standin.device_of(values)
        if found is None or info.st_size:
            return False
        kind = CHARACTER if found[0] == stat.S_IFCHR else BLOCK
        rest = values if self.aside else standin.without(values)
        self.add(self.header(path, kind, info, device=found[1], xattrs=rest))
        return True

    def linked(self, path: bytes, info: os.stat_result) -> bool:
        """Write a hard link when this inode has been written already."""
        first = self.links.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        self.add(self.header(path, HARD_LINK, info, link=first))
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
        xattrs: Mapping[str, bytes] = _NONE,
        mode: int | None = None,
    ) -> TarEntry:
        uid, gid, bits = info.st_uid, info.st_gid, info.st_mode
        if kind == HARD_LINK and (info.st_dev, info.st_ino) in self.owners_of_links:
            uid, gid, bits = self.owners_of_links[info.st_dev, info.st_ino]
        elif self.aside:
            (uid, gid), bits = owners.seen(info, xattrs), owners.seen_mode(info, xattrs)
            xattrs = owners.without(xattrs) if xattrs else xattrs
            if info.st_nlink > 1:
                self.owners_of_links[info.st_dev, info.st_ino] = uid, gid, bits
        return TarEntry(
            path,
            kind,
            size,
            bits & 0o7777 if mode is None else mode,
            uid,
            gid,
            self.clamp(info.st_mtime_ns // 10**9),
            link,
            *device,
            xattrs,
        )


class _Upper(_Walk):
    """A walk over the directory in which overlay keeps the changes to the layers that are `beneath` it."""

    def __init__(self, tar: TarWriter, clamp: Clamp, beneath: Beneath, *, below: Look | None = None) -> None:
        super().__init__(tar, clamp, below=below)
        self.beneath = beneath
        self.hides = [False]  # for each directory down to here: whether it hides what is below it

    def enter(self, fd: int, path: bytes, info: os.stat_result) -> None:
        values = xattrs.recorded(fd)
        self.beneath.enter(path[:-1].rpartition(b"/")[2])
        self.hides.append(self.hides[-1] or self.is_opaque(fd))
        below = self.beneath.directory()
        entry = self.header(path, DIRECTORY, info, xattrs=values)
        if below is not None and not self.hides[-1] and has_look(below, info, values):
            self.pending.append(entry)
        else:
            self.add(entry)

    def leave(self, path: bytes) -> None:
        super().leave(path)
        self.hides.pop()
        self.beneath.leave()

    def listed(self, fd: int, prefix: bytes) -> list[_Found]:
        """A whiteout for each name below that an opaque directory hides: so layer.md prefers it."""
        entries = self.here(fd, prefix)
        if self.beneath.unknown:
            return [*entries, (OPAQUE, b"", os.fstat(fd))] if prefix and self.is_opaque(fd) else entries
        if self.hides[-1]:
            gone = self.beneath.names() - {name for _, name, _ in entries}
            hidden = os.fstat(fd)
            entries += [(WHITEOUT + name, b"", hidden) for name in gone]
        return entries

    def here(self, fd: int, prefix: bytes) -> list[_Found]:
        """What the directory itself holds."""
        entries = []
        with os.scandir(fd) as found:
            for each in found:
                name, info = os.fsencode(each.name), each.stat(follow_symlinks=False)
                if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                    entries.append((WHITEOUT + name, b"", info))
                else:
                    entries.append((self.archive_name(name, info, prefix), name, info))
        return entries

    def is_opaque(self, fd: int) -> bool:
        """Whether the directory hides what is below it."""
        return xattrs.is_opaque(fd)

    def is_unchanged(self, fd: int, name: bytes, info: os.stat_result, values: Mapping[str, bytes]) -> bool:
        return info.st_nlink == 1 and is_copy(fd) and self.beneath.has_equal(name, fd, info, values)


class _FileMarks(_Upper):
    """A walk over what fuse-overlayfs wrote: it marks deletions by files that are called as in an archive."""

    def here(self, fd: int, prefix: bytes) -> list[_Found]:
        with os.scandir(fd) as found:
            entries = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
        hidden = {name[len(WHITEOUT) :] for name, _ in entries if name.startswith(WHITEOUT)}
        return [
            (name, b"", info) if name.startswith(WHITEOUT) else (self.archive_name(name, info, prefix), name, info)
            for name, info in entries
            if name != OPAQUE and name not in hidden
        ]

    def is_opaque(self, fd: int) -> bool:
        return super().is_opaque(fd) or is_marked_opaque(fd)


def _archive_order(found: _Found) -> bytes:
    return found[0]


def _fingerprint(info: os.stat_result) -> Fingerprint:
    """Of anything but a directory."""
    return Fingerprint(
        info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino
    )


def _fingerprint_of_directory(info: os.stat_result, values: Mapping[str, bytes]) -> Fingerprint:
    number = 0
    if values:
        import hashlib

        digest = hashlib.sha256(repr(sorted(values.items())).encode()).digest()
        number = int.from_bytes(digest[:6], "little")
    return Fingerprint(info.st_mode, info.st_uid, info.st_gid, 0, info.st_mtime_ns, number, info.st_ino)


def _with_content(parent: int, name: bytes, found: Fingerprint, links: int) -> Fingerprint:
    """The fingerprint of the file `name` with a hash of what is in it, if it is a regular one with one name."""
    if links != 1 or not stat.S_ISREG(found.mode):
        return found
    import hashlib

    fd = os.open(name, _OPEN_FILE, dir_fd=parent)
    try:
        digest = hashlib.sha256(repr(sorted(xattrs.recorded(fd).items())).encode())
        while piece := os.read(fd, FLUSH):
            digest.update(piece)
    finally:
        os.close(fd)
    return found._replace(content=int.from_bytes(digest.digest()[:16], "little"))


def _iter_fingerprints(root: int) -> Iterator[tuple[bytes, Fingerprint]]:
    with paths.Descent(root) as at:
        stack = [(b"", _stats(at.fd))]
        yield b"", _fingerprint_of_directory(os.fstat(at.fd), xattrs.recorded(at.fd))
        while stack:
            prefix, entries = stack[-1]
            for name, info in entries:
                if not stat.S_ISDIR(info.st_mode):
                    yield prefix + name, _with_content(at.fd, name, _fingerprint(info), info.st_nlink)
                    continue
                at.enter(name)
                yield prefix + name, _fingerprint_of_directory(info, xattrs.recorded(at.fd))
                stack.append((prefix + name + b"/", _stats(at.fd)))
                break
            else:
                stack.pop()
                if stack:
                    at.leave()


def _stats(fd: int) -> Iterator[tuple[bytes, os.stat_result]]:
    with os.scandir(fd) as found:
        return iter([(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found])


def _look(found: Fingerprint) -> Look:
    return Look(stat.S_IMODE(found.mode), found.uid, found.gid)


class _Changes(_Walk):
    """A walk that writes only what differs from `before`, and the directories above it."""

    def __init__(
        self,
        tar: TarWriter,
        clamp: Clamp,
        before: Mapping[bytes, Fingerprint],
        after: dict[bytes, Fingerprint],
    ) -> None:
        super().__init__(tar, clamp)
        self.before = before
        self.after = after
        self.children: dict[bytes, set[bytes]] = {}
        self.places = {found.ino: path for path, found in before.items()}
        self.moved: list[bytes] = []  # directories down to here that had other names
        for path in filter(None, before):
            head, _, tail = path.rpartition(b"/")
            self.children.setdefault(head, set()).add(tail)

    def root(self, fd: int) -> None:
        info, values = os.fstat(fd), xattrs.recorded(fd)
        self.after[b""] = found = _fingerprint_of_directory(info, values)
        known = self.before.get(b"")
        entry = self.header(b"./", DIRECTORY, info, xattrs=values)
        if known is not None and (_look(known) != _look(found) or (self.aside and known.ctime_ns != found.ctime_ns)):
            self.add(entry)
        elif Look(entry.mode, entry.uid, entry.gid) != Look() or entry.xattrs:
            self.pending.append(entry)

    def listed(self, fd: int, prefix: bytes) -> list[_Found]:
        entries = super().listed(fd, prefix)
        gone = self.children.get(prefix.rstrip(b"/"), set()) - {name for _, name, _ in entries}
        here = os.fstat(fd)
        entries += [(WHITEOUT + name, b"", here) for name in gone]
        return entries

    def entry(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        if not name or self.is_other(parent, name, path, info):
            super().entry(parent, name, path, info)

    def is_other(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> bool:
        """Whether a layer records what is not a directory: overlay would have another file than the one below."""
        known, found = self.before.get(path), _fingerprint(info)
        if known is not None and known._replace(content=0) == found:
            self.after[path] = known
            return False
        self.after[path] = found = _with_content(parent, name, found, info.st_nlink)
        if known is None or not found.content or known._replace(ctime_ns=0, ino=0) != found._replace(ctime_ns=0, ino=0):
            return True
        return not self.was_before(parent, name, found, known)

    def was_before(self, parent: int, name: bytes, found: Fingerprint, known: Fingerprint) -> bool:
        """Whether a file that equals `known`, the former one of this name, is an older file, perhaps of another name.

        Overlay would have copied such a file up. It cannot rename directories: programs make them again, with new
        files. A file that was made meanwhile may have the inode number of a removed one.
        """
        origin = self.before.get(self.places.get(found.ino, b""))
        if origin is None or origin.ino != found.ino or self.moved:
            return False
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            born = birth_time_ns(fd)
        finally:
            os.close(fd)
        return known.ino == found.ino if born is None else born <= origin.ctime_ns

    def enter(self, fd: int, path: bytes, info: os.stat_result) -> None:
        values = xattrs.recorded(fd)
        entry = self.header(path, DIRECTORY, info, xattrs=values)
        if self.places.get(info.st_ino, path[:-1]) != path[:-1]:
            self.moved.append(path)
        if self.is_new(path.rstrip(b"/"), _fingerprint_of_directory(info, values)):
            self.add(entry)
        else:
            self.pending.append(entry)

    def leave(self, path: bytes) -> None:
        super().leave(path)
        if self.moved and self.moved[-1] == path:
            self.moved.pop()

    def is_new(self, path: bytes, found: Fingerprint) -> bool:
        self.after[path] = found
        return self.before.get(path) != found
