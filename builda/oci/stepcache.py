"""Remembered steps as an OCI artifact, so that a registry can hold a build's cache (docs/containerfile.md).

All of it is in the manifest, which is thus the one request that a look-up costs: the layers are listed as layers, so
that registries keep them, and the steps are the configuration, whose descriptor carries its bytes (descriptor.md,
`data`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

from builda.errors import CorruptContent, InvalidValue
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.document import decode, encode
from builda.oci.manifest import MANIFEST_LIMIT, Document, Manifest
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ARTIFACT = "application/vnd.builda.cache.v1+json"
"""Type of the artifact, and media type of its configuration."""
STEP_LIMIT = 2000
"""Steps that one manifest holds, so that it stays below the 4 MiB that registries take."""


class CachedStep(NamedTuple):
    """The result of a step: its layer (None if it changed nothing), and all layers up to it."""

    key: Digest
    created: int  # seconds since the epoch
    chain: Digest | None = None  # ChainID of the base's layers and all up to this one
    diff_id: Digest | None = None
    layer: Descriptor | None = None


def to_manifest(steps: Iterable[CachedStep]) -> tuple[Manifest, bytes]:
    """The artifact's manifest and the bytes of its configuration. Only the newest STEP_LIMIT steps are kept."""
    newest = sorted(steps, key=lambda step: (-step.created, str(step.key)))[:STEP_LIMIT]
    data = encode({"version": 1, "steps": [_step_to_json(step) for step in newest]})
    layers = {step.layer.digest: step.layer for step in newest if step.layer is not None}
    embedded = {"data": base64.b64encode(data).decode()}
    config = Descriptor(media_type=ARTIFACT, digest=Digest.of(data), size=len(data), extra=embedded)
    return Manifest(config=config, layers=tuple(layers.values()), artifact_type=ARTIFACT), data


def from_manifest(document: Document) -> tuple[CachedStep, ...]:
    """The steps in an artifact's manifest; CorruptContent if it is incomplete or over the limits."""
    if not isinstance(document, Manifest) or document.config.media_type != ARTIFACT:
        raise CorruptContent(f"not a build cache: {getattr(document, 'artifact_type', None) or document.media_type}")
    value = decode(_embedded(document.config), "build cache", MANIFEST_LIMIT)
    steps = value.get("steps")
    if value.get("version") != 1 or not isinstance(steps, list):
        raise CorruptContent(f"build cache of an unknown version: {value.get('version')!r}")
    if len(steps) > STEP_LIMIT:
        raise CorruptContent(f"build cache has {len(steps)} steps, more than the limit of {STEP_LIMIT}")
    layers = {layer.digest: layer for layer in document.layers}
    return tuple(_step_from_json(step, layers) for step in steps)


def _embedded(config: Descriptor) -> bytes:
    text = config.extra.get("data")
    try:
        data = base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (ValueError, binascii.Error) as error:
        raise CorruptContent("build cache has unreadable data") from error
    if len(data) != config.size or Digest.of(data) != config.digest:
        raise CorruptContent(f"build cache does not match its digest: {config.digest}")
    return data


def _step_to_json(step: CachedStep) -> dict[str, Any]:
    value: dict[str, Any] = {"key": str(step.key), "created": step.created}
    if step.layer is not None:
        value.update(layer=str(step.layer.digest), diffId=str(step.diff_id), chainId=str(step.chain))
    return value


def _step_from_json(value: object, layers: Mapping[Digest, Descriptor]) -> CachedStep:
    if not isinstance(value, dict):
        raise CorruptContent("step of the build cache is not an object")
    created = value.get("created")
    if not isinstance(created, int) or not 0 <= created < 1 << 40:
        raise CorruptContent(f"step of the build cache has no time: {created!r}")
    key = _digest(value, "key")
    if "layer" not in value:
        return CachedStep(key, created)
    layer = layers.get(_digest(value, "layer"))
    if layer is None:
        raise CorruptContent(f"build cache does not list the layer of a step: {value['layer']}")
    mediatype.compression_of(layer.media_type)
    return CachedStep(key, created, _digest(value, "chainId"), _digest(value, "diffId"), layer)


def _digest(value: Mapping[str, Any], name: str) -> Digest:
    text = value.get(name)
    try:
        digest = Digest.parse(text if isinstance(text, str) else "")
    except InvalidValue as error:
        raise CorruptContent(f"step of the build cache has no {name}: {text!r}") from error
    if digest.algorithm != "sha256":
        raise CorruptContent(f"step of the build cache has a {name} that is not sha256: {digest}")
    return digest
