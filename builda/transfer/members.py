"""The members of a tar file, found in an index of it and read by offset.

No name in an archive is ever used as a path on disk, and links lead to other members or nowhere.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builda.errors import CorruptContent, InvalidValue, NotFound, Unsupported
from builda.fs.archivekinds import first_record
from builda.fs.compress import decompressing, sniff
from builda.fs.tar import HARD_LINK, RECORD, REGULAR, SYMBOLIC_LINK
from builda.fs.tarread import Limits, is_header, iter_offsets
from builda.inputfile import open_input

if TYPE_CHECKING:
    from builda.oci.digest import Readable

LIMITS = Limits(entries=100_000, name_bytes=4096)
_LINKS_LIMIT = 8
_PIECE = 1 << 20
_HEAD = 8


class Members:
    """The archive at `path`, or in the uncompressed file `fd`, which is then only called `path`.

    A compressed one, or a pipe, is first unpacked into a file without a name. Stays readable if the path is replaced
    meanwhile; closed with the last reference to it.
    """

    def __init__(self, path: str, fd: int | None = None) -> None:
        self._path = path
        self._fd = _opened(path) if fd is None else fd
        weakref.finalize(self, os.close, self._fd)
        self._found: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._sparse: set[str] = set()
        self._index()

    def _index(self) -> None:
        with open(self._fd, "rb", buffering=0, closefd=False) as file:
            try:
                for entry, offset in iter_offsets(file, LIMITS):
                    self._add(_normal(os.fsdecode(entry.name)), entry.type, os.fsdecode(entry.link), offset, entry.size)
            except CorruptContent as error:
                raise CorruptContent(f"{error}: {self._path}") from error
        if not (self._found or self._links or self._sparse):
            raise CorruptContent(f"not a tar archive: {self._path}")

    def _add(self, name: str, kind: bytes, link: str, offset: int | None, size: int) -> None:
        """The last member of a name is the one that counts, as when a tar is unpacked."""
        for known in (self._found, self._links):
            known.pop(name, None)
        self._sparse.discard(name)
        if kind == SYMBOLIC_LINK:
            self._links[name] = _normal(posixpath.join(posixpath.dirname(name), link))
        elif kind == HARD_LINK:
            self._links[name] = _normal(link)
        elif kind == REGULAR and offset is None:
            self._sparse.add(name)
        elif kind == REGULAR and offset is not None:
            self._found[name] = offset, size

    def __contains__(self, name: str) -> bool:
        return self._target(name) in self._found

    def _target(self, name: str) -> str:
        target = _normal(name)
        for _ in range(_LINKS_LIMIT):
            if target not in self._links:
                break
            target = self._links[target]
        return target

    def size(self, name: str) -> int:
        """The size of a member's content."""
        return self._entry(name)[1]

    def _entry(self, name: str) -> tuple[int, int]:
        target = self._target(name)
        if target in self._sparse:
            raise Unsupported(f"member {name} is stored as a sparse file: {self._path}")
        try:
            return self._found[target]
        except KeyError:
            raise NotFound(f"archive has no member {name}: {self._path}") from None

    def read(self, name: str, limit: int) -> bytes:
        """A small member whole; CorruptContent when it is larger than `limit`."""
        size = self._entry(name)[1]
        if size > limit:
            raise CorruptContent(f"member {name} has {size} bytes, more than the limit of {limit}: {self._path}")
        with self.open(name) as part:
            return b"".join(iter(lambda: part.read(_PIECE), b""))

    @contextmanager
    def open(self, name: str, skip: int = 0) -> Iterator[Readable]:
        """A member's bytes from `skip` on. Threads may read members side by side."""
        offset, size = self._entry(name)
        yield _Part(self, self._fd, offset + skip, max(size - skip, 0))


class _Part:
    def __init__(self, owner: Members, fd: int, offset: int, size: int) -> None:
        self._owner = owner  # keeps the descriptor open
        self._fd = fd
        self._offset = offset
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = os.pread(self._fd, self._left if size < 0 else min(size, self._left), self._offset)
        self._offset += len(data)
        self._left -= len(data)
        return data


def _normal(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _opened(path: str) -> int:
    """A descriptor of the uncompressed archive."""
    try:
        fd = open_input(path, "archive")
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory: {path}") from error
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise InvalidValue(f"archive is a directory: {path}", hint="use oci: or dir: for directories")
        plain = stat.S_ISREG(mode) and sniff(os.pread(fd, _HEAD, 0)) == "none"
        if plain and not is_header(os.pread(fd, RECORD, 0)):
            raise CorruptContent(f"not a tar archive: {path}")
        return os.dup(fd) if plain else _unpacked(fd, path)
    finally:
        os.close(fd)


def _unpacked(fd: int, path: str) -> int:
    """A descriptor of a file without a name that holds the uncompressed content; CorruptContent if it is no tar."""
    with open(fd, "rb", closefd=False) as file:
        return spooled(decompressing(file, sniff(file.peek(_HEAD))), path)


def spooled(source: Readable, path: str) -> int:
    """A descriptor of a file without a name that holds an archive read to its end; CorruptContent if it is no tar."""
    large = "/var/tmp" if "TMPDIR" not in os.environ and os.path.isdir("/var/tmp") else None  # /tmp may be memory
    with tempfile.TemporaryFile(dir=large) as spool:
        head = first_record(source)
        if not is_header(head):
            raise CorruptContent(f"not a tar archive: {path}")
        spool.write(head)
        while data := source.read(_PIECE):
            spool.write(data)
        spool.flush()
        return os.dup(spool.fileno())
