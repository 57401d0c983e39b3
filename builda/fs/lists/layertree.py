"""Trees that are known and not there: what layers hold, by path, without unpacking them.

A layer is a list of rows in the order of its archive. `Tree` is what such lists are together: deletions and opaque
directories honoured, links followed inside the root. Names of the same file are one `Node` under several names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from builda.errors import CorruptContent
from builda.fs.tar import DIRECTORY, HARD_LINK, REGULAR, SYMBOLIC_LINK, clean, shown
from builda.fs.whiteouts import OPAQUE, WHITEOUT, hidden_by, is_no_name
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from builda.fs.tar import TarEntry
    from builda.fs.tarread import Member

NO_XATTRS: Final[Mapping[str, bytes]] = {}
LINKS = 40
"""How many links a path may lead through, as with Linux."""


class Row(NamedTuple):
    """One entry of a layer. `path` is as in the archive; `file` holds the content from `at` on, "": the layer does."""

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    link: bytes = b""
    major: int = 0
    minor: int = 0
    size: int = 0
    file: str = ""
    at: int = 0
    xattrs: Mapping[str, bytes] = NO_XATTRS

    def to_json(self) -> list[object]:
        """The row as a JSON array; bytes become Latin-1 text."""
        values = {name: value.decode("latin-1") for name, value in self.xattrs.items()}
        texts = self.path.decode("latin-1"), self.kind.decode("latin-1")
        return [*texts, *self[2:6], self.link.decode("latin-1"), *self[7:12], values]

    @classmethod
    def from_json(cls, found: list[Any]) -> Row:
        """Read a row that `to_json` wrote. Changes the list in place: there is one for each file of an image."""
        for index in (0, 1, 6):
            found[index] = found[index].encode("latin-1")
        values = found[12]
        found[12] = {name: value.encode("latin-1") for name, value in values.items()} if values else NO_XATTRS
        return cls._make(found)


_CHILDLESS: Final[dict[bytes, Node]] = {}
"""The children of every file that is no directory, and what a directory covers that covers nothing; never changed."""


class Node:
    """A file or directory. `place` is the layer that holds its content; `changed`: the layer being made records it.

    In a directory, `covered` are entries of lower layers that the layer being made has replaced or deleted. `merged`:
    the directory itself is from a lower layer, and has changes in it.
    """

    __slots__ = ("changed", "children", "covered", "merged", "opaque", "parent", "place", "row")
    children: dict[bytes, Node]
    covered: dict[bytes, Node]

    def __init__(self, row: Row, parent: Node | None = None, place: str = "", *, changed: bool = False) -> None:
        self.row = row
        self.children = {} if row.kind == DIRECTORY else _CHILDLESS
        self.parent = parent
        self.place = place
        self.changed = changed
        self.opaque = self.merged = False
        self.covered = _CHILDLESS

    def cover(self, name: bytes, below: Node) -> None:
        """Note that `name` in this directory is replaced or deleted, and was `below` in lower layers."""
        if self.covered is _CHILDLESS:
            self.covered = {}
        self.covered.setdefault(name, below)

    def stand_on(self, below: Node | None) -> None:
        """Make this a new directory that replaces `below`: the entries of `below` are covered."""
        if below is not None and below.is_directory:
            self.covered = below.shown()

    def shown(self) -> dict[bytes, Node]:
        """The entries of this directory in lower layers."""
        kept = {name: node for name, node in self.children.items() if node.merged or not node.changed}
        return {**kept, **self.covered}

    @property
    def is_directory(self) -> bool:
        return self.row.kind == DIRECTORY


def look(row: Row) -> tuple[int, int, int]:
    """Permissions and owner."""
    return row.mode, row.uid, row.gid


def directory_row(mode: int = 0o755, mtime: int = 0) -> Row:
    """The row of a directory that no layer lists."""
    return Row(b"", DIRECTORY, mode, 0, 0, mtime)


_DELETED: Final = Node(Row(b"", b"", 0, 0, 0, 0))
"""In a layer that is being read: what lower layers call so is deleted."""


class Tree:
    """The files of layers that lie one upon the other. Paths are bytes, with or without a leading slash."""

    def __init__(self) -> None:
        self.root = Node(directory_row())
        self.root_mtime = 0
        """What the layers below the one being made say of the root directory's time."""
        self.root_below = look(self.root.row)

    def add(self, rows: Iterable[Row], place: str, *, changed: bool = False) -> None:
        """Put a layer on top, as overlay would after unpacking it in a directory of its own."""
        layer = _Layer(place, changed)
        for row in rows:
            layer.put(row)
        layer.settle_on(self.root)
        if not changed:
            self.root_mtime, self.root_below = self.root.row.mtime, look(self.root.row)

    def find(self, path: bytes, *, follow: bool = True, passed: list[Node] | None = None) -> Node | None:
        """The node at `path`, following links on the way, and the last component if `follow`; None if there is none.

        `passed` gets every file and link on the way, and the result.
        """
        node, pending, links = self.root, list(reversed(path.split(b"/"))), 0
        while pending:
            part = pending.pop()
            if not node.is_directory:
                return None
            if part in (b"", b"."):
                continue
            if part == b"..":
                node = node.parent or self.root
                continue
            inner = node.children.get(part)
            if inner is None:
                return None
            if passed is not None:
                passed.append(inner)
            if inner.row.kind == SYMBOLIC_LINK and (follow or any(pending)):
                links += 1
                if links > LINKS:
                    return None
                node = self.root if inner.row.link.startswith(b"/") else node
                pending += reversed(inner.row.link.split(b"/"))
                continue
            node = inner
        return node

    def rows(self) -> Iterator[Row]:
        """The rows of the layer being made, in the order of its archive; Unsupported for names of whiteouts."""
        if not self.root.changed:
            return
        if self.records_root:
            yield self.root.row._replace(path=b"./", kind=DIRECTORY)
        first: dict[int, bytes] = {}
        for path, node in self.changes():
            if node is None:
                yield Row(path, REGULAR, 0o600, 0, 0, 0)
            elif WHITEOUT in path and path.rstrip(b"/").rpartition(b"/")[2].startswith(WHITEOUT):
                raise is_no_name(path.rstrip(b"/"))
            elif node.is_directory:
                yield node.row._replace(path=path)
            else:
                yield _named(node, path, first)

    @property
    def records_root(self) -> bool:
        """Whether a layer with changes lists the root directory: it looks unusual, or not as the one below it."""
        top = self.root.row
        return bool(top.xattrs) or not (look(top) == self.root_below == (0o755, 0, 0))

    def keep(self, place: str) -> None:
        """Name `place` as the layer of all new files, as if they were read from there."""
        if self.root.changed and not self.records_root:
            self.root.row = self.root.row._replace(mtime=self.root_mtime)
        for path, node in self.changes():
            if node is not None and not node.is_directory and not node.place:
                node.place = place
                node.row = node.row._replace(path=path)

    def settle(self) -> None:
        """The layer that was made lies under one that is to be made: nothing is changed yet."""
        settled = [self.root, *(node for _, node in self.changes() if node is not None)]
        self.root_mtime, self.root_below = self.root.row.mtime, look(self.root.row)
        for node in settled:
            node.changed = node.opaque = node.merged = False
            node.covered = _CHILDLESS

    def changes(self) -> Iterator[tuple[bytes, Node | None]]:
        """Everything that was changed below the root, by path in the order of the archive; None: a whiteout."""
        stack = [(b"", iter(_in_order(self.root)))]
        while stack:
            prefix, entries = stack[-1]
            for key, node in entries:
                path = prefix + key
                yield path, node
                if node is not None and node.is_directory:
                    stack.append((path, iter(_in_order(node))))
                    break
            else:
                stack.pop()


