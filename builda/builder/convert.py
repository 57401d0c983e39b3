"""An image in another format or compression: what `push --format` and `--compression-format` ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from builda.builder.commit import descriptor_of
from builda.oci import mediatype
from builda.oci.digest import VerifyingReader
from builda.oci.manifest import Manifest

if TYPE_CHECKING:
    from builda.builder.options import ImageFormat, PushOptions
    from builda.fs.tar import Writable
    from builda.oci.descriptor import Descriptor
    from builda.store.store import Image, Store


def convert(store: Store, image: Image, image_format: ImageFormat, options: PushOptions) -> Image:
    """The image anew, in the store beside the old one and without a name; its configuration stays as it is."""
    store.lease()
    layers = tuple(_layer(store, layer, options) for layer in image.manifest.layers)
    config = store.put_bytes(
        image.raw_config, mediatype.DOCKER_CONFIG if image_format == "docker" else mediatype.CONFIG
    )
    manifest = Manifest(
        media_type=mediatype.DOCKER_MANIFEST if image_format == "docker" else mediatype.MANIFEST,
        config=config,
        layers=tuple(
            replace(
                layer,
                media_type=mediatype.layer_media_type(image_format, mediatype.compression_of(layer.media_type)),
            )
            for layer in layers
        ),
        annotations={} if image_format == "docker" else image.manifest.annotations,
    )
    return store.put_image(store.put_bytes(manifest.dump(), manifest.media_type))


def _layer(store: Store, layer: Descriptor, options: PushOptions) -> Descriptor:
    from builda.fs.compress import decompressing
    from builda.fs.pipeline import write_layer

    compression = mediatype.compression_of(layer.media_type)
    wanted = options.compression or compression
    if wanted == compression and not options.force_compression:
        return layer

    def produce(sink: Writable) -> None:
        with store.open_blob(layer.digest) as file:
            source = decompressing(VerifyingReader(file, layer.digest, layer.size), compression)
            while data := source.read(1 << 20):
                sink.write(data)

    with store.new_blob() as blob:
        written = write_layer(produce, blob.file, compression=wanted, level=options.compression_level)
        blob.publish(written.digest)
    return descriptor_of(written)
