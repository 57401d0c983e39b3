"""Content-addressed blobs: a file in `blobs/sha256/` holds exactly the bytes its name promises, or it is not there."""

from __future__ import annotations

import contextlib
import os

from builda.errors import CorruptContent, NotFound
from builda.linux import private
from builda.oci.digest import Digest
from builda.store import layout
from builda.store.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import BinaryIO

    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Readable
    from builda.store.waits import Waits

PIECE = 1 << 20


class Blobs:
    """The blobs of one store. `unsynced` are those this process published or found, and no sync has reached yet."""

    def __init__(self, where: Layout, waits: Waits | None = None) -> None:
        self._layout = where
        self._waits = waits
        self.unsynced: set[str] = set()

    def path(self, digest: Digest) -> str:
        """The path of the blob, whether it exists or not."""
        if digest.algorithm != "sha256":
            raise CorruptContent(f"the store keeps sha256 content only: {digest}")
        return self._layout.blob(digest.encoded)

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the content is here; then no sweep takes it while this process holds a lease.

        One of another size than `size` does not count: a power cut may shorten what was not synced yet.
        """
        path = self.path(digest)
        if not layout.touch(path) or (size is not None and os.stat(path).st_size != size):
            return False
        self.unsynced.add(path)  # the process that made it may be killed before it syncs
        return True

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's bytes; NotFound when it is not here."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFound(f"no such blob in the store: {digest}") from error

    def read(self, digest: Digest) -> bytes:
        """The verified content of a small blob; NotFound, or CorruptContent if it is damaged."""
        with self.open(digest) as file:
            data = file.read()
        if Digest.of(data) != digest:
            raise CorruptContent(f"blob in the store is damaged: {digest}", hint="remove the image and pull it again")
        return data

    def put_bytes(self, data: bytes) -> Digest:
        """Store `data`; returns its digest."""
        digest = Digest.of(data)
        if not self.has(digest, len(data)):
            layout.publish(self._layout, self.path(digest), data)
            self.unsynced.add(self.path(digest))
        return digest

    def unpacks_to(self, layer: Digest, diff_id: Digest) -> bool:
        """Whether the layer's blob is known to unpack to `diff_id`; False if that was never checked."""
        if layer == diff_id:  # not compressed
            return True
        try:
            return os.readlink(self._diff(layer)) == str(diff_id)
        except FileNotFoundError:
            return False

    def note(self, layer: Digest, diff_id: Digest) -> None:
        """Remember what the layer's blob unpacks to, which the caller has computed; only a cache."""
        with contextlib.suppress(OSError):
            private.make(os.path.dirname(self._diff(layer)))  # a store of an earlier version has none
            os.symlink(str(diff_id), self._diff(layer))

    def _diff(self, layer: Digest) -> str:
        return self._layout.path("diffs", layer.encoded)

    def new(self) -> BlobWriter:
        """A writer for a blob whose digest is known only when all of it is written."""
        return BlobWriter(self)

    def ingest(
        self, descriptor: Descriptor, open_from: Callable[[int], Readable], progress: Callable[[int], None]
    ) -> None:
        """Store the content of `descriptor`, read from `open_from(offset)` unless it is there.

        A partial download of a killed or failed process is kept in `ingest/` and continued; of two processes that want
        the same content the second waits. Nothing appears in `blobs/` unless digest and size are right.
        """
        from builda.store import locks

        if self.has(descriptor.digest, descriptor.size):
            progress(descriptor.size)
            return
        path = self._layout.path("ingest", f"blob-{descriptor.digest.encoded}")
        lock = locks.exclusive(
            locks.bucket(self._layout.path("locks"), descriptor.digest.encoded),
            self._waits,
            f"blob {str(descriptor.digest)[:19]}",
        )
        with layout.translated(self._layout.root), lock:
            if self.has(descriptor.digest, descriptor.size):
                progress(descriptor.size)
            else:
                self._fetch(path, descriptor, open_from, progress)

    def _fetch(
        self, path: str, descriptor: Descriptor, open_from: Callable[[int], Readable], progress: Callable[[int], None]
    ) -> None:
        import hashlib

        with layout.translated(self._layout.root), open(path, "a+b", 0, opener=private.opener) as file:
            if os.fstat(file.fileno()).st_size > descriptor.size:  # fetched for a descriptor that lied
                file.truncate(0)
            hasher = hashlib.new(descriptor.digest.algorithm)
            size = _rehash(file, hasher)
            progress(size)
            source = open_from(size) if size < descriptor.size or descriptor.size == 0 else None
            while source is not None and (data := source.read(PIECE)):
                size += len(data)
                if size > descriptor.size:
                    self._discard(path, f"{descriptor.digest} is longer than the {descriptor.size} bytes promised")
                hasher.update(data)
                _write_all(file, data)
                progress(len(data))
        if size < descriptor.size:
            raise CorruptContent(f"{descriptor.digest} ends after {size} of {descriptor.size} bytes")
        if hasher.hexdigest() != descriptor.digest.encoded:
            self._discard(path, f"content does not match its digest: {descriptor.digest}")
        os.rename(path, self.path(descriptor.digest))
        self.unsynced.add(self.path(descriptor.digest))

    def _discard(self, path: str, message: str) -> None:
        os.unlink(path)
        raise CorruptContent(message)

    def sync(self) -> None:
        """Sync all blobs that this process published or relies on, so that they survive a power cut."""
        for path in sorted(self.unsynced):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        if self.unsynced:
            layout.sync_directory(self._layout.path("blobs/sha256"))
        self.unsynced.clear()


class BlobWriter:
    """`with blobs.new() as writer`: write to `writer.file`, then `publish`; unpublished content vanishes."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._path = layout.temporary(blobs._layout)
        self.file: BinaryIO

    def __enter__(self) -> BlobWriter:
        with layout.translated(self._blobs._layout.root):
            self.file = open(self._path, "xb", 0, opener=private.opener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        if isinstance(error, OSError):
            said = layout.unavailable(error, self._blobs._layout.root)
            if said is not error:
                raise said from error

    def publish(self, digest: Digest, diff_id: Digest | None = None) -> None:
        """Store what was written under `digest`, which the caller computed meanwhile, and a layer's DiffID with it."""
        path = self._blobs.path(digest)
        if not self._blobs.has(digest, os.fstat(self.file.fileno()).st_size):
            os.rename(self._path, path)
            self._blobs.unsynced.add(path)
        if diff_id is not None:
            self._blobs.note(digest, diff_id)


def _rehash(file: BinaryIO, hasher: object) -> int:
    """Hash what a partial download holds already; its size."""
    file.seek(0)
    size = 0
    while data := file.read(PIECE):
        size += len(data)
        hasher.update(data)  # type: ignore[attr-defined]  # hashlib's objects have no public type
    return size


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
