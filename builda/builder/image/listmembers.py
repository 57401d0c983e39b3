"""What an image argument of `manifest` means: entries for a list, of stored images or of images in registries.

Of an image in a registry only manifests and configurations are fetched. The repository of its layers is recorded as the
origin of its manifest, so that the list can be copied and used.
"""

from __future__ import annotations

from builda.builder.image import manifestlist
from builda.errors import CorruptContent, NotFound, Unsupported
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, parse_config
from builda.oci.digest import Digest
from builda.oci.manifest import Index, Manifest, choose, parse
from builda.oci.reference import LOCAL_REGISTRY, Reference, in_store
from builda.store.origins import Origin
from builda.transfer.copyimage import DEPTH, child_of, copy_image, outline, plainly, read_blob
from builda.transfer.locate import Location, parse_location
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.imageoptions import RegistryAccess
    from builda.builder.remote import Remote
    from builda.events import Emit
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.manifest import Document
    from builda.store.store import Image, Store
    from builda.transfer.copyimage import ImageSource


class Places(NamedTuple):
    """The store, and registries with the options to reach them."""

    store: Store
    remote: Remote
    access: RegistryAccess
    emit: Emit


class Outside(NamedTuple):
    """An image that is not in the store."""

    place: Reference | Location
    source: ImageSource


def entries(places: Places, text: str, platform: Platform, *, every: bool = False) -> tuple[Descriptor, ...]:
    """The entries for a list of the image that `text` means: of a list its image for `platform`, or with `every` all.

    A name without a transport is looked for in the store, then in registries. All that a list needs of the image is in
    the store afterwards, or has an origin. An image of a file is stored completely.
    """
    found = opened(places, text)
    if not isinstance(found, Outside):
        return _of_store(found, platform, every=every)
    if isinstance(found.place, Reference):
        return _Fetching(places, found.place, found.source).entries(platform, every=every)
    return _of_store(_loaded(places, found.source, platform, every=every), platform, every=every)


def digest_of(places: Places, text: str, platform: Platform) -> Digest:
    """The digest by which a list names the image that `text` means: itself a digest, or the name of an image."""
    digest = _digest_in(text)
    if digest is not None:
        return digest
    descriptor, document = _document(opened(places, text))
    return choose(document, platform).digest if isinstance(document, Index) else descriptor.digest


def subject(places: Places, text: str) -> Descriptor:
    """The descriptor of the image or list that an artifact refers to (`subject`). Nothing of it is stored."""
    descriptor, document = _document(opened(places, text))
    return plainly(descriptor, document.media_type)


def document_of(places: Places, text: str) -> tuple[bytes, Document]:
    """The manifest or list that `text` means, in the store or outside, with its bytes."""
    found = opened(places, text)
    if not isinstance(found, Outside):
        return found.raw, found.document
    descriptor, data = found.source.manifest()
    return data, parse(data, descriptor.media_type)


def _document(found: Image | Outside) -> tuple[Descriptor, Document]:
    if not isinstance(found, Outside):
        return found.descriptor, found.document
    descriptor, data = found.source.manifest()
    return descriptor, parse(data, descriptor.media_type)


def _digest_in(text: str) -> Digest | None:
    """The digest that is written as such or behind the @ of a name."""
    name = text.rpartition("@")[2]
    return Digest.parse(name) if name.startswith(("sha256:", "sha512:")) else None


def opened(places: Places, text: str) -> Image | Outside:
    """The image that `text` means, where it is."""
    location = parse_location(text)
    if location is None:
        return places.store.find_image(in_store(text)) or _by_name(places, text)
    if location.in_store:
        return places.store.image(location.where)
    return _outside(places, Reference.parse(location.where) if location.in_registry else location)


def _outside(places: Places, place: Reference | Location) -> Outside:
    return Outside(place, places.remote.source(place, places.access))


def _by_name(places: Places, text: str) -> Image | Outside:
    """The image in the first registry that has it."""
    from builda.builder.image.pull import first

    if text.startswith("sha256:"):
        raise NotFound(f"image not known: {text}", hint="an ID names no registry; write NAME@sha256:…")
    candidates = places.remote.candidates(text)
    if all(reference.registry == LOCAL_REGISTRY for reference in candidates):
        return places.store.image(in_store(text))  # raises NotFound with the nearest name

    def there(reference: Reference) -> Outside:
        found = _outside(places, reference)
        outline(found.source)
        return found

    return first(candidates, there)


def _of_store(image: Image, platform: Platform, *, every: bool) -> tuple[Descriptor, ...]:
    if not image.is_index:
        return (manifestlist.described(image),)
    index = manifestlist.index_of(image)
    return index.manifests if every else (choose(index, platform),)


def _loaded(places: Places, source: ImageSource, platform: Platform, *, every: bool) -> Image:
    """The image of a file, in the store without a name."""
    from builda.transfer.stored import StoreSink

    sink = StoreSink(places.store)
    copy_image(source, sink, platform=platform, select="all" if every else "one", emit=places.emit)
    assert sink.image is not None
    return sink.image


class _Fetching:
    """The manifests of one image or list in a registry on their way into the store."""

    def __init__(self, places: Places, reference: Reference, source: ImageSource) -> None:
        self._store = places.store
        self._source = source
        self._name = reference.name
        self._tls_verify = places.access.tls_verify
        places.store.lease()

    def entries(self, platform: Platform, *, every: bool) -> tuple[Descriptor, ...]:
        """Of a list its entry for the platform, or with `every` all; of an image the entry that a list has for it."""
        descriptor, data = self._source.manifest() if every else outline(self._source)
        document = parse(data, descriptor.media_type)
        if isinstance(document, Manifest):
            self._keep(descriptor, data)
            return (self._described(plainly(descriptor, document.media_type), document),)
        chosen = document.manifests if every else (choose(document, platform),)
        return tuple(self._child(entry, 1) for entry in chosen)

    def _child(self, entry: Descriptor, depth: int) -> Descriptor:
        """Store the manifest of an entry, and manifests that it lists itself; the entry, with its platform."""
        data = child_of(self._source, entry)
        document = parse(data, entry.media_type)
        self._keep(entry, data)
        if isinstance(document, Index):
            for inner in document.manifests:
                if depth >= DEPTH:
                    raise CorruptContent(f"indexes are nested more than {DEPTH} deep: {inner.digest}")
                self._child(inner, depth + 1)
            return entry
        return entry if entry.platform is not None else self._described(entry, document)

    def _keep(self, descriptor: Descriptor, data: bytes) -> None:
        """The manifest is in the store, with the place of what it lists."""
        if descriptor.digest.algorithm != "sha256":
            raise Unsupported(f"the store keeps sha256 content only: {descriptor.digest}")
        self._store.put_bytes(data, descriptor.media_type)
        self._store.images.origins.put(descriptor.digest, Origin(f"{self._name}@{descriptor.digest}", self._tls_verify))

    def _described(self, entry: Descriptor, manifest: Manifest) -> Descriptor:
        """The entry with the platform that its manifest or configuration names."""
        if manifest.config.media_type not in mediatype.CONFIGS or manifest.artifact_type is not None:
            return replace(entry, artifact_type=manifest.artifact_type or manifest.config.media_type)
        config = read_blob(self._source, manifest.config, CONFIG_LIMIT)
        self._store.put_bytes(config, manifest.config.media_type)
        return replace(entry, platform=parse_config(config).platform)
