"""A list of rows that is written to: each file becomes a row of the layer, which needs no right.

The other Target, for trees on disk, is `fs.trees.directory`.
"""

from __future__ import annotations

import errno
import os
import stat

from builda.errors import CorruptContent, TreeNeeded
from builda.fs import content, owners, standin, xattrs
from builda.fs.lists.layertree import NO_XATTRS, Node, Row, directory_row, resolved
from builda.fs.tar import BLOCK, CHARACTER, DIRECTORY, FIFO, REGULAR, SYMBOLIC_LINK, clean, shown
from builda.fs.tarread import iter_members
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from builda.fs.lists.layertree import Tree
    from builda.fs.lists.spool import Spool
    from builda.fs.tarread import Content, Member
    from builda.fs.trees.target import Inode, Looks, Original
    from builda.oci.digest import Readable

_KINDS = {stat.S_IFLNK: SYMBOLIC_LINK, stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK, stat.S_IFIFO: FIFO}


class Shadowed(NamedTuple):
    """Sources that are not what they seem: what the files of a shadow stand for, by device and inode.

    `content_file` tells where the contents are that a layer keeps in files, `layer` opens the archive of another one.
    """

    nodes: Mapping[Inode, Node]
    content_file: Callable[[str, str], str]
    layer: Callable[[str], AbstractContextManager[Readable]]


