"""Tar, read tolerantly: ustar, old GNU and PAX. Every length is checked, and nothing is trusted.

Format: POSIX.1-2008 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping

from builda.errors import CorruptContent
from builda.fs import standin
from builda.fs.tar import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FLUSH,
    HARD_LINK,
    HEADER_LIMIT,
    RECORD,
    REGULAR,
    SYMBOLIC_LINK,
    XATTR,
    ZEROS,
    TarEntry,
    shown,
)
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from builda.oci.digest import Readable


class Limits(NamedTuple):
    """Limits on what a hostile archive may cost; exceeding one is an error that names it."""

    entries: int = 2_000_000
    name_bytes: int = 4096
    total_bytes: int = 1 << 44


NO_LIMITS = Limits()


class Member(NamedTuple):
    """An entry and, for a regular file, its content."""

    entry: TarEntry
    content: Content


class Content:
    """The stored bytes of the current member, skipped when the next member is asked for.

    `sparse` are the (offset, length) of the pieces that are stored of a sparse file, None when everything is.
    """

    def __init__(self, stream: _Stream, size: int, sparse: tuple[tuple[int, int], ...] | None = None) -> None:
        self._stream = stream
        self.remaining = size
        self._padding = -size % RECORD
        self.sparse = sparse

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` stored bytes, b"" at the end."""
        wanted = self.remaining if size < 0 else min(size, self.remaining)
        if not wanted:
            return b""
        data = self._stream.some(wanted)
        self.remaining -= len(data)
        return data

    def skip(self) -> None:
        """Move to the end, padding included."""
        while self.remaining:
            self.read(FLUSH)
        if self._padding:
            self._stream.exactly(self._padding)
            self._padding = 0


class _Stream:
    """Exact reads from a source that may give less than asked."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._buffer = b""
        self._at = 0

    def some(self, limit: int) -> bytes:
        """Between 1 and `limit` bytes; CorruptContent at the end of input."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._source.read(FLUSH), 0
            if not self._buffer:
                raise CorruptContent("tar archive is truncated")
        data = self._buffer[self._at : self._at + limit]
        self._at += len(data)
        return data

    def exactly(self, count: int) -> bytes:
        """`count` bytes; CorruptContent when there are fewer."""
        end = self._at + count
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        parts = []
        while count:
            parts.append(self.some(count))
            count -= len(parts[-1])
        return b"".join(parts)

    def record(self) -> bytes | None:
        """The next record; None at the end of input."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._source.read(FLUSH), 0
            if not self._buffer:
                return None
        return self.exactly(RECORD)

    def drain(self) -> None:
        """Read all that is left, so that digests cover what stands behind the archive."""
        while self._source.read(FLUSH):
            pass


class _Seeking(_Stream):
    """Exact reads from a file, which leave out what is skipped."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(_Window(file))
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    @property
    def position(self) -> int:
        """The offset in the file of the next byte."""
        return self._file.tell() - (len(self._buffer) - self._at)

    def skip(self, count: int) -> None:
        """Leave out `count` bytes."""
        if count <= len(self._buffer) - self._at:
            self._at += count
            return
        target = self.position + count
        if target > self._size:
            raise CorruptContent("tar archive is truncated")
        self._buffer, self._at = b"", 0
        self._file.seek(target)


