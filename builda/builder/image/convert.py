"""Another format or compression for an image on its way out, when the user asks for it and only then."""

from __future__ import annotations

from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.docker import retyped
from builda.transfer.stored import StoreSource
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import ImageFormat, PushOptions
    from builda.oci.manifest import Manifest
    from builda.oci.mediatype import Compression
    from builda.store.store import Image, Store
    from builda.transfer.copyimage import ImageSource


class ConvertedSource(StoreSource):
    """A stored image under another manifest; its blobs are the store's."""

    def __init__(self, store: Store, image: Image, data: bytes, media_type: str) -> None:
        super().__init__(store, image)
        self._data = data
        self._descriptor = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest it has instead."""
        return self._descriptor, self._data


def source_of(ctx: Context, image: Image, options: PushOptions, destination: str | None = None) -> ImageSource:
    """The image as it is stored, or converted as `options` ask, which changes its manifest and digest.

    `destination` is the registry that the image goes to; None for other places.
    """
    if image.is_index:
        from builda.builder.image.indexsource import source_of_list

        return source_of_list(ctx.store, ctx.remote, image, options, destination)
    if not _changes(image, options):
        return StoreSource(ctx.store, image)
    manifest = image.manifest
    layers = tuple(_layer(ctx, layer, options) for layer in manifest.layers)
    changed = retyped(replace(manifest, layers=layers), options.format or _format_of(manifest))
    return ConvertedSource(ctx.store, image, changed.dump(), changed.media_type)


def _changes(image: Image, options: PushOptions) -> bool:
    if options.force_compression and options.compression is not None:
        return True
    if options.format is not None and options.format != _format_of(image.manifest):
        return True
    if options.compression is None:
        return False
    return any(mediatype.compression_of(layer.media_type) != options.compression for layer in image.manifest.layers)


def _format_of(manifest: Manifest) -> ImageFormat:
    return "docker" if manifest.media_type == mediatype.DOCKER_MANIFEST else "oci"


def _layer(ctx: Context, layer: Descriptor, options: PushOptions) -> Descriptor:
    present = mediatype.compression_of(layer.media_type)
    compression = options.compression or present
    if compression == present and not options.force_compression:
        return layer
    digest, size = recompressed(ctx.store, layer, compression, options.compression_level)
    return replace(layer, media_type=mediatype.layer_media_type("oci", compression), digest=digest, size=size)


def recompressed(
    store: Store, layer: Descriptor, compression: Compression, level: int | None = None
) -> tuple[Digest, int]:
    """The same tar compressed otherwise, in the store: digest and size."""
    from builda.fs.compress import decompressing
    from builda.fs.pipeline import write_layer
    from builda.fs.tar import Writable
    from builda.oci.digest import VerifyingReader

    def produce(sink: Writable) -> None:
        with store.blobs.open(layer.digest) as file:
            reader = VerifyingReader(file, layer.digest, layer.size)
            tar = decompressing(reader, mediatype.compression_of(layer.media_type))
            while data := tar.read(1 << 20):
                sink.write(data)
            while reader.read(1 << 20):  # what the compressor left behind its end is verified too
                pass

    with store.new_blob() as blob:
        written = write_layer(produce, blob.file, compression=compression, level=level)
        blob.publish(written.digest, written.diff_id)
    return written.digest, written.size