class _Layer:
    """A layer by itself: a link of its own leads an entry elsewhere in it, one of a lower layer gives way."""

    def __init__(self, place: str, changed: bool) -> None:
        self.place = place
        self.changed = changed
        self.root = Node(directory_row())
        self.implied = {id(self.root): self.root}  # directories that no row is of, so far
        self.deletes = False  # whether anything is deleted or opaque
        self.last: tuple[bytes, Node] = (b"", self.root)

    def put(self, row: Row) -> None:
        """The next entry of the archive."""
        path = row.path.strip(b"/")
        if path in (b"", b"."):
            if row.kind == DIRECTORY:
                self.root.row = row
                self.implied.pop(id(self.root), None)
            return
        head, _, name = path.rpartition(b"/")
        above = self.parent(head)
        hidden = hidden_by(head, name)
        if hidden is not None:
            self.hide(above, hidden)
        elif row.kind == HARD_LINK:
            above.children[name] = self.linked(path, row.link)
        elif row.kind == DIRECTORY:
            self.directory(above, name, row)
        else:
            above.children[name] = Node(row, above, self.place, changed=self.changed)

    def hide(self, above: Node, name: bytes) -> None:
        self.deletes = True
        there = above.children.get(name)
        if name == OPAQUE:
            above.opaque = True
        elif name and there is None:
            above.children[name] = _DELETED
        elif name and there is not None and there.is_directory:
            there.opaque = True

    def directory(self, above: Node, name: bytes, row: Row) -> None:
        there = above.children.get(name)
        if there is not None and there.is_directory:
            there.row = row
            self.implied.pop(id(there), None)
            return
        made = above.children[name] = Node(row, above, self.place, changed=self.changed)
        made.opaque = there is _DELETED

    def linked(self, path: bytes, link: bytes) -> Node:
        """The file of an earlier entry."""
        head, _, name = link.strip(b"/").rpartition(b"/")
        node: Node | None = self.root
        for part in resolved(self.root, head):
            node = node.children.get(part) if node is not None else None
        target = None if node is None else node.children.get(name)
        replaced = link.strip(b"/").startswith(path + b"/")  # the directory that it is in gives way first
        if target is None or target is _DELETED or target.is_directory or replaced:
            raise CorruptContent(f"hard link {shown(path)} leads to a missing file: {shown(link)}")
        return target

    def parent(self, head: bytes) -> Node:
        """The directory `head`; what the layer did not list is made, and what is in the way gives way."""
        if head == self.last[0]:  # just before, so that nothing has replaced it
            return self.last[1]
        node, parts = self.root, head.split(b"/") if head else []
        for part in parts:
            inner = node.children.get(part)
            if inner is not None and inner.row.kind == SYMBOLIC_LINK:
                node = self.made(self.root, resolved(self.root, head))
                break
            node = inner if inner is not None and inner.is_directory else self.made(node, [part])
        self.last = head, node
        return node

    def made(self, node: Node, parts: list[bytes]) -> Node:
        """The directory that `parts`, none of them a link, lead to from `node`."""
        for part in parts:
            inner = node.children.get(part)
            if inner is None or not inner.is_directory:
                made = node.children[part] = Node(directory_row(), node)
                made.opaque = inner is _DELETED
                self.implied[id(made)] = made
                inner = made
            node = inner
        return node

    def settle_on(self, root: Node) -> None:
        """Put all upon the tree below `root`."""
        pending = [(root, self.root)]
        while pending:
            below, own = pending.pop()
            if id(own) not in self.implied:
                below.row, below.changed = own.row, self.changed
            if own.opaque:
                if self.changed:
                    below.covered = below.shown()
                below.children.clear()
            for name, node in own.children.items():
                there = below.children.get(name)
                if node is _DELETED:
                    if self.changed and there is not None:
                        below.cover(name, there)
                    below.children.pop(name, None)
                    continue
                if node.is_directory and there is not None and there.is_directory:
                    there.merged = self.changed
                    pending.append((there, node))
                    continue
                if self.changed and there is not None:
                    below.cover(name, there)
                if node.is_directory and self.deletes:  # which is nothing in what is new
                    below.children[name] = fresh = Node(node.row, below, node.place, changed=node.changed)
                    if self.changed:
                        fresh.stand_on(below.covered.get(name))
                    pending.append((fresh, node))
                else:
                    node.parent = below
                    below.children[name] = node
        if self.changed and self.root.children:
            root.changed = True


