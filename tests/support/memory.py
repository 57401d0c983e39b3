"""Small images in memory: real tars, real digests, and a source and sink of them.

`random_image()` is a valid image; equal seeds give equal images. `MemoryImage` also takes what is copied to it.
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from builda.errors import NotFound
from builda.oci import mediatype
from builda.oci.config import History, ImageConfig, dump_config, parse_config
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest, VerifyingReader
from builda.oci.docker import dump_docker_config
from builda.oci.manifest import Index, Manifest, parse

if TYPE_CHECKING:
    from builda.oci.digest import Readable
    from builda.oci.mediatype import Compression
    from builda.transfer.copyimage import ImageSource

AMD64 = Platform(os="linux", architecture="amd64")
ARM64 = Platform(os="linux", architecture="arm64")
MOMENT = "2024-05-06T07:08:09Z"


@dataclass
class MemoryImage:
    """An image or index in memory, as a source and as a sink. Tests may change `blobs` to break it."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    top: Descriptor | None = None
    puts: list[Digest] = field(default_factory=list)
    """Everything that was put, in its order."""

    @property
    def descriptor(self) -> Descriptor:
        """What the image is."""
        if self.top is None:
            raise NotFound("nothing was copied here")
        return self.top

    @property
    def document(self) -> Manifest | Index:
        """The manifest or index."""
        return parse(self.blobs[self.descriptor.digest], self.descriptor.media_type)

    @property
    def image(self) -> Manifest:
        """The manifest, of what is no index."""
        document = self.document
        assert isinstance(document, Manifest)
        return document

    @property
    def config(self) -> ImageConfig:
        """The image configuration."""
        return parse_config(self.blobs[self.image.config.digest])

    def manifest(self) -> tuple[Descriptor, bytes]:
        """What the image is, and its bytes."""
        return self.descriptor, self.blobs[self.descriptor.digest]

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest that the index lists."""
        return self._blob(descriptor)

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """The bytes from `offset` on."""
        yield io.BytesIO(self._blob(descriptor)[offset:])

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """None."""
        return None

    def _blob(self, descriptor: Descriptor) -> bytes:
        try:
            return self.blobs[descriptor.digest]
        except KeyError:
            raise NotFound(f"no such blob: {descriptor.digest}") from None

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether it is here."""
        return descriptor.digest in self.blobs

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Keep the blob."""
        with source.open_blob(descriptor) as raw:
            reader = VerifyingReader(raw, descriptor.digest, descriptor.size)
            parts = []
            while data := reader.read(1 << 16):
                parts.append(data)
                progress(len(data))
        self.blobs[descriptor.digest] = b"".join(parts)
        self.puts.append(descriptor.digest)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Keep the manifest."""
        self.blobs[descriptor.digest] = data
        self.puts.append(descriptor.digest)
        if top:
            self.top = descriptor

    def add(self, data: bytes, media_type: str) -> Descriptor:
        """One more blob; its descriptor."""
        digest = Digest.of(data)
        self.blobs[digest] = data
        return Descriptor(media_type=media_type, digest=digest, size=len(data))

    def put(self, document: Manifest | Index) -> MemoryImage:
        """Another manifest or index becomes what the image is."""
        self.top = self.add(document.dump(), document.media_type)
        return self


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A layer's tar with these files, made by another program than ours."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mtime = 1_700_000_000
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def compressed(data: bytes, compression: Compression) -> bytes:
    """`data` so compressed, deterministically."""
    if compression == "gzip":
        return gzip.compress(data, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


def image_of(
    layers: tuple[Mapping[str, bytes], ...],
    *,
    image_format: Literal["oci", "docker"] = "oci",
    compression: Compression = "gzip",
    platform: Platform = AMD64,
) -> MemoryImage:
    """An image with these layers."""
    image = MemoryImage()
    docker = image_format == "docker"
    tars = [tar_of(files) for files in layers]
    kind = mediatype.layer_media_type(image_format, compression)
    config = ImageConfig(
        platform=platform,
        created=MOMENT,
        env=(("PATH", "/bin"), ("MODE", "test")),
        cmd=("sh",),
        labels={"org.example.a": "b"},
        diff_ids=tuple(map(Digest.of, tars)),
        history=tuple(
            entry
            for number in range(len(tars))
            for entry in (
                History(created=MOMENT, created_by=f"COPY {number}"),
                History(created=MOMENT, created_by=f"ENV {number}", empty_layer=True),
            )
        ),
    )
    data = dump_docker_config(config) if docker else dump_config(config)
    return image.put(
        Manifest(
            media_type=mediatype.DOCKER_MANIFEST if docker else mediatype.MANIFEST,
            config=image.add(data, mediatype.DOCKER_CONFIG if docker else mediatype.CONFIG),
            layers=tuple(image.add(compressed(tar, compression), kind) for tar in tars),
        )
    )


def random_image(
    seed: int = 0,
    *,
    layers: int = 2,
    size: int = 3000,
    image_format: Literal["oci", "docker"] = "oci",
    compression: Compression = "gzip",
    platform: Platform = AMD64,
) -> MemoryImage:
    """A valid image of random files; equal arguments give equal images."""
    source = random.Random(zlib.crc32(repr((seed, layers, size, str(platform))).encode()))
    files = tuple(
        {f"layer{number}/{source.randrange(1 << 20):x}": source.randbytes(size), f"same/{number}": b"same"}
        for number in range(layers)
    )
    return image_of(files, image_format=image_format, compression=compression, platform=platform)


def index_of(*images: MemoryImage, media_type: str = mediatype.INDEX) -> MemoryImage:
    """An index of these images, each for the platform its configuration names; of indexes, without a platform."""
    index = MemoryImage()
    entries = []
    for image in images:
        index.blobs |= image.blobs
        platform = image.config.platform if isinstance(image.document, Manifest) else None
        plain = image.descriptor
        entries.append(Descriptor(media_type=plain.media_type, digest=plain.digest, size=plain.size, platform=platform))
    return index.put(Index(manifests=tuple(entries), media_type=media_type))
