"""Media types of the OCI image-spec (media-types.md) and of Docker schema 2, and what they say of compression."""

from __future__ import annotations

from builda.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

Compression: TypeAlias = "Literal['none', 'gzip', 'zstd']"

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({INDEX, DOCKER_LIST})
CONFIGS = frozenset({CONFIG, DOCKER_CONFIG})

_COMPRESSION: dict[str, Compression] = {
    LAYER: "none",
    LAYER_GZIP: "gzip",
    LAYER_ZSTD: "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
}
_LAYERS: dict[tuple[str, Compression], str] = {
    ("oci", "none"): LAYER,
    ("oci", "gzip"): LAYER_GZIP,
    ("oci", "zstd"): LAYER_ZSTD,
    ("docker", "none"): DOCKER_LAYER,
    ("docker", "gzip"): DOCKER_LAYER_GZIP,
    ("docker", "zstd"): DOCKER_LAYER_ZSTD,
}


def compression_of(media_type: str) -> Compression:
    """The compression of a layer of this media type; Unsupported for foreign, encrypted and unknown layers."""
    found = _COMPRESSION.get(media_type)
    if found is not None:
        return found
    if "foreign" in media_type or "nondistributable" in media_type:
        raise Unsupported(f"foreign layers are not distributed with the image: {media_type}")
    if media_type.endswith("+encrypted"):
        raise Unsupported(f"encrypted layers cannot be read: {media_type}")
    raise Unsupported(f"not a layer media type that builda reads: {media_type}")


def layer_media_type(image_format: Literal["oci", "docker"], compression: Compression) -> str:
    """The media type of a layer so compressed in a manifest of that format."""
    return _LAYERS[image_format, compression]
