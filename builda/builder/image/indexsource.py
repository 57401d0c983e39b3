"""A stored list as a source. What the store lacks of its images comes from where they were when they were added."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from builda.builder.image.manifestlist import index_of
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import Manifest, parse
from builda.oci.reference import Reference
from builda.transfer.converting import Retyped
from builda.transfer.copyimage import stop
from builda.transfer.stored import StoreSource
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.imageoptions import PushOptions, RegistryAccess
    from builda.builder.remote import Remote
    from builda.oci.digest import Readable
    from builda.store.origins import Origin
    from builda.store.store import Image, Store
    from builda.transfer.copyimage import ImageSource


def open_origin(remote: Remote, origin: Origin, access: RegistryAccess, destination: str | None = None) -> ImageSource:
    """The image at its origin. What `access` says for the registry `destination` only is not said to another one."""
    reference = Reference.parse(origin.name)
    if destination is not None and reference.registry != destination:
        access = replace(access, creds=None, cert_dir=None, tls_verify=origin.tls_verify)
    elif access.tls_verify is None:
        access = replace(access, tls_verify=origin.tls_verify)
    return remote.source(reference, access)


def origins_of(store: Store, image: Image) -> tuple[Reference, ...]:
    """The repositories that have images of a list."""
    found = (store.images.origins.get(entry.digest) for entry in index_of(image).manifests)
    return tuple(dict.fromkeys(Reference.parse(origin.name) for origin in found if origin is not None))


def source_of_list(
    store: Store, remote: Remote, image: Image, options: PushOptions, destination: str | None
) -> ListSource | Retyped:
    """The list as it is, or in the format that `options` want; `destination` is the registry that it goes to."""

    def open_from(origin: Origin) -> ImageSource:
        return open_origin(remote, origin, options.access, destination)

    if options.format is None or (options.format == "docker") == (image.media_type == mediatype.DOCKER_LIST):
        return ListSource(store, image, open_from)
    return Retyped(ListSource(store, image, open_from), options.format)


class ListSource(StoreSource):
    """A list of the store. `open_from` opens an origin; that is done when first needed."""

    def __init__(self, store: Store, image: Image, open_from: Callable[[Origin], ImageSource]) -> None:
        super().__init__(store, image)
        self._open_from = open_from
        self._opened: dict[Origin, ImageSource] = {}
        self._from: dict[Digest, Origin] = {}  # what a manifest lists that has an origin, from where

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that the list names; from now on it is known where what that lists is."""
        data = super().child(descriptor)
        origin = self._store.images.origins.get(descriptor.digest)
        if origin is not None:
            document = parse(data, descriptor.media_type)
            if isinstance(document, Manifest):
                parts = (document.config, *document.layers)
                self._from.update((part.digest, origin) for part in parts)
                self._source_of(origin)  # here, and not in one of several threads
        return data

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """The blob from `offset` on, from the store or from its origin."""
        origin = self._from.get(descriptor.digest)
        if origin is None or self._store.blobs.has(descriptor.digest, descriptor.size):
            with super().open_blob(descriptor, offset) as stored:
                yield stored
            return
        with self._source_of(origin).open_blob(descriptor, offset) as content:
            yield content

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The blob's file, if the store has it."""
        return super().local_path(descriptor) if self._store.blobs.has(descriptor.digest) else None

    def stop(self) -> None:
        """Stop all origins."""
        for source in self._opened.values():
            stop(source)

    def _source_of(self, origin: Origin) -> ImageSource:
        if origin not in self._opened:
            self._opened[origin] = self._open_from(origin)
        return self._opened[origin]
