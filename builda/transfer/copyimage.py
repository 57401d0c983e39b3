"""copy_image: from any source to any sink, verified on the way.

N sources and M sinks, no N times M code. What a manifest lists is checked before any of it is moved; layers go first
and side by side, the configuration after them, the manifest last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO

from builda.errors import CorruptContent
from builda.events import BlobProgress, Emit, ImageMoved, Warned, ignore
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, ImageConfig, parse_config
from builda.oci.digest import VerifyingReader, verify
from builda.oci.manifest import MANIFEST_LIMIT, Index, Manifest, choose, parse
from builda.values import Protocol, replace, runtime_checkable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path
    from typing import BinaryIO, Literal, TypeAlias

    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.digest import Digest, Readable

DEPTH = 4
"""Indexes inside indexes that are followed."""
Select: TypeAlias = "Literal['one', 'all', 'index-only']"
"""What is copied of an index: the image for one platform, all of it, or it alone."""
PIECE = 1 << 20


class ImageSource(Protocol):
    """A place that has one image or index. Its methods may be called by several threads."""

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to, verified, with its descriptor."""

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that an index lists, verified."""

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The raw bytes from `offset` on; the reader has to verify them."""

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """A file that should hold exactly the blob, if there is one; the reader has to verify it."""


class ImageSink(Protocol):
    """A place that takes one image or index. Its methods for blobs may be called by several threads."""

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the content is there already."""

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Put the content there, verified, at the latest with the top manifest.

        `progress` is called with the number of bytes as they move. If another blob failed it raises, to stop this one;
        let that through.
        """

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Put a manifest there; the `top` one comes once, last, and publishes the name."""


@runtime_checkable
class NamedSource(Protocol):
    """A source that says how its image is called there."""

    def own_names(self) -> tuple[str, ...]:
        """The names that the store gives the image if the user gives it none; they may lack a registry."""


@runtime_checkable
class OutlinedSource(Protocol):
    """A source that may give out a list only for an image to be chosen from it."""

    def outline(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to.

        Also gives out an index that lacks the signatures that policy.json wants, because images in it may have them;
        `manifest` refuses it.
        """


@runtime_checkable
class MountableSource(Protocol):
    """A source whose blobs a registry has already."""

    def repositories_on(self, registry: str) -> tuple[str, ...]:
        """The names under which `registry` has the blobs."""


@runtime_checkable
class NamedSink(Protocol):
    """A sink whose image may have several names."""

    def call(self, names: tuple[str, ...]) -> None:
        """Give the image these names, too."""


@runtime_checkable
class AskedSink(Protocol):
    """A sink that can say at once whether there is nothing to do."""

    def has_image(self, descriptor: Descriptor) -> bool:
        """Whether the place has this very image or index under the name already, with all that belongs to it."""

    def has_child(self, descriptor: Descriptor) -> bool:
        """Whether the place has this manifest, with all that belongs to it, whatever names it."""


@runtime_checkable
class Stoppable(Protocol):
    """A source or sink whose methods may wait long, such as for a server."""

    def stop(self) -> None:
        """Let all that other threads wait for end in an error, soon; it is not used any more."""


def stop(place: object) -> None:
    """Stop a source or sink if it can be stopped."""
    if isinstance(place, Stoppable):
        place.stop()


def copy_image(
    source: ImageSource,
    sink: ImageSink,
    *,
    platform: Platform | None = None,
    select: Select = "one",
    action: Literal["pull", "push"] = "pull",
    emit: Emit = ignore,
    jobs: int = 4,
) -> Descriptor:
    """Copy what `source` names; the descriptor of what `sink` was given.

    Of an index the image for `platform` is taken; with `all`, or without a platform, the index whole; with `index-only`
    the index without its images, which the sink has to have. `action` is what events call it. Nothing is published on
    failure: CorruptContent, Unsupported for layers that cannot be had, NotFound when no image fits, and whatever the
    two places raise.
    """
    descriptor, data = outline(source) if platform is not None and select == "one" else source.manifest()
    document = parse(_checked(descriptor, data), descriptor.media_type)
    chosen, depth = platform is None, 0
    while isinstance(document, Index) and platform is not None and select == "one":
        chosen, depth = True, _deeper(depth, descriptor)
        descriptor = choose(document, platform)
        data = child_of(source, descriptor)
        document = parse(data, descriptor.media_type)
    copy = _Copy(source, sink, action, emit, jobs, None if chosen else platform)
    if isinstance(sink, AskedSink) and sink.has_image(descriptor):
        if isinstance(document, Manifest):
            copy.tell_all_reused(document)
        result = plainly(descriptor, document.media_type)
    else:
        result = copy.document(descriptor, data, top=True, alone=select == "index-only")
    copy.tell_moved()
    return result


