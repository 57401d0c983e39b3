"""Tar, written deterministically; `fs/tarread.py` reads it. What both know of an entry is here.

One stream of one tree: ustar headers, PAX records only where a value does not fit, no names of users, no times below a
second. Format: POSIX.1-2008 pax, "ustar Interchange Format" and "pax Header Block".
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from builda.errors import CorruptContent
from builda.values import NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

RECORD = 512
FLUSH = 1 << 20
EMPTY_SIZE = 2 * RECORD
"""Bytes of an archive without entries: the two records of zeros that end it."""
ZEROS = bytes(RECORD)
ZERO_BLOCK = bytes(FLUSH)
NAME_LIMIT = 100
OCTAL_LIMIT_8 = 0o7777777
OCTAL_LIMIT_12 = 0o77777777777
HEADER_LIMIT = 1 << 20
"""Bytes that a PAX header or a GNU long name may have."""

REGULAR, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
XATTR = "SCHILY.xattr."


class Writable(Protocol):
    """Anything with a `write` that takes all it is given, and does not keep a bytearray to change it."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object: ...


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
    """Writes entries and contents to `sink`, in pieces of exactly FLUSH bytes but the last.

    File contents are read right into the piece that is handed over, so that no byte is copied twice.
    """

    def __init__(self, sink: Writable) -> None:
        self._sink = sink
        self._block = bytearray(FLUSH)
        self._view = memoryview(self._block)
        self._at = 0

    def add(self, entry: TarEntry) -> None:
        """The header of `entry`; a regular file's `size` bytes must follow by `file`, or by `data` and `pad`."""
        self.data(header_of(entry))

    def data(self, content: bytes) -> None:
        """Bytes of the entry's content."""
        end = self._at + len(content)
        if end < FLUSH:
            self._block[self._at : end] = content
            self._at = end
            return
        rest = memoryview(content)
        while rest:
            count = min(len(rest), FLUSH - self._at)
            self._view[self._at : self._at + count] = rest[:count]
            self._advance(count)
            rest = rest[count:]

    def pad(self, size: int) -> None:
        """Fill the last record of content of `size` bytes."""
        self._advance(-size % RECORD)

    def zeros(self, count: int) -> None:
        """Content that is a hole."""
        while count:
            if not self._at and count >= FLUSH:
                self._sink.write(ZERO_BLOCK)  # always the same object: later stages know it
                count -= FLUSH
                continue
            step = min(count, FLUSH - self._at)
            self._advance(step)
            count -= step

    def read_from(self, fd: int, count: int) -> int:
        """Content from the file `fd`; fewer than `count` bytes when the file ends before."""
        left = count
        while left:
            got = os.readv(fd, (self._view[self._at : self._at + left],))
            if not got:
                break
            self._advance(got)
            left -= got
        return count - left

    def close(self) -> None:
        """The two zero records that end an archive, and everything still held back."""
        self.zeros(2 * RECORD)
        if self._at:
            self._sink.write(self._view[: self._at])

    def _advance(self, count: int) -> None:
        self._at += count
        if self._at == FLUSH:
            self._sink.write(self._block)
            self._block = bytearray(FLUSH)
            self._view = memoryview(self._block)
            self._at = 0


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
    head = _record(b"PaxHeaders/" + name[:80].rstrip(b"/"), 0o644, 0, 0, len(body), 0, b"x", b"", 0, 0, b"")
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
    numbers = (name.ljust(NAME_LIMIT, b"\0"), mode, uid, gid, size, mtime)
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    if kind == REGULAR and not prefix:
        tail, tail_sum = _REGULAR_TAIL, _REGULAR_SUM
    else:
        tail = _tail(kind, link, major, minor, prefix)
        tail_sum = sum(tail)
    return b"%b%06o\0 %b" % (head, sum(head) + 256 + tail_sum, tail)  # 256: the checksum's field counts as 8 blanks


def _tail(kind: bytes, link: bytes, major: int, minor: int, prefix: bytes) -> bytes:
    """A header behind its checksum."""
    devices = b"%07o\0%07o\0" % (major, minor) if kind in (CHARACTER, BLOCK) else b"0000000\x000000000\0"
    return kind + link.ljust(NAME_LIMIT, b"\0") + b"ustar\x0000" + bytes(64) + devices + prefix.ljust(167, b"\0")


_REGULAR_TAIL = _tail(REGULAR, b"", 0, 0, b"")
_REGULAR_SUM = sum(_REGULAR_TAIL)


def _pax_record(key: str, value: bytes) -> bytes:
    body = b" %b=%b\n" % (key.encode("utf-8", "surrogateescape"), value)
    length = len(body) + len(str(len(body)))
    if len(str(length)) != len(str(len(body))):
        length = len(body) + len(str(length))
    return b"%d%b" % (length, body)


def clean(name: bytes) -> bytes:
    """The path of an entry without a leading slash or dots; CorruptContent when it climbs out."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise CorruptContent(f"archive entry leads out of its root: {shown(name)}")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def shown(name: bytes) -> str:
    """A name from an archive as printable text, for messages."""
    return repr(os.fsdecode(name))
