"""Digests of context files, remembered with their inode, size and times: a second build stats and does not read.

One file for each context, rows of (device, inode, size, mtime, ctime, sha256). A file that changed less than SETTLED
seconds before is not remembered: its next change might not show in its times.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from builda.oci.digest import sha256
from builda.store import layout
from builda.store.layout import Layout

FileKey = tuple[int, int, int, int, int]

_ROW = struct.Struct("<QQqqq32s")
SETTLED = 2.0
LIMIT = 4_000_000
"""Rows of one context."""


def load(where: Layout, context: str) -> dict[FileKey, bytes]:
    """The remembered digests of a context; empty if there are none, or if the file is damaged."""
    try:
        with open(_path(where, context), "rb") as file:
            data = file.read(LIMIT * _ROW.size)
    except FileNotFoundError:
        return {}
    body, found = data[32:], {}
    if len(body) % _ROW.size or sha256(body) != data[:32]:
        return {}
    for device, inode, size, mtime, ctime, digest in _ROW.iter_unpack(body):
        found[device, inode, size, mtime, ctime] = digest
    return found


def save(where: Layout, context: str, digests: Mapping[FileKey, bytes], now: float) -> None:
    """Remember these digests of a context instead of the earlier ones."""
    settled = int((now - SETTLED) * 1e9)
    rows = [_ROW.pack(*key, digest) for key, digest in digests.items() if key[3] < settled and key[4] < settled]
    body = b"".join(rows[:LIMIT])
    layout.publish(where, _path(where, context), sha256(body) + body)


def _path(where: Layout, context: str) -> str:
    return where.path("digests", sha256(context.encode("utf-8", "surrogateescape")).hex()[:32])
