"""`validate` recomputes everything that an image promises, and says all that does not hold."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from builda.errors import BuildaError, CorruptContent
from builda.fs.compress import decompressing
from builda.fs.tarread import iter_members
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, ImageConfig, parse_config
from builda.oci.digest import HashingReader, VerifyingReader
from builda.oci.manifest import Index, Manifest, choose, parse
from builda.transfer.copyimage import DEPTH, child_of, read_blob

if TYPE_CHECKING:
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.digest import Digest
    from builda.transfer.copyimage import ImageSource

PIECE = 1 << 20


def validate(source: ImageSource, *, platform: Platform | None = None) -> tuple[str, ...]:
    """All that is wrong with the image, in words; () when every digest, size, diff_id and history entry is right.

    Of an index the image for `platform` is looked at, without a platform all of them. Reads everything once.
    """
    try:
        descriptor, data = source.manifest()
    except BuildaError as error:
        return (f"manifest: {error}",)
    return tuple(_document(source, descriptor, data, platform, 0))


def _document(
    source: ImageSource, descriptor: Descriptor, data: bytes, platform: Platform | None, depth: int
) -> Iterator[str]:
    where = f"manifest {descriptor.digest}"
    try:
        with VerifyingReader(BytesIO(data), descriptor.digest, descriptor.size) as reader:
            reader.read()
        document = parse(data, descriptor.media_type)
        if not isinstance(document, Index):
            yield from _image(source, document)
            return
        if depth >= DEPTH:
            yield f"{where}: indexes are nested more than {DEPTH} deep"
            return
        children = document.manifests if platform is None else (choose(document, platform),)
    except BuildaError as error:
        yield f"{where}: {error}"
        return
    for child in children:
        try:
            content = child_of(source, child)
        except BuildaError as error:
            yield f"manifest {child.digest}: {error}"
            continue
        yield from _document(source, child, content, platform, depth + 1)


def _image(source: ImageSource, manifest: Manifest) -> Iterator[str]:
    if manifest.config.media_type not in mediatype.CONFIGS:
        yield from _raw(source, manifest.config)
        for layer in manifest.layers:
            yield from _raw(source, layer)
        return
    diff_ids: tuple[Digest, ...] = ()
    try:
        config = parse_config(read_blob(source, manifest.config, CONFIG_LIMIT))
        diff_ids = config.diff_ids
        yield from disagreements(manifest, config)
    except BuildaError as error:
        yield f"configuration {manifest.config.digest}: {error}"
    for number, layer in enumerate(manifest.layers):
        diff_id = diff_ids[number] if number < len(diff_ids) else None
        for problem in _layer(source, layer, diff_id):
            yield f"layer {number}, {layer.digest}: {problem}"


def _raw(source: ImageSource, descriptor: Descriptor) -> Iterator[str]:
    try:
        with source.open_blob(descriptor) as raw:
            reader = VerifyingReader(raw, descriptor.digest, descriptor.size)
            while reader.read(PIECE):
                pass
    except BuildaError as error:
        yield f"blob {descriptor.digest}: {error}"


def _layer(source: ImageSource, layer: Descriptor, diff_id: Digest | None) -> Iterator[str]:
    try:
        compression = mediatype.compression_of(layer.media_type)
        with source.open_blob(layer) as raw:
            stored = HashingReader(raw, layer.digest.algorithm)
            plain = HashingReader(decompressing(stored, compression), diff_id.algorithm if diff_id else "sha256")
            whole = yield from _tar(plain)
            while stored.read(PIECE):
                pass
    except BuildaError as error:
        yield str(error)
        return
    if stored.count != layer.size:
        yield f"has {stored.count} bytes, its descriptor says {layer.size}"
    if stored.digest() != layer.digest:
        yield f"content has digest {stored.digest()}"
    if whole and diff_id is not None and plain.digest() != diff_id:
        yield f"unpacks to {plain.digest()}, the configuration says {diff_id}"


def _tar(plain: HashingReader) -> Generator[str, None, bool]:
    """Read the tar to its end, whether it is one or not; returns whether its end was reached."""
    try:
        for _ in iter_members(plain):
            pass
    except CorruptContent as error:
        yield str(error)
    try:
        while plain.read(PIECE):
            pass
    except CorruptContent:  # the decompressor's, which was said already
        return False
    return True


def disagreements(manifest: Manifest, config: ImageConfig) -> tuple[str, ...]:
    """Everything in which the two do not agree with each other or with the specification."""
    return (*_of_types(manifest), *_of_layers(manifest, config), *_of_history(manifest, config))


def _of_types(manifest: Manifest) -> Iterator[str]:
    docker = manifest.media_type == mediatype.DOCKER_MANIFEST
    if manifest.config.media_type != (mediatype.DOCKER_CONFIG if docker else mediatype.CONFIG):
        yield f"manifest of type {manifest.media_type} has a configuration of type {manifest.config.media_type}"
    if docker and (manifest.annotations or manifest.subject):
        yield "Docker manifest has annotations or a subject, which schema 2 does not know"
    for number, layer in enumerate(manifest.layers):
        try:
            compression = mediatype.compression_of(layer.media_type)
        except BuildaError as error:
            yield f"layer {number}: {error}"
        else:
            if mediatype.layer_media_type("docker" if docker else "oci", compression) != layer.media_type:
                yield f"layer {number} is of type {layer.media_type} in a manifest of type {manifest.media_type}"


def _of_layers(manifest: Manifest, config: ImageConfig) -> Iterator[str]:
    if not config.platform.architecture:
        yield "configuration names no architecture"
    if len(config.diff_ids) != len(manifest.layers):
        yield f"manifest lists {len(manifest.layers)} layers, its configuration {len(config.diff_ids)} diff_ids"
    for number, (layer, diff_id) in enumerate(zip(manifest.layers, config.diff_ids, strict=False)):
        plain = layer.media_type in (mediatype.LAYER, mediatype.DOCKER_LAYER)
        if plain and layer.digest != diff_id:
            yield f"layer {number} is not compressed, but has digest {layer.digest} and diff_id {diff_id}"
    sizes = {part.digest: part.size for part in manifest.layers}
    if any(sizes[part.digest] != part.size for part in manifest.layers):
        yield "manifest lists one digest with two sizes"


def _of_history(manifest: Manifest, config: ImageConfig) -> Iterator[str]:
    made = sum(not entry.empty_layer for entry in config.history)
    if config.history and made != len(manifest.layers):
        yield f"history has {made} entries with a layer, the manifest lists {len(manifest.layers)} layers"
