"""Compression of layers, pinned by library and level so that equal tars give equal blobs.

gzip is ISA-L's: several times faster than zlib at a little less ratio. Blocks of BLOCK bytes are compressed each for
itself, so that several processors can share the work; what comes out is one gzip member (a block ends on a byte
boundary, as RFC 1951 allows), or one zstd frame a block. It depends on the bytes alone, not on who was faster.
"""

from __future__ import annotations

import struct

from builda.errors import CorruptContent, InvalidValue
from builda.oci.digest import Readable
from builda.oci.mediatype import Compression
from builda.values import Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

BLOCK = 1 << 20
"""Bytes that are compressed at a time, each for itself: part of what pins the output."""
DEFAULT_LEVELS: dict[str, int] = {"gzip": 6, "zstd": 3, "none": 0}

Buffer: TypeAlias = bytes | bytearray | memoryview
ArchiveCompression: TypeAlias = "Literal['none', 'gzip', 'zstd', 'bzip2', 'xz']"
_MAGIC: tuple[tuple[bytes, ArchiveCompression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)


class Compressor(Protocol):
    """The parts of a compressed stream. `block` may be called from several threads, `checked` in order."""

    def header(self) -> bytes: ...
    def block(self, data: Buffer, /) -> bytes: ...
    def checked(self, data: Buffer, /) -> None: ...
    def trailer(self) -> bytes: ...


def compressor(compression: Compression, level: int | None = None) -> Compressor:
    """A compressor at `level`, by default the pinned level. InvalidValue for levels that do not exist.

    For gzip, levels are 1 to 9 as elsewhere. ISA-L has three: 1-3, 4-6 and 7-9 are its 1, 2 and 3.
    """
    wanted = DEFAULT_LEVELS[compression] if level is None else level
    if compression == "none":
        return _Identity()
    if compression == "gzip":
        if not 1 <= wanted <= 9:
            raise InvalidValue(f"gzip has levels 1 to 9: {wanted}")
        return _Gzip((wanted + 2) // 3)
    if not 1 <= wanted <= 22:
        raise InvalidValue(f"zstd has levels 1 to 22: {wanted}")
    return _Zstd(wanted)


class _Identity:
    def header(self) -> bytes:
        return b""

    def block(self, data: Buffer, /) -> bytes:
        return bytes(data)

    def checked(self, data: Buffer, /) -> None: ...

    def trailer(self) -> bytes:
        return b""


class _Gzip:
    """One member. RFC 1952: no name, no time, operating system unknown, so that nothing but the content shows."""

    def __init__(self, level: int) -> None:
        from isal import isal_zlib

        self._library = isal_zlib
        self._level = level
        self._crc = self._size = 0

    def header(self) -> bytes:
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    def block(self, data: Buffer, /) -> bytes:
        made = self._library.compressobj(level=self._level, wbits=-15)
        body: bytes = made.compress(data) + made.flush(self._library.Z_SYNC_FLUSH)
        return body

    def checked(self, data: Buffer, /) -> None:
        self._crc = self._library.crc32(data, self._crc)
        self._size += len(data)

    def trailer(self) -> bytes:
        return b"\x03\0" + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)  # an empty last block


class _Zstd:
    """Independent frames, which every reader takes as one stream (RFC 8878, 3.1)."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._frames = 0

    def header(self) -> bytes:
        return b""

    def block(self, data: Buffer, /) -> bytes:
        import zstandard

        self._frames += 1  # one compressor a call: they are not safe to share between threads
        return zstandard.ZstdCompressor(level=self._level, write_checksum=True).compress(data)

    def checked(self, data: Buffer, /) -> None: ...

    def trailer(self) -> bytes:
        return b"" if self._frames else self.block(b"")


def sniff(head: bytes) -> ArchiveCompression:
    """The compression of a file that begins with `head`."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


def decompressing(source: Readable, compression: ArchiveCompression) -> Readable:
    """A reader of the uncompressed bytes of `source`; several members or frames in a row are one stream.

    Raises CorruptContent for what does not decompress, and for input that ends inside a member.
    """
    if compression == "none":
        return source
    return _Decompressing(source, compression)


class _Decompressing:
    """Never holds more than about BLOCK bytes, however much a few of the source's bytes mean."""

    def __init__(self, source: Readable, compression: ArchiveCompression) -> None:
        self._source = source
        self._compression = compression
        self._member: _Member | None = None
        self._pending = b""  # compressed bytes read but not yet fed
        self._ready = b""
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """At least one byte unless the end is reached; at most `size` when it is not negative."""
        if size < 0:
            return b"".join(iter(lambda: self.read(BLOCK), b""))
        while not self._ready and not self._ended and size:
            self._fill()
        result = self._ready[:size]
        self._ready = self._ready[size:]
        return result

    def _fill(self) -> None:
        if self._member is not None and not self._member.needs_input:
            self._feed(b"")
            return
        data = self._pending or self._source.read(BLOCK)
        self._pending = b""
        if not data:
            self._ended = True
            if self._member is not None:
                raise CorruptContent(f"{self._compression} data ends in the middle")
            return
        if self._member is None:
            data = data.lstrip(b"\0")  # padding behind the last member, which gzip tools ignore
            if not data:
                return
            self._member = _member(self._compression)
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        assert self._member is not None
        try:
            self._ready = self._member.decompress(data, BLOCK)
        except Exception as error:  # each library has its own exception class, and none of them a common one
            raise CorruptContent(f"cannot decompress {self._compression} data: {error}") from error
        if self._member.eof:
            self._pending = self._member.unused_data
            self._member = None


class _Member(Protocol):
    """The common part of bz2.BZ2Decompressor and its like."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _member(compression: ArchiveCompression) -> _Member:
    if compression == "gzip":
        from isal import igzip_lib

        made: _Member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return made
    if compression == "zstd":
        return _ZstdFrame()
    if compression == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    return lzma.LZMADecompressor(memlimit=_MEMORY_LIMIT)


_MEMORY_LIMIT = 1 << 28


class _ZstdFrame:
    """One frame, in the manner of the standard library's decompressors.

    The library's streaming object gives at once all that its input means, and its reader does not notice truncation.
    So it is fed little at a time: at the format's highest ratio, 128 KiB for a block of four bytes, that is 64 MiB.
    """

    def __init__(self) -> None:
        import zstandard

        self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        self._input = b""
        self._at = 0
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def needs_input(self) -> bool:
        return self._at >= len(self._input)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            self._input, self._at = self._input[self._at :] + data, 0
        parts: list[bytes] = []
        count = 0
        while self._at < len(self._input) and count < max_length and not self._frame.eof:
            parts.append(self._frame.decompress(self._input[self._at : self._at + _ZSTD_STEP]))
            self._at += _ZSTD_STEP
            count += len(parts[-1])
        if self._frame.eof:
            self.unused_data = self._frame.unused_data + self._input[self._at :]
        return b"".join(parts)


_ZSTD_STEP = 1 << 11
