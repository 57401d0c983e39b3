"""Archives that ADD unpacks, recognised by content as Docker does: tar, plain or in gzip, bzip2, xz or zstd."""

from __future__ import annotations

from builda.errors import CorruptContent
from builda.fs.compress import decompressing, sniff
from builda.fs.tar import RECORD
from builda.fs.tarread import is_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from builda.fs.compress import ArchiveCompression
    from builda.oci.digest import Readable


def archive_compression(file: BinaryIO) -> ArchiveCompression | None:
    """The compression of the tar archive in `file`; None if it is no tar archive.

    The file is read from its beginning and left there. Names do not matter: a compressed file that is no archive is
    None.
    """
    file.seek(0)
    found = sniff(file.read(8))
    file.seek(0)
    try:
        head = first_record(decompressing(file, found))
    except CorruptContent:
        head = b""
    file.seek(0)
    return found if is_header(head) else None


def first_record(source: Readable) -> bytes:
    """The first 512 bytes, or all if there are fewer."""
    head = b""
    while len(head) < RECORD and (data := source.read(RECORD - len(head))):
        head += data
    return head
