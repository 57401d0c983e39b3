"""Small images made in code: layers are tar files by Python's tarfile, everything else is a few lines of JSON."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.store.store import Image, Store

REF_NAME = "org.opencontainers.image.ref.name"
TIME = "2024-05-06T07:08:09Z"


@dataclass(frozen=True)
class Made:
    """An image or index: the descriptor of its manifest, and everything it consists of by digest."""

    descriptor: Descriptor
    blobs: Mapping[Digest, bytes] = field(repr=False)

    @property
    def raw(self) -> bytes:
        """The manifest's bytes."""
        return self.blobs[self.descriptor.digest]

    @property
    def value(self) -> dict[str, Any]:
        """The manifest as JSON."""
        value: dict[str, Any] = json.loads(self.raw)
        return value

    @property
    def config_digest(self) -> Digest:
        """The configuration's digest."""
        return Digest.parse(self.value["config"]["digest"])

    @property
    def layer_digests(self) -> tuple[Digest, ...]:
        """The layers' digests, lowest first."""
        return tuple(Digest.parse(layer["digest"]) for layer in self.value["layers"])


def layer(files: Mapping[str, bytes | None]) -> bytes:
    """A layer's tar: regular files, and directories where the content is None."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o755 if content is None else 0o644
            if content is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def simple(number: int = 0, *, layers: int = 2, **options: Any) -> Made:
    """An image of a few layers that differs from every other number's."""
    return image(
        *(layer({"etc": None, f"etc/file{n}": f"{number}.{n}\n".encode() * 100}) for n in range(layers)),
        config={"Env": [f"NUMBER={number}"]},
        **options,
    )


def image(
    *layers: bytes,
    config: Mapping[str, Any] | None = None,
    docker: bool = False,
    compression: mediatype.Compression = "gzip",
    architecture: str = "amd64",
) -> Made:
    """An image of these layer tars."""
    kind: Any = "docker" if docker else "oci"
    document = {
        "created": TIME,
        "architecture": architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(tar)) for tar in layers]},
        "history": [{"created": TIME, "created_by": f"layer {number}"} for number in range(len(layers))],
    }
    raw_config = json.dumps(document).encode()
    packed = [pack(tar, compression) for tar in layers]
    layer_type = mediatype.layer_media_type(kind, compression)
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_MANIFEST if docker else mediatype.MANIFEST,
        "config": described(mediatype.DOCKER_CONFIG if docker else mediatype.CONFIG, raw_config),
        "layers": [described(layer_type, data) for data in packed],
    }
    return made(manifest, raw_config, *packed)


def index(*images: Made, architectures: tuple[str, ...] = ("amd64", "arm64", "riscv64")) -> Made:
    """An index of images, one for each architecture in turn."""
    entries = [
        {**one.descriptor.to_json(), "platform": {"os": "linux", "architecture": architecture}}
        for one, architecture in zip(images, architectures, strict=False)
    ]
    top = made({"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": entries})
    blobs = {digest: data for one in (*images, top) for digest, data in one.blobs.items()}
    return Made(top.descriptor, blobs)


def made(manifest: Mapping[str, Any], *blobs: bytes) -> Made:
    """An image of this manifest and these blobs, whatever they are."""
    raw = json.dumps(manifest).encode()
    descriptor = Descriptor(media_type=manifest["mediaType"], digest=Digest.of(raw), size=len(raw))
    return Made(descriptor, {Digest.of(data): data for data in (raw, *blobs)})


def described(media_type: str, data: bytes) -> dict[str, Any]:
    """A descriptor as JSON."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


def pack(tar: bytes, compression: mediatype.Compression) -> bytes:
    """A layer's tar compressed, always to the same bytes."""
    match compression:
        case "gzip":
            return gzip.compress(tar, mtime=0)
        case "zstd":
            return zstandard.compress(tar)
        case "none":
            return tar


def put(store: Store, made: Made, *names: str) -> Image:
    """The image is in the store under these names."""
    for data in made.blobs.values():
        store.put_bytes(data, "application/octet-stream")
    return store.put_image(made.descriptor, names=names)


def layout_files(made: Made, name: str | None = "test") -> dict[str, bytes]:
    """The files of an OCI image layout that holds the image."""
    entry = made.descriptor.to_json()
    if name is not None:
        entry["annotations"] = {REF_NAME: name}
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
        **{f"blobs/{digest.algorithm}/{digest.encoded}": data for digest, data in made.blobs.items()},
    }


def write_layout(root: Path, made: Made, name: str | None = "test") -> Path:
    """An OCI image layout directory with the image."""
    for path, data in layout_files(made, name).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A tar file of these members."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def docker_archive_files(made: Made, *tags: str) -> dict[str, bytes]:
    """The files of an archive as `docker save` writes it, its layers as they are in the image."""
    names = {digest: f"{digest.encoded}.tar" for digest in made.layer_digests}
    config = f"{made.config_digest.encoded}.json"
    listed = [{"Config": config, "RepoTags": list(tags), "Layers": [names[d] for d in made.layer_digests]}]
    return {
        config: made.blobs[made.config_digest],
        **{name: made.blobs[digest] for digest, name in names.items()},
        "manifest.json": json.dumps(listed).encode(),
    }