def resolved(root: Node, path: bytes) -> list[bytes]:
    """Resolve symbolic links in `path` to names from `root` down; missing components are kept.

    CorruptContent if they form a circle.
    """
    names: list[bytes] = []
    nodes: list[Node | None] = [root]
    pending, links = list(reversed(path.split(b"/"))), 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            del names[-1:], nodes[max(len(nodes) - 1, 1) :]
            continue
        above = nodes[-1]
        inner = None if above is None else above.children.get(part)
        if inner is not None and inner.row.kind == SYMBOLIC_LINK:
            links += 1
            if links > LINKS:
                raise CorruptContent(f"too many links in an archive on the way to {shown(path)}")
            if inner.row.link.startswith(b"/"):
                names, nodes = [], [root]
            pending += reversed(inner.row.link.split(b"/"))
            continue
        names.append(part)
        nodes.append(inner)
    return names


def _named(node: Node, path: bytes, first: dict[int, bytes]) -> Row:
    """The file, or a link to the name that it was given before."""
    before = first.setdefault(id(node), path)
    if before == path:
        return node.row._replace(path=path)
    return node.row._replace(path=path, kind=HARD_LINK, link=before, size=0, file="", xattrs=NO_XATTRS)


def _in_order(node: Node) -> list[tuple[bytes, Node | None]]:
    found: list[tuple[bytes, Node | None]] = [
        (name + b"/" if inner.is_directory else name, inner) for name, inner in node.children.items() if inner.changed
    ]
    found += [(WHITEOUT + name, None) for name in node.covered if name not in node.children]
    found.sort(key=lambda entry: entry[0])
    return found


def row_of(entry: TarEntry) -> Row:
    """A layer's own entry, whose content stays in the layer."""
    link = clean(entry.link) if entry.type == HARD_LINK else entry.link
    head = (clean(entry.name), entry.type, entry.mode, entry.uid, entry.gid, entry.mtime, link)
    return Row(*head, entry.major, entry.minor, entry.size, "", 0, entry.xattrs)


def read_rows(members: Iterable[Member], keep: Callable[[Member], tuple[str, int] | None]) -> Iterator[Row]:
    """The rows of a layer's archive. `keep` may store a content elsewhere and returns the place."""
    for member in members:
        row = row_of(member.entry)
        place = keep(member) if row.kind == REGULAR else None
        yield row if place is None else row._replace(file=place[0], at=place[1])