def outline(source: ImageSource) -> tuple[Descriptor, bytes]:
    """The manifest or index that the name points to, if the caller only chooses an image from an index."""
    return source.outline() if isinstance(source, OutlinedSource) else source.manifest()


def plainly(descriptor: Descriptor, media_type: str) -> Descriptor:
    """The descriptor without the fields that an index added."""
    return replace(descriptor, media_type=media_type, annotations={}, urls=(), extra={})


def child_of(source: ImageSource, descriptor: Descriptor) -> bytes:
    """The manifest that an index lists, verified whatever the source did; CorruptContent when it is over the limit."""
    if descriptor.size > MANIFEST_LIMIT:
        raise CorruptContent(
            f"manifest has {descriptor.size} bytes, more than the limit of {MANIFEST_LIMIT}: {descriptor.digest}"
        )
    return _checked(descriptor, source.child(descriptor))


def read_blob(source: ImageSource, descriptor: Descriptor, limit: int = MANIFEST_LIMIT) -> bytes:
    """A small blob whole, verified; CorruptContent when it is larger than `limit`."""
    if descriptor.size > limit:
        raise CorruptContent(f"{descriptor.digest} has {descriptor.size} bytes, more than the limit of {limit}")
    with source.open_blob(descriptor) as raw:
        reader = VerifyingReader(raw, descriptor.digest, descriptor.size)
        return b"".join(iter(lambda: reader.read(PIECE), b""))


class _Copy:
    """One run of copy_image. `platform` is what a single image should be for; None if it was chosen from an index."""

    def __init__(
        self,
        source: ImageSource,
        sink: ImageSink,
        action: Literal["pull", "push"],
        emit: Emit,
        jobs: int,
        platform: Platform | None,
    ) -> None:
        self.source = source
        self.sink = sink
        self.action = action
        self.emit = emit
        self.jobs = jobs
        self.platform = platform
        self.stop = threading.Event()
        self.blobs: list[_Progress] = []
        self.reused: list[Digest] = []
        self.began = time.monotonic()
        self.manifests: set[Digest] = set()

    def document(
        self, descriptor: Descriptor, data: bytes, *, top: bool, depth: int = 0, alone: bool = False
    ) -> Descriptor:
        """Put a manifest or index after everything that it lists; its descriptor, without an entry's fields.

        `alone`: put an index without what it lists.
        """
        document = parse(data, descriptor.media_type)
        if isinstance(document, Manifest):
            self.image(document, is_artifact=_is_attestation(descriptor))
        elif not alone:
            depth = _deeper(depth, descriptor)
            for child in document.manifests:
                if child.digest not in self.manifests:  # or a small index that lists itself again would never end
                    self.child(child, depth)
        self.manifests.add(descriptor.digest)
        plain = plainly(descriptor, document.media_type)
        self.sink.put_manifest(plain, data, top=top)
        if top:
            for blob in self.blobs:
                blob.ended()
        return plain

    def child(self, descriptor: Descriptor, depth: int) -> None:
        """Put an entry of an index, unless the sink has it."""
        if isinstance(self.sink, AskedSink) and self.sink.has_child(descriptor):
            self.manifests.add(descriptor.digest)
        else:
            self.document(descriptor, child_of(self.source, descriptor), top=False, depth=depth)

    def image(self, manifest: Manifest, *, is_artifact: bool) -> None:
        """Move everything a manifest lists."""
        config_source = self.source
        if manifest.config.media_type in mediatype.CONFIGS:
            if not is_artifact and (self.action == "pull" or _has_layers(manifest)):
                for layer in manifest.layers:
                    mediatype.compression_of(layer.media_type)
            config = read_blob(self.source, manifest.config, CONFIG_LIMIT)
            self.check(manifest, parse_config(config))
            config_source = OneBlob(BytesIO(config))
        self.layers(_distinct(manifest))
        self.blob(manifest.config, config_source)

    def check(self, manifest: Manifest, config: ImageConfig) -> None:
        if len(config.diff_ids) != len(manifest.layers):
            raise CorruptContent(
                f"manifest lists {len(manifest.layers)} layers, its configuration {len(config.diff_ids)} diff_ids"
            )
        if self.platform and config.platform.architecture and not self.platform.runs(config.platform):
            self.emit(Warned(message=f"image is for {config.platform}, not for {self.platform}"))

    def layers(self, layers: tuple[Descriptor, ...]) -> None:
        """Move the layers side by side; when one fails, stop the others."""
        if not layers:
            return
        from concurrent.futures import ThreadPoolExecutor

        from builda.threads import wait_for_threads

        with ThreadPoolExecutor(min(self.jobs, len(layers)), thread_name_prefix="builda-copy") as pool:
            try:  # from here on, as ^C may come while the first threads work and the others are made
                futures = [pool.submit(self.blob, layer, self.source) for layer in layers]
                wait_for_threads(futures)
                _raise_first(futures)
            except BaseException:
                self.stop.set()
                stop(self.source)
                stop(self.sink)
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def blob(self, descriptor: Descriptor, source: ImageSource) -> None:
        """Move one blob unless it is there."""
        if self.sink.has_blob(descriptor):
            self.tell_reused(descriptor)
            return
        progress = _Progress(self, descriptor)
        self.blobs.append(progress)
        self.sink.put_blob(descriptor, source, progress)
        progress.returned()

    def tell_all_reused(self, manifest: Manifest) -> None:
        """Tell that everything a manifest lists is there already."""
        for blob in (*_distinct(manifest), manifest.config):
            self.tell_reused(blob)

    def tell_reused(self, descriptor: Descriptor) -> None:
        """Tell that a blob is there already."""
        self.reused.append(descriptor.digest)
        self.tell(descriptor, descriptor.size, done=True, reused=True)

    def tell_moved(self) -> None:
        """Tell how much moved in all, and how long it took."""
        event = ImageMoved(
            action=self.action,
            blobs=len(self.blobs),
            size=sum(blob.size for blob in self.blobs),
            reused=len(self.reused),
            seconds=time.monotonic() - self.began,
        )
        self.emit(event)

    def tell(self, descriptor: Descriptor, offset: int, *, done: bool = False, reused: bool = False) -> None:
        event = BlobProgress(
            action=self.action,
            digest=descriptor.digest,
            offset=offset,
            total=descriptor.size,
            done=done,
            reused=reused,
        )
        self.emit(event)


