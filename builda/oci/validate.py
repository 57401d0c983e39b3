"""What a manifest and a configuration say of each other, checked without reading any layer."""

from __future__ import annotations

from collections.abc import Iterator

from builda.errors import BuildaError
from builda.oci import mediatype
from builda.oci.config import ImageConfig
from builda.oci.manifest import Manifest


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