class ListTarget:
    """The files of `tree`. Whatever is put into a directory makes the layer record the directories above, too.

    `now` is the time of directories that change. `fetch` must be called at the end.
    """

    def __init__(self, tree: Tree, spool: Spool, now: int, shadowed: Shadowed | None = None) -> None:
        self.tree = tree
        self.spool = spool
        self.now = now
        self.shadowed = shadowed
        self.aside = owners.keeps_aside()
        self.skipped: set[str] = set()
        self.wanted: dict[str, dict[bytes, list[Node]]] = {}  # contents to be fetched, by layer and path in it

    def open(self, path: bytes, *, follow: bool = True) -> Node:
        found = self.tree.find(path, follow=follow)
        if found is None or not found.is_directory:
            kind = errno.ENOENT if found is None else errno.ENOTDIR
            raise OSError(kind, os.strerror(kind), os.fsdecode(path))
        return found

    def close(self, directory: Node) -> None: ...

    def is_directory(self, path: bytes, *, follow: bool = True) -> bool:
        found = self.tree.find(path, follow=follow)
        return found is not None and found.is_directory

    def resolved(self, path: bytes) -> bytes:
        return b"/".join(resolved(self.tree.root, path))

    def identity(self, directory: Node) -> Inode:
        return -1, id(directory)

    def time_of(self, directory: Node) -> int:
        return directory.row.mtime * 10**9

    def set_time(self, directory: Node, time_ns: int) -> None:
        directory.row = directory.row._replace(mtime=time_ns // 10**9)

    def dress(self, directory: Node, looks: Looks) -> None:
        self._record(directory)
        directory.row = self._row(DIRECTORY, looks)

    def enter(self, parent: Node, name: bytes) -> Node | None:
        found = parent.children[name]
        return found if found.is_directory else None

    def holds_directory(self, parent: Node, name: bytes) -> bool:
        found = parent.children.get(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(name))
        return found.is_directory

    def link_at(self, parent: Node, name: bytes) -> bytes | None:
        found = parent.children.get(name)
        return found.row.link if found is not None and found.row.kind == SYMBOLIC_LINK else None

    def make(self, parent: Node, name: bytes, mode: int = 0o700) -> Node:
        _must_be_free(parent, name)
        made = Node(directory_row(mode, self.now), parent, changed=True)
        made.stand_on(parent.covered.get(name))
        self._put(parent, name, made)
        return made

    def remove(self, parent: Node, name: bytes) -> None:
        there = parent.children.pop(name, None)
        if there is not None and (there.merged or not there.changed):
            parent.cover(name, there)

    def link(self, parent: Node, name: bytes, path: bytes) -> None:
        found = self.tree.find(path, follow=False)
        if found is None or found.is_directory:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        if parent.children.get(name) is found:
            return
        if not found.changed:
            raise TreeNeeded(f"hard link in an archive to a file of the base image: {shown(path)}")
        _must_be_free(parent, name)
        self._put(parent, name, found)

    def original(self, info: os.stat_result, values: Mapping[str, bytes]) -> Original:
        model = self._model(info)
        if model is None:
            if not self.aside:
                return (info.st_uid, info.st_gid), info.st_mode & 0o7777, values, info.st_mtime_ns
            return owners.seen(info, values), owners.seen_mode(info, values) & 0o7777, values, info.st_mtime_ns
        row = model.row
        return (row.uid, row.gid), row.mode, row.xattrs, row.mtime * 10**9

    def copy(
        self,
        parent: Node,
        name: bytes,
        source: int,
        info: os.stat_result,
        looks: Looks,
        moved: content.Moved | None,
    ) -> bytes:
        _must_be_free(parent, name)
        model = self._model(info)
        if model is not None:
            return self._stand_for(model, parent, name, looks)
        device = standin.device_of(looks.values) if looks.values else None
        if device is not None and not info.st_size:
            self.special(parent, name, device[0], b"", os.makedev(*device[1]), looks)
            return content.copy_hashed(source, None, info)
        file, at, digest = self.spool.copied(source, info, moved)
        row = self._row(REGULAR, looks, size=info.st_size, file=file, at=at)
        self._put(parent, name, Node(row, parent, changed=True))
        return digest

    def write(self, parent: Node, name: bytes, data: Content, size: int, looks: Looks) -> None:
        _must_be_free(parent, name)
        if data.sparse is not None:
            raise TreeNeeded(f"sparse file in an archive, which is unpacked only where trees are: {shown(name)}")
        file, at = self.spool.taken(data)
        row = self._row(REGULAR, looks, size=size, file=file, at=at)
        self._put(parent, name, Node(row, parent, changed=True))

    def special(self, parent: Node, name: bytes, kind: int, link: bytes, device: int, looks: Looks) -> None:
        _must_be_free(parent, name)
        row = self._row(_KINDS[kind], looks, link=link, device=(os.major(device), os.minor(device)))
        self._put(parent, name, Node(row, parent, changed=True))

    def fetch(self) -> None:
        """Read the contents that are in layers, each layer once, to its end: a path may come again, and is the last."""
        for place, wanted in self.wanted.items():
            assert self.shadowed is not None
            missing = set(wanted)
            with self.shadowed.layer(place) as archive:
                for member in iter_members(archive):
                    path = clean(member.entry.name) if member.entry.type == REGULAR else None
                    if path is not None and (nodes := wanted.get(path)):
                        self._fetched(nodes, member)
                        missing.discard(path)
            if missing:
                raise CorruptContent(f"layer in the store lacks a file: {shown(min(missing))}")

    def _fetched(self, nodes: list[Node], member: Member) -> None:
        if member.content.sparse is not None:
            raise TreeNeeded(f"sparse file, which needs a tree to be copied: {shown(member.entry.name)}")
        file, at = self.spool.taken(member.content)
        for node in nodes:
            node.row = node.row._replace(size=member.entry.size, file=file, at=at)

    def _model(self, info: os.stat_result) -> Node | None:
        """What a source in a shadow stands for; None for any other source."""
        return None if self.shadowed is None else self.shadowed.nodes.get((info.st_dev, info.st_ino))

    def _stand_for(self, model: Node, parent: Node, name: bytes, looks: Looks) -> bytes:
        """Record what a file of a shadow stands for; an identity in place of a digest."""
        assert self.shadowed is not None
        old = model.row
        row = self._row(old.kind, looks, device=(old.major, old.minor), size=old.size)
        node = Node(row, parent, changed=True)
        if old.kind == REGULAR and old.file:
            fd = os.open(self.shadowed.content_file(model.place, old.file), os.O_RDONLY | os.O_CLOEXEC)
            try:
                file, at = self.spool.again(fd, old)
            finally:
                os.close(fd)
            node.row = row._replace(file=file, at=at)
        elif old.kind == REGULAR and old.size:
            self.wanted.setdefault(model.place, {}).setdefault(old.path, []).append(node)
        self._put(parent, name, node)
        return b"%b %b" % (model.place.encode(), old.path)

    def _row(
        self,
        kind: bytes,
        looks: Looks,
        *,
        link: bytes = b"",
        device: tuple[int, int] = (0, 0),
        size: int = 0,
        file: str = "",
        at: int = 0,
    ) -> Row:
        """A row that a layer of a tree with these looks would have, for all but the path."""
        uid, gid = looks.owner
        mode = 0o777 if kind == SYMBOLIC_LINK else looks.mode
        seconds = self.now if looks.time_ns is None else looks.time_ns // 10**9
        values = self._kept(kind, looks.values) if looks.values else NO_XATTRS
        return Row(b"", kind, mode, uid, gid, seconds, link, *device, size, file, at, values)

    def _kept(self, kind: bytes, values: Mapping[str, bytes]) -> Mapping[str, bytes]:
        if self.aside or kind in (CHARACTER, BLOCK):
            values = owners.without(values)
        return {name: value for name, value in values.items() if xattrs.is_recorded(name)} or NO_XATTRS

    def _put(self, parent: Node, name: bytes, node: Node) -> None:
        if parent.row.mtime != self.now:
            parent.row = parent.row._replace(mtime=self.now)
        self._record(parent)
        parent.children[name] = node

    def _record(self, directory: Node) -> None:
        """The layer records the directory."""
        above: Node | None = directory
        while above is not None and not above.changed:
            above.changed = above.merged = True
            above = above.parent


def _must_be_free(parent: Node, name: bytes) -> None:
    if name in parent.children:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(name))
