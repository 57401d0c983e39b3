"""Docker schema 2 and OCI: the same images in two sets of words, converted into each other only here.

Only manifest and configuration change; layers' bytes, and so their digests, stay. Format: Docker's
"Image Manifest Version 2, Schema 2" and "Docker Image Specification v1.3".
"""

from __future__ import annotations

from types import MappingProxyType

from builda.oci import mediatype
from builda.oci.config import config_to_json
from builda.oci.descriptor import Descriptor
from builda.oci.document import encode
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal

    from builda.oci.config import ImageConfig
    from builda.oci.manifest import Manifest


def retyped(manifest: Manifest, image_format: Literal["oci", "docker"]) -> Manifest:
    """The manifest with the media types of a format. Blobs and image ID stay, as each format reads the other's.

    Docker's schema 2 has no annotations, subject and artifact type: they are dropped.
    """
    from builda.oci.manifest import Manifest

    docker = image_format == "docker"
    config = Descriptor(
        media_type=mediatype.DOCKER_CONFIG if docker else mediatype.CONFIG,
        digest=manifest.config.digest,
        size=manifest.config.size,
    )
    return Manifest(
        media_type=mediatype.DOCKER_MANIFEST if docker else mediatype.MANIFEST,
        config=config,
        layers=tuple(_layer(image_format, layer) for layer in manifest.layers),
        annotations={} if docker else manifest.annotations,
        subject=None if docker else manifest.subject,
    )


def dump_docker_config(config: ImageConfig) -> bytes:
    """The canonical bytes of a Docker image configuration: all fields of the container's configuration are there."""
    plain = config_to_json(without_bookkeeping(config))
    inner = every_field(plain.pop("config"))
    head = tuple((key, plain.pop(key)) for key in ("comment", "created") if key in plain)
    return encode({**dict(head), "container_config": inner, "config": inner, **plain})


def every_field(inner: Mapping[str, Any]) -> dict[str, Any]:
    """The `config` object with the fields that Docker always writes, in Docker's order; others follow."""
    spelled = {key: inner.get(key, default) for key, default in _INNER.items()}
    return {key: item for key, item in spelled.items() if item is not None or key in _NULLED} | {
        key: item for key, item in inner.items() if key not in _INNER
    }


def without_bookkeeping(config: ImageConfig) -> ImageConfig:
    """`config` without what Docker says of the container and the parent that it was made of."""
    return replace(
        config,
        extra=_without(config.extra, _BOOKKEEPING),
        extra_config=MappingProxyType(
            {key: item for key, item in config.extra_config.items() if key != "Image" and not _is_default(key, item)}
        ),
    )


_BOOKKEEPING = frozenset({"id", "parent", "container", "container_config", "throwaway", "Size", "layer_id"})
# Docker's order of fields, and what it writes where there is nothing.
_INNER: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "ExposedPorts": None,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Healthcheck": None,
    "ArgsEscaped": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
    "StopSignal": None,
    "Shell": None,
}
_NULLED = frozenset({"Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels"})


def _is_default(key: str, item: object) -> bool:
    return key in _INNER and item == _INNER[key]


def _layer(kind: Literal["oci", "docker"], layer: Descriptor) -> Descriptor:
    media_type = mediatype.layer_media_type(kind, mediatype.compression_of(layer.media_type))
    annotations = {} if kind == "docker" else layer.annotations
    return Descriptor(media_type=media_type, digest=layer.digest, size=layer.size, annotations=annotations)


def _without(mapping: Mapping[str, Any], keys: frozenset[str]) -> Mapping[str, Any]:
    return MappingProxyType({key: item for key, item in mapping.items() if key not in keys})