class _Window:
    """Reads a little at a time: what follows a header is mostly skipped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(16 * RECORD)


def iter_members(source: Readable, limits: Limits = NO_LIMITS) -> Iterator[Member]:
    """The members of an archive in order; each one's content must be read before the next is asked for.

    `source` is read to its very end. Raises CorruptContent for anything malformed or over a limit.
    """
    stream = _Stream(source)
    shared: dict[str, bytes] = {}
    count = total = 0
    while (found := _next_member(stream, shared)) is not None:
        entry, content = found
        count += 1
        total += entry.size
        _check_limits(entry, count, total, limits)
        yield found
        content.skip()
    stream.drain()


def _check_limits(entry: TarEntry, count: int, total: int, limits: Limits) -> None:
    if count > limits.entries:
        raise CorruptContent(f"archive has more than {limits.entries} entries")
    if total > limits.total_bytes:
        raise CorruptContent(f"archive unpacks to more than {limits.total_bytes} bytes")
    if len(entry.name) > limits.name_bytes or len(entry.link) > limits.name_bytes:
        raise CorruptContent(f"name is longer than {limits.name_bytes} bytes: {shown(entry.name[:80])}…")


def iter_offsets(file: BinaryIO, limits: Limits = NO_LIMITS) -> Iterator[tuple[TarEntry, int | None]]:
    """The entries of an archive in a file that can seek, and where each one's content lies; None for a sparse one.

    Content is skipped unread. Raises CorruptContent as `iter_members` does, and when content ends behind the file.
    """
    stream = _Seeking(file)
    shared: dict[str, bytes] = {}
    count = 0
    while (found := _next_member(stream, shared)) is not None:
        entry, content = found
        count += 1
        _check_limits(entry, count, 0, limits)
        yield entry, stream.position if content.sparse is None else None
        stream.skip(content.remaining + -content.remaining % RECORD)


def is_header(record: bytes) -> bool:
    """Whether the first 512 bytes of a file are a tar header, even of the oldest format."""
    if len(record) < RECORD or record == ZEROS:
        return False
    try:
        _check(record)
    except CorruptContent:
        return False
    return True


_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12s")
_PLAIN_TYPES = {b"0": REGULAR, b"\0": REGULAR, b"7": REGULAR, b"S": REGULAR, b"D": DIRECTORY}
_HEADER_ONLY = frozenset({HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK, DIRECTORY, FIFO})
_DEVICES = frozenset({CHARACTER, BLOCK})
_VOLUME_LABEL = b"V"
_ID_LIMIT = (1 << 32) - 1  # the last one means "leave it alone" to chown(2)
_TIME_LIMIT = (1 << 55) * 10**9


def _next_member(stream: _Stream, shared: dict[str, bytes]) -> Member | None:
    records: dict[str, bytes] = dict(shared) if shared else {}
    long_name = long_link = None
    while True:
        record = stream.record()
        if record is None or record == ZEROS:
            return None
        kind = record[156:157]
        if kind == b"x" or kind == b"X":  # X: Solaris
            _parse_pax(_extension(stream, record), records)
        elif kind == b"g":
            _parse_pax(_extension(stream, record), shared)
            records = dict(shared)
        elif kind == b"L":
            long_name = _extension(stream, record).rstrip(b"\0")
        elif kind == b"K":
            long_link = _extension(stream, record).rstrip(b"\0")
        elif kind == _VOLUME_LABEL:
            _extension(stream, record)
        else:
            return _member(stream, record, records, long_name, long_link)


def _extension(stream: _Stream, record: bytes) -> bytes:
    _check(record)
    size = _number(record[124:136])
    if not 0 <= size <= HEADER_LIMIT:
        raise CorruptContent(f"extended header has {size} bytes, more than the limit of {HEADER_LIMIT}")
    data = stream.exactly(size)
    stream.exactly(-size % RECORD)
    return data


def _parse_pax(data: bytes, records: dict[str, bytes]) -> None:
    pieces: list[bytes] = []  # GNU.sparse 0.0 repeats its keys
    for key, value in _pax_pairs(data):
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value)
        elif value or key.startswith(XATTR.encode()):
            records[key.decode("utf-8", "surrogateescape")] = value
        else:  # an empty value takes back what a global header said
            records.pop(key.decode("utf-8", "surrogateescape"), None)
    if pieces:
        records["GNU.sparse.map"] = b",".join(pieces)


def _pax_pairs(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data) and data[at]:
        blank = data.find(b" ", at, at + 20)
        length = data[at:blank]
        if blank < 0 or not length.isdigit():
            raise CorruptContent("pax header has a record without a length")
        end = at + int(length)
        equals = data.find(b"=", blank, end)
        if equals < 0 or end > len(data) or data[end - 1 : end] != b"\n":
            raise CorruptContent("pax header has a malformed record")
        yield data[blank + 1 : equals], data[equals + 1 : end - 1]
        at = end


def _check(record: bytes) -> None:
    stored = _number(record[148:156])
    if stored == sum(record) - sum(record[148:156]) + 256:
        return
    signed = 256 + sum(byte - 256 if byte > 127 else byte for byte in record[:148] + record[156:])
    if stored != signed:  # some old programs added signed bytes
        raise CorruptContent("tar header has a wrong checksum")


def _number(field: bytes) -> int:
    """An octal number, or GNU's base-256."""
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)  # the usual case in one step
    except ValueError:
        pass
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise CorruptContent(f"tar header has a field that is not a number: {field!r}") from None


