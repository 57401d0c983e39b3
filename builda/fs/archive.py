"""Archives that ADD unpacks, recognised by content as Docker does: tar, plain or in gzip, bzip2, xz or zstd."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builda.errors import CorruptContent
from builda.fs import apply
from builda.fs.compress import decompressing, sniff
from builda.fs.tar import NO_LIMITS, RECORD, is_header

if TYPE_CHECKING:
    from typing import BinaryIO

    from builda.fs.apply import Applied
    from builda.fs.compress import ArchiveCompression
    from builda.fs.paths import Path
    from builda.fs.tar import Limits
    from builda.oci.digest import Readable


def archive_compression(file: BinaryIO) -> ArchiveCompression | None:
    """How the tar archive in `file`, read from its beginning, is compressed; None when it is none.

    The file is left at its beginning. Names do not matter: a compressed file that is no archive is None.
    """
    file.seek(0)
    found = sniff(file.read(8))
    file.seek(0)
    try:
        head = _head(decompressing(file, found))
    except CorruptContent:
        head = b""
    file.seek(0)
    return found if is_header(head) else None


def unpack_archive(
    file: BinaryIO,
    compression: ArchiveCompression,
    root: int,
    directory: Path,
    *,
    owner: tuple[int, int] | None = None,
    timestamp: int | None = None,
    limits: Limits = NO_LIMITS,
) -> Applied:
    """Unpack an archive into `directory`, which exists inside `root`; whiteouts in it mean nothing special.

    CorruptContent for what is malformed or leads out of `directory`; what was unpacked until then stays.
    """
    from builda.fs.pipeline import Ahead

    ahead = Ahead(decompressing(file, compression))
    try:
        return apply.extract(ahead, root, directory, owner=owner, timestamp=timestamp, limits=limits)
    finally:
        ahead.stop()


def _head(source: Readable) -> bytes:
    head = b""
    while len(head) < RECORD and (data := source.read(RECORD - len(head))):
        head += data
    return head
