"""A stored list as a source. What the store lacks of its images comes from where they were when they were added."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from builda.builder.image.manifestlist import UNKNOWN, index_of
from builda.errors import Unsupported
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.docker import retyped
from builda.oci.manifest import Index, Manifest, parse
from builda.oci.reference import Reference
from builda.transfer.copy import child_of
from builda.transfer.stored import StoreSource
from builda.values import replace

if TYPE_CHECKING:
    from builda.builder.options import ImageFormat, PushOptions, RegistryAccess
    from builda.builder.remote import Remote
    from builda.oci.digest import Readable
    from builda.store.origins import Origin
    from builda.store.store import Image, Store
    from builda.transfer.copy import ImageSource


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
) -> ListSource:
    """The list as it is, or in the format that `options` want; `destination` is the registry that it goes to."""
    if options.compression is not None:
        raise Unsupported(
            f"the images of a list keep their compression: {image.digest}",
            hint="push its images one by one, or leave --compression-format out",
        )

    def open_from(origin: Origin) -> ImageSource:
        return open_origin(remote, origin, options.access, destination)

    if options.format is None or (options.format == "docker") == (image.media_type == mediatype.DOCKER_LIST):
        return ListSource(store, image, open_from)
    return ConvertedList(store, image, open_from, options.format)


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

    def _source_of(self, origin: Origin) -> ImageSource:
        if origin not in self._opened:
            self._opened[origin] = self._open_from(origin)
        return self._opened[origin]


class ConvertedList(ListSource):
    """The list in the words of a format, with its images, whose blobs and IDs stay what they are."""

    def __init__(
        self, store: Store, image: Image, open_from: Callable[[Origin], ImageSource], image_format: ImageFormat
    ) -> None:
        super().__init__(store, image, open_from)
        index = index_of(image)
        self._children: dict[Digest, bytes] = {}
        entries = tuple(self._converted(entry, image_format) for entry in index.manifests)
        docker = image_format == "docker"
        changed = Index(
            manifests=entries,
            media_type=mediatype.DOCKER_LIST if docker else mediatype.INDEX,
            annotations={} if docker else index.annotations,
            subject=None if docker else index.subject,
        )
        self._data = changed.dump()
        self._top = Descriptor(media_type=changed.media_type, digest=Digest.of(self._data), size=len(self._data))

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The list that it has instead."""
        return self._top, self._data

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that this list names."""
        return self._children.get(descriptor.digest) or super().child(descriptor)

    def _converted(self, entry: Descriptor, image_format: ImageFormat) -> Descriptor:
        docker = image_format == "docker"
        unfit = entry.artifact_type or (entry.platform is not None and entry.platform.os == UNKNOWN)
        if unfit and docker:
            raise Unsupported(
                f"a Docker list holds images only: {entry.digest}", hint="--format oci keeps what is there"
            )
        if unfit:
            return entry
        document = parse(child_of(self, entry), entry.media_type)
        if isinstance(document, Index):
            raise Unsupported(f"a list in a list keeps its format: {entry.digest}", hint="add its images with --all")
        manifest = retyped(document, image_format)
        if manifest.media_type == document.media_type:
            return replace(entry, annotations={}) if docker else entry
        data = manifest.dump()
        digest = Digest.of(data)
        self._children[digest] = data
        annotations: Mapping[str, str] = {} if docker else entry.annotations
        return replace(entry, media_type=manifest.media_type, digest=digest, size=len(data), annotations=annotations)
