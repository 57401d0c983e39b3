"""An image's root file system as a directory or a tar: `build --output`."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING, BinaryIO, Literal

from builda.errors import AlreadyExists
from builda.linux.mount import mounted

if TYPE_CHECKING:
    from builda.builder.builder import Builder
    from builda.store.store import Image


def export(builder: Builder, image: Image, kind: Literal["local", "tar"] | str, destination: str) -> None:
    """Write the files of `image`: `tar` to a file (`-` is stdout), `local` into a directory that is made or empty."""
    if kind == "tar" and destination == "-":
        _write(builder, image, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    elif kind == "tar":
        with open(destination, "wb") as file:
            _write(builder, image, file)
    else:
        _unpack(builder, image, destination)


def _write(builder: Builder, image: Image, sink: BinaryIO) -> None:
    from builda.fs.layer import write_tree

    with builder.view(image) as tree, mounted(tree) as root:
        write_tree(root, sink)


def _unpack(builder: Builder, image: Image, destination: str) -> None:
    from builda.fs.layer import apply

    os.makedirs(destination, exist_ok=True)
    if os.listdir(destination):
        raise AlreadyExists(f"directory to export to is not empty: {destination}")
    with tempfile.TemporaryFile(dir=builder.store.layout.path("ingest")) as file:
        _write(builder, image, file)
        file.seek(0)
        root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            apply(file, root, whiteouts="plain")
        finally:
            os.close(root)
