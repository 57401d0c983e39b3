"""`oci:PATH[:name]`: an OCI image layout directory (image-spec, image-layout.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builda.errors import CorruptContent, NotFound
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.manifest import MANIFEST_LIMIT
from builda.transfer import blobfile

if TYPE_CHECKING:
    from builda.oci.digest import Digest, Readable
    from builda.transfer.copy import ImageSource

REF_NAME = "org.opencontainers.image.ref.name"
MARKER = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutSource:
    """The image called `name` in a layout; without a name the only one there."""

    def __init__(self, path: str, name: str | None) -> None:
        self._root = Path(path)
        self._name = name
        if not (self._root / "oci-layout").is_file():
            raise NotFound(f"not an OCI image layout: {path}", hint="it has no file oci-layout")

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to."""
        descriptor = self._chosen()
        return descriptor, self.child(descriptor)

    def _chosen(self) -> Descriptor:
        entries = [Descriptor.from_json(item, where="index.json") for item in _index(self._root)]
        if self._name is not None:
            entries = [entry for entry in entries if entry.annotations.get(REF_NAME) == self._name]
        if len(entries) == 1:
            return replace(entries[0], annotations={})
        names = ", ".join(sorted(_names(self._root)))
        if not entries:
            raise NotFound(
                f"no image {self._name or ''} in the layout: {self._root}", hint=f"it has: {names or 'none'}"
            )
        raise NotFound(f"layout has {len(entries)} images, name one: {self._root}", hint=f"it has: {names}")

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest of the layout, verified."""
        if descriptor.size > MANIFEST_LIMIT:
            raise CorruptContent(f"manifest has {descriptor.size} bytes, more than the limit of {MANIFEST_LIMIT}")
        with self.open_blob(descriptor) as file:
            return blobfile.verified(file.read(descriptor.size + 1), descriptor)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The blob from `offset` on."""
        return blobfile.open_at(_blob(self._root, descriptor.digest), offset, str(descriptor.digest))

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The blob's file."""
        return _blob(self._root, descriptor.digest)


class LayoutSink:
    """A layout to which an image is added under `name`, replacing the one of that name."""

    def __init__(self, path: str, name: str | None) -> None:
        self._root = Path(path)
        self._name = name
        (self._root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        if not (self._root / "oci-layout").exists():
            blobfile.write_whole(self._root / "oci-layout", MARKER)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there."""
        path = _blob(self._root, descriptor.digest)
        return path.is_file() and path.stat().st_size == descriptor.size

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Fetch the blob."""
        path = _blob(self._root, descriptor.digest)
        path.parent.mkdir(exist_ok=True)
        blobfile.fetch(path, descriptor, source, progress)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Keep the manifest; the top one gets the name."""
        blobfile.write_whole(_blob(self._root, descriptor.digest), data)
        if not top:
            return
        entry = descriptor.to_json()
        if self._name is not None:
            entry["annotations"] = {REF_NAME: self._name}
        try:
            entries = _index(self._root)
        except NotFound:
            entries = []
        others = [item for item in entries if not _is_replaced(item, entry, self._name)]
        value = {"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": [*others, entry]}
        blobfile.write_whole(self._root / "index.json", json.dumps(value, separators=(",", ":")).encode())


def _is_replaced(item: dict[str, Any], entry: dict[str, Any], name: str | None) -> bool:
    annotations = item.get("annotations") or {}
    if name is not None:
        return annotations.get(REF_NAME) == name
    return item.get("digest") == entry["digest"] and REF_NAME not in annotations


def _blob(root: Path, digest: Digest) -> Path:
    return root / "blobs" / digest.algorithm / digest.encoded


def _names(root: Path) -> list[str]:
    return [item.get("annotations", {}).get(REF_NAME, "(unnamed)") for item in _index(root)]


def _index(root: Path) -> list[dict[str, Any]]:
    path = root / "index.json"
    try:
        if os.stat(path).st_size > MANIFEST_LIMIT:
            raise CorruptContent(f"index.json is larger than {MANIFEST_LIMIT} bytes: {path}")
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFound(f"layout has no index.json: {root}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptContent(f"index.json is not JSON: {path}") from error
    manifests = value.get("manifests") if isinstance(value, dict) else None
    if not isinstance(manifests, list) or not all(isinstance(item, dict) for item in manifests):
        raise CorruptContent(f"index.json lists no manifests: {path}")
    return manifests
