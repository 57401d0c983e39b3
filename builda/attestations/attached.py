"""Where statements are kept: in an entry of the index beside the image's (BuildKit's docs, attestation-storage.md).

The entry is for the platform unknown/unknown, so that nothing takes it for an image; its annotations name the image.
"""

from __future__ import annotations

from builda.attestations.statement import MEDIA_TYPE
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest
from builda.oci.document import encode
from builda.oci.manifest import Index, Manifest
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.attestations.statement import Predicate

PREDICATE = "in-toto.io/predicate-type"
"""Annotation of a layer: the type of the predicate in its statement."""
KIND, IMAGE = "vnd.docker.reference.type", "vnd.docker.reference.digest"
"""Annotations of the entry: what it is, and the digest of the image that it is about."""
OURS = "attestation-manifest"
UNKNOWN = Platform(os="unknown", architecture="unknown")


class Kept(NamedTuple):
    """A manifest of statements, with the content of its blobs, as its entry in an index names it."""

    entry: Descriptor
    blobs: tuple[bytes, ...]


def kept(statements: tuple[tuple[Predicate, bytes], ...], image: Digest) -> Kept:
    """The statements about an image, as an entry for its index."""
    layers = tuple(_layer(predicate.type, data) for predicate, data in statements)
    config = encode(
        {
            "architecture": UNKNOWN.architecture,
            "os": UNKNOWN.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
    )
    manifest = Manifest(config=_descriptor(mediatype.CONFIG, config), layers=layers).dump()
    entry = replace(
        _descriptor(mediatype.MANIFEST, manifest),
        platform=UNKNOWN,
        annotations={KIND: OURS, IMAGE: str(image)},
    )
    return Kept(entry, (manifest, config, *(data for _, data in statements)))


def is_about_images(entry: Descriptor) -> bool:
    """Whether an entry of an index holds statements about an image of it."""
    return entry.annotations.get(KIND) == OURS


def entries_about(index: Index, image: Digest) -> tuple[Descriptor, ...]:
    """The entries of an index with statements about one of its images."""
    return tuple(
        entry for entry in index.manifests if is_about_images(entry) and entry.annotations.get(IMAGE) == str(image)
    )


def statements_in(manifest: Manifest) -> tuple[tuple[str, Descriptor], ...]:
    """Type of the predicate and blob of each statement; other layers are passed over."""
    return tuple(
        (layer.annotations.get(PREDICATE, ""), layer) for layer in manifest.layers if layer.media_type == MEDIA_TYPE
    )


def in_order(entries: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
    """Images first, then what is about them; statements about images that are not there are left out."""
    images = tuple(entry for entry in entries if not is_about_images(entry))
    there = {str(entry.digest) for entry in images}
    about = (entry for entry in entries if is_about_images(entry) and entry.annotations.get(IMAGE) in there)
    return (*images, *about)


def _layer(kind: str, data: bytes) -> Descriptor:
    return replace(_descriptor(MEDIA_TYPE, data), annotations={PREDICATE: kind})


def _descriptor(media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
