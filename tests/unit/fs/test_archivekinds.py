"""Archives that ADD unpacks: recognised by content, unpacked inside the root."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

from builda.errors import CorruptContent
from builda.fs.archivekinds import archive_compression
from builda.fs.compress import decompressing
from builda.fs.tar import SYMBOLIC_LINK
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.unpack import extract
from tests.unit.fs.trees import GID, UID, archive, directory, entry, fails, file, opened, picture

TOOLS = {"none": "cat", "gzip": "gzip", "bzip2": "bzip2", "xz": "xz", "zstd": "zstd"}
CONTENT = archive(directory("d", mode=0o750, mtime=7), file("d/.wh.f", b"data", mtime=5, mode=0o4755))


def packed(tool: str, data: bytes) -> bytes:
    return subprocess.run([tool, "-c"] if tool != "cat" else [tool], input=data, check=True, capture_output=True).stdout


@pytest.mark.parametrize("compression", TOOLS)
def test_archives_of_every_compression_are_recognised_and_unpacked(compression: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = io.BytesIO(packed(TOOLS[compression], CONTENT))
    found = archive_compression(data)
    assert found == compression
    assert data.tell() == 0
    with opened(tmp_path) as root:
        extract(decompressing(data, found), TreeTarget(root), "/in/")
    assert sorted(picture(tmp_path / "in")) == ["d", "d/.wh.f"]
    assert (tmp_path / "in/d").stat().st_mtime == 7
    assert (tmp_path / "in/d").stat().st_mode & 0o7777 == 0o750


@pytest.mark.parametrize(
    "data", [b"", b"x", b"text" * 1000, bytes(10240), packed("gzip", b"just a log"), b"\x1f\x8bgarbage"]
)
def test_other_files_are_no_archives(data: bytes) -> None:
    assert archive_compression(io.BytesIO(data)) is None


def test_a_v7_archive_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    data = subprocess.run(
        ["tar", "--format=v7", "-C", tmp_path, "-cf", "-", "a"], check=True, capture_output=True
    ).stdout
    assert archive_compression(io.BytesIO(data)) == "none"


def test_owner_and_timestamp_replace_what_is_recorded(tmp_path: Path) -> None:
    with opened(tmp_path) as root:
        owned = archive(file("deep/f", uid=99999, gid=99999))
        extract(io.BytesIO(owned), TreeTarget(root), "", owner=(UID, GID), timestamp=42)
    assert {looks[1:4] for looks in picture(tmp_path).values()} == {(UID, GID, 42)}


def test_absolute_links_of_the_image_are_followed_inside_its_root(tmp_path: Path) -> None:
    (tmp_path / "root" / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "root" / "app").mkdir()
    os.symlink("/usr/lib", tmp_path / "root" / "app" / "lib")
    data = archive(directory("lib", mode=0o711), file("lib/so", b"x"), file("lib/new/y"))
    with opened(tmp_path / "root") as root:
        extract(io.BytesIO(data), TreeTarget(root), "app")
    assert (tmp_path / "root" / "app" / "lib").is_symlink()
    assert sorted(os.listdir(tmp_path / "root/usr/lib")) == ["new", "so"]


@pytest.mark.parametrize(
    "bad", [file("../x"), file("/../x"), (entry("l", SYMBOLIC_LINK, link=b"/"), file("l/../../x"))]
)
def test_nothing_leaves_the_destination_by_name(bad: object, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    entries = bad if isinstance(bad, tuple) and isinstance(bad[1], tuple) else (bad,)
    data = archive(*entries)
    with opened(tmp_path) as root:
        assert "leads out" in fails(lambda: extract(io.BytesIO(data), TreeTarget(root), "in"), CorruptContent)
    assert not (tmp_path / "x").exists()


def test_a_truncated_archive_is_corrupt(tmp_path: Path) -> None:
    data = packed("gzip", archive(file("f", os.urandom(100_000))))[:50_000]
    with opened(tmp_path) as root:
        fails(lambda: extract(decompressing(io.BytesIO(data), "gzip"), TreeTarget(root)), CorruptContent)
