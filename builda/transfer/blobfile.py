"""Blobs as files: written beside their place and renamed, read from an offset. What the file transports share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from builda.errors import NotFound
from builda.oci.digest import VerifyingReader

if TYPE_CHECKING:
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Readable
    from builda.transfer.copy import ImageSource

PIECE = 1 << 20


@contextmanager
def open_at(path: Path, offset: int, what: str) -> Iterator[Readable]:
    """The file from `offset` on; NotFound naming `what` when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"no such blob: {what}") from error
    with open(fd, "rb", buffering=0) as file:
        file.seek(offset)
        yield file


def fetch(path: Path, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
    """`path` holds exactly the blob, fetched from `source` and verified; nothing is there on failure."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with source.open_blob(descriptor) as raw, open(temp, "xb") as file:
            reader = VerifyingReader(raw, descriptor.digest, descriptor.size)
            while data := reader.read(PIECE):
                file.write(data)
                progress(len(data))
        os.rename(temp, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temp)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """`path` holds `data`, by rename."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    temp.write_bytes(data)
    os.rename(temp, path)


def verified(data: bytes, descriptor: Descriptor) -> bytes:
    """`data`, if it is what the descriptor promises; CorruptContent otherwise."""
    from io import BytesIO

    with VerifyingReader(BytesIO(data), descriptor.digest, descriptor.size) as reader:
        return reader.read()
