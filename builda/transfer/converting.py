"""Sources that change what another source has: one platform of an index, another format, another compression.

None of them holds more than one blob at a time, in a temporary file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, BinaryIO, Literal

from builda.errors import CorruptContent, Unsupported
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest, VerifyingReader
from builda.oci.docker import retyped
from builda.oci.manifest import Index, Manifest, choose, parse
from builda.transfer.copyimage import DEPTH, child_of, outline, plainly
from builda.values import replace

if TYPE_CHECKING:
    from pathlib import Path

    from builda.oci.descriptor import Platform
    from builda.oci.digest import Readable
    from builda.oci.mediatype import Compression
    from builda.transfer.copyimage import ImageSink, ImageSource

ZSTD_NOTE = "io.github.containers.compression.zstd"
"""The annotation by which Podman and CRI-O find the images of a list that are compressed with zstd."""
UNKNOWN = "unknown"
"""The system of entries that are no images, such as BuildKit's attestations."""
_PIECE = 1 << 20


class Changed:
    """A source with another top manifest and other children; what it does not have is the source's."""

    def __init__(self, source: ImageSource, top: tuple[Descriptor, bytes] | None = None) -> None:
        self.source = source
        self.children: dict[Digest, bytes] = {}
        self.top, self.data = source.manifest() if top is None else top

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The converted manifest or index."""
        return self.top, self.data

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that its index lists."""
        return self.children.get(descriptor.digest) or self.source.child(descriptor)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The blob from `offset` on."""
        return self.source.open_blob(descriptor, offset)

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The file of a blob of the source."""
        return self.source.local_path(descriptor)

    def become(self, document: Index | Manifest) -> None:
        """The document is the top."""
        self.data = document.dump()
        self.top = Descriptor(media_type=document.media_type, digest=Digest.of(self.data), size=len(self.data))

    def adopt(self, entry: Descriptor, manifest: Manifest) -> Descriptor:
        """The entry of an index for this manifest, which is a child from now on."""
        data = manifest.dump()
        digest = Digest.of(data)
        self.children[digest] = data
        return replace(entry, media_type=manifest.media_type, digest=digest, size=len(data))

    def image_of(self, entry: Descriptor) -> Manifest:
        """The image that an entry of the source's index names."""
        document = parse(child_of(self.source, entry), entry.media_type)
        if isinstance(document, Index):
            raise Unsupported(f"a list in a list cannot be converted: {entry.digest}", hint="add its images with --all")
        return document


class Chosen(Changed):
    """Of an index the image for a platform; NotFound if it has none."""

    def __init__(self, source: ImageSource, platform: Platform) -> None:
        super().__init__(source, outline(source))
        self.given = self.top.digest
        """Of the index, or of the image where there is none."""
        document = parse(self.data, self.top.media_type)
        for _ in range(DEPTH):
            if isinstance(document, Manifest):
                break
            entry = choose(document, platform)
            self.data = child_of(source, entry)
            document = parse(self.data, entry.media_type)
            self.top = plainly(entry, document.media_type)
        else:
            raise CorruptContent(f"indexes are nested more than {DEPTH} deep: {self.top.digest}")


class Retyped(Changed):
    """An image or index in the words of a format; of an index, with its images. Blobs and IDs stay what they are."""

    def __init__(self, source: ImageSource, image_format: Literal["oci", "docker"]) -> None:
        super().__init__(source)
        self._format = image_format
        document = parse(self.data, self.top.media_type)
        self.become(self._image(document) if isinstance(document, Manifest) else self._index(document))

    def _image(self, manifest: Manifest) -> Manifest:
        if manifest.config.media_type not in mediatype.CONFIGS or manifest.artifact_type is not None:
            kind = manifest.artifact_type or manifest.config.media_type
            raise Unsupported(f"only images can be converted to another format: {kind}")
        return retyped(manifest, self._format)

    def _index(self, index: Index) -> Index:
        docker = self._format == "docker"
        return Index(
            manifests=tuple(self._entry(entry) for entry in index.manifests),
            media_type=mediatype.DOCKER_LIST if docker else mediatype.INDEX,
            annotations={} if docker else index.annotations,
            subject=None if docker else index.subject,
        )

    def _entry(self, entry: Descriptor) -> Descriptor:
        docker = self._format == "docker"
        if is_other(entry):
            if docker:
                raise Unsupported(
                    f"a Docker list holds images only: {entry.digest}", hint="--format oci keeps all there is"
                )
            return entry
        before = self.image_of(entry)
        after = self._image(before)
        found = entry if after.media_type == before.media_type else self.adopt(entry, after)
        return replace(found, annotations={}) if docker else found


