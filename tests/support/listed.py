"""Say what an OCI archive holds, a line for each entry of each layer, so that two images that differ say where."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator


def lines(path: str) -> Iterator[str]:
    """The digests of the manifest, the configuration and the layers, and the entries of each layer."""
    with tarfile.open(path) as archive:

        def blob(digest: str) -> bytes:
            file = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file is not None
            return file.read()

        index = archive.extractfile("index.json")
        assert index is not None
        manifest_digest = json.load(index)["manifests"][0]["digest"]
        manifest = json.loads(blob(manifest_digest))
        yield f"manifest {manifest_digest}"
        yield f"configuration {blob(manifest['config']['digest']).decode()}"
        for layer in manifest["layers"]:
            yield f"layer {layer['digest']} {layer['size']}"
            if layer is manifest["layers"][0]:
                continue  # the base's, which nothing wrote anew
            with tarfile.open(fileobj=io.BytesIO(blob(layer["digest"])), mode="r:*") as members:
                yield from entries(members)


def entries(layer: tarfile.TarFile) -> Iterator[str]:
    """The entries of a layer: kind, looks, time, and a hash of the content."""
    for member in layer:
        file = layer.extractfile(member) if member.isreg() else None
        content = "" if file is None else hashlib.sha256(file.read()).hexdigest()[:16]
        looks = f"{member.type.decode()} {member.mode:o} {member.uid}:{member.gid} {member.size} {member.mtime}"
        yield f"  {member.name} {looks} {member.linkname} {sorted(member.pax_headers.items())} {content}"


if __name__ == "__main__":
    print(*lines(sys.argv[1]), sep="\n")
