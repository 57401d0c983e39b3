"""Names in a layer's archive that say what is deleted: whiteouts and opaque directories (OCI's layer.md)."""

from __future__ import annotations

from builda.errors import CorruptContent
from builda.fs.tar import shown

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
"""Of a directory: nothing in it is of the layers below."""


def hidden_by(head: bytes, name: bytes) -> bytes | None:
    """What a whiteout in the directory `head` hides: a name, OPAQUE for everything, b"" for nothing.

    None when `name` is no whiteout, CorruptContent when it is one of no file.
    """
    if not name.startswith(WHITEOUT):
        return None
    if name == OPAQUE:
        return OPAQUE
    if name.startswith(b".wh..wh."):
        return b""  # AUFS's own bookkeeping, which layer.md tells to ignore
    hidden = name[len(WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise CorruptContent(f"whiteout of no file: {shown(head + b'/' + name)}")
    return hidden
