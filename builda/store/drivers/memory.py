"""The driver for builds in a store that no overlay can be written in: what commands write is kept in memory.

An image is unpacked once into one tree of the store, which may lie under overlays anywhere. The layers upon it, and the
working trees, are in a tmpfs of this process and end with it. What lasts of a build are its layers' blobs: a later
build makes trees of those that its steps stand on.
"""

from __future__ import annotations

import os

from builda.linux.directories import opened
from builda.store import layout
from builda.store.drivers import MEMORY, Driver, Info
from builda.store.drivers.overlay import OverlaySnapshots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from builda.events import Emit
    from builda.linux.mount import Mount
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.store.blobs import Blobs
    from builda.store.images import Image
    from builda.store.layout import Layout


class MemorySnapshots(OverlaySnapshots):
    """Snapshots in memory, and images unpacked into one tree each."""

    driver: ClassVar[Driver] = MEMORY

    def __init__(self, where: Layout, blobs: Blobs, *, userxattr: bool, place: str) -> None:
        super().__init__(where, blobs, userxattr=userxattr)
        self._place = place

    def path(self, snapshot: str, *parts: str) -> str:
        """A path in its directory in memory; in the store's for the tree of an image, and for the record of either."""
        if parts[:1] in (("fs",), ("work",)):
            kept = f"{self._place}/{snapshot}"
            if os.path.exists(kept):
                return "/".join((kept, *parts))
        return super().path(snapshot, *parts)

    def is_full(self) -> bool:
        """Whether next to nothing is left."""
        left = os.statvfs(self._place)
        return left.f_bavail < left.f_blocks // 100 or left.f_favail < 100

    def stacked(self, lower: tuple[str, ...], place: str) -> Mount:
        """In memory too, as no upper directory can be in the store."""
        kept = f"{self._place}/{os.path.basename(place)}"
        os.mkdir(kept, 0o700)
        return super().stacked(lower, kept)

    def _make(self, key: str, parent: str | None) -> None:
        os.mkdir(f"{self._place}/{key}", 0o700)
        super()._make(key, parent)

    def unpack(self, image: Image, emit: Emit) -> str | None:
        """The one tree of all of the image's layers; None if it has none."""
        from builda.oci.config import chain_ids
        from builda.store import locks
        from builda.store.waits import Waits

        chains = chain_ids(image.config.diff_ids)
        if not chains:
            return None
        if (found := self.find_chain(chains[-1])) is not None:
            self._check_claims(image, [found] * len(chains))
            return found
        path = locks.bucket(self._layout.path("locks"), chains[-1].encoded, "unpack-")
        lock = locks.exclusive(path, Waits(emit), f"the layers of image {str(image.id)[:19]}")
        with layout.translated(self._layout.root), lock:
            return self.find_chain(chains[-1]) or self._flatten(image, chains[-1], emit)

    def _flatten(self, image: Image, chain: Digest, emit: Emit) -> str:
        from builda.events import BlobProgress
        from builda.store.drivers.layerblob import unpack_into

        with self._new() as key:
            os.mkdir(self.path(key, "fs"))
            os.chmod(self.path(key, "fs"), 0o755)
            with opened(self.path(key, "fs")) as root:
                for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True):
                    unpack_into(root, self._blobs, layer, diff_id, whiteouts="plain")
                    self._blobs.note(layer.digest, diff_id)
                    size = layer.size
                    emit(BlobProgress(action="unpack", digest=layer.digest, offset=size, total=size, done=True))
            return self._commit(chain, key, Info(None, committed=True))

    def unpack_layer(self, layer: Descriptor, diff_id: Digest, chain: Digest, parent: str | None, emit: Emit) -> str:
        from builda.store.drivers.layerblob import unpack_into

        key = self.prepare(parent)
        try:
            with opened(self.upper(key)) as root:
                applied = unpack_into(
                    root, self._blobs, layer, diff_id, whiteouts=self.whiteouts, userxattr=self._userxattr
                )
            if applied.hides_all:
                parent = None
                self._write_info(key, self.info(key)._replace(parent=None))
            self._fit(key, parent, applied)
            return self.freeze(key)
        except BaseException:
            self.remove(key)
            raise

    def is_trusted(self, snapshot: str) -> bool:
        """Whether it is in this process's memory, or the whole tree of an image."""
        if os.path.exists(f"{self._place}/{snapshot}"):
            return self.exists(snapshot)
        return os.path.exists(super().path(snapshot, "fs")) and super().is_trusted(snapshot)

    def remove(self, snapshot: str) -> None:
        from builda.fs.paths import remove_tree

        super().remove(snapshot)
        try:
            with opened(self._place) as directory:
                remove_tree(directory, snapshot)
        except FileNotFoundError:
            return
