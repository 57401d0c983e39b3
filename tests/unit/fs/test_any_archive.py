"""Whatever an archive or an ignore file holds: it is read, or refused by an error of builda's."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from builda.errors import CorruptContent
from builda.fs.layer import apply, drop_idle_whiteouts, inherit_directories
from builda.fs.paths import empty
from builda.fs.tar import TarEntry, header_of
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.unpack import extract
from tests.unit.fs.trees import GID, UID, opened


def unpack(data: bytes, path: Path) -> None:
    with opened(path) as root:
        extract(io.BytesIO(data), TreeTarget(root))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mtime": 2**70}, "out of range"),
        ({"mtime": -(2**60)}, "out of range"),
        ({"uid": 2**32 - 1}, "out of range"),
        ({"xattrs": {"user.\0x": b""}}, "NUL byte"),
    ],
)
def test_what_no_file_can_have_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    data = header_of(TarEntry(b"f", b"0")._replace(**changes)) + bytes(1024)
    with pytest.raises(CorruptContent, match=message):
        unpack(data, tmp_path)


def test_an_archive_may_be_as_deep_as_a_name_is_long(tmp_path: Path) -> None:
    levels = 1100  # more than Python recurses
    deep = b"d/" * levels
    names = [deep + b"f", deep + b".wh.gone", deep[: 1050 * 2] + b".wh..wh..opq", b".wh..wh..opq"]
    data = b"".join(header_of(TarEntry(name, b"0", uid=UID, gid=GID)) for name in names) + bytes(1024)
    (tmp_path / "layer").mkdir()
    (tmp_path / "lower").mkdir()
    with opened(tmp_path / "layer") as root, opened(tmp_path / "lower") as lower:
        apply(io.BytesIO(data), lower, whiteouts="plain")
        done = apply(io.BytesIO(data), root, whiteouts="files")
        inherit_directories(root, [lower], done.implied[-20:])
        drop_idle_whiteouts(root, [lower], done.hidden)
        fd = os.open(".", os.O_RDONLY, dir_fd=root)
        for _ in range(levels):
            inner = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        assert "f" in os.listdir(fd)
        os.close(fd)
        empty(root)
        empty(lower)
