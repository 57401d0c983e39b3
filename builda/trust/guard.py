"""GuardedSource: an image whose signatures are verified before anything that its manifest lists is read.

The signatures of a list count for all that it lists. From a list without signatures a caller can choose an image, which
then needs signatures of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import RLock
from typing import TYPE_CHECKING

from builda.errors import PolicyRejected
from builda.oci.manifest import Index, Manifest, parse
from builda.transfer.copyimage import MountableSource, NamedSource, child_of, stop

if TYPE_CHECKING:
    from pathlib import Path

    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest, Readable
    from builda.transfer.copyimage import ImageSource


class GuardedSource:
    """A source of which only what `check` accepts is given out. Threads may share it.

    `check` gets the bytes of a manifest or list, and raises PolicyRejected.
    """

    def __init__(self, source: ImageSource, check: Callable[[bytes], object]) -> None:
        self._source = source
        self._check = check
        self._lock = RLock()
        self._top: tuple[Descriptor, bytes] | None = None
        self._lacking: PolicyRejected | None = None
        self._accepted: set[Digest] = set()  # manifests, and the blobs that they list

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to; PolicyRejected if it lacks signatures."""
        top = self.outline()
        if self._lacking is not None:
            raise self._lacking
        return top

    def outline(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to. An index may lack signatures: images in it may have them."""
        with self._lock:
            if self._top is None:
                descriptor, data = self._source.manifest()
                self._lacking = self._refusal(data)
                if self._lacking is not None and not isinstance(parse(data, descriptor.media_type), Index):
                    raise self._lacking
                self._top = descriptor, data
            return self._top

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that the list names; with signatures of its own if the list has none."""
        self.outline()
        data = child_of(self._source, descriptor)
        with self._lock:
            if self._lacking is not None:
                refusal = None if descriptor.digest in self._accepted else self._refusal(data)
                if refusal is not None:
                    raise refusal
                self._accept(descriptor, data)
        return data

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """A blob of an image that has the signatures."""
        self._admit(descriptor)
        return self._source.open_blob(descriptor, offset)

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The file of a blob of an image that has the signatures."""
        self._admit(descriptor)
        return self._source.local_path(descriptor)

    def stop(self) -> None:
        """Stop the source."""
        stop(self._source)

    def own_names(self) -> tuple[str, ...]:
        """The names of the image at its place."""
        return self._source.own_names() if isinstance(self._source, NamedSource) else ()

    def repositories_on(self, registry: str) -> tuple[str, ...]:
        """The names under which a registry has the blobs, for mounting them."""
        return self._source.repositories_on(registry) if isinstance(self._source, MountableSource) else ()

    def _admit(self, descriptor: Descriptor) -> None:
        self.outline()
        with self._lock:
            if self._lacking is not None and descriptor.digest not in self._accepted:
                raise self._lacking

    def _refusal(self, data: bytes) -> PolicyRejected | None:
        try:
            self._check(data)
        except PolicyRejected as error:
            return error
        return None

    def _accept(self, descriptor: Descriptor, data: bytes) -> None:
        """All that this manifest lists may be read. Its bytes are those of the descriptor."""
        self._accepted.add(descriptor.digest)
        document = parse(data, descriptor.media_type)
        parts = (document.config, *document.layers) if isinstance(document, Manifest) else document.manifests
        self._accepted.update(part.digest for part in parts)
