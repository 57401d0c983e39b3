"""The store as a source and a sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from builda.errors import Unsupported
from builda.oci.descriptor import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from builda.oci.digest import Readable
    from builda.store.store import Image, Store
    from builda.transfer.copyimage import ImageSource


class BlobsSource:
    """The blobs of the store, of whatever image they are."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def manifest(self) -> tuple[Descriptor, bytes]:
        """Not for blobs alone: only an image has a manifest."""
        raise AssertionError("only blobs")

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that the index lists."""
        return self._store.blobs.read(descriptor.digest)

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """The blob from `offset` on."""
        with self._store.blobs.open(descriptor.digest) as file:
            file.seek(offset)
            yield file

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The blob's file."""
        from pathlib import Path

        return Path(self._store.blobs.path(descriptor.digest))


class StoreSource(BlobsSource):
    """An image of the store."""

    def __init__(self, store: Store, image: Image) -> None:
        super().__init__(store)
        self._image = image

    def manifest(self) -> tuple[Descriptor, bytes]:
        """Its manifest or index."""
        return self._image.descriptor, self._image.raw


class StoreSink:
    """The store; the image gets `names`, with `free_only` those that no other image has, when its manifest arrives.
    `image` is there afterwards."""

    def __init__(
        self, store: Store, names: tuple[str, ...] = (), *, free_only: bool = False, at_once: bool = False
    ) -> None:
        self._store = store
        self._names = names
        self._free_only = free_only
        self._at_once = at_once
        self.image: Image | None = None
        store.lease()

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is in the store."""
        return self._store.blobs.has(descriptor.digest, descriptor.size)

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Fetch the blob, going on where an earlier attempt ended."""
        with ExitStack() as stack:
            self._store.blobs.ingest(
                descriptor, lambda offset: stack.enter_context(source.open_blob(descriptor, offset)), progress
            )

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Keep the manifest; the top one becomes an image with its names."""
        if descriptor.digest.algorithm != "sha256":
            raise Unsupported(f"the store keeps sha256 content only: {descriptor.digest}")
        stored = self._store.put_bytes(data, descriptor.media_type)
        if top:
            self.image = self._store.put_image(
                stored, names=self._names, free_only=self._free_only, at_once=self._at_once
            )
