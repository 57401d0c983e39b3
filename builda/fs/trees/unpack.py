"""Archives into a `Target`: ADD's, which are ordinary, and layers (`apply`). What is in them is hostile.

Directories on the way to an entry are resolved inside the root; the entry itself is never followed.
"""

from __future__ import annotations

import errno
import os
import stat

from builda.errors import BuildaError, CorruptContent, Unsupported
from builda.fs.tar import BLOCK, CHARACTER, DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMBOLIC_LINK, TarEntry, clean, shown
from builda.fs.tarread import Content, iter_members
from builda.fs.trees.target import Looks, opened
from builda.linux.userns import unmapped
from builda.values import Generic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.fs.trees.target import D, Target
    from builda.oci.digest import Readable

_KINDS = {SYMBOLIC_LINK: stat.S_IFLNK, FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}
_MACHINE = frozenset(
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOTSUP, errno.ENOSYS),
    ]
)
"""What is wrong with the machine, not with the archive."""


def extract(
    source: Readable,
    target: Target[D],
    directory: str | bytes = b"",
    *,
    owner: tuple[int, int] | None = None,
    timestamp: int | None = None,
    keep_top: bool = False,
) -> None:
    """Unpack an ordinary archive into `directory`, which exists in the target, as ADD does.

    `.wh.` names mean nothing special, and links to directories that are there already are kept and followed inside the
    root. `owner` and `timestamp` replace what is recorded. With `keep_top` the directory itself keeps its looks,
    whatever the archive's own root has. CorruptContent, naming the entry, for what is malformed or leads out of the
    root; what was unpacked until then stays.
    """
    time_ns = None if timestamp is None else timestamp * 10**9
    _Extracting(target, os.fsencode(directory).strip(b"/"), owner, time_ns, keep_top).run(source)


