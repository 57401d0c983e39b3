"""Files that hold blobs and documents, as all file transports use them: a file appears when it is whole.

Directories and archives come from strangers: what should be a file may be a pipe, a device or of any size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from builda.errors import CorruptContent, NotFound
from builda.oci.digest import VerifyingReader

if TYPE_CHECKING:
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Readable
    from builda.transfer.copyimage import ImageSource

PIECE = 1 << 20


@contextmanager
def open_at(path: Path, offset: int = 0) -> Iterator[BinaryIO]:
    """The regular file from `offset` on; NotFound when it is not there, CorruptContent when it is no file."""
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)  # which does nothing to a device
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory: {path}") from error
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise CorruptContent(f"not a regular file: {path}")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(found)
    with open(fd, "rb", buffering=0) as file:
        file.seek(offset)
        yield file


def read_small(path: Path, limit: int) -> bytes:
    """The whole file, as `open_at`; CorruptContent when it is larger than `limit`."""
    with open_at(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CorruptContent(f"file has more than {limit} bytes: {path}")
    return data


@contextmanager
def staged(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path`, durably, when the block ends well; until then nothing is there.

    It has no name before, where the file system can do that, so that a kill leaves nothing behind either.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary: str | None = None
    try:
        try:
            fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
        except OSError:  # several errors mean that the file system has no files without a name
            temporary = _temporary(path)
            fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=directory)
        with open(fd, "r+b", buffering=0) as file:
            yield file
            os.fsync(fd)
            if temporary is None:
                temporary = _named(fd, directory, path)
        if temporary is not None:
            os.replace(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        if temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(directory)


def _named(fd: int, directory: int, path: Path) -> str | None:
    """Give the file its name. If that is taken: another name, which the caller renames over it; else None."""
    place = f"/proc/self/fd/{fd}"
    try:
        os.link(place, path.name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        temporary = _temporary(path)
        os.link(place, temporary, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=True)
        return temporary
    return None


def _temporary(path: Path) -> str:
    return f".{path.name[:128]}.{os.urandom(6).hex()}"


def fetch(path: Path, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
    """Write the blob of `source`, verified, to `path`; nothing is there on failure.

    Blocks of a local file are shared where the file system can: the blob is a file of its own nevertheless.
    """
    with staged(path) as file:
        local = source.local_path(descriptor)
        if local is not None and _cloned(local, file):
            pump(file, descriptor, None, progress)
            return
        with source.open_blob(descriptor) as raw:
            pump(raw, descriptor, file, progress)


def pump(source: Readable, descriptor: Descriptor, sink: BinaryIO | None, progress: Callable[[int], None]) -> None:
    """Read the blob from `source`, verify it and write it to `sink`, if there is one."""
    reader = VerifyingReader(source, descriptor.digest, descriptor.size)
    while data := reader.read(PIECE):
        if sink is not None:
            write_all(sink, data)
        progress(len(data))


def write_all(file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
    """Write everything to an unbuffered file, which may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _cloned(path: Path, file: BinaryIO) -> bool:
    """Give `file` the content of the one at `path` without copying it; whether the file system could."""
    from builda.fs.content import clone

    with open_at(path) as source:
        return clone(source.fileno(), file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Replace the content of `path`; a reader sees what was there before, or all of `data`."""
    with staged(path) as file:
        write_all(file, data)


def verified(data: bytes, descriptor: Descriptor) -> bytes:
    """`data`, if it is what the descriptor promises; CorruptContent otherwise."""
    from io import BytesIO

    with VerifyingReader(BytesIO(data), descriptor.digest, descriptor.size) as reader:
        return reader.read()
