"""What cosign puts beside an image in a registry: an image whose layers are the payloads.

Signatures are under the tag sha256-DIGEST.sig, attestations under sha256-DIGEST.att, an SBOM under sha256-DIGEST.sbom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Literal, TypeAlias

from builda.errors import CorruptContent, NotFound, RegistryError
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.document import encode
from builda.oci.manifest import Manifest, parse
from builda.transfer.copyimage import OneBlob, read_blob
from builda.trust.signature import COSIGN_TYPE, COUNT, ENVELOPE_TYPE, LIMIT, Sigstore, Unreadable
from builda.values import replace

if TYPE_CHECKING:
    from builda.oci.reference import Reference
    from builda.transfer.copyimage import ImageSink, ImageSource

Ending: TypeAlias = Literal["sig", "att", "sbom"]
ENVELOPE_LIMIT = 128 << 20
"""Bytes that an attestation may have, as cosign reads them."""


def tag_of(digest: Digest, ending: Ending = "sig") -> str:
    """The tag that an image with this digest has its signatures, attestations or SBOM under."""
    return f"{digest.algorithm}-{digest.encoded}.{ending}"


def signatures(source: ImageSource) -> Iterator[Sigstore | Unreadable]:
    """The signatures at such a tag; none if there is no such tag. CorruptContent for something else there."""
    return _layers(source, COSIGN_TYPE, LIMIT)


def envelopes(source: ImageSource) -> Iterator[Sigstore | Unreadable]:
    """The attestations at such a tag, as `signatures` gives signatures."""
    return _layers(source, ENVELOPE_TYPE, ENVELOPE_LIMIT)


def _layers(source: ImageSource, media_type: str, limit: int) -> Iterator[Sigstore | Unreadable]:
    found = found_at(source)
    if found is None:
        return
    for layer in [layer for layer in found[1].layers if layer.media_type == media_type][:COUNT]:
        try:
            yield Sigstore(layer.media_type, read_blob(source, layer, limit), layer.annotations)
        except CorruptContent as error:
            yield Unreadable(f"cannot be read: {error}")


def add(source: ImageSource, sink: ImageSink, signature: Sigstore) -> None:
    """Add the signature to those under the tag. Of two writers at once, one may lose its signature."""
    found = found_at(source)
    before = None if found is None else found[1]
    layers = () if before is None else before.layers
    there = (
        layer.digest == Digest.of(signature.payload) and dict(layer.annotations) == dict(signature.annotations)
        for layer in layers
        if layer.media_type == signature.media_type
    )
    if any(there):
        return
    layer = _put(sink, signature.payload, signature.media_type)
    layers = (*layers, replace(layer, annotations=dict(signature.annotations)))
    config = _put(sink, _config(layers), mediatype.CONFIG)
    manifest = (
        Manifest(config=config, layers=layers) if before is None else replace(before, config=config, layers=layers)
    )
    data = manifest.dump()
    top = Descriptor(media_type=manifest.media_type, digest=Digest.of(data), size=len(data))
    sink.put_manifest(top, data, top=True)


def join(
    source: ImageSource,
    there: Callable[[Reference], ImageSource],
    sink: Callable[[Reference], ImageSink],
    place: Reference,
) -> None:
    """The tag at `place` has all that the source has, beside what it has already."""
    found = found_at(source)
    for layer in () if found is None else found[1].layers:
        data = read_blob(source, layer, ENVELOPE_LIMIT)
        add(there(place), sink(place), Sigstore(layer.media_type, data, layer.annotations))


def _put(sink: ImageSink, data: bytes, media_type: str) -> Descriptor:
    descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
    sink.put_blob(descriptor, OneBlob(BytesIO(data)), _nothing)
    return descriptor


def found_at(source: ImageSource) -> tuple[Descriptor, Manifest] | None:
    """The manifest at such a tag; None if there is no such tag. CorruptContent for a list of images."""
    try:
        descriptor, data = source.manifest()
    except NotFound:
        return None
    except RegistryError as error:
        if error.status == 404:
            return None
        raise
    document = parse(data, descriptor.media_type)
    if not isinstance(document, Manifest):
        raise CorruptContent(f"tag of signatures has a list of images: {descriptor.digest}")
    return descriptor, document


def _config(layers: tuple[Descriptor, ...]) -> bytes:
    """The configuration that cosign writes: an image without a platform, whose layers are not compressed."""
    diff_ids = [str(layer.digest) for layer in layers]
    return encode({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def _nothing(_: int) -> None:
    """Signatures are too small for progress."""
