"""The driver for places where nothing can be mounted: one flat tree for each working container.

A frozen layer is the archive of what was changed since the one below it; the tree that it was made of stays where it
is, and work goes on in it. What the tree was like when a layer was frozen is in `KEY/before-LAYER`: which of these
counts is said by the container's record, whose topmost frozen layer it is. So the record divides what a layer has from
what is still to be frozen, and a kill at any moment leaves nothing in both or in neither.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from builda import jsontext
from builda.errors import CorruptContent, NotFound, StoreUnavailable, Unsupported
from builda.linux import private
from builda.linux.directories import opened
from builda.oci.digest import Digest
from builda.store import layout
from builda.store.drivers import PLAIN, Cut, Driver, Info
from builda.store.drivers.bookkeeping import Records, boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO, ClassVar

    from builda.events import Emit
    from builda.fs.layer import Clamp, Fingerprint, Whiteouts
    from builda.fs.pipeline import Ahead
    from builda.fs.tar import Writable
    from builda.linux.mount import Mount
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Readable
    from builda.store.images import Image


class PlainSnapshots(Records):
    """Snapshots that are whole trees, and frozen ones that are archives."""

    driver: ClassVar[Driver] = PLAIN
    whiteouts: Whiteouts = "plain"

    def prepare_for(self, image: Image | None, emit: Emit) -> tuple[str | None, str]:
        return None, self.prepare_on(image, None)

    def prepare_on(self, image: Image | None, top: str | None) -> str:
        from builda.fs.layer import apply, fingerprints
        from builda.store.drivers.layerblob import unpack_into

        key = self.prepare(None)
        try:
            with opened(self.upper(key)) as root:
                for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True) if image else ():
                    unpack_into(root, self._blobs, layer, diff_id, whiteouts=self.whiteouts)
                for snapshot in reversed(self.lineage(top)):
                    with self._layer(snapshot) as file:
                        apply(file, root, whiteouts=self.whiteouts)
                self._save(key, top, fingerprints(root))
        except BaseException:
            self.remove(key)
            raise
        return key

    def moved(self, key: str, top: str) -> str:
        """The same tree, to which the frozen layer `top` was applied."""
        from builda.fs.layer import apply, fingerprints

        with opened(self.upper(key)) as root:
            with self._layer(top) as file:
                apply(file, root, whiteouts=self.whiteouts)
            self._save(key, top, fingerprints(root))
        return key

    def upper(self, key: str) -> str:
        """The whole tree."""
        return self.path(key, "fs")

    def fill(self, key: str, archive: Readable) -> None:
        from builda.fs.layer import apply

        with opened(self.upper(key)) as root:
            apply(archive, root, whiteouts=self.whiteouts)

    def _make(self, key: str, parent: str | None) -> None:
        os.mkdir(self.path(key, "fs"))
        os.chmod(self.path(key, "fs"), 0o755)

    def is_unpacked(self, image: Image) -> bool:
        """Each tree is unpacked anew."""
        return not image.manifest.layers

    def take_out(self, key: str) -> None:
        aside = self.path(key, "placed")
        if os.path.exists(aside):
            from builda.store.drivers.mount_journal import take_out

            with layout.translated(self._layout.root):
                take_out(self.upper(key), aside)

    def bring_home(self, cache: str) -> None:
        for key in layout.iter_names(self._layout.path("snapshots")):
            aside = self.path(key, "placed")
            if os.path.exists(aside):
                from builda.store.drivers.mount_journal import take_out

                with layout.translated(self._layout.root):
                    take_out(self.upper(key), aside, cache=cache)

    def remove(self, snapshot: str) -> None:
        with suppress(CorruptContent, OSError):  # for the sake of caches; everything else goes in any case
            self.take_out(snapshot)
        super().remove(snapshot)

    def rootfs(self, key: str) -> tuple[Mount, ...]:
        from builda.linux.mount import Mount  # which brings ctypes

        return (Mount("bind", self.path(key, "fs"), "/"),)

    def view(self, snapshot: str | None) -> tuple[Mount, ...]:
        raise _not_stacked()

    def stacked(self, lower: tuple[str, ...], place: str) -> Mount:
        raise _not_stacked()

    def write_changes(self, key: str, sink: Writable, *, clamp: Clamp, below: str | None = None) -> tuple[str, ...]:
        from builda.fs.layer import AS_IS, with_times

        if not self.info(key).committed:
            return self._diff(key, below, sink, clamp, {})
        with self._layer(key) as file:
            if clamp != AS_IS:
                with_times(file, sink, clamp)
            else:
                while data := file.read(1 << 20):
                    sink.write(data)
        return self._skipped(key)

    def changed_size(self, key: str) -> int | None:
        if not self.info(key).committed:
            return None  # the tree holds everything, not only the changes
        return self._measure(key)[1]

    def is_changed(self, key: str, below: str | None) -> bool:
        from builda.fs.layer import AS_IS
        from builda.fs.tar import EMPTY_SIZE

        size = _Size()
        self._diff(key, below, size, AS_IS, {})
        return size.bytes > EMPTY_SIZE

    def cut(self, key: str, below: str | None, *, even_empty: bool = False) -> Cut:
        from builda.fs.layer import AS_IS
        from builda.fs.tar import EMPTY_SIZE

        after: dict[bytes, Fingerprint] = {}
        with self._new() as layer:
            with self._new_layer(layer) as file:
                skipped = self._diff(key, below, file, AS_IS, after)
                size = file.tell()
            empty = size <= EMPTY_SIZE
            if empty and not even_empty:
                self.remove(layer)
                return Cut(None, key, empty)
            if skipped:
                layout.publish(self._layout, self.path(layer, "skipped"), jsontext.dumps({"paths": skipped}).encode())
            self._write_info(layer, Info(below, committed=True, boot=boot_id(), entries=1, size=size))
            self._save(key, layer, after)
        return Cut(layer, key, empty)

    def freeze(self, key: str) -> str:
        """Nothing to do: the layer of a `cut` is an archive, and committed already."""
        return key

    def unpack(self, image: Image, emit: Emit) -> str | None:
        """None: trees stand on nothing."""
        return None

    def unpack_layer(self, layer: Descriptor, diff_id: Digest, chain: Digest, parent: str | None, emit: Emit) -> str:
        from builda.fs.layer import check_found
        from builda.store.drivers.layerblob import decompressed

        with self._new() as key:
            with decompressed(self._blobs, layer) as archive, self._new_layer(key) as out:
                found, size = _copy(archive, out)
            check_found(found, diff_id, "its step")
            self._write_info(key, Info(parent, committed=True, boot=boot_id(), entries=1, size=size))
        return key

    def _new_layer(self, key: str) -> BinaryIO:
        return open(self.path(key, "layer.tar"), "xb", 0, opener=private.opener)

    def _measure(self, snapshot: str) -> tuple[int, int]:
        try:
            return 1, os.stat(self.path(snapshot, "layer.tar")).st_size
        except FileNotFoundError:
            return 0, 0

    def _layer(self, snapshot: str) -> BinaryIO:
        try:
            return open(self.path(snapshot, "layer.tar"), "rb")
        except FileNotFoundError as error:
            raise NotFound(f"no such snapshot: {snapshot}") from error

    def _skipped(self, snapshot: str) -> tuple[str, ...]:
        try:
            return tuple(layout.read_json(self.path(snapshot, "skipped"))["paths"])
        except FileNotFoundError:
            return ()

    def _diff(
        self, key: str, below: str | None, sink: Writable, clamp: Clamp, after: dict[bytes, Fingerprint]
    ) -> tuple[str, ...]:
        """Write what was changed since `below` was frozen; `after` gets what the tree is like now."""
        from builda.fs.layer import diff_trees

        with opened(self.upper(key)) as root:
            return diff_trees(self._before(key, below), root, sink, clamp=clamp, after=after)

    def _before(self, key: str, below: str | None) -> dict[bytes, Fingerprint]:
        from builda.fs.layer import Fingerprint

        path = self.path(key, _name(below))
        try:
            known = {os.fsencode(path): Fingerprint(*found) for path, found in layout.read_json(path).items()}
        except FileNotFoundError as error:
            raise StoreUnavailable(
                f"the working tree has no record of its beginning: {path}", hint="remove the container"
            ) from error
        self._amend(key, known)
        return known

    def _amend(self, key: str, known: dict[bytes, Fingerprint]) -> None:
        """Accept the new ctime of files that were only put aside for a command and put back after it."""
        try:
            with open(self.path(key, "amended"), encoding="ascii") as file:
                rows = [jsontext.loads(line) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return
        for row in rows:
            names = [os.fsencode(row["path"])]
            if "ino" in row:  # the file's other names have the same ctime
                names = [path for path, found in known.items() if found.ino == row["ino"]]
            for path in names:
                found = known.get(path)
                if found is not None and found.ctime_ns == row["before"]:
                    known[path] = found._replace(ctime_ns=row["after"])

    def _save(self, key: str, below: str | None, found: Mapping[bytes, Fingerprint]) -> None:
        """Record the tree as it was when `below` was frozen; wait until a later change would get another ctime."""
        value = {os.fsdecode(path): list(known) for path, known in found.items()}
        layout.publish(self._layout, self.path(key, _name(below)), jsontext.dumps(value).encode("ascii"))
        latest = max((known.ctime_ns for known in found.values()), default=0)
        while latest < time.time_ns() and layout.file_clock_ns() <= latest:
            time.sleep(0.001)


class _Size:
    """Counts what is written to it."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Count it."""
        self.bytes += len(data)


def _name(below: str | None) -> str:
    return "before" if below is None else f"before-{below}"


def _copy(source: Ahead, out: BinaryIO) -> tuple[Digest, int]:
    """Write an archive; its digest and size."""
    import hashlib

    digest, size = hashlib.sha256(), 0
    while data := source.read(1 << 20):
        digest.update(data)
        size += out.write(data)
    return Digest("sha256", digest.hexdigest()), size


def _not_stacked() -> Unsupported:
    return Unsupported("the plain driver keeps no layers that a mount could stack")