def _member(
    stream: _Stream, record: bytes, records: Mapping[str, bytes], long_name: bytes | None, long_link: bytes | None
) -> Member:
    _check(record)
    parts = _HEADER.unpack(record)
    raw_kind = parts[7]
    name = long_name or _name(parts)
    link = long_link or parts[8].split(b"\0", 1)[0]
    kind = _PLAIN_TYPES.get(raw_kind, raw_kind)
    stored, mtime = _number(parts[4]), _number(parts[5]) * 10**9
    uid, gid = _number(parts[2]), _number(parts[3])
    if records:
        name = records.get("GNU.sparse.name") or records.get("path") or name
        link = records.get("linkpath") or link
        stored, mtime = _decimal(records, "size", stored), _mtime(records, mtime)
        uid, gid = _decimal(records, "uid", uid), _decimal(records, "gid", gid)
    if kind == REGULAR and raw_kind != b"S" and name.endswith(b"/"):
        kind = DIRECTORY  # before POSIX directories were files with a slash
    if kind in _HEADER_ONLY:
        stored = 0
    size, sparse = stored, None
    if raw_kind == b"S" or (records and kind == REGULAR):
        sparse, size, stored = _sparse(stream, record, records, raw_kind, stored)
    if b"\0" in name or b"\0" in link:
        raise CorruptContent(f"name holds a NUL byte: {shown(name)}")
    if stored < 0 or size < 0 or not (0 <= uid < _ID_LIMIT and 0 <= gid < _ID_LIMIT) or abs(mtime) > _TIME_LIMIT:
        raise CorruptContent(f"size, owner or time of a tar entry is out of range: {shown(name)}")
    entry = TarEntry(
        name,
        kind,
        size,
        _number(parts[1]) & 0o7777,
        uid,
        gid,
        mtime // 10**9,
        link,
        *(_device(parts, name) if kind in _DEVICES else (0, 0)),
        _xattrs(records) if records else {},
        mtime,
    )
    return Member(entry, Content(stream, stored, sparse))


def _name(parts: tuple[bytes, ...]) -> bytes:
    name = parts[0].split(b"\0", 1)[0]
    if parts[9] == b"ustar\0" and parts[15][0]:
        prefix = parts[15]
        if parts[16].endswith(b"tar\0"):  # star keeps two times behind a shorter prefix
            prefix = prefix[:131]
        if prefix := prefix.split(b"\0", 1)[0]:
            return prefix + b"/" + name
    return name


def _device(parts: tuple[bytes, ...], name: bytes) -> tuple[int, int]:
    major, minor = _number(parts[13]), _number(parts[14])
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise CorruptContent(f"device number of a tar entry is out of range: {shown(name)}")
    return major, minor


def _xattrs(records: Mapping[str, bytes]) -> dict[str, bytes]:
    if any("\0" in key for key in records):
        raise CorruptContent("name of an extended attribute holds a NUL byte")
    return standin.without({key[len(XATTR) :]: value for key, value in records.items() if key.startswith(XATTR)})