class _Progress:
    """The progress of one blob: done when put_blob has returned and all bytes were reported, in either order."""

    def __init__(self, copy: _Copy, descriptor: Descriptor) -> None:
        self.size = descriptor.size
        self._copy = copy
        self._descriptor = descriptor
        self._offset = 0
        self._returned = self._done = False

    def __call__(self, count: int) -> None:
        if self._copy.stop.is_set():
            raise _Stopped
        self._offset += count
        if self._offset < self._descriptor.size or not self._returned:
            self._copy.tell(self._descriptor, self._offset)
        else:
            self.ended()

    def returned(self) -> None:
        self._returned = True
        if self._offset >= self._descriptor.size:
            self.ended()

    def ended(self) -> None:
        if not self._done:
            self._done = True
            self._copy.tell(self._descriptor, self._descriptor.size, done=True)


class _Stopped(Exception):
    """Raised to stop moving a blob because another one failed."""


class OneBlob:
    """One blob, from a file that is open, as a source. It has no manifest."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def manifest(self) -> tuple[Descriptor, bytes]:
        """Not for a blob alone."""
        raise AssertionError("only a blob")

    def child(self, descriptor: Descriptor) -> bytes:
        """Not for a blob alone."""
        raise AssertionError("only a blob")

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """The blob from `offset` on; the file stays open."""
        self._file.seek(offset)
        yield self._file

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """None: the file need not have a name."""
        return None


def _raise_first(futures: list[Future[None]]) -> None:
    errors = [error for future in futures if future.done() and (error := future.exception())]
    if errors:
        raise errors[0]


def _distinct(manifest: Manifest) -> tuple[Descriptor, ...]:
    parts: dict[Digest, Descriptor] = {}
    for layer in manifest.layers:
        if parts.setdefault(layer.digest, layer).size != layer.size:
            raise CorruptContent(f"manifest lists a layer with two sizes: {layer.digest}")
    return tuple(parts.values())


_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")


def _has_layers(manifest: Manifest) -> bool:
    """Whether it is an image that can be unpacked; what cosign puts beside one has an image's configuration, too."""
    return not manifest.layers or any(layer.media_type.startswith(_LAYERS) for layer in manifest.layers)


def _is_attestation(descriptor: Descriptor) -> bool:
    """Whether an index lists an attestation, which has no tars: BuildKit marks them by an annotation."""
    platform = descriptor.platform
    return platform is not None and (platform.os, platform.architecture) == ("unknown", "unknown")


def _deeper(depth: int, descriptor: Descriptor) -> int:
    if depth >= DEPTH:
        raise CorruptContent(f"indexes are nested more than {DEPTH} deep: {descriptor.digest}")
    return depth + 1


def _checked(descriptor: Descriptor, data: bytes) -> bytes:
    if len(data) > MANIFEST_LIMIT:
        raise CorruptContent(f"manifest has {len(data)} bytes, more than the limit of {MANIFEST_LIMIT}")
    verify(data, descriptor.digest, descriptor.size)
    return data
