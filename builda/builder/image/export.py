"""An image's root file system as a directory or a tar: `build --output`."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING, BinaryIO, Literal

from builda.builder.mounting import viewed
from builda.errors import AlreadyExists
from builda.linux.mount import mounted

if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.store.store import Image


def export(ctx: Context, image: Image, kind: Literal["local", "tar"] | str, destination: str) -> None:
    """Write the files of `image`: `tar` to a file (`-` is stdout), `local` into a directory that is made or empty."""
    if kind == "tar" and destination == "-":
        _write(ctx, image, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    elif kind == "tar":
        with open(destination, "wb") as file:
            _write(ctx, image, file)
    else:
        _unpack(ctx, image, destination)


def _write(ctx: Context, image: Image, sink: BinaryIO) -> None:
    from builda.fs.layer import write_tree

    with viewed(ctx, image) as tree, mounted(tree) as root:
        write_tree(root, sink)


def _unpack(ctx: Context, image: Image, destination: str) -> None:
    from builda.fs.layer import apply

    os.makedirs(destination, exist_ok=True)
    if os.listdir(destination):
        raise AlreadyExists(f"directory to export to is not empty: {destination}")
    with tempfile.TemporaryFile(dir=ctx.store.layout.path("ingest")) as file:
        _write(ctx, image, file)
        file.seek(0)
        root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            apply(file, root, whiteouts="plain")
        finally:
            os.close(root)
