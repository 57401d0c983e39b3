"""Tar, written deterministically and read tolerantly.

The writer makes one stream of one tree: ustar headers, PAX records only where a value does not fit, no names of users,
no times below a second. The reader takes ustar, old GNU and PAX, checks every length, and trusts nothing.
Format: POSIX.1-2008 pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from builda.errors import CorruptContent
from builda.oci.digest import Readable

RECORD = 512
FLUSH = 1 << 20
ZEROS = bytes(RECORD)
NAME_LIMIT = 100
OCTAL_LIMIT_8 = 0o7777777
OCTAL_LIMIT_12 = 0o77777777777
HEADER_LIMIT = 1 << 20
"""Bytes that a PAX header or a GNU long name may have."""

REGULAR, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
XATTR = "SCHILY.xattr."


class Writable(Protocol):
    """Anything with a `write` that takes all it is given."""

    def write(self, data: bytes, /) -> object: ...


class TarEntry(NamedTuple):
    """One member's header. `name` and `link` are raw bytes, `mtime` whole seconds, `mode` permission bits only."""

    name: bytes
    type: bytes
    size: int = 0
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = {}
    mtime_ns: int = 0  # as read, for those who keep fractions


class TarWriter:
    """Writes entries and contents to `sink`, in pieces of about FLUSH bytes."""

    def __init__(self, sink: Writable) -> None:
        self._sink = sink
        self._parts: list[bytes] = []
        self._buffered = 0

    def add(self, entry: TarEntry) -> None:
        """The header of `entry`; a regular file's `size` bytes must follow by `data`, then `pad`."""
        self._put(header_of(entry))

    def data(self, content: bytes) -> None:
        """Bytes of the entry's content."""
        self._put(content)

    def pad(self, size: int) -> None:
        """Fill the last record of content of `size` bytes."""
        if size % RECORD:
            self._put(ZEROS[size % RECORD :])

    def close(self) -> None:
        """The two zero records that end an archive, and everything still held back."""
        self._put(ZEROS + ZEROS)
        self._flush()

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._buffered += len(data)
        if self._buffered >= FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            self._sink.write(b"".join(self._parts))
            self._parts.clear()
            self._buffered = 0


def header_of(entry: TarEntry) -> bytes:
    """The header records of `entry`: one, or three and more when PAX records are needed."""
    name, link, records = entry.name, entry.link, {}
    prefix = b""
    if len(name) > NAME_LIMIT:
        prefix, short = _split_name(name)
        if short:
            name = short
        else:
            records["path"] = name
            name = name[:NAME_LIMIT]
    if len(link) > NAME_LIMIT:
        records["linkpath"] = link
        link = link[:NAME_LIMIT]
    uid, gid, size, mtime = entry.uid, entry.gid, entry.size, entry.mtime
    if uid > OCTAL_LIMIT_8:
        records["uid"], uid = b"%d" % uid, 0
    if gid > OCTAL_LIMIT_8:
        records["gid"], gid = b"%d" % gid, 0
    if size > OCTAL_LIMIT_12:
        records["size"], size = b"%d" % size, 0
    if not 0 <= mtime <= OCTAL_LIMIT_12:
        records["mtime"], mtime = b"%d" % mtime, 0
    for key, value in entry.xattrs.items():
        records[XATTR + key] = value
    main = _record(name, entry.mode, uid, gid, size, mtime, entry.type, link, entry.major, entry.minor, prefix)
    if not records:
        return main
    body = b"".join(_pax_record(key, records[key]) for key in sorted(records))
    head = _record(b"PaxHeaders/" + name[:80], 0o644, 0, 0, len(body), 0, b"x", b"", 0, 0, b"")
    return head + body + ZEROS[: -len(body) % RECORD] + main


def _split_name(name: bytes) -> tuple[bytes, bytes]:
    """ustar's prefix and name, or two empty ones when no slash falls right."""
    start = max(len(name) - NAME_LIMIT - 1, 0)
    cut = name.find(b"/", start)
    if cut <= 0 or cut > 155 or cut == len(name) - 1:
        return b"", b""
    return name[:cut], name[cut + 1 :]


def _record(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes,
    major: int,
    minor: int,
    prefix: bytes,
) -> bytes:
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    devices = b"%07o\0%07o\0" % (major, minor) if kind in (CHARACTER, BLOCK) else b"0000000\x000000000\0"
    tail = kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + devices + prefix.ljust(167, b"\0")
    head = name.ljust(100, b"\0") + numbers
    checksum = sum(head) + 256 + sum(tail)  # 256: the checksum's own field counts as eight blanks
    return b"%b%06o\0 %b" % (head, checksum, tail)


