"""Layers as lists of files, for builds without commands, and for processes that may neither mount nor give files away.

A snapshot's `fs` holds `rows`, what the layer records, in the order of its archive, and beside it the contents of files
that were copied into it. A base image's layer is read once, for its names, when something is first put upon it; its
contents stay in its blob. Lists and trees lie side by side in a store: `Info.driver` tells them apart.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager, suppress

from builda.errors import IsolationUnavailable
from builda.fs.lists.layertree import Row, Tree, read_rows
from builda.fs.lists.spool import Spool, keeper, write_rows
from builda.fs.whiteouts import OPAQUE
from builda.linux import private
from builda.store import layout
from builda.store.drivers import LISTS, Driver
from builda.store.drivers.bookkeeping import ENTRY_SIZE
from builda.store.drivers.layered import Layered
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import ClassVar

    from builda.events import Emit
    from builda.fs.layer import Applied, Clamp
    from builda.fs.tar import Writable
    from builda.linux.mount import Mount
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest, Readable
    from builda.store.blobs import Blobs
    from builda.store.images import Image
    from builda.store.layout import Layout

ACCOUNTS = frozenset((b"etc/passwd", b"etc/group"))
"""What of a base image is looked up in, so that its contents are kept at hand."""


_TREES = 2
"""How many trees are kept in memory between steps: one of 40,000 files takes some 20 MB."""


class _Known(NamedTuple):
    """A tree in memory. `changed` identifies the state of the topmost rows, if they are marked as changes in it."""

    tree: Tree
    changed: tuple[int, int] | None


_IN_LINE = 128
"""Rows in a line of `rows`: enough for speed, few enough to be in memory at once."""


class ListSnapshots(Layered):
    """Snapshots that hold lists of files."""

    driver: ClassVar[Driver] = LISTS

    def __init__(self, where: Layout, blobs: Blobs, *, userxattr: bool) -> None:
        super().__init__(where, blobs, userxattr=userxattr)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], _Known] = {}
        """Trees in memory, by what they consist of, topmost first."""

    def prepare_for(self, image: Image | None, emit: Emit) -> tuple[str | None, str]:
        """A new active snapshot on nothing: the image is read later, by `stand_on`."""
        return None, self.prepare(None)

    def stand_on(self, key: str, image: Image, emit: Emit) -> str | None:
        """The list of the image, read now if missing; the snapshots of `key` are put upon it."""
        base = self.unpack(image, emit)
        bottom = self.lineage(key)[-1]
        if base not in (None, bottom):
            info = self.info(bottom)
            if info.chain is None:  # else it is the image's own lowest layer
                self._write_info(bottom, info._replace(parent=base))
        return base

    def _make(self, key: str, parent: str | None) -> None:
        os.mkdir(self.path(key, "fs"), 0o700)

    def tree(self, key: str) -> Tree:
        """The files of the snapshot and all below it; what it changed itself is marked so.

        The tree is the caller's alone. Give it back with `save` or `give_back`: the next step upon it reads nothing.
        """
        lineage = self.lineage(key)
        tree = self._recalled(lineage)
        if tree is not None:
            return tree
        tree = Tree()
        for snapshot in reversed(lineage):
            tree.add(self.rows(snapshot), snapshot, changed=snapshot == key)
        return tree

    def give_back(self, key: str, tree: Tree) -> None:
        """Keep `tree` for the next step. It was got for `key`, and only read since, or it was saved."""
        lineage = self.lineage(key)
        changed = self._written(key)
        if changed is None:
            lineage = lineage[1:]
        with self._lock:
            self._known[lineage] = _Known(tree, changed)
            while len(self._known) > _TREES:
                del self._known[next(iter(self._known))]

    def _recalled(self, lineage: tuple[str, ...]) -> Tree | None:
        """The tree of this snapshot and those below it, if it is in memory."""
        key, changed = lineage[0], self._written(lineage[0])
        with self._lock:
            known = self._known.pop(lineage[1:] if changed is None else lineage, None)
        if known is None:
            return None
        top = key if changed is not None else lineage[1] if len(lineage) > 1 else None
        if known.changed is not None:
            if top is None or self._written(top) != known.changed:  # another process changed it
                return None
            known.tree.keep(top)
        if changed is None:
            known.tree.settle()
        elif known.changed is None:
            return None
        return known.tree

    def _written(self, snapshot: str) -> tuple[int, int] | None:
        """The identity of the state of a snapshot's rows (inode and mtime); None if it has none."""
        try:
            found = os.stat(self.path(snapshot, "fs", "rows"))
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def rows(self, snapshot: str) -> Iterator[Row]:
        """The rows of the snapshot itself."""
        try:
            with open(self.path(snapshot, "fs", "rows"), encoding="ascii") as file:
                for line in file:
                    yield from map(Row.from_json, json.loads(line))
        except FileNotFoundError:
            return

    def content_file(self, snapshot: str, file: str) -> str:
        """The path of a file with contents that were copied into the snapshot."""
        return self.path(snapshot, "fs", file)

    @contextmanager
    def layer(self, snapshot: str) -> Iterator[Readable]:
        """The archive of a base image's layer, decompressed and verified if it is read to its end."""
        from builda.oci.descriptor import Descriptor
        from builda.store.drivers.layerblob import decompressed

        blob = Descriptor.from_json(layout.read_json(self.path(snapshot, "fs", "blob")), where="snapshot")
        with decompressed(self._blobs, blob) as archive:
            yield archive

    def save(self, key: str, tree: Tree) -> None:
        """Record in the active snapshot what was changed in `tree`, if anything was."""
        self._write_rows(key, tree.rows())
        self.give_back(key, tree)

    def _write_rows(self, key: str, rows: Iterable[Row]) -> int:
        """Write rows, if there are any, several in a line; returns how many."""
        from itertools import islice

        encode = json.JSONEncoder(separators=(",", ":")).encode
        rest = map(Row.to_json, rows)
        count = 0
        temporary = layout.temporary(self._layout)
        try:
            with open(temporary, "x", encoding="ascii", opener=private.opener) as file:
                while some := list(islice(rest, _IN_LINE)):
                    file.write(encode(some) + "\n")
                    count += len(some)
            if count:  # a snapshot without the file has no changes
                os.rename(temporary, self.path(key, "fs", "rows"))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        return count

    def write_changes(self, key: str, sink: Writable, *, clamp: Clamp, below: str | None = None) -> tuple[str, ...]:
        write_rows(self.rows(key), self.path(key, "fs"), sink, clamp)
        return ()

    def changed_size(self, key: str) -> int | None:
        return sum(row.size + ENTRY_SIZE for row in self.rows(key))

    def is_changed(self, key: str, below: str | None) -> bool:
        """Whether anything is recorded; a change of the root directory is a row like others."""
        return bool(os.listdir(self.upper(key)))

    def rootfs(self, key: str) -> tuple[Mount, ...]:
        raise no_trees()

    def view(self, snapshot: str | None) -> tuple[Mount, ...]:
        raise no_trees()

    def stacked(self, lower: tuple[str, ...], place: str) -> Mount:
        raise no_trees()

    def fill(self, key: str, archive: Readable) -> None:
        raise no_trees()

    def _read_layer(self, key: str, layer: Descriptor, diff_id: Digest) -> Applied:
        from builda.fs.layer import Applied, check_found
        from builda.fs.pipeline import Hashing
        from builda.fs.tarread import iter_members
        from builda.store.drivers.layerblob import decompressed

        hiding: list[Row] = []

        def noted(rows: Iterable[Row]) -> Iterator[Row]:
            for row in rows:
                if row.path == OPAQUE:
                    hiding.append(row)
                yield row

        os.mkdir(self.path(key, "fs"), 0o700)
        with decompressed(self._blobs, layer) as archive, Spool(self.path(key, "fs")) as spool:
            hashing = Hashing(archive)
            try:
                count = self._write_rows(key, noted(read_rows(iter_members(hashing), keeper(spool, ACCOUNTS))))
                found = hashing.digest()
            finally:
                hashing.stop()
        check_found(found, diff_id)
        layout.publish(self._layout, self.path(key, "fs", "blob"), json.dumps(layer.to_json()).encode())
        return Applied(count, 0, hides_all=bool(hiding))


def no_trees() -> IsolationUnavailable:
    """Why nothing can be run or mounted in such a store."""
    return IsolationUnavailable(
        "this store keeps lists of files instead of trees, so nothing can be run or mounted in it",
        hint="copy, add, config, commit and push work; `builda doctor` says what running commands needs",
    )
