"""A tree to a layer: one walk in the order of path bytes, by descriptor, into a deterministic tar.

A layer is a function of the tree alone. Directories are named, and sorted, with the slash at their end, which puts each
parent in front of what it holds and everything in the order of the bytes of its name in the archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

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
from builda.fs.whiteouts import OPAQUE, WHITEOUT, is_marked_opaque, is_no_name
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
    """What times a layer records: none later than `latest`, or all `exact`; None means as they are."""

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
) -> tuple[str, ...]:
    """Write the changes that an overlay's upper directory holds; paths of sockets, which no layer can hold.

    `below` is the root directory under it: if that looks otherwise, the layer says how the root looks now.
    Unsupported for a file that is called like a whiteout.
    """
    kind = _Walk if marks == "overlay" else _FileMarks
    return kind(TarWriter(sink), clamp, overlay=True, below=below).run(upper)


def write_tree(root: int, sink: Writable, *, clamp: Clamp = AS_IS) -> tuple[str, ...]:
    """Write a whole tree as one layer; paths of sockets, which no layer can hold.

    The root itself is an entry only when it does not look as roots do (0755, 0:0, no attributes).
    """
    return _Walk(TarWriter(sink), clamp, overlay=False).run(root)


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
    therefore a hash of the attributes.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int


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

    def __init__(self, tar: TarWriter, clamp: Clamp, *, overlay: bool, below: Look | None = None) -> None:
        self.tar = tar
        self.root_below = below
        self.clamp = clamp
        self.overlay = overlay
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

    def root(self, fd: int) -> None:
        """The root is recorded when it does not look as the one below it, or as roots do and the layer has files."""
        info, values = os.fstat(fd), xattrs.recorded(fd)
        entry = self.header(b"./", DIRECTORY, info, xattrs=values)
        changed = self.root_below not in (None, Look.of(info))
        unusual = bool(entry.xattrs) or Look(entry.mode, entry.uid, entry.gid) != Look()
        if changed or (unusual and (self.root_below is None or os.listdir(fd))):
            self.tar.add(entry)

    def enter(self, fd: int, path: bytes, info: os.stat_result) -> None:
        """A directory begins."""
        self.tar.add(self.header(path, DIRECTORY, info, xattrs=xattrs.recorded(fd)))

    def leave(self, path: bytes) -> None:
        """A directory ends."""

    def sorted_entries(self, fd: int, prefix: bytes) -> list[_Found]:
        """What the directory holds and the layer records, in the order of the archive."""
        entries = self.listed(fd, prefix)
        if self.overlay and prefix and self.is_opaque(fd):
            entries.append((OPAQUE, b"", os.fstat(fd)))
        entries.sort(key=_archive_order)
        return entries

    def listed(self, fd: int, prefix: bytes) -> list[_Found]:
        """What the directory holds and the layer records, under the names that it has in the archive."""
        with os.scandir(fd) as found:
            entries = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
        return [(self.archive_name(name, info, prefix), name, info) for name, info in entries]

    def is_opaque(self, fd: int) -> bool:
        """Whether the directory hides what is below it."""
        return xattrs.is_opaque(fd)

    def archive_name(self, name: bytes, info: os.stat_result, prefix: bytes) -> bytes:
        if self.overlay and stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            return WHITEOUT + name
        if name.startswith(WHITEOUT):
            raise is_no_name(prefix + name)
        return name + b"/" if stat.S_ISDIR(info.st_mode) else name

    def entry(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        kind = stat.S_IFMT(info.st_mode)
        if not name or (kind == stat.S_IFCHR and info.st_rdev == 0 and self.overlay):
            self.tar.add(TarEntry(path, REGULAR, mode=0o600, mtime=self.clamp(0)))
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
            self.tar.add(self.header(path, SYMBOLIC_LINK, info, link=link, xattrs=values, mode=0o777))
        elif kind == stat.S_IFIFO:
            self.tar.add(self.header(path, FIFO, info, xattrs=values))
        else:
            number = CHARACTER if kind == stat.S_IFCHR else BLOCK
            device = (os.major(info.st_rdev), os.minor(info.st_rdev))
            self.tar.add(self.header(path, number, info, device=device, xattrs=values))

    def regular(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        if info.st_nlink > 1 and self.linked(path, info):
            return
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            size = info.st_size
            values = xattrs.recorded(fd)
            if standin.XATTR in values and self.stands_in(path, info, values):
                return
            self.tar.add(self.header(path, REGULAR, info, size=size, xattrs=values))
            if not add_file(self.tar, fd, info):
                raise InUse(f"file became shorter while it was read: /{os.fsdecode(path)}")
            self.tar.pad(size)
        finally:
            os.close(fd)

    def stands_in(self, path: bytes, info: os.stat_result, values: Mapping[str, bytes]) -> bool:
        """Write the device that this file stands in for; False for an ordinary file."""
        found = standin.device_of(values)
        if found is None or info.st_size:
            return False
        kind = CHARACTER if found[0] == stat.S_IFCHR else BLOCK
        rest = values if self.aside else standin.without(values)
        self.tar.add(self.header(path, kind, info, device=found[1], xattrs=rest))
        return True

    def linked(self, path: bytes, info: os.stat_result) -> bool:
        """Write a hard link when this inode has been written already."""
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


class _FileMarks(_Walk):
    """A walk over what fuse-overlayfs wrote: it marks deletions by files that are called as in an archive."""

    def listed(self, fd: int, prefix: bytes) -> list[_Found]:
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


def _iter_fingerprints(root: int) -> Iterator[tuple[bytes, Fingerprint]]:
    with paths.Descent(root) as at:
        stack = [(b"", _stats(at.fd))]
        yield b"", _fingerprint_of_directory(os.fstat(at.fd), xattrs.recorded(at.fd))
        while stack:
            prefix, entries = stack[-1]
            for name, info in entries:
                if not stat.S_ISDIR(info.st_mode):
                    yield prefix + name, _fingerprint(info)
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
        super().__init__(tar, clamp, overlay=False)
        self.before = before
        self.after = after
        self.children: dict[bytes, set[bytes]] = {}
        self.pending: list[TarEntry] = []  # unchanged directories down to here, of which none is written yet
        for path in filter(None, before):
            head, _, tail = path.rpartition(b"/")
            self.children.setdefault(head, set()).add(tail)

    def root(self, fd: int) -> None:
        info, values = os.fstat(fd), xattrs.recorded(fd)
        self.after[b""] = found = _fingerprint_of_directory(info, values)
        known = self.before.get(b"")
        self.pending.append(self.header(b"./", DIRECTORY, info, xattrs=values))
        if known is not None and _look(known) != _look(found):
            self.write_parents()
        elif _look(found) == Look() and not values:
            self.pending.clear()

    def listed(self, fd: int, prefix: bytes) -> list[_Found]:
        entries = super().listed(fd, prefix)
        gone = self.children.get(prefix.rstrip(b"/"), set()) - {name for _, name, _ in entries}
        here = os.fstat(fd)
        entries += [(WHITEOUT + name, b"", here) for name in gone]
        return entries

    def entry(self, parent: int, name: bytes, path: bytes, info: os.stat_result) -> None:
        if not name or self.is_new(path, _fingerprint(info)):
            self.write_parents()
            super().entry(parent, name, path, info)

    def enter(self, fd: int, path: bytes, info: os.stat_result) -> None:
        values = xattrs.recorded(fd)
        self.pending.append(self.header(path, DIRECTORY, info, xattrs=values))
        if self.is_new(path.rstrip(b"/"), _fingerprint_of_directory(info, values)):
            self.write_parents()

    def is_new(self, path: bytes, found: Fingerprint) -> bool:
        self.after[path] = found
        return self.before.get(path) != found

    def leave(self, path: bytes) -> None:
        if self.pending and self.pending[-1].name == path:
            self.pending.pop()

    def write_parents(self) -> None:
        """Something is about to be written: the directories above it come first."""
        for entry in self.pending:
            self.tar.add(entry)
        self.pending.clear()
