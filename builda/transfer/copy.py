"""copy_image: from any source to any sink, verified on the way.

N sources and M sinks, no N times M code. Whatever a manifest lists is checked before anything is moved; blobs go first
and side by side, the configuration after them, the manifest last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from builda.errors import CorruptContent
from builda.events import BlobProgress, Emit, ignore
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, parse_config
from builda.oci.manifest import MANIFEST_LIMIT, Index, Manifest, choose, parse

if TYPE_CHECKING:
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.digest import Readable

DEPTH = 4
"""Indexes inside indexes that are followed."""


class ImageSource(Protocol):
    """A place that has one image or index."""

    def manifest(self) -> tuple[Descriptor, bytes]:
        """What the name points to, verified against its descriptor."""
        ...

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that an index lists, verified."""
        ...

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The raw bytes from `offset` on; whoever reads them verifies them."""
        ...

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """A file that holds exactly the blob, if there is one."""
        ...


class ImageSink(Protocol):
    """A place that takes one image or index."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the content is there already."""
        ...

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """The content is there, verified; `progress` is told of bytes as they move."""
        ...

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """The manifest is there; `top` comes once, last, and publishes the name."""
        ...


def copy_image(
    source: ImageSource,
    sink: ImageSink,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
    emit: Emit = ignore,
    jobs: int = 4,
) -> Descriptor:
    """Copy what `source` names; the descriptor of what `sink` was given.

    Of an index the image for `platform` is taken; with `all_platforms`, or without a platform, the index whole.
    Raises CorruptContent, Unsupported for layers that cannot be had, NotFound when no image fits.
    """
    descriptor, data = source.manifest()
    document = parse(data, descriptor.media_type)
    depth = 0
    while isinstance(document, Index) and platform is not None and not all_platforms:
        descriptor = choose(document, platform)
        data = source.child(descriptor)
        document = parse(data, descriptor.media_type)
        depth += 1
        if depth > DEPTH:
            raise CorruptContent(f"indexes are nested more than {DEPTH} deep: {descriptor.digest}")
    _Copy(source, sink, emit, jobs).document(descriptor, data, top=True)
    return descriptor


class _Copy:
    def __init__(self, source: ImageSource, sink: ImageSink, emit: Emit, jobs: int) -> None:
        self.source = source
        self.sink = sink
        self.emit = emit
        self.jobs = jobs

    def document(self, descriptor: Descriptor, data: bytes, *, top: bool, depth: int = 0) -> None:
        document = parse(data, descriptor.media_type)
        if isinstance(document, Manifest):
            self.image(document)
        elif depth > DEPTH:
            raise CorruptContent(f"indexes are nested more than {DEPTH} deep: {descriptor.digest}")
        else:
            for child in document.manifests:
                self.document(child, self.source.child(child), top=False, depth=depth + 1)
        self.sink.put_manifest(descriptor, data, top=top)

    def image(self, manifest: Manifest) -> None:
        """Move everything a manifest lists."""
        if manifest.config.media_type in mediatype.CONFIGS:
            for layer in manifest.layers:
                mediatype.compression_of(layer.media_type)
            self.check_config(manifest)
        unique = {part.digest: part for part in manifest.layers}
        with ThreadPoolExecutor(max(1, min(self.jobs, len(unique)))) as pool:
            futures = [pool.submit(self.blob, layer) for layer in unique.values()]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self.blob(manifest.config)

    def check_config(self, manifest: Manifest) -> None:
        if manifest.config.size > CONFIG_LIMIT:
            raise CorruptContent(f"image configuration has {manifest.config.size} bytes, more than {CONFIG_LIMIT}")
        config = parse_config(read_blob(self.source, manifest.config, CONFIG_LIMIT))
        if len(config.diff_ids) != len(manifest.layers):
            raise CorruptContent(
                f"manifest lists {len(manifest.layers)} layers, its configuration {len(config.diff_ids)} diff_ids"
            )

    def blob(self, descriptor: Descriptor) -> None:
        """Move one blob unless it is there."""
        if self.sink.has_blob(descriptor):
            self.progress(descriptor, descriptor.size, done=True, reused=True)
            return
        offset = 0
        lock = threading.Lock()

        def moved(count: int) -> None:
            nonlocal offset
            with lock:
                offset += count
                self.progress(descriptor, offset)

        self.sink.put_blob(descriptor, self.source, moved)
        self.progress(descriptor, descriptor.size, done=True)

    def progress(self, descriptor: Descriptor, offset: int, *, done: bool = False, reused: bool = False) -> None:
        action = "push" if getattr(self.sink, "is_remote", False) else "pull"
        self.emit(
            BlobProgress(
                action="push" if action == "push" else "pull",
                digest=descriptor.digest,
                offset=offset,
                total=descriptor.size,
                done=done,
                reused=reused,
            )
        )


def read_blob(source: ImageSource, descriptor: Descriptor, limit: int = MANIFEST_LIMIT) -> bytes:
    """A small blob whole, verified; CorruptContent when it is larger than `limit`."""
    from builda.oci.digest import VerifyingReader

    if descriptor.size > limit:
        raise CorruptContent(f"{descriptor.digest} has {descriptor.size} bytes, more than the limit of {limit}")
    parts = []
    with source.open_blob(descriptor) as raw:
        reader = VerifyingReader(raw, descriptor.digest, descriptor.size)
        while data := reader.read(1 << 20):
            parts.append(data)
    return b"".join(parts)
