"""Compression of layers, pinned by library and level so that equal tars give equal blobs.

gzip is ISA-L's: several times faster than zlib at a little less ratio. Nothing here depends on how the input was cut:
callers feed `Compressor` blocks of BLOCK bytes.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

from builda.errors import CorruptContent, InvalidValue
from builda.oci.digest import Readable
from builda.oci.mediatype import Compression

BLOCK = 1 << 20
"""Bytes that a compressor is fed at a time: part of what pins its output."""
DEFAULT_LEVELS: dict[str, int] = {"gzip": 1, "zstd": 3, "none": 0}

ArchiveCompression: TypeAlias = Literal["none", "gzip", "zstd", "bzip2", "xz"]
_MAGIC: tuple[tuple[bytes, ArchiveCompression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)


class Compressor(Protocol):
    """Turns blocks into compressed bytes."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def compressor(compression: Compression, level: int | None = None) -> Compressor:
    """A compressor at `level`, by default at the pinned one. InvalidValue for levels that do not exist.

    gzip levels are those of the user's world, 1 to 9, of which ISA-L has three: 1-3, 4-6 and 7-9 are its 1, 2 and 3.
    """
    if compression == "none":
        return _Identity()
    if compression == "gzip":
        from isal import isal_zlib

        wanted = DEFAULT_LEVELS["gzip"] if level is None else level
        if not 1 <= wanted <= 9:
            raise InvalidValue(f"gzip has levels 1 to 9: {wanted}")
        made: Compressor = isal_zlib.compressobj(level=(wanted + 2) // 3, wbits=31)
        return made
    import zstandard

    wanted = DEFAULT_LEVELS["zstd"] if level is None else level
    if not 1 <= wanted <= 22:
        raise InvalidValue(f"zstd has levels 1 to 22: {wanted}")
    return zstandard.ZstdCompressor(level=wanted, write_checksum=True, write_content_size=False).compressobj()


class _Identity:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def sniff(head: bytes) -> ArchiveCompression:
    """How a file that begins with `head` is compressed."""
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


def decompressing(source: Readable, compression: ArchiveCompression) -> Readable:
    """A reader of the uncompressed bytes of `source`; several members or frames in a row are one stream.

    Raises CorruptContent for what does not decompress, and for input that ends inside a member.
    """
    if compression == "none":
        return source
    return _Decompressing(source, compression)


class _Decompressing:
    def __init__(self, source: Readable, compression: ArchiveCompression) -> None:
        self._source = source
        self._compression = compression
        self._member: Any = None
        self._pending = b""  # compressed bytes read but not yet fed
        self._ready = b""
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """At least one byte unless the end is reached; at most `size` when it is not negative."""
        while not self._ready and not self._ended:
            self._fill()
        if size < 0:
            parts = [self._ready]
            while not self._ended:
                self._fill()
                parts.append(self._ready)
            self._ready = b""
            return b"".join(parts)
        result, self._ready = self._ready[:size], self._ready[size:]
        return result

    def _fill(self) -> None:
        self._ready = b""
        data = self._pending or self._source.read(BLOCK)
        self._pending = b""
        if not data:
            self._ended = True
            if self._member is not None:
                raise CorruptContent(f"{self._compression} data ends in the middle")
            return
        if self._member is None:
            if not data.strip(b"\0"):  # padding behind the last member, which gzip tools ignore
                return
            self._member = _decompressor(self._compression)
        try:
            self._ready = self._member.decompress(data)
        except Exception as error:  # each library has its own exception class, and none of them a common one
            raise CorruptContent(f"cannot decompress {self._compression} data: {error}") from error
        if self._member.eof:
            self._pending = self._member.unused_data
            self._member = None


def _decompressor(compression: ArchiveCompression) -> Any:
    if compression == "gzip":
        from isal import isal_zlib

        return isal_zlib.decompressobj(wbits=31)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    if compression == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    return lzma.LZMADecompressor()
