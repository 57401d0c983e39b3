"""Contents of regular files: read, copied and hashed by descriptor, holes kept.

Small files, which are most, take one read and one write. Large ones are hashed on a thread of their own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from builda.errors import InUse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable
    from typing import TypeAlias

    from builda.fs.pipeline import Stage
    from builda.fs.tarread import Content

    Moved: TypeAlias = Callable[[int], None]

CHUNK = 1 << 20
ZEROS = bytes(CHUNK)
HOLE = 1 << 16
"""Zeros of this length, at such an offset, become a hole."""


def data_ranges(fd: int, info: os.stat_result) -> Iterator[tuple[int, int]]:
    """The (offset, length) of what is stored of a file, in order; all of it where the file system knows no holes.

    The descriptor, which was at the beginning, stands at the offset.
    """
    size = info.st_size
    if info.st_blocks * 512 >= size:
        if size:
            yield 0, size
        return
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            os.lseek(fd, at, os.SEEK_SET)
            yield at, size - at
            return
        if start >= size:
            return
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        os.lseek(fd, start, os.SEEK_SET)
        yield start, at - start


def read_small(fd: int, size: int) -> bytes:
    """All bytes of a file of `size` bytes; more or fewer if it is written to meanwhile."""
    data = os.read(fd, size + 1)  # one more: a short read is the end, so that a second read is not needed
    if len(data) == size:
        return data
    parts = [data]
    while data := os.read(fd, CHUNK):
        parts.append(data)
    return b"".join(parts)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`."""
    written = os.write(fd, data)
    if written == len(data):
        return
    view = memoryview(data)[written:]
    while view:
        view = view[os.write(fd, view) :]


def write_sparse(fd: int, data: bytes) -> bool:
    """Write `data` at the descriptor's position, with holes for long zeros; returns whether there are any.

    The caller truncates the file to its size at the end.
    """
    holes = [at for at in range(0, len(data) - HOLE + 1, HOLE) if _is_hole(data, at)]
    at = 0
    for hole in holes:
        if at < hole:
            write_all(fd, data[at:hole])
        os.lseek(fd, HOLE, os.SEEK_CUR)
        at = hole + HOLE
    if at < len(data):
        write_all(fd, data[at:] if at else data)
    return bool(holes)


def _is_hole(data: bytes, at: int) -> bool:
    return not data[at] and not data[at + HOLE - 1] and data[at : at + HOLE] == ZEROS[:HOLE]


def copy_hashed(source: int, target: int | None, info: os.stat_result, moved: Moved | None = None) -> bytes:
    """Copy a file's content to `target`, if there is one, and keep holes; returns its sha256.

    `moved` is called with numbers of bytes, several times for a large file.
    """
    import hashlib

    if info.st_size <= CHUNK and info.st_blocks * 512 >= info.st_size:
        data = read_small(source, info.st_size)
        if target is not None and data:
            write_all(target, data)
        if moved is not None:
            moved(info.st_size)
        return hashlib.sha256(data).digest()
    return _copy_large(source, target, info, hashlib.sha256(), moved)


def _copy_large(
    source: int, target: int | None, info: os.stat_result, hasher: hashlib._Hash, moved: Moved | None
) -> bytes:
    from builda.fs.pipeline import Stage

    cloned = target is not None and clone(source, target)
    stage: Stage[bytes] = Stage(hasher.update, "builda-content")
    try:
        at = 0
        for start, length in data_ranges(source, info):
            _put_zeros(stage, start - at)
            if moved is not None:
                moved(start - at)
            at = start + length
            for offset, data in _chunks(source, start, length):
                stage.put(data)
                if target is not None and not cloned:
                    _write_at(target, data, offset)
                if moved is not None:
                    moved(len(data))
        _put_zeros(stage, info.st_size - at)
        if moved is not None:
            moved(info.st_size - at)
        stage.close()
    finally:
        stage.stop()
    if target is not None and not cloned:
        os.ftruncate(target, info.st_size)
    return hasher.digest()


def _chunks(fd: int, start: int, length: int) -> Iterator[tuple[int, bytes]]:
    at, end = start, start + length
    while at < end:
        data = os.pread(fd, min(CHUNK, end - at), at)
        if not data:
            raise InUse(f"file became shorter while it was read: {os.readlink(f'/proc/self/fd/{fd}')}")
        yield at, data
        at += len(data)


def _put_zeros(stage: Stage[bytes], count: int) -> None:
    while count > 0:
        stage.put(ZEROS if count >= CHUNK else ZEROS[:count])
        count -= CHUNK


def _write_at(fd: int, data: bytes, offset: int) -> None:
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def clone(source: int, target: int) -> bool:
    """Give `target` the content of `source` without copying it; whether the file system could."""
    from builda.linux import reflink

    try:
        reflink.clone(source, target)
    except OSError:  # EOPNOTSUPP, EXDEV, EINVAL, ENOTTY …: copied instead, and what is really wrong shows then
        return False
    return True


def write_member(fd: int, size: int, member: Content) -> None:
    """Write the file of an archive, whose size is `size`; long zeros become holes."""
    if member.sparse is None:
        if size < HOLE:
            while data := member.read(CHUNK):
                write_all(fd, data)
            return
        pieces: tuple[tuple[int, int], ...] = ((0, size),)
        has_hole = False
    else:
        pieces, has_hole = member.sparse, True
    for offset, length in pieces:
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        while length:
            data = member.read(min(length, CHUNK))
            length -= len(data)
            has_hole |= write_sparse(fd, data)
    if has_hole:
        os.ftruncate(fd, size)
