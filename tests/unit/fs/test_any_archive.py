"""Whatever an archive or an ignore file holds: it is read, or refused by an error of builda's."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builda.errors import BuildaError, CorruptContent
from builda.fs.compose import Spool, Unpacking
from builda.fs.ignore import Matcher
from builda.fs.index import Tree, read_rows
from builda.fs.layer import apply, drop_idle_whiteouts, extract, inherit_directories
from builda.fs.paths import empty
from builda.fs.tar import RECORD, TarEntry, TarWriter, header_of, iter_members, iter_offsets
from tests.unit.fs.trees import GID, UID, opened

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.one_of(
    st.sampled_from([b"a", b"a/b", b"a/b/", b"./", b"../x", b"/abs", b"a/.wh.b", b".wh..wh..opq", b"\xff", b"x" * 300]),
    st.binary(max_size=8),
)
NUMBERS = st.sampled_from([0, 1, -1, 0o777, 0o4755, 2**31, 2**32 - 1, 2**33, 2**55, 2**63, 2**70])
ENTRIES = st.builds(
    TarEntry,
    name=NAMES,
    type=st.sampled_from([bytes([kind]) for kind in b"01234567xgLKSVD\0Z"]),
    size=st.sampled_from([0, 0, 0, 1, 511, 513, 2**40]),
    mode=st.sampled_from([0o644, 0o755, 0o7777]),
    uid=st.sampled_from([UID, UID, 2**31]),
    gid=st.just(GID),
    mtime=NUMBERS,
    link=NAMES,
    major=st.sampled_from([0, 1, 5000]),
    minor=st.sampled_from([0, 3]),
    xattrs=st.dictionaries(
        st.sampled_from(
            ["user.a", "user.", "user.\0", "trusted.x", "user.containers.override_stat", "\udcff", "x" * 300]
        ),
        st.binary(max_size=4),
        max_size=2,
    ),
)


TEXTS = st.one_of(st.text(max_size=60), st.text("*?[]^-!\\/.# \nab", max_size=60))


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Entries with content, of which bytes were changed; where a header was, its checksum may be right again."""
    data = bytearray()
    for entry in draw(st.lists(ENTRIES, max_size=5)):
        try:
            data += header_of(entry._replace(mode=entry.mode & 0o7777))
        except (BuildaError, ValueError, OverflowError):
            continue  # what nobody can write
        data += draw(st.binary(max_size=20)).ljust(min(entry.size, RECORD), b"\0").ljust(RECORD, b"\0") * bool(
            entry.size
        )
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
        start = at - at % RECORD
        if draw(st.booleans()) and len(data) >= start + RECORD:
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + RECORD])
    return bytes(data) + bytes(draw(st.sampled_from([0, 1, 1024])))


def read_all(data: bytes, path: Path) -> None:
    for _ in read_rows(iter_members(io.BytesIO(data)), lambda member: None):
        pass


def read_offsets(data: bytes, path: Path) -> None:
    for _ in iter_offsets(io.BytesIO(data)):
        pass


def unpack(data: bytes, path: Path) -> None:
    with opened(path) as root:
        extract(io.BytesIO(data), root)


def unpack_flat(data: bytes, path: Path) -> None:
    with opened(path) as root:
        apply(io.BytesIO(data), root, whiteouts="plain")


def unpack_layer(data: bytes, path: Path) -> None:
    (path / "lower/a").mkdir(parents=True)
    (path / "layer").mkdir()
    with opened(path / "layer") as root, opened(path / "lower") as lower:
        done = apply(io.BytesIO(data), root, whiteouts="files")
        inherit_directories(root, [lower], done.implied)
        drop_idle_whiteouts(root, [lower], done.hidden)


def compose(data: bytes, path: Path) -> None:
    tree = Tree()
    with Spool(str(path)) as spool:
        Unpacking(tree, spool, 0, b"/", None, None).run(io.BytesIO(data))
    sink = TarWriter(io.BytesIO())
    for row in tree.rows():
        sink.add(
            TarEntry(row.path, row.kind, row.size, row.mode, row.uid, row.gid, row.mtime, row.link, xattrs=row.xattrs)
        )


@QUICK
@given(data=archives())
@pytest.mark.parametrize("reader", [read_all, read_offsets, unpack, unpack_flat, unpack_layer, compose])
def test_an_archive_is_read_or_refused(tmp_path: Path, reader: Callable[[bytes, Path], None], data: bytes) -> None:
    with opened(tmp_path) as fd:
        empty(fd)
    with suppress(BuildaError):
        reader(data, tmp_path)


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(st.text(max_size=60), st.text("*?[]^-!\\/.# \nab", max_size=60)), path=st.text("ab/.*", min_size=1)
)
def test_an_ignore_file_is_read_or_refused(text: str, path: str) -> None:
    try:
        rules = Matcher.parse(text, "file")
    except BuildaError:
        return
    assert rules.excludes(path) == (rules.rule_for(path) is not None)
    rules.reaches_into(path)


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
