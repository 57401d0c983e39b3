"""`dir:PATH`: a flat directory as skopeo writes it: `manifest.json`, `version`, and blobs by their hex digests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from builda.errors import AlreadyExists, NotFound, Unsupported
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import MANIFEST_LIMIT, parse
from builda.transfer import blobfile
from builda.transfer.ocilayout import has_file

if TYPE_CHECKING:
    from builda.oci.digest import Readable
    from builda.transfer.copyimage import ImageSource

VERSION = b"Directory Transport Version: 1.1\n"
_FIRST_VERSIONS = b"Directory Transport Version: 1."
_OWN = re.compile(
    r"[0-9a-f]{64}|[0-9a-f]{128}|[0-9a-f]{64,128}\.manifest\.json|(?:[0-9a-f]{64,128}\.)?signature-[0-9]+"
)
"""Names of files that belong to an image."""


class DirectorySource:
    """The image in a directory."""

    def __init__(self, path: str) -> None:
        self._root = Path(path)
        self._check_version()

    def _check_version(self) -> None:
        with suppress(NotFound):  # the first skopeo wrote none
            version = blobfile.read_small(self.file("version"), MANIFEST_LIMIT)
            if not version.startswith(_FIRST_VERSIONS):
                raise Unsupported(f"directory has an unsupported version, {version[:80]!r}: {self._root}")

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The content of `manifest.json`."""
        try:
            data = blobfile.read_small(self.file("manifest.json"), MANIFEST_LIMIT)
        except (NotFound, NotADirectoryError) as error:
            raise NotFound(f"no image in the directory: {self._root}", hint="it has no manifest.json") from error
        document = parse(data)
        return Descriptor(media_type=document.media_type, digest=Digest.of(data), size=len(data)), data

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that the index lists."""
        path = self.file(f"{descriptor.digest.encoded}.manifest.json")
        return blobfile.verified(blobfile.read_small(path, MANIFEST_LIMIT), descriptor)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The blob from `offset` on."""
        return blobfile.open_at(self.file(descriptor.digest.encoded), offset)

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The blob's file."""
        return self.file(descriptor.digest.encoded)

    def file(self, name: str) -> Path:
        """The path of a file of the image."""
        return self._root / name


class DirectorySink:
    """A directory that takes one image, in place of the one it may hold. Made when it is not there.

    AlreadyExists when it holds anything else.
    """

    def __init__(self, path: str) -> None:
        self._root = Path(path)
        self._files: set[str] = set()
        if self._root.exists() and os.listdir(self._root) and not (self._root / "version").is_file():
            raise AlreadyExists(f"directory holds something other than an image: {path}", hint="name an empty one")

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there."""
        self._files.add(descriptor.digest.encoded)
        return has_file(self._root / descriptor.digest.encoded, descriptor)

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Fetch the blob."""
        blobfile.fetch(self._made(descriptor.digest.encoded), descriptor, source, progress)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Keep a manifest; with the top one, files of the image that was there before are removed."""
        if not top:
            blobfile.write_whole(self._made(f"{descriptor.digest.encoded}.manifest.json"), data)
            return
        blobfile.write_whole(self._made("version"), VERSION)
        blobfile.write_whole(self._made("manifest.json"), data)
        for name in os.listdir(self._root):
            if name not in self._files and _OWN.fullmatch(name):
                os.unlink(self._root / name)

    def _made(self, name: str) -> Path:
        self._files.add(name)
        if not self._root.exists():
            self._root.mkdir(parents=True, exist_ok=True)
        if name != "version" and not (self._root / "version").exists():  # so that an aborted copy can be repeated
            blobfile.write_whole(self._root / "version", VERSION)
        return self._root / name
