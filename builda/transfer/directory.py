"""`dir:PATH`: a flat directory as skopeo writes it: `manifest.json`, `version`, and blobs by their hex digests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from builda.errors import CorruptContent, NotFound
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import MANIFEST_LIMIT, parse
from builda.transfer import blobfile

if TYPE_CHECKING:
    from builda.oci.digest import Readable
    from builda.transfer.copy import ImageSource

VERSION = b"Directory Transport Version: 1.1\n"


class DirectorySource:
    """The image in a directory."""

    def __init__(self, path: str) -> None:
        self._root = Path(path)

    def manifest(self) -> tuple[Descriptor, bytes]:
        """What `manifest.json` holds."""
        try:
            with open(self._root / "manifest.json", "rb") as file:
                data = file.read(MANIFEST_LIMIT + 1)
        except FileNotFoundError as error:
            raise NotFound(f"no image in the directory: {self._root}", hint="it has no manifest.json") from error
        document = parse(data)
        return Descriptor(media_type=document.media_type, digest=Digest.of(data), size=len(data)), data

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that the index lists."""
        path = self._root / f"{descriptor.digest.encoded}.manifest.json"
        with blobfile.open_at(path, 0, str(descriptor.digest)) as file:
            data = file.read(MANIFEST_LIMIT + 1)
        if len(data) > MANIFEST_LIMIT:
            raise CorruptContent(f"manifest has more than {MANIFEST_LIMIT} bytes: {path}")
        return blobfile.verified(data, descriptor)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The blob from `offset` on."""
        return blobfile.open_at(self._root / descriptor.digest.encoded, offset, str(descriptor.digest))

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The blob's file."""
        return self._root / descriptor.digest.encoded


class DirectorySink:
    """A directory that takes one image."""

    def __init__(self, path: str) -> None:
        self._root = Path(path)
        self._root.mkdir(parents=True, exist_ok=True)

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there."""
        path = self._root / descriptor.digest.encoded
        return path.is_file() and path.stat().st_size == descriptor.size

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Fetch the blob."""
        blobfile.fetch(self._root / descriptor.digest.encoded, descriptor, source, progress)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Keep the manifest; the top one is what the directory holds."""
        if not top:
            blobfile.write_whole(self._root / f"{descriptor.digest.encoded}.manifest.json", data)
            return
        blobfile.write_whole(self._root / "version", VERSION)
        blobfile.write_whole(self._root / "manifest.json", data)
