"""COPY and ADD into a list instead of a tree: each file becomes a row of the layer, which needs no right.

`fs.trees.copytree` walks the sources and decides the places; this module makes the rows. Contents go into files of
the layer's own directory: small ones one behind the other into `content`, the others each into a file of its own.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack

from builda.errors import AlreadyExists, CorruptContent, TreeNeeded
from builda.fs import content, paths, standin, xattrs
from builda.fs.lists.layertree import LINKS, NO_XATTRS, Node, Row, Tree, directory_row, resolved
from builda.fs.sources import resolve
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
    clean,
    iter_members,
    shown,
)
from builda.fs.trees.copytree import NOWHERE, CopyRequest, CopyResult, FileKey, Placer, Walk, in_the_way
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Self

    from builda.fs.tar import Content, Member, Writable
    from builda.fs.trees.diff import Clamp
    from builda.oci.digest import Readable

CONTENT = "content"
_KINDS = {stat.S_IFLNK: SYMBOLIC_LINK, stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK, stat.S_IFIFO: FIFO}


class Spool:
    """The contents of a layer's files in a directory. A context manager."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1
        self._at = 0
        self.moved: content.Moved | None = None  # told of bytes that are copied

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def copied(self, source: int, info: os.stat_result) -> tuple[str, int, bytes]:
        """Where the content of the file `source` is now, and its sha256."""
        if info.st_size <= content.CHUNK and info.st_blocks * 512 >= info.st_size:
            data = content.read_small(source, info.st_size)
            import hashlib

            if self.moved is not None:
                self.moved(info.st_size)
            return *self.put(data), hashlib.sha256(data).digest()
        name = f"file-{os.urandom(8).hex()}"
        fd = os.open(f"{self._directory}/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return name, 0, content.copy_hashed(source, fd, info, self.moved)
        finally:
            os.close(fd)

    def again(self, fd: int, row: Row) -> tuple[str, int]:
        """Where the content is now that another layer has in the file `fd`."""
        if row.file != CONTENT:
            file, at, _ = self.copied(fd, os.fstat(fd))
            return file, at
        at, end = self._open(), row.at + row.size
        for start in range(row.at, end, FLUSH):
            content.write_all(self._fd, os.pread(fd, min(FLUSH, end - start), start))
        self._at += row.size
        return CONTENT, at

    def put(self, data: bytes) -> tuple[str, int]:
        """Where `data` is now."""
        at = self._open()
        content.write_all(self._fd, data)
        self._at += len(data)
        return CONTENT, at

    def taken(self, member: Content) -> tuple[str, int]:
        """Where the content of an archive's member is now, whatever its size."""
        at = self._open()
        while data := member.read(FLUSH):
            content.write_all(self._fd, data)
            self._at += len(data)
        return CONTENT, at

    def _open(self) -> int:
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(f"{self._directory}/{CONTENT}", flags, 0o600)
            self._at = os.fstat(self._fd).st_size
        return self._at


def write_rows(rows: Iterable[Row], directory: str, sink: Writable, clamp: Clamp) -> None:
    """The tar of a layer; `directory` has the contents of its files."""
    tar = TarWriter(sink)
    with ExitStack() as stack:
        opened: dict[str, int] = {}
        for row in rows:
            head = (row.path, row.kind, row.size, row.mode, row.uid, row.gid, clamp(row.mtime), row.link)
            tar.add(TarEntry(*head, row.major, row.minor, row.xattrs))
            if row.size:
                _write_content(tar, row, directory, opened, stack)
    tar.close()


def _write_content(tar: TarWriter, row: Row, directory: str, opened: dict[str, int], stack: ExitStack) -> None:
    fd = opened.get(row.file)
    if fd is None:
        fd = os.open(f"{directory}/{row.file}", os.O_RDONLY | os.O_CLOEXEC)
        if row.file == CONTENT:
            opened[row.file] = fd
            stack.callback(os.close, fd)
    try:
        done = _from_spool(tar, fd, row) if row.file == CONTENT else _from_file(tar, fd, row)
    finally:
        if row.file != CONTENT:
            os.close(fd)
    if not done:
        raise CorruptContent(f"content of a file is not whole in the store: /{os.fsdecode(row.path)}")
    tar.pad(row.size)


def _from_spool(tar: TarWriter, fd: int, row: Row) -> bool:
    os.lseek(fd, row.at, os.SEEK_SET)
    return tar.read_from(fd, row.size) == row.size


def _from_file(tar: TarWriter, fd: int, row: Row) -> bool:
    info, at = os.fstat(fd), 0
    for start, length in content.data_ranges(fd, info):
        tar.zeros(start - at)
        if tar.read_from(fd, length) != length:
            return False
        at = start + length
    tar.zeros(row.size - at)
    return info.st_size == row.size


class Known(NamedTuple):
    """Sources that are not what they seem: what the files of a shadow stand for, by device and inode.

    `content_file` tells where the contents are that a layer keeps in files, `layer` opens the archive of another one.
    """

    nodes: Mapping[tuple[int, int], Node]
    content_file: Callable[[str, str], str]
    layer: Callable[[str], AbstractContextManager[Readable]]

    def __bool__(self) -> bool:
        return bool(self.nodes)


def compose_tree(
    request: CopyRequest,
    tree: Tree,
    spool: Spool,
    now: int,
    known: Known,
    *,
    remembered: MutableMapping[FileKey, bytes] | None,
    moved: content.Moved | None = None,
) -> CopyResult:
    """As `fs.trees.copytree.copy_tree`, into a tree that is only known; what is copied may be, too."""
    tops = resolve(request.sources, request.rules)
    spool.moved = moved
    target = _Composing(request, tree, spool, now, known)
    placer = _TreePlacer(request, target, several=len(tops) > 1)
    walk = Walk(request, target, {} if remembered is None else remembered)
    for top in tops:
        walk.top(top, placer.place(top))
    placer.look()
    target.fetch()
    return CopyResult(walk.digest(), walk.files, walk.bytes, tuple(placer.made), tuple(walk.skipped))


class Changer:
    """Changes to a tree. Whatever is put into a directory makes the layer record the directories above, too."""

    def __init__(self, tree: Tree, now: int) -> None:
        self.tree = tree
        self.now = now

    def touch(self, directory: Node) -> None:
        """Something in the directory changes."""
        directory.row = directory.row._replace(mtime=self.now)
        self.record(directory)

    def record(self, directory: Node) -> None:
        """The layer records the directory."""
        above: Node | None = directory
        while above is not None and not above.changed:
            above.changed = above.merged = True
            above = above.parent

    def put(self, parent: Node, name: bytes, node: Node) -> None:
        """`name` is `node`, in place of what was there."""
        self.touch(parent)
        there = parent.children.get(name)
        if there is not None and (there.merged or not there.changed):
            parent.cover(name)
        if node.is_directory:
            node.opaque = name in parent.covered
        parent.children[name] = node

    def make_directories(self, path: bytes, row: Row, *, replace: bool = False, links: int = 0) -> list[bytes]:
        """Make `path` and what is missing above it; those made. Links are followed, and where they lead made too.

        NotADirectoryError for a file in the way, OSError (ELOOP) after too many `links`.
        """
        if links > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
        made: list[bytes] = []
        done = b""
        for part in path.split(b"/"):
            if part in (b"", b"."):
                continue
            above, done = done, done + b"/" + part
            found = self.tree.find(done, follow=not replace)
            if found is not None and found.is_directory:
                continue
            parent = self.tree.find(above)
            if parent is None or not parent.is_directory:
                raise NotADirectoryError(os.fsdecode(done))
            there = parent.children.get(part)
            if there is not None and there.row.kind == SYMBOLIC_LINK and not replace:
                link = there.row.link
                there_too = link if link.startswith(b"/") else above + b"/" + link
                made += self.make_directories(there_too, row, links=links + 1)
                continue
            if there is not None and not replace:
                raise NotADirectoryError(os.fsdecode(done))
            self.put(parent, part, Node(row, parent, changed=True))
            made.append(done)
        return made


class _Composing(Changer):
    """The target of a walk that makes rows."""

    reads_all = True

    def __init__(self, request: CopyRequest, tree: Tree, spool: Spool, now: int, known: Known) -> None:
        super().__init__(tree, now)
        self.known = known
        self.wanted: dict[str, dict[bytes, list[Node]]] = {}  # contents to be fetched, by layer and path in it
        self.request = request
        self.owner = request.owner
        self.mode = request.mode
        self.spool = spool
        self.directories: dict[int, tuple[Node, bytes]] = {}
        self.first: dict[tuple[int, int], Node] = {}

    def touch(self, directory: Node) -> None:
        """A layer of --link is the same whenever it is made: directories keep their times."""
        if self.request.link:
            self.record(directory)
        else:
            super().touch(directory)

    def opened(self, directory: Node, path: bytes) -> int:
        """A number for the directory, as the walk wants one."""
        handle = NOWHERE - 1 - len(self.directories)
        self.directories[handle] = directory, path
        return handle

    def enter(self, parent: int, name: bytes) -> int:
        directory, path = self.directories[parent]
        path += b"/" + name
        there = directory.children.get(name)
        if there is not None and there.is_directory:
            return self.opened(there, path)
        if there is not None and not self.request.link:
            found = self.tree.find(path)
            if found is None or not found.is_directory:
                raise in_the_way(path, "directory", "file")
            return self.opened(found, path)
        made = Node(directory_row(), directory, changed=True)
        self.put(directory, name, made)
        return self.opened(made, path)

    def leave(self, fd: int, info: os.stat_result, values: Mapping[str, bytes]) -> None:
        self.look(self.directories[fd][0], info, values)

    def look(self, directory: Node, info: os.stat_result, values: Mapping[str, bytes]) -> None:
        """The directory looks like the one it is a copy of."""
        self.record(directory)
        directory.row = self.row(DIRECTORY, info, values)

    def row(self, kind: bytes, info: os.stat_result, values: Mapping[str, bytes], link: bytes = b"") -> Row:
        mode, owner, seconds = info.st_mode & 0o7777, (info.st_uid, info.st_gid), info.st_mtime_ns // 10**9
        model = self.known.nodes.get((info.st_dev, info.st_ino)) if self.known else None
        if model is not None:
            mode, owner, seconds = model.row.mode, (model.row.uid, model.row.gid), model.row.mtime
            values = model.row.xattrs
        if kind == SYMBOLIC_LINK:
            mode = 0o777
        elif self.mode is not None:
            mode = self.mode(mode, kind == DIRECTORY)
        uid, gid = self.owner or owner
        time = self.request.timestamp
        kept = {
            name: value
            for name, value in values.items()
            if xattrs.is_settable(name) and (self.mode is None or name not in xattrs.ACLS)
        }
        return Row(b"", kind, mode, uid, gid, seconds if time is None else time, link, xattrs=kept or NO_XATTRS)

    def regular(
        self, source: int, parent: int, name: bytes, info: os.stat_result, values: Mapping[str, bytes]
    ) -> bytes:
        directory = self.way(parent, name)
        model = self.known.nodes.get((info.st_dev, info.st_ino)) if self.known else None
        if model is not None:
            return self.stood_for(model, directory, name, info)
        file, at, digest = self.spool.copied(source, info)
        row = self.row(REGULAR, info, values)._replace(size=info.st_size, file=file, at=at)
        node = Node(row, directory, changed=True)
        self.put(directory, name, node)
        if info.st_nlink > 1:
            self.first[info.st_dev, info.st_ino] = node
        return digest

    def stood_for(self, model: Node, directory: Node, name: bytes, info: os.stat_result) -> bytes:
        """Record what a file of a shadow stands for, with an identity in place of a digest."""
        kind, old = model.row.kind, model.row
        row = self.row(kind, info, {})._replace(major=old.major, minor=old.minor, size=old.size)
        node = Node(row, directory, changed=True)
        if kind == REGULAR and old.file:
            fd = os.open(self.known.content_file(model.place, old.file), os.O_RDONLY | os.O_CLOEXEC)
            try:
                file, at = self.spool.again(fd, old)
            finally:
                os.close(fd)
            node.row = row._replace(file=file, at=at)
        elif kind == REGULAR and old.size:
            self.wanted.setdefault(model.place, {}).setdefault(old.path, []).append(node)
        self.put(directory, name, node)
        if info.st_nlink > 1:
            self.first[info.st_dev, info.st_ino] = node
        return b"%b %b" % (model.place.encode(), old.path)

    def fetch(self) -> None:
        """Read the contents that are in layers, each layer once, to its end: a path may come again, and is the last."""
        for place, wanted in self.wanted.items():
            missing = set(wanted)
            with self.known.layer(place) as archive:
                for member in iter_members(archive):
                    path = clean(member.entry.name) if member.entry.type == REGULAR else None
                    if path is not None and (nodes := wanted.get(path)):
                        self.fetched(nodes, member)
                        missing.discard(path)
            if missing:
                raise CorruptContent(f"layer in the store lacks a file: {shown(min(missing))}")

    def fetched(self, nodes: list[Node], member: Member) -> None:
        if member.content.sparse is not None:
            raise TreeNeeded(f"sparse file, which needs a tree to be copied: {shown(member.entry.name)}")
        file, at = self.spool.taken(member.content)
        for node in nodes:
            node.row = node.row._replace(size=member.entry.size, file=file, at=at)

    def special(self, parent: int, name: bytes, info: os.stat_result, link: bytes, values: Mapping[str, bytes]) -> None:
        directory = self.way(parent, name)
        kind = _KINDS[stat.S_IFMT(info.st_mode)]
        row = self.row(kind, info, values, link)
        if kind in (CHARACTER, BLOCK):
            row = row._replace(major=os.major(info.st_rdev), minor=os.minor(info.st_rdev))
        self.put(directory, name, Node(row, directory, changed=True))

    def linked(self, parent: int, name: bytes, inode: tuple[int, int]) -> bool:
        self.put(self.way(parent, name), name, self.first[inode])
        return True

    def way(self, parent: int, name: bytes) -> Node:
        """The directory, in which a file may be called `name`."""
        directory, path = self.directories[parent]
        there = directory.children.get(name)
        if there is not None and there.is_directory and not self.request.link:
            raise in_the_way(path + b"/" + name, "file", "directory")
        return directory


class _TreePlacer(Placer):
    """Places in a tree that is only known."""

    def __init__(self, request: CopyRequest, target: _Composing, *, several: bool) -> None:
        self.target = target
        super().__init__(request, NOWHERE, several=several)

    def is_there(self) -> bool:
        found = self.target.tree.find(os.fsencode(self.destination), follow=not self.request.link)
        return found is not None and found.is_directory

    def make(self, directory: str) -> tuple[str, ...]:
        uid, gid = self.request.owner or (0, 0)
        time = self.made_time
        row = directory_row(self.request.made_mode, uid, gid, self.target.now if time is None else time)
        try:
            made = self.target.make_directories(os.fsencode(directory), row, replace=self.request.link)
        except NotADirectoryError as error:
            raise AlreadyExists(
                f"cannot make a directory where a file is: /{directory}",
                hint="a destination that ends in / is a directory",
            ) from error
        return tuple(map(os.fsdecode, made))

    def open(self, directory: str) -> int:
        path = os.fsencode(directory)
        found = self.target.tree.find(path)
        assert found is not None  # it was there, or was made
        return self.target.opened(found, path)

    def look(self) -> None:
        """The looks of the directories that were made."""
        for path in sorted(self.made, reverse=True):
            node = self.target.tree.find(os.fsencode(path))
            assert node is not None
            if path in self.like:
                root, source = self.like[path]
                model = paths.open_in_root(root, source, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    self.target.look(node, os.fstat(model), xattrs.recorded(model))
                finally:
                    os.close(model)
            elif self.made_time is not None:
                node.row = node.row._replace(mtime=self.made_time)


class Unpacking(Changer):
    """An archive's members into a tree, as `fs.trees.apply.extract` does it."""

    def __init__(
        self,
        tree: Tree,
        spool: Spool,
        now: int,
        base: bytes,
        owner: tuple[int, int] | None,
        timestamp: int | None,
        *,
        keep_top: bool = False,
    ) -> None:
        super().__init__(tree, now)
        self.keep_top = keep_top
        self.spool = spool
        self.base = base.strip(b"/")
        self.owner = owner
        self.timestamp = timestamp
        self.times: dict[int, tuple[Node, int]] = {}

    def run(self, source: Readable) -> None:
        """All members, in order."""
        for member in iter_members(source):
            self.member(member)
        for node, mtime in self.times.values():
            node.row = node.row._replace(mtime=mtime)

    def located(self, name: bytes) -> bytes:
        path = clean(name)
        return b"/".join(filter(None, (self.base, path)))

    def member(self, member: Member) -> None:
        entry, path = member.entry, self.located(member.entry.name)
        if path == self.base:
            if entry.type == DIRECTORY and not self.keep_top:
                self.directory(self.tree.find(path), entry)
            return
        head, _, name = path.rpartition(b"/")
        parent = self.parents(head)
        there = parent.children.get(name)
        if entry.type == DIRECTORY:
            found = there if there is not None and there.is_directory else self.tree.find(path)
            if found is None or not found.is_directory:
                found = Node(directory_row(), parent, changed=True)
                self.put(parent, name, found)
            self.directory(found, entry)
        elif entry.type == HARD_LINK:
            self.hard_link(parent, name, entry)
        else:
            self.put(parent, name, Node(self.row(member), parent, changed=True))

    def directory(self, node: Node | None, entry: TarEntry) -> None:
        assert node is not None
        self.record(node)
        node.row = self.looks(entry)
        self.times[id(node)] = node, node.row.mtime

    def looks(self, entry: TarEntry) -> Row:
        uid, gid = self.owner or (entry.uid, entry.gid)
        mtime = entry.mtime if self.timestamp is None else self.timestamp
        values = {
            name: value
            for name, value in entry.xattrs.items()
            if xattrs.is_recorded(name) and xattrs.is_settable(name) and name != standin.XATTR
        }
        mode = 0o777 if entry.type == SYMBOLIC_LINK else entry.mode
        return Row(b"", entry.type, mode, uid, gid, mtime, entry.link, entry.major, entry.minor, xattrs=values)

    def row(self, member: Member) -> Row:
        entry, found = member.entry, self.looks(member.entry)
        if entry.type != REGULAR:
            return found
        if member.content.sparse is not None:
            raise TreeNeeded(f"sparse file in an archive, which is unpacked only where trees are: {shown(entry.name)}")
        file, at = self.spool.taken(member.content)
        return found._replace(size=entry.size, file=file, at=at)

    def hard_link(self, parent: Node, name: bytes, entry: TarEntry) -> None:
        target = self.tree.find(self.located(entry.link), follow=False)
        if target is None or target.is_directory:
            raise CorruptContent(f"hard link {shown(entry.name)} to what is not there: {shown(entry.link)}")
        if not target.changed:
            raise TreeNeeded(f"hard link in an archive to a file of the base image: {shown(entry.link)}")
        if parent.children.get(name) is not target:
            self.put(parent, name, target)

    def parents(self, head: bytes) -> Node:
        found = self.tree.find(head)
        if found is not None and found.is_directory:
            return found
        node = self.tree.root
        for part in resolved(node, head):
            inner = node.children.get(part)
            if inner is None or not inner.is_directory:
                inner = Node(directory_row(), node, changed=True)
                self.put(node, part, inner)
                self.times[id(inner)] = inner, self.timestamp or 0
            node = inner
        return node


def keeper(spool: Spool, wanted: frozenset[bytes]) -> Callable[[Member], tuple[str, int] | None]:
    """Keeps the contents of the files that are `wanted`."""

    def keep(member: Member) -> tuple[str, int] | None:
        return spool.taken(member.content) if clean(member.entry.name) in wanted else None

    return keep
