"""Manifests and indexes: parsed views beside the raw bytes (image-spec, manifest.md and image-index.md).

What builda did not create is never re-encoded: keep the bytes that `parse` was given and use these values to read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from builda.errors import CorruptContent, NotFound, Unsupported
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor, Platform, string_map
from builda.oci.document import decode, encode
from builda.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

MANIFEST_LIMIT = 8 << 20
"""Bytes that a manifest or index may have (registries allow 4 MiB by the distribution-spec's advice)."""
ENTRY_LIMIT = 4096
"""Layers that a manifest, and manifests that an index may list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = mediatype.MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> bytes:
        """The canonical bytes: fields in the spec's order, sorted maps, no spaces."""
        return _dump(self, config=self.config.to_json(), layers=[layer.to_json() for layer in self.layers])


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Many manifests, as a rule one for each platform."""

    manifests: tuple[Descriptor, ...]
    media_type: str = mediatype.INDEX
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str | None = None
    subject: Descriptor | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> bytes:
        """The canonical bytes: fields in the spec's order, sorted maps, no spaces."""
        return _dump(self, manifests=[manifest.to_json() for manifest in self.manifests])


Document: TypeAlias = Manifest | Index


def parse(data: bytes, media_type: str | None = None) -> Document:
    """The manifest or index in `data`, whose `media_type` may come from a Content-Type or a descriptor.

    Raises Unsupported for Docker schema 1 and CorruptContent for anything malformed or over the limits.
    """
    value = decode(data, "manifest", MANIFEST_LIMIT)
    _refuse_schema1(value, media_type)
    kind = _media_type_of(value, media_type)
    if kind in mediatype.INDEXES:
        return _index(value, kind)
    return _manifest(value, kind)


def choose(index: Index, platform: Platform) -> Descriptor:
    """The entry of `index` that is best for `platform`; NotFound with the platforms there are.

    Fallbacks if none fits: any variant when `platform` has none, then an entry without a platform.
    """
    images = [entry for entry in index.manifests if entry.media_type in _KINDS]
    fits = [(entry, platform.fit(entry.platform)) for entry in images if entry.platform]
    fitting = [(fit, entry.platform != platform, entry) for entry, fit in fits if fit is not None]
    if fitting:
        return min(fitting, key=lambda item: item[:2])[2]
    kin = [entry for entry in images if platform.variant is None and _is_kin(entry.platform, platform)]
    if others := kin or [entry for entry in images if entry.platform is None]:
        return others[0]
    there = ", ".join(str(entry.platform) for entry in images if entry.platform and entry.platform.os != "unknown")
    raise NotFound(f"no image for platform {platform}", hint=f"the index has: {there}" if there else None)


_KINDS = mediatype.MANIFESTS | mediatype.INDEXES


def _is_kin(there: Platform | None, platform: Platform) -> bool:
    return there is not None and (there.os, there.architecture) == (platform.os, platform.architecture)


def _refuse_schema1(value: dict[str, Any], media_type: str | None) -> None:
    if value.get("schemaVersion") == 1 or media_type in (mediatype.DOCKER_SCHEMA1, mediatype.DOCKER_SCHEMA1_SIGNED):
        raise Unsupported(
            "Docker schema 1 manifests are not supported",
            hint="push the image again with a current tool; schema 2 has existed since 2016",
        )
    if value.get("schemaVersion") != 2:
        raise CorruptContent(f"manifest has no schemaVersion 2: {value.get('schemaVersion')!r}")


def _media_type_of(value: dict[str, Any], hint: str | None) -> str:
    stated = value.get("mediaType")
    if not isinstance(stated, str | None):
        raise CorruptContent(f"mediaType of the manifest is not text: {stated!r}")
    has_manifests, has_layers = "manifests" in value, "layers" in value
    if has_manifests and has_layers:  # CVE-2021-41190: one document must not be read as two kinds
        raise CorruptContent("manifest has both layers and manifests")
    kind = stated or (hint if hint in _KINDS else None)
    if kind is None:
        kind = mediatype.INDEX if has_manifests else mediatype.MANIFEST
    if kind not in _KINDS:
        raise Unsupported(f"not an image manifest: {kind}")
    if hint in _KINDS and hint != kind:
        raise CorruptContent(f"manifest calls itself {kind}, but was announced as {hint}")
    if (kind in mediatype.INDEXES) != has_manifests:
        raise CorruptContent(f"manifest of type {kind} has no {'manifests' if kind in mediatype.INDEXES else 'layers'}")
    return kind


def _manifest(value: dict[str, Any], media_type: str) -> Manifest:
    return Manifest(
        media_type=media_type,
        config=Descriptor.from_json(value.get("config"), where="config"),
        layers=_descriptors(value, "layers"),
        **_common(value, {"config", "layers"}),
    )


def _index(value: dict[str, Any], media_type: str) -> Index:
    return Index(
        media_type=media_type,
        manifests=_descriptors(value, "manifests"),
        **_common(value, {"manifests"}),
    )


def _common(value: dict[str, Any], own: set[str]) -> dict[str, Any]:
    known = own | {"schemaVersion", "mediaType", "annotations", "artifactType", "subject"}
    subject = value.get("subject")
    artifact_type = value.get("artifactType")
    if not isinstance(artifact_type, str | None):
        raise CorruptContent("artifactType of the manifest is not text")
    return {
        "annotations": string_map(value.get("annotations"), where="annotations"),
        "artifact_type": artifact_type,
        "subject": None if subject is None else Descriptor.from_json(subject, where="subject"),
        "extra": MappingProxyType({key: item for key, item in value.items() if key not in known}),
    }


def _descriptors(value: Mapping[str, Any], where: str) -> tuple[Descriptor, ...]:
    items = value.get(where)
    if items is None and where in value:  # how Go writes an empty list
        items = []
    if not isinstance(items, list):
        raise CorruptContent(f"manifest has no {where}")
    if len(items) > ENTRY_LIMIT:
        raise CorruptContent(f"manifest lists {len(items)} {where}, more than the limit of {ENTRY_LIMIT}")
    return tuple(Descriptor.from_json(item, where=f"{where}[{i}]") for i, item in enumerate(items))


def _dump(document: Manifest | Index, **content: object) -> bytes:
    value: dict[str, Any] = {"schemaVersion": 2, "mediaType": document.media_type}
    if document.artifact_type is not None:
        value["artifactType"] = document.artifact_type
    value.update(content)
    if document.subject is not None:
        value["subject"] = document.subject.to_json()
    if document.annotations:
        value["annotations"] = dict(sorted(document.annotations.items()))
    value.update(sorted(document.extra.items()))
    return encode(value)
