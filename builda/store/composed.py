"""The driver for processes that may neither mount nor give files away: layers are lists of files, never trees.

A snapshot's `fs` holds `rows`, what the layer records, in the order of its archive, and beside it the contents of files
that were copied into it. A base image's layer is read once, for its names; its contents stay in its blob.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builda.errors import IsolationUnavailable
from builda.fs.compose import Spool, keeper, write_rows
from builda.fs.index import OPAQUE, Row, Tree, read_rows
from builda.store import layout
from builda.store.snapshots import Driver, Snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.events import Emit
    from builda.fs.layer import Applied, Clamp
    from builda.fs.tar import Writable
    from builda.linux.mount import Mount
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest, Readable

ACCOUNTS = frozenset((b"etc/passwd", b"etc/group"))
"""What of a base image is looked up in, so that its contents are kept at hand."""


class ComposedSnapshots(Snapshots):
    """Snapshots that hold lists of files."""

    driver: Driver = "composed"
    stacks = False

    def _make(self, key: str, parent: str | None) -> None:
        os.mkdir(self.path(key, "work"), 0o700)
        os.mkdir(self.path(key, "fs"), 0o700)

    def tree(self, key: str) -> Tree:
        """The files of the snapshot and all below it; what it changed itself is marked so."""
        tree = Tree()
        for snapshot in reversed(self.lineage(key)):
            tree.add(self.rows(snapshot), snapshot, changed=snapshot == key)
        return tree

    def rows(self, snapshot: str) -> tuple[Row, ...]:
        """What the snapshot itself records."""
        try:
            with open(self.path(snapshot, "fs", "rows"), encoding="ascii") as file:
                return tuple(map(Row.from_json, json.load(file)))
        except FileNotFoundError:
            return ()

    def content_file(self, snapshot: str, file: str) -> str:
        """The path of a file with contents that were copied into the snapshot."""
        return self.path(snapshot, "fs", file)

    @contextmanager
    def layer(self, snapshot: str) -> Iterator[Readable]:
        """The archive of a base image's layer, decompressed and verified if it is read to its end."""
        from builda.fs.compress import decompressing
        from builda.fs.pipeline import Ahead
        from builda.oci.descriptor import Descriptor
        from builda.oci.digest import VerifyingReader
        from builda.oci.mediatype import compression_of

        blob = Descriptor.from_json(layout.read_json(self.path(snapshot, "fs", "blob")), where="snapshot")
        with self._blobs.open(blob.digest) as file:
            reader = VerifyingReader(file, blob.digest, blob.size)
            ahead = Ahead(decompressing(reader, compression_of(blob.media_type)))
            try:
                yield ahead
            finally:
                ahead.stop()

    def save(self, key: str, tree: Tree) -> None:
        """The active snapshot records what was changed in `tree`; nothing when nothing was."""
        rows = list(tree.rows())
        if rows:
            layout.publish(self._layout, self.path(key, "fs", "rows"), _dumped(rows))

    def write_changes(self, key: str, sink: Writable, *, clamp: Clamp, below: str | None = None) -> tuple[str, ...]:
        write_rows(self.rows(key), self.path(key, "fs"), sink, clamp)
        return ()

    def rootfs(self, key: str) -> tuple[Mount, ...]:
        raise no_trees()

    def view(self, snapshot: str | None) -> tuple[Mount, ...]:
        raise no_trees()

    def _unpack_layer(
        self, layer: Descriptor, diff_id: Digest, chain: Digest, emit: Emit
    ) -> tuple[str, Applied | None]:
        from builda.fs.layer import Applied
        from builda.store import locks

        lock = locks.exclusive(locks.bucket(self._layout.path("locks"), chain.encoded))
        with lock, layout.translated(self._layout.root):
            if (known := self.find_chain(chain)) is not None:
                return known, None
            key = os.urandom(16).hex()
            os.mkdir(self.path(key), 0o700)
            os.mkdir(self.path(key, "fs"), 0o700)
            try:
                rows = self._read(key, layer, diff_id)
                blob = json.dumps(layer.to_json()).encode()
                layout.publish(self._layout, self.path(key, "fs", "blob"), blob)
                layout.publish(self._layout, self.path(key, "fs", "rows"), _dumped(rows))
            except BaseException:
                self.remove(key)
                raise
        return key, Applied(len(rows), 0, hides_all=any(row.path == OPAQUE for row in rows))

    def _read(self, key: str, layer: Descriptor, diff_id: Digest) -> list[Row]:
        from builda.errors import CorruptContent
        from builda.fs.compress import decompressing
        from builda.fs.pipeline import Ahead, Hashing
        from builda.fs.tar import iter_members
        from builda.oci.digest import VerifyingReader
        from builda.oci.mediatype import compression_of

        with self._blobs.open(layer.digest) as file, Spool(self.path(key, "fs")) as spool:
            reader = VerifyingReader(file, layer.digest, layer.size)
            ahead = Ahead(decompressing(reader, compression_of(layer.media_type)))
            hashing = Hashing(ahead)
            try:
                rows = list(read_rows(iter_members(hashing), keeper(spool, ACCOUNTS)))
                found = hashing.digest()
            finally:
                hashing.stop()
                ahead.stop()
        if found != diff_id:
            raise CorruptContent(f"layer unpacks to {found}, but the image configuration promises {diff_id}")
        return rows


def _dumped(rows: list[Row]) -> bytes:
    return json.dumps([row.to_json() for row in rows], separators=(",", ":")).encode()


def no_trees() -> IsolationUnavailable:
    """Why nothing can be run or mounted in such a store."""
    return IsolationUnavailable(
        "this store keeps lists of files instead of trees, so nothing can be run or mounted in it",
        hint="copy, add, config, commit and push work; `builda doctor` says what running commands needs",
    )
