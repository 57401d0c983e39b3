"""Drivers whose snapshots are one layer each: an image is a chain of them, and a frozen layer is one more.

To freeze an active snapshot its record says that it is committed; nothing is moved. What differs between these
drivers is how one layer is read (`_read_layer`) and how it is set on those below it (`_fit`).
"""

from __future__ import annotations

from builda.errors import CorruptContent, NotFound
from builda.store import layout
from builda.store.drivers import Cut, Info
from builda.store.drivers.bookkeeping import Records, boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from builda.events import Emit
    from builda.fs.layer import Applied
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.store.images import Image


class Layered(Records):
    """The snapshots of one store, each of them one layer."""

    def is_changed(self, key: str, below: str | None) -> bool:
        """Whether an active snapshot was changed since `below` was frozen under it."""
        raise NotImplementedError

    def _read_layer(self, key: str, layer: Descriptor, diff_id: Digest) -> Applied:
        """Fill a new directory with the layer's own files; returns what to take care of in `_fit`."""
        raise NotImplementedError

    def _fit(self, key: str, parent: str | None, applied: Applied) -> None:
        """Complete a layer by what the layers below have, which may be unpacked later than it."""

    # Working trees

    def prepare_for(self, image: Image | None, emit: Emit) -> tuple[str | None, str]:
        """The committed snapshot of an image, None if there is none, and a new active one on it."""
        base = None if image is None else self.unpack(image, emit)
        return base, self.prepare(base)

    def prepare_on(self, image: Image | None, top: str | None) -> str:
        """A new active snapshot on `top`, the topmost of the layers that were frozen on an image."""
        return self.prepare(top)

    def moved(self, key: str, top: str) -> str:
        """The active snapshot on `top` that takes the place of an unchanged one, which goes later."""
        return self.prepare(top)

    def upper(self, key: str) -> str:
        """The directory that holds what was changed in an active snapshot."""
        return self.path(key, "fs")

    def cut(self, key: str, below: str | None, *, even_empty: bool = False) -> Cut:
        """Make the changed files the layer, and a new snapshot on it for further work."""
        empty = not self.is_changed(key, below)
        if empty and not even_empty:
            return Cut(None, key, empty)
        return Cut(key, self.prepare(key), empty)

    def freeze(self, key: str) -> str:
        """Make the layer of a `cut` a committed snapshot, in place; returns its ID, which stays. Copies nothing."""
        info = self.info(key)
        self._write_info(key, info._replace(committed=True, boot=boot_id()))
        return key

    # Images

    def is_unpacked(self, image: Image) -> bool:
        """Whether a working tree on the image takes no unpacking."""
        from builda.oci.config import chain_ids

        chains = chain_ids(image.config.diff_ids)
        return not chains or ((top := self.find_chain(chains[-1])) is not None and self._is_whole(top))

    def unpack(self, image: Image, emit: Emit) -> str | None:
        """The committed snapshot of the image's topmost layer, unpacking what is missing; None if it has no layers.

        Missing layers are unpacked side by side, each into its own directory. Of two processes that want the same layer
        the second waits for the first.
        """
        from builda.oci.config import chain_ids

        chains = chain_ids(image.config.diff_ids)
        known = [self.find_chain(chain) for chain in chains]
        self._check_claims(image, known)
        if None not in known and (not known or self._is_whole(known[-1])):
            return known[-1] if known else None
        from builda.store import locks
        from builda.store.waits import Waits

        path = locks.bucket(self._layout.path("locks"), chains[-1].encoded, "unpack-")
        lock = locks.exclusive(path, Waits(emit), f"the layers of image {str(image.id)[:19]}")
        with layout.translated(self._layout.root), lock:
            return self._complete(image, chains, emit)

    def unpack_layer(self, layer: Descriptor, diff_id: Digest, chain: Digest, parent: str | None, emit: Emit) -> str:
        """The committed snapshot of one layer on `parent`, which together are `chain`; unpacked if missing."""
        with layout.translated(self._layout.root):
            found = self._adopt(chain, self._unpack_layer(layer, diff_id, chain, emit), parent)
            self._set_on(found, parent, is_new=False)
        return found

    def _check_claims(self, image: Image, known: Sequence[str | None]) -> None:
        """CorruptContent if a layer that need not be unpacked is not the one that the configuration says it is."""
        layers, diff_ids = image.manifest.layers, image.config.diff_ids
        if len(diff_ids) != len(layers):
            raise CorruptContent(f"image has {len(layers)} layers and {len(diff_ids)} diff_ids: {image.digest}")
        for layer, diff_id, snapshot in zip(layers, diff_ids, known, strict=True):
            if snapshot is not None and not self._blobs.unpacks_to(layer.digest, diff_id):
                from builda.store.drivers.layerblob import check_claim

                check_claim(self._blobs, layer, diff_id)

    def _complete(self, image: Image, chains: tuple[Digest, ...], emit: Emit) -> str | None:
        """Unpack what is missing now, and set each layer on the one below it."""
        known = [self.find_chain(chain) for chain in chains]
        fresh = self._unpack_all(
            image, chains, [index for index, snapshot in enumerate(known) if snapshot is None], emit
        )
        parent: str | None = None
        for index, chain in enumerate(chains):
            here = known[index]
            if here is None:
                parent = self._adopt(chain, fresh[index], parent)
            else:
                self._set_on(here, parent, is_new=index - 1 in fresh)
                parent = here
        return parent

    def _set_on(self, snapshot: str, parent: str | None, *, is_new: bool) -> None:
        """Set the layer's parent to `parent` if the recorded one is damaged, gone or new; both have the same content.

        A sweep takes upper layers first, but a lower one may also be lost by hand or not be trusted after a power cut.
        """
        info = self.info(snapshot)
        if info.parent not in (None, parent) and (is_new or not self._is_whole(info.parent)):
            self._write_info(snapshot, info._replace(parent=parent))

    def _is_whole(self, snapshot: str | None) -> bool:
        """Whether the snapshot and all below it exist."""
        try:
            self.lineage(snapshot)
        except NotFound:
            return False
        return True

    def _unpack_all(
        self, image: Image, chains: tuple[Digest, ...], missing: list[int], emit: Emit
    ) -> dict[int, tuple[str, Applied | None]]:
        """Unpack these layers; by index the directory of each, a snapshot already if another process made it."""
        from concurrent.futures import ThreadPoolExecutor

        from builda.threads import wait_for_threads

        def one(index: int) -> tuple[int, tuple[str, Applied | None]]:
            layer, diff_id = image.manifest.layers[index], image.config.diff_ids[index]
            return index, self._unpack_layer(layer, diff_id, chains[index], emit)

        if len(missing) < 2:
            return dict(one(index) for index in missing)
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(one, index) for index in missing]
            wait_for_threads(futures)
        failed = [error for future in futures if (error := future.exception())]
        unpacked = dict(future.result() for future in futures if not future.exception())
        if failed:  # what the others unpacked has no record yet, and would stay until the next sweep
            for key, applied in unpacked.values():
                if applied is not None:
                    self.remove(key)
            raise failed[0]
        return unpacked

    def _unpack_layer(
        self, layer: Descriptor, diff_id: Digest, chain: Digest, emit: Emit
    ) -> tuple[str, Applied | None]:
        """The directory with the layer's own files, and the result of `_read_layer`, None for a known snapshot."""
        from builda.store import locks
        from builda.store.waits import Waits

        path = locks.bucket(self._layout.path("locks"), chain.encoded)
        with locks.exclusive(path, Waits(emit), f"layer {str(layer.digest)[:19]}"):
            if (known := self.find_chain(chain)) is not None:
                return known, None
            with self._new() as key:
                applied = self._read_layer(key, layer, diff_id)
        self._blobs.note(layer.digest, diff_id)
        self._tell(layer, applied, emit)
        return key, applied

    def _tell(self, layer: Descriptor, applied: Applied, emit: Emit) -> None:
        """Emit that a layer was unpacked."""

    def _adopt(self, chain: Digest, unpacked: tuple[str, Applied | None], parent: str | None) -> str:
        """Make a directory that was unpacked a committed snapshot, unless another process was faster."""
        key, applied = unpacked
        if applied is None:
            return key
        if applied.hides_all:  # an opaque root directory: nothing below it is seen
            parent = None
        self._fit(key, parent, applied)
        found = self._commit(chain, key, Info(parent, committed=True))
        if found != key:
            self.remove(key)
        return found