def _pax_record(key: str, value: bytes) -> bytes:
    body = b" %b=%b\n" % (key.encode(), value)
    length = len(body) + len(str(len(body)))
    if len(str(length)) != len(str(len(body))):
        length = len(body) + len(str(length))
    return b"%d%b" % (length, body)


class Limits(NamedTuple):
    """What a hostile archive may cost; exceeding one is an error that names it."""

    entries: int = 2_000_000
    name_bytes: int = 4096
    total_bytes: int = 1 << 44


class Member(NamedTuple):
    """An entry and, for a regular file, its content: pieces of (offset, data reader length) for sparse files."""

    entry: TarEntry
    content: Content


class Content:
    """The bytes of the current member; reading past the end gives b"". Skipped when the next member is asked for."""

    def __init__(self, stream: _Stream, size: int, sparse: tuple[tuple[int, int], ...] | None = None) -> None:
        self._stream = stream
        self.remaining = size
        self._padding = -size % RECORD
        self.sparse = sparse  # (offset, length) of each piece that is stored, None when all is

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` stored bytes."""
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
        if self._at + count <= len(self._buffer):
            data = self._buffer[self._at : self._at + count]
            self._at += count
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


def iter_members(source: Readable, limits: Limits = Limits()) -> Iterator[Member]:  # noqa: B008  # an immutable value
    """The members of an archive in order; each one's content must be read before the next is asked for.

    `source` is read to its very end. Raises CorruptContent for anything malformed or over a limit.
    """
    stream = _Stream(source)
    shared: dict[str, bytes] = {}
    count = total = 0
    while (found := _next_member(stream, shared)) is not None:
        count += 1
        total += found.entry.size
        if count > limits.entries:
            raise CorruptContent(f"archive has more than {limits.entries} entries")
        if total > limits.total_bytes:
            raise CorruptContent(f"archive unpacks to more than {limits.total_bytes} bytes")
        if len(found.entry.name) > limits.name_bytes or len(found.entry.link) > limits.name_bytes:
            raise CorruptContent(f"name is longer than {limits.name_bytes} bytes: {found.entry.name[:80]!r}…")
        yield found
        found.content.skip()
    stream.drain()


def _next_member(stream: _Stream, shared: dict[str, bytes]) -> Member | None:
    records: dict[str, bytes] = dict(shared)
    long_name = long_link = None
    while True:
        record = stream.record()
        if record is None or record == ZEROS:
            return None
        kind = record[156:157]
        if kind in (b"x", b"g"):
            _parse_pax(_extension(stream, record), records)
            if kind == b"g":
                shared.clear()
                shared.update(records)
        elif kind == b"L":
            long_name = _extension(stream, record).rstrip(b"\0")
        elif kind == b"K":
            long_link = _extension(stream, record).rstrip(b"\0")
        else:
            return _member(stream, record, records, long_name, long_link)


def _extension(stream: _Stream, record: bytes) -> bytes:
    _check(record)
    size = _number(record[124:136])
    if size > HEADER_LIMIT:
        raise CorruptContent(f"extended header has {size} bytes, more than the limit of {HEADER_LIMIT}")
    data = stream.exactly(size)
    stream.exactly(-size % RECORD)
    return data


def _parse_pax(data: bytes, records: dict[str, bytes]) -> None:
    at = 0
    pairs: list[tuple[bytes, bytes]] = []
    while at < len(data) and data[at]:
        blank = data.find(b" ", at, at + 20)
        length = data[at:blank]
        if blank < 0 or not length.isdigit():
            raise CorruptContent("pax header has a record without a length")
        end = at + int(length)
        equals = data.find(b"=", blank, end)
        if equals < 0 or end > len(data) or data[end - 1 : end] != b"\n":
            raise CorruptContent("pax header has a malformed record")
        pairs.append((data[blank + 1 : equals], data[equals + 1 : end - 1]))
        at = end
    pieces: list[bytes] = []  # GNU.sparse 0.0 repeats its keys
    for key, value in pairs:
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value)
        elif value:
            records[key.decode("utf-8", "surrogateescape")] = value
        else:
            records.pop(key.decode("utf-8", "surrogateescape"), None)
    if pieces:
        records["GNU.sparse.map"] = b",".join(pieces)


def _check(record: bytes) -> None:
    stored = _number(record[148:156])
    unsigned = sum(record[:148]) + 256 + sum(record[156:])
    if stored != unsigned:
        signed = 256 + sum(byte - 256 if byte > 127 else byte for byte in record[:148] + record[156:])
        if stored != signed:
            raise CorruptContent("tar header has a wrong checksum")


def _number(field: bytes) -> int:
    """An octal number, or GNU's base-256."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << (8 * (len(field) - 1)))
        if field[0] == 0xFF:
            value = int.from_bytes(field, "big", signed=True)
        return value
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise CorruptContent(f"tar header has a field that is no number: {field!r}") from None


def _member(
    stream: _Stream, record: bytes, records: Mapping[str, bytes], long_name: bytes | None, long_link: bytes | None
) -> Member:
    _check(record)
    kind = record[156:157]
    stored = _decimal(records, "size", _number(record[124:136]))
    name = records.get("GNU.sparse.name") or records.get("path") or long_name or _name(record)
    if kind in (b"0", b"\0", b"7", b"S"):
        kind = DIRECTORY if name.endswith(b"/") and kind != b"S" else REGULAR if kind != b"S" else b"S"
    if kind not in (REGULAR, b"S"):
        stored = stored if kind not in (HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK, DIRECTORY, FIFO) else 0
    sparse, size, stored = _sparse(stream, record, records, kind, stored)
    if stored < 0 or size < 0:
        raise CorruptContent(f"tar entry has a negative size: {name!r}")
    entry = TarEntry(
        name=_without_nul(name),
        type=REGULAR if kind == b"S" else kind,
        size=size,
        mode=_number(record[100:108]) & 0o7777,
        uid=_decimal(records, "uid", _number(record[108:116])),
        gid=_decimal(records, "gid", _number(record[116:124])),
        mtime=(mtime := _mtime(records, record)) // 10**9,
        link=_without_nul(records.get("linkpath") or long_link or record[157:257].split(b"\0", 1)[0]),
        major=_number(record[329:337]) if kind in (CHARACTER, BLOCK) else 0,
        minor=_number(record[337:345]) if kind in (CHARACTER, BLOCK) else 0,
        xattrs={key[len(XATTR) :]: value for key, value in records.items() if key.startswith(XATTR)},
        mtime_ns=mtime,
    )
    return Member(entry, Content(stream, stored, sparse))


def _without_nul(name: bytes) -> bytes:
    if b"\0" in name:
        raise CorruptContent(f"name holds a NUL byte: {name!r}")
    return name


def _name(record: bytes) -> bytes:
    name = record[:100].split(b"\0", 1)[0]
    if record[257:263] == b"ustar\0" and (prefix := record[345:500].split(b"\0", 1)[0]):
        return prefix + b"/" + name
    return name


def _decimal(records: Mapping[str, bytes], key: str, default: int) -> int:
    if key not in records:
        return default
    try:
        return int(records[key])
    except ValueError:
        raise CorruptContent(f"pax record {key} is no number: {records[key]!r}") from None


def _mtime(records: Mapping[str, bytes], record: bytes) -> int:
    """Nanoseconds since the epoch."""
    if "mtime" not in records:
        return _number(record[136:148]) * 10**9
    whole, _, fraction = records["mtime"].partition(b".")
    try:
        seconds = int(whole or b"0")
        part = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    except ValueError:
        raise CorruptContent(f"pax record mtime is no number: {records['mtime']!r}") from None
    return seconds * 10**9 + (-part if whole.startswith(b"-") else part)


def _sparse(
    stream: _Stream, record: bytes, records: Mapping[str, bytes], kind: bytes, stored: int
) -> tuple[tuple[tuple[int, int], ...] | None, int, int]:
    """The map of a sparse file, its real size, and the stored bytes that are left after the map."""
    if kind == b"S":
        numbers, more = _old_sparse(record[386:482], 4), record[482:483]
        size = _number(record[483:495])
        while more not in (b"\0", b""):
            extension = stream.exactly(RECORD)
            numbers += _old_sparse(extension, 21)
            more = extension[504:505]
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


def _old_sparse(field: bytes, count: int) -> list[int]:
    numbers = []
    for at in range(0, count * 24, 24):
        if field[at : at + 1] == b"\0":
            break
        numbers += [_number(field[at : at + 12]), _number(field[at + 12 : at + 24])]
    return numbers


def _sparse_map(stream: _Stream) -> tuple[list[int], int]:
    """GNU sparse 1.0: decimal lines in front of the data, padded to a record."""
    data = stream.exactly(RECORD)
    used = RECORD
    while True:
        lines = data.split(b"\n")
        if lines[0].isdigit() and len(lines) > 1 and len(lines) - 1 >= 2 * int(lines[0]) + 1:
            return _numbers(lines[1 : 2 * int(lines[0]) + 1]), used
        if used > HEADER_LIMIT:
            raise CorruptContent("sparse map is longer than the limit")
        data += stream.exactly(RECORD)
        used += RECORD


def _numbers(texts: list[bytes]) -> list[int]:
    try:
        return [int(text) for text in texts]
    except ValueError:
        raise CorruptContent("sparse map holds something other than numbers") from None


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