class Unpacker(Generic["D"]):
    """Makes the entries of one archive. The last parent directory stays open, as entries come sorted."""

    owner: tuple[int, int] | None = None
    """Of all entries; None: each has its own."""
    time_ns: int | None = None
    """The same for their times."""

    def __init__(self, target: Target[D], base: bytes) -> None:
        self.target = target
        self.base = base  # where in the root entries go, "" or a path
        self.parent: tuple[bytes, D] | None = None
        self.times: dict[bytes, int] = {}  # directories get theirs last: their entries change them
        self.implied: set[bytes] = set()

    def run(self, source: Readable) -> tuple[int, int]:
        """Unpack the archive to its end; the number of its entries, and of bytes of content."""
        count = total = 0
        try:
            for entry, content in iter_members(source):
                count += 1
                total += entry.size
                self.member(entry, content)
            self.finish()
        finally:
            self.close()
        return count, total

    def close(self) -> None:
        if self.parent is not None:
            self.target.close(self.parent[1])
        self.parent = None

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

    def marker(self, parent: D, head: bytes, name: bytes) -> bool:
        """Whether the entry was a whiteout, and is done."""
        return False

    def made(self, path: bytes) -> None:
        """The archive holds `path`."""

    def top(self, entry: TarEntry) -> None:
        """The archive's own root."""
        if entry.type == DIRECTORY:
            with opened(self.target, self.base) as directory:
                self.dress_directory(directory, entry, self.base)

    def finish(self) -> None:
        """The times of directories, deepest first."""
        self.close()
        for path in sorted(self.times, reverse=True):
            try:
                directory = self.target.open(path, follow=False)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # replaced later in the archive
                    continue
                raise
            try:
                self.target.set_time(directory, self.times[path])
            finally:
                self.target.close(directory)

    def open_parent(self, head: bytes) -> D:
        if self.parent is not None and head == self.parent[0]:
            return self.parent[1]
        self.close()
        try:
            parent = self.target.open(head)
        except (FileNotFoundError, NotADirectoryError):
            self.make_parents(head)
            parent = self.target.open(head)
        self.parent = head, parent
        self.parent_opened(head, parent)
        return parent

    def parent_opened(self, head: bytes, parent: D) -> None:
        """A directory is about to be changed."""

    def make_parents(self, head: bytes) -> None:
        """Directories that the archive forgot to list, where links lead to them; a file in the way gives way."""
        done = b""
        for part in self.target.resolved(head).split(b"/"):
            above, done = done, done + b"/" + part if done else part
            if self.target.is_directory(done, follow=False):
                continue
            with opened(self.target, above) as parent:
                self.target.remove(parent, part)
                self.target.close(self.target.make(parent, part, 0o755))
            self.implied.add(done)
            self.times[done] = self.time_ns or 0  # not now: equal layers make equal trees
            self.made(done)

    def make(self, parent: D, name: bytes, path: bytes, entry: TarEntry, content: Content) -> None:
        if entry.type == REGULAR:
            self.regular(parent, name, entry, content)
        elif entry.type == DIRECTORY:
            self.directory(parent, name, path, entry)
        elif entry.type == HARD_LINK:
            self.hard_link(parent, name, entry)
        else:
            self.special(parent, name, entry)

    def directory(self, parent: D, name: bytes, path: bytes, entry: TarEntry) -> None:
        try:
            directory = self.target.make(parent, name)
        except FileExistsError:
            directory = self.existing_directory(parent, name, path)
        try:
            self.implied.discard(path)
            self.dress_directory(directory, entry, path)
        finally:
            self.target.close(directory)

    def existing_directory(self, parent: D, name: bytes, path: bytes) -> D:
        """The directory `name`, merged with what it holds; anything else gives way."""
        found = self.target.enter(parent, name)
        if found is not None:
            return found
        self.target.remove(parent, name)
        return self.target.make(parent, name)

    def dress_directory(self, directory: D, entry: TarEntry, path: bytes) -> None:
        self.target.dress(directory, self.looks(entry, None))
        self.times[path] = self.time_of(entry)

    def looks(self, entry: TarEntry, time_ns: int | None) -> Looks:
        return Looks(self.owner or (entry.uid, entry.gid), entry.mode, entry.xattrs, time_ns)

    def time_of(self, entry: TarEntry) -> int:
        return entry.mtime_ns if self.time_ns is None else self.time_ns

    def regular(self, parent: D, name: bytes, entry: TarEntry, content: Content) -> None:
        looks = self.looks(entry, self.time_of(entry))
        try:
            self.target.write(parent, name, content, entry.size, looks)
        except FileExistsError:
            self.target.remove(parent, name)
            self.target.write(parent, name, content, entry.size, looks)

    def hard_link(self, parent: D, name: bytes, entry: TarEntry) -> None:
        path = self.located(_clean(entry.link))
        try:
            try:
                self.target.link(parent, name, path)
            except FileExistsError:
                self.target.remove(parent, name)
                self.target.link(parent, name, path)
        except (FileNotFoundError, NotADirectoryError) as error:
            text = f"hard link {shown(entry.name)} leads to a missing file: {shown(entry.link)}"
            raise CorruptContent(text) from error

    def special(self, parent: D, name: bytes, entry: TarEntry) -> None:
        kind = _KINDS.get(entry.type)
        if kind is None:
            raise CorruptContent(f"tar entry of unknown type {entry.type!r}: {shown(entry.name)}")
        if kind == stat.S_IFLNK and not entry.link:
            raise CorruptContent(f"symbolic link without a target: {shown(entry.name)}")
        looks, device = self.looks(entry, self.time_of(entry)), os.makedev(entry.major, entry.minor)
        try:
            self.target.special(parent, name, kind, entry.link, device, looks)
        except FileExistsError:
            self.target.remove(parent, name)
            self.target.special(parent, name, kind, entry.link, device, looks)


class _Extracting(Unpacker["D"]):
    """An ordinary archive into a tree that may have links to directories."""

    def __init__(
        self, target: Target[D], base: bytes, owner: tuple[int, int] | None, time_ns: int | None, keep_top: bool
    ) -> None:
        super().__init__(target, base)
        self.keep_top = keep_top
        self.owner = owner
        self.time_ns = time_ns

    def existing_directory(self, parent: D, name: bytes, path: bytes) -> D:
        return (
            self.target.open(path) if self.target.is_directory(path) else super().existing_directory(parent, name, path)
        )

    def top(self, entry: TarEntry) -> None:
        if not self.keep_top:
            super().top(entry)


def _clean(name: bytes) -> bytes:
    """The path of `name` as `tar.clean` has it; CorruptContent when a part is longer than a file's name can be."""
    path = clean(name)
    for part in path.split(b"/"):
        if len(part) > 255:
            raise CorruptContent(f"file name is longer than 255 bytes: {shown(part[:60])}…")
    return path


def _failure(entry: TarEntry, error: OSError) -> BuildaError:
    text = f"cannot unpack {shown(entry.name)}: {error.strerror}"
    if error.errno == errno.EPERM:
        return Unsupported(text, hint="keeping owners and attributes needs root, or a user namespace with its ids")
    if error.errno == errno.EINVAL:
        lacking = unmapped(entry.uid, entry.gid)
        if lacking is not None:
            return Unsupported(text, hint=lacking)
    return CorruptContent(text)
