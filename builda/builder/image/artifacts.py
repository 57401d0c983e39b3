"""Artifacts: files with a manifest that calls them what they are (image-spec, manifest.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from builda.errors import of_system
from builda.linux.regular import open_regular
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import Manifest
from builda.values import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from builda.store.store import Store

TITLE = "org.opencontainers.image.title"
UNKNOWN_TYPE = "application/vnd.unknown.artifact.v1"
_UNKNOWN_CONFIG = "application/vnd.unknown.config.v1+json"
_UNKNOWN_FILE = "application/octet-stream"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactOptions:
    """The options of an artifact. `file_type` None: guessed from the name of each file."""

    type: str | None = None
    config: str | None = None  # the file that is its configuration
    config_type: str | None = None
    file_type: str | None = None
    titles: bool = True
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


def put(store: Store, files: tuple[str, ...], options: ArtifactOptions) -> Descriptor:
    """An artifact of these files, in the store; the entry that a list has for it.

    BuildaError for a path that is no regular file.
    """
    manifest = Manifest(
        artifact_type=options.type or UNKNOWN_TYPE,
        config=_config(store, options),
        layers=tuple(_layer(store, path, options) for path in files),
        subject=options.subject,
        annotations=options.annotations,
    )
    stored = store.put_bytes(manifest.dump(), manifest.media_type)
    return replace(stored, artifact_type=manifest.artifact_type)


def _config(store: Store, options: ArtifactOptions) -> Descriptor:
    if options.config is None:
        return store.put_bytes(b"{}", options.config_type or mediatype.EMPTY)
    return _stored(store, options.config, options.config_type or _UNKNOWN_CONFIG)


def _layer(store: Store, path: str, options: ArtifactOptions) -> Descriptor:
    import mimetypes

    layer = _stored(store, path, options.file_type or mimetypes.guess_type(path)[0] or _UNKNOWN_FILE)
    return replace(layer, annotations={TITLE: os.path.basename(path)}) if options.titles else layer


def _stored(store: Store, path: str, media_type: str) -> Descriptor:
    """The content of a file, in the store."""
    import hashlib

    hasher, size = hashlib.sha256(), 0
    with _opened(path) as file, store.new_blob() as blob:
        while data := file.read(_PIECE):
            blob.file.write(data)
            hasher.update(data)
            size += len(data)
        digest = Digest("sha256", hasher.hexdigest())
        blob.publish(digest)
    return Descriptor(media_type=media_type, digest=digest, size=size)


def _opened(path: str) -> BinaryIO:
    try:
        return open(open_regular(os.open(path, os.O_PATH | os.O_CLOEXEC), path), "rb", 0)
    except OSError as error:
        raise of_system(error) from error
