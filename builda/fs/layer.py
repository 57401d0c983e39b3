"""Layers: a tree to a changeset and back (image-spec, layer.md).

Overlay keeps a deletion as a character device 0:0 and a replaced directory by the xattr `opaque`; a layer says
`.wh.name` and `.wh..wh..opq`, and so does fuse-overlayfs. Both directions are here (fs.trees.diff, fs.trees.apply), and
the same for one flat tree that is compared with what was unpacked.
"""

from __future__ import annotations

from contextlib import contextmanager

from builda.errors import CorruptContent
from builda.fs.pipeline import Ahead, Hashing, WrittenLayer, write_layer
from builda.fs.trees.apply import (
    Applied,
    Whiteouts,
    apply,
    drop_idle_whiteouts,
    inherit_directories,
    inherit_noted_owners,
)
from builda.fs.trees.diff import (
    AS_IS,
    Clamp,
    Fingerprint,
    Look,
    Marks,
    diff,
    diff_trees,
    fingerprints,
    with_times,
    write_tree,
)
from builda.fs.trees.fused import as_overlay_has_it

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.fs.compress import ArchiveCompression
    from builda.oci.digest import Digest, Readable

__all__ = [
    "AS_IS",
    "Applied",
    "Clamp",
    "Fingerprint",
    "Look",
    "Marks",
    "Whiteouts",
    "WrittenLayer",
    "apply",
    "as_overlay_has_it",
    "check_diff_id",
    "diff",
    "diff_trees",
    "drop_idle_whiteouts",
    "fingerprints",
    "inherit_directories",
    "inherit_noted_owners",
    "unpack_blob",
    "with_times",
    "write_layer",
    "write_tree",
]


def check_diff_id(source: Readable, compression: ArchiveCompression, diff_id: Digest) -> None:
    """CorruptContent unless the tar of a stored layer is `diff_id`. Reads it to its end; nothing is unpacked."""
    with _hashing(source, compression) as tar:
        while tar.read(1 << 20):
            pass
        found = tar.digest()
    check_found(found, diff_id)


def check_found(found: Digest, diff_id: Digest, promised_by: str = "the image configuration") -> None:
    """CorruptContent unless a layer that unpacked to `found` has the DiffID that was promised."""
    if found != diff_id:
        raise CorruptContent(f"layer unpacks to {found}, but {promised_by} promises {diff_id}")


@contextmanager
def _hashing(source: Readable, compression: ArchiveCompression) -> Iterator[Hashing]:
    """The tar of a stored layer, whose digest is computed as it is read; its threads end with the block."""
    from builda.fs.compress import decompressing

    ahead = Ahead(decompressing(source, compression))
    hashing = Hashing(ahead)
    try:
        yield hashing
    finally:
        hashing.stop()
        ahead.stop()


def unpack_blob(
    source: Readable,
    compression: ArchiveCompression,
    root: int,
    *,
    diff_id: Digest | None,
    whiteouts: Whiteouts,
    userxattr: bool = False,
) -> Applied:
    """Unpack a stored layer into the directory `root`; CorruptContent unless its tar is `diff_id`.

    Reading and decompressing run ahead on one thread, hashing on another. What was unpacked before an error stays;
    the caller throws the directory away.
    """
    with _hashing(source, compression) as tar:
        applied = apply(tar, root, whiteouts=whiteouts, userxattr=userxattr)
        found = tar.digest()
    if diff_id is not None:
        check_found(found, diff_id)
    return applied