class _Recompressing(Changed):
    """A source with recompressed layers. Making it hands them to `sink` one by one.

    A sink of an archive only remembers a blob; when it reads the blob, the layer is compressed again.
    """

    def __init__(self, source: ImageSource, sink: ImageSink, level: int | None = None, *, force: bool = False) -> None:
        super().__init__(source)
        self._sink = sink
        self._level = level
        self._force = force
        self._originals: dict[Digest, tuple[Descriptor, Compression]] = {}
        self._ready: tuple[Digest, BinaryIO] | None = None

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """The blob from `offset` on."""
        import tempfile

        original = self._originals.get(descriptor.digest)
        if original is None:
            with self.source.open_blob(descriptor, offset) as content:
                yield content
        elif self._ready is not None and self._ready[0] == descriptor.digest:
            self._ready[1].seek(offset)
            yield self._ready[1]
        else:
            with tempfile.TemporaryFile(prefix="builda-") as file:
                self._compress(*original, file)
                file.seek(offset)
                yield file

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The file of a blob of the source; None for those that are compressed otherwise."""
        return None if descriptor.digest in self._originals else self.source.local_path(descriptor)

    def recompressed(self, manifest: Manifest, compression: Compression) -> Manifest:
        """The manifest of the same image with its layers compressed so; the sink has these."""
        return replace(manifest, layers=tuple(self._layer(layer, compression) for layer in manifest.layers))

    def _layer(self, layer: Descriptor, compression: Compression) -> Descriptor:
        if mediatype.compression_of(layer.media_type) == compression and not self._force:
            return layer
        import tempfile

        image_format: Literal["oci", "docker"] = "docker" if "docker" in layer.media_type else "oci"
        kind = mediatype.layer_media_type(image_format, compression)
        with tempfile.TemporaryFile(prefix="builda-") as file:
            digest, size = self._compress(layer, compression, file)
            changed = replace(layer, media_type=kind, digest=digest, size=size)
            if digest != layer.digest:
                self._originals[digest] = layer, compression
                self._ready = (digest, file)
                if not self._sink.has_blob(changed):
                    self._sink.put_blob(changed, self, _quietly)
                self._ready = None
        return changed

    def _compress(self, layer: Descriptor, compression: Compression, file: BinaryIO) -> tuple[Digest, int]:
        """Write the layer's tar to the file, compressed otherwise; digest and size."""
        from builda.fs.compress import decompressing
        from builda.fs.pipeline import write_layer
        from builda.fs.tar import Writable

        def produce(sink: Writable) -> None:
            with self.source.open_blob(layer) as content:
                reader = VerifyingReader(content, layer.digest, layer.size)
                tar = decompressing(reader, mediatype.compression_of(layer.media_type))
                while data := tar.read(_PIECE):
                    sink.write(data)
                while reader.read(_PIECE):  # what the compressor left behind its end is verified too
                    pass

        written = write_layer(produce, file, compression=compression, level=self._level)
        file.flush()
        return written.digest, written.size


class Recompressed(_Recompressing):
    """An image or index whose layers are compressed otherwise."""

    def __init__(
        self, source: ImageSource, sink: ImageSink, compression: Compression, level: int | None, *, force: bool
    ) -> None:
        super().__init__(source, sink, level, force=force)
        document = parse(self.data, self.top.media_type)
        if isinstance(document, Manifest):
            self.become(self.recompressed(document, compression))
        else:
            entries = tuple(self._entry(entry, compression) for entry in document.manifests)
            self.become(replace(document, manifests=entries))

    def _entry(self, entry: Descriptor, compression: Compression) -> Descriptor:
        if is_other(entry):
            return entry
        before = self.image_of(entry)
        after = self.recompressed(before, compression)
        return entry if after == before else self.adopt(entry, after)


class Supplemented(_Recompressing):
    """An index with its images once more, compressed otherwise, for each platform that has none compressed so.

    The entries that it had stay first, because clients without zstd take the first image for their platform.
    Unsupported for Docker's lists, whose entries cannot say how they are compressed.
    """

    def __init__(self, source: ImageSource, sink: ImageSink, compressions: tuple[Compression, ...]) -> None:
        super().__init__(source, sink)
        index = parse(self.data, self.top.media_type)
        if not isinstance(index, Index):
            raise Unsupported(f"an image has one compression: {self.top.digest}", hint="only lists can have more")
        if index.media_type == mediatype.DOCKER_LIST:
            raise Unsupported("a list in Docker's format has one image for each platform", hint="use --format oci")
        images = [(entry, self.image_of(entry)) for entry in index.manifests if not is_other(entry)]
        there = {(entry.platform, _compression_of(manifest)) for entry, manifest in images}
        added = []
        for compression in compressions:
            for entry, manifest in images:
                if (entry.platform, compression) not in there:
                    there.add((entry.platform, compression))
                    added.append(self._added(entry, manifest, compression))
        self.become(replace(index, manifests=(*index.manifests, *added)))

    def _added(self, entry: Descriptor, manifest: Manifest, compression: Compression) -> Descriptor:
        made = self.adopt(entry, self.recompressed(manifest, compression))
        said = {ZSTD_NOTE: "true"} if compression == "zstd" else {}
        return replace(made, annotations={**entry.annotations, **said})


def _compression_of(manifest: Manifest) -> str | None:
    """The compression of all layers of an image; None if they differ."""
    kinds = {mediatype.compression_of(layer.media_type) for layer in manifest.layers}
    return kinds.pop() if len(kinds) == 1 else None


def is_other(entry: Descriptor) -> bool:
    """Whether an entry of an index names something other than an image."""
    return bool(entry.artifact_type) or (entry.platform is not None and entry.platform.os == UNKNOWN)


def _quietly(_: int) -> None:
    """Ignore the progress: the copy reports it."""
