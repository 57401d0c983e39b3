"""The contents of a list's files, and the archive that a list makes.

Contents go into files of the layer's own directory: small ones one behind the other into `content`, the others each
into a file of its own.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from builda.errors import CorruptContent
from builda.fs import content
from builda.fs.tar import FLUSH, TarEntry, TarWriter, clean
from builda.fs.trees.diff import add_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    from builda.fs.lists.layertree import Row
    from builda.fs.tar import Writable
    from builda.fs.tarread import Content, Member
    from builda.fs.trees.diff import Clamp

CONTENT = "content"


class Spool:
    """The contents of a layer's files in a directory. A context manager."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._fd = -1
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def copied(self, source: int, info: os.stat_result, moved: content.Moved | None = None) -> tuple[str, int, bytes]:
        """Copy the content of the file `source`; returns its file and offset here, and its sha256."""
        if info.st_size <= content.CHUNK and info.st_blocks * 512 >= info.st_size:
            import hashlib

            data = content.read_small(source, info.st_size)
            if moved is not None:
                moved(info.st_size)
            return *self.put(data), hashlib.sha256(data).digest()
        name = f"file-{os.urandom(8).hex()}"
        fd = os.open(f"{self._directory}/{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return name, 0, content.copy_hashed(source, fd, info, moved)
        finally:
            os.close(fd)

    def again(self, fd: int, row: Row) -> tuple[str, int]:
        """Copy a content of another layer, in its file `fd`; returns its file and offset here."""
        if row.file != CONTENT:
            file, at, _ = self.copied(fd, os.fstat(fd))
            return file, at
        at, end = self._open(), row.at + row.size
        for start in range(row.at, end, FLUSH):
            content.write_all(self._fd, os.pread(fd, min(FLUSH, end - start), start))
        self._at += row.size
        return CONTENT, at

    def put(self, data: bytes) -> tuple[str, int]:
        """Append `data`; returns its file and offset here."""
        at = self._open()
        content.write_all(self._fd, data)
        self._at += len(data)
        return CONTENT, at

    def taken(self, member: Content) -> tuple[str, int]:
        """Append the content of an archive's member, of any size; returns its file and offset here."""
        at = self._open()
        while data := member.read(FLUSH):
            content.write_all(self._fd, data)
            self._at += len(data)
        return CONTENT, at

    def _open(self) -> int:
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(f"{self._directory}/{CONTENT}", flags, 0o600)
            self._at = os.fstat(self._fd).st_size
        return self._at


def write_rows(rows: Iterable[Row], directory: str, sink: Writable, clamp: Clamp) -> None:
    """The tar of a layer; `directory` has the contents of its files."""
    tar = TarWriter(sink)
    with ExitStack() as stack:
        opened: dict[str, int] = {}
        for row in rows:
            head = (row.path, row.kind, row.size, row.mode, row.uid, row.gid, clamp(row.mtime), row.link)
            tar.add(TarEntry(*head, row.major, row.minor, row.xattrs))
            if row.size:
                _write_content(tar, row, directory, opened, stack)
    tar.close()


def _write_content(tar: TarWriter, row: Row, directory: str, opened: dict[str, int], stack: ExitStack) -> None:
    fd = opened.get(row.file)
    if fd is None:
        fd = os.open(f"{directory}/{row.file}", os.O_RDONLY | os.O_CLOEXEC)
        if row.file == CONTENT:
            opened[row.file] = fd
            stack.callback(os.close, fd)
    try:
        done = _from_spool(tar, fd, row) if row.file == CONTENT else _from_file(tar, fd, row)
    finally:
        if row.file != CONTENT:
            os.close(fd)
    if not done:
        raise CorruptContent(f"content of a file is incomplete in the store: /{os.fsdecode(row.path)}")
    tar.pad(row.size)


def _from_spool(tar: TarWriter, fd: int, row: Row) -> bool:
    os.lseek(fd, row.at, os.SEEK_SET)
    return tar.read_from(fd, row.size) == row.size


def _from_file(tar: TarWriter, fd: int, row: Row) -> bool:
    info = os.fstat(fd)
    return info.st_size == row.size and add_file(tar, fd, info)


def keeper(spool: Spool, wanted: frozenset[bytes]) -> Callable[[Member], tuple[str, int] | None]:
    """Keeps the contents of the files that are `wanted`."""

    def keep(member: Member) -> tuple[str, int] | None:
        return spool.taken(member.content) if clean(member.entry.name) in wanted else None

    return keep
