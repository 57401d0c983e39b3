"""Names in a layer's archive that mark deletions: whiteouts and opaque directories (OCI's layer.md)."""

from __future__ import annotations

import os

from builda.errors import CorruptContent, Unsupported
from builda.fs.tar import shown

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
"""Of a directory: nothing in it is of the layers below."""


def hidden_by(head: bytes, name: bytes) -> bytes | None:
    """The name that a whiteout in the directory `head` hides; OPAQUE for everything, b"" for nothing.

    None if `name` is no whiteout, CorruptContent for a whiteout without a name.
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


def is_no_name(path: bytes) -> Unsupported:
    """The error for a file or directory that a layer cannot hold: its name there would delete another one."""
    return Unsupported(
        f"a file whose name begins with .wh. cannot be in a layer: /{os.fsdecode(path)}",
        hint="layers mark deleted files by such names; remove or rename it",
    )


def is_marked_opaque(directory: int) -> bool:
    """Whether a file of the name OPAQUE lies in the open directory, as fuse-overlayfs marks it."""
    try:
        os.stat(OPAQUE, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
