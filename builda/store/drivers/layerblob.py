"""Reading the blob of a layer: verified while it is read, decompressed, and its DiffID checked."""

from __future__ import annotations

from contextlib import contextmanager

from builda.oci.digest import VerifyingReader
from builda.oci.mediatype import compression_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.fs.layer import Applied, Whiteouts
    from builda.fs.pipeline import Ahead
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest
    from builda.store.blobs import Blobs


def unpack_into(
    root: int, blobs: Blobs, layer: Descriptor, diff_id: Digest, *, whiteouts: Whiteouts, userxattr: bool = False
) -> Applied:
    """Unpack a layer into the directory `root`; CorruptContent if it is not what its descriptor and DiffID say."""
    from builda.fs.layer import unpack_blob

    with blobs.open(layer.digest) as file:
        return unpack_blob(
            VerifyingReader(file, layer.digest, layer.size),
            compression_of(layer.media_type),
            root,
            diff_id=diff_id,
            whiteouts=whiteouts,
            userxattr=userxattr,
        )


@contextmanager
def decompressed(blobs: Blobs, layer: Descriptor) -> Iterator[Ahead]:
    """The archive of a layer, decompressed by another thread; its digest is verified if it is read to its end."""
    from builda.fs.compress import decompressing
    from builda.fs.pipeline import Ahead

    with blobs.open(layer.digest) as file:
        reader = VerifyingReader(file, layer.digest, layer.size)
        ahead = Ahead(decompressing(reader, compression_of(layer.media_type)))
        try:
            yield ahead
        finally:
            ahead.stop()


def check_claim(blobs: Blobs, layer: Descriptor, diff_id: Digest) -> None:
    """CorruptContent if the layer does not unpack to `diff_id`. Each blob is read once for this.

    Without it an image could have another one's files by claiming their DiffID: the snapshot would be found, and the
    image's own blob never looked at.
    """
    if blobs.unpacks_to(layer.digest, diff_id):
        return
    from builda.fs.layer import check_diff_id

    with blobs.open(layer.digest) as file:
        reader = VerifyingReader(file, layer.digest, layer.size)
        check_diff_id(reader, compression_of(layer.media_type), diff_id)
    blobs.note(layer.digest, diff_id)
