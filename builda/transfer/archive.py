"""`oci-archive:PATH[:name]`: an image layout in one tar file; and how archives of any kind are written.

What is written is deterministic: times are zero, and members come in the order of their names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from builda.errors import NotFound
from builda.fs.tar import REGULAR, TarEntry, TarWriter
from builda.oci.digest import VerifyingReader
from builda.oci.manifest import MANIFEST_LIMIT
from builda.transfer import blobfile, ocilayout
from builda.transfer.members import Members
from builda.values import replace

if TYPE_CHECKING:
    from builda.fs.tar import Writable
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest, Readable
    from builda.transfer.copyimage import ImageSource

PIECE = 1 << 20


class OciArchiveSource:
    """The image called `name` in an archive, or at `@N` in it; without a name the only one there."""

    def __init__(self, path: str, name: str | None) -> None:
        self._members = Members(path)
        if "index.json" not in self._members:
            raise NotFound(f"not an OCI archive: {path}", hint=self._other_kind())
        if "oci-layout" in self._members:
            ocilayout.check_marker(self._members.read("oci-layout", ocilayout.MARKER_LIMIT), path)
        index = self._members.read("index.json", MANIFEST_LIMIT)
        entry = ocilayout.chosen(ocilayout.entries_of(index, path), name, path)
        self.names = ocilayout.names_of(entry)
        self._descriptor = replace(entry, annotations={})

    def _other_kind(self) -> str:
        return "use docker-archive:" if "manifest.json" in self._members else "it has no index.json"

    def own_names(self) -> tuple[str, ...]:
        """The one name that the store takes over."""
        return ocilayout.best_name(self.names)

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to."""
        return self._descriptor, self.child(self._descriptor)

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest, verified."""
        data = self._members.read(ocilayout.blob_name(descriptor.digest), MANIFEST_LIMIT)
        return blobfile.verified(data, descriptor)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The blob from `offset` on."""
        return self._members.open(ocilayout.blob_name(descriptor.digest), offset)

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """None: the archive is one file."""
        return None


class ArchiveSink:
    """Remembers where blobs come from, and writes the archive when it gets the top manifest.

    The archive appears whole or not at all, unless it goes to a pipe or device. `write` says what is in it.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.blobs: dict[Digest, tuple[Descriptor, ImageSource, Callable[[int], None]]] = {}
        self.manifests: dict[Digest, bytes] = {}

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob will be in the archive anyway, which is written anew."""
        return descriptor.digest in self.blobs

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Remember the blob; it is read, once, when the archive is written."""
        self.blobs[descriptor.digest] = descriptor, source, progress

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Remember the manifest; the top one completes the archive."""
        self.manifests[descriptor.digest] = data
        if top:
            with self.written() as file:
                tar = TarWriter(file)
                self.write(tar, descriptor, data)
                tar.close()

    @contextmanager
    def written(self) -> Iterator[Writable]:
        """Where the archive is written to; what was written counts when the block ends well."""
        with _written(self.path) as file:
            yield _Whole(file)

    def write(self, tar: TarWriter, descriptor: Descriptor, data: bytes) -> None:
        """Write the members of the archive whose top manifest is `data`."""
        raise NotImplementedError

    def add_blob(self, tar: TarWriter, name: str, digest: Digest) -> None:
        """One blob as a member, verified."""
        descriptor, source, progress = self.blobs[digest]
        tar.add(TarEntry(name.encode(), REGULAR, size=descriptor.size))
        with source.open_blob(descriptor) as raw:
            reader = VerifyingReader(raw, descriptor.digest, descriptor.size)
            while piece := reader.read(PIECE):
                tar.data(piece)
                progress(len(piece))
        tar.pad(descriptor.size)


class OciArchiveSink(ArchiveSink):
    """An OCI archive with one image or index under `name`, in place of what the file holds."""

    def __init__(self, path: str, name: str | None) -> None:
        super().__init__(path)
        self._name = name

    def write(self, tar: TarWriter, descriptor: Descriptor, data: bytes) -> None:
        """The blobs, then `index.json` and `oci-layout`."""
        for digest in sorted({*self.blobs, *self.manifests}):
            if digest in self.manifests:
                add_member(tar, ocilayout.blob_name(digest), self.manifests[digest])
            else:
                self.add_blob(tar, ocilayout.blob_name(digest), digest)
        add_member(tar, "index.json", ocilayout.index_of(ocilayout.named_entry(descriptor, self._name)))
        add_member(tar, "oci-layout", ocilayout.MARKER)


def add_member(tar: TarWriter, name: str, data: bytes) -> None:
    """A small file as a member."""
    tar.add(TarEntry(name.encode(), REGULAR, size=len(data)))
    tar.data(data)
    tar.pad(len(data))


class _Whole:
    """Writes all it is given to an unbuffered file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        blobfile.write_all(self._file, data)


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """The file to write an archive to. Scripts write to /dev/stdout, which must not be replaced by a file."""
    target = Path(os.path.realpath(path))
    if is_special(path):
        with open(path, "wb", buffering=0) as file:
            yield file
        return
    if not target.parent.is_dir():
        raise NotFound(f"no such file or directory: {target.parent}", hint="make it first")
    with blobfile.staged(target) as file:
        yield file


def is_special(path: Path) -> bool:
    """Whether `path` is no regular file, or names an open descriptor, as a script's stdout: it cannot be replaced."""
    if str(path) in ("/dev/stdout", "/dev/stderr") or str(path).startswith(("/dev/fd/", "/proc/")):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