def _decimal(records: Mapping[str, bytes], key: str, default: int) -> int:
    if key not in records:
        return default
    text = records[key]
    if len(text) > 40:
        raise CorruptContent(f"pax record {key} is out of range")
    try:
        return int(text)
    except ValueError:
        raise CorruptContent(f"pax record {key} is not a number: {text!r}") from None


def _mtime(records: Mapping[str, bytes], default: int) -> int:
    """Nanoseconds since the epoch."""
    if "mtime" not in records:
        return default
    whole, _, fraction = records["mtime"][:60].partition(b".")
    try:
        seconds = int(whole or b"0")
        part = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    except ValueError:
        raise CorruptContent(f"pax record mtime is not a number: {records['mtime'][:60]!r}") from None
    return seconds * 10**9 + (-part if whole.startswith(b"-") else part)


_SPARSE_LIMIT = 1 << 22
"""Bytes that the map of a sparse file may have."""


def _sparse(
    stream: _Stream, record: bytes, records: Mapping[str, bytes], kind: bytes, stored: int
) -> tuple[tuple[tuple[int, int], ...] | None, int, int]:
    """The map of a sparse file, its real size, and the stored bytes that are left after the map."""
    if kind == b"S":
        size = _decimal(records, "GNU.sparse.realsize", _number(record[483:495]))
        numbers = _old_sparse_map(stream, record)
    elif records.get("GNU.sparse.major") == b"1":
        size = _decimal(records, "GNU.sparse.realsize", stored)
        numbers, used = _sparse_map(stream)
        stored -= used
    elif "GNU.sparse.map" in records:
        size = _decimal(records, "GNU.sparse.size", stored)
        numbers = _numbers(records["GNU.sparse.map"].split(b","))
    else:
        return None, stored, stored
    return _checked_pieces(numbers, size, stored), size, stored


def _old_sparse_map(stream: _Stream, record: bytes) -> list[int]:
    """The old GNU format: four pairs in the header, and as many records of 21 as needed."""
    numbers, more = _sparse_fields(record[386:482]), record[482]
    while more:
        if len(numbers) * 12 > _SPARSE_LIMIT:
            raise CorruptContent("sparse map is longer than the limit")
        extension = stream.exactly(RECORD)
        numbers += _sparse_fields(extension[:504])
        more = extension[504]
    return numbers


def _sparse_fields(field: bytes) -> list[int]:
    numbers = []
    for at in range(0, len(field), 24):
        if not field[at]:
            break
        numbers += [_number(field[at : at + 12]), _number(field[at + 12 : at + 24])]
    return numbers


def _sparse_map(stream: _Stream) -> tuple[list[int], int]:
    """GNU sparse 1.0: decimal lines in front of the data, padded to a record; and the bytes they take."""
    parts = [stream.exactly(RECORD)]
    first, line_end, _ = parts[0].partition(b"\n")
    count = _numbers([first])[0] if line_end else -1
    if not 0 <= count <= _SPARSE_LIMIT // 4:
        raise CorruptContent("sparse map has no length, or one over the limit")
    lines = parts[0].count(b"\n")
    while lines < 2 * count + 1:
        if len(parts) * RECORD > _SPARSE_LIMIT * 10:
            raise CorruptContent("sparse map is longer than the limit")
        parts.append(stream.exactly(RECORD))
        lines += parts[-1].count(b"\n")
    return _numbers(b"".join(parts).split(b"\n")[1 : 2 * count + 1]), len(parts) * RECORD


def _numbers(texts: list[bytes]) -> list[int]:
    if not all(text.isdigit() and len(text) < 20 for text in texts):
        raise CorruptContent("sparse map holds something other than numbers")
    return [int(text) for text in texts]


def _checked_pieces(numbers: list[int], size: int, stored: int) -> tuple[tuple[int, int], ...]:
    pieces = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > size:
            raise CorruptContent("sparse map does not fit its file")
        end = offset + length
    if len(numbers) % 2 or sum(length for _, length in pieces) != stored:
        raise CorruptContent("sparse map does not fit its data")
    return pieces
