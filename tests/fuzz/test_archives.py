"""Whatever an archive holds: it is read, or refused by an error of builda's."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builda.errors import BuildaError
from builda.fs.layer import apply, drop_idle_whiteouts, inherit_directories
from builda.fs.lists.layertree import Tree, read_rows
from builda.fs.lists.listwriter import ListTarget
from builda.fs.lists.spool import Spool
from builda.fs.paths import empty
from builda.fs.tar import RECORD, TarEntry, TarWriter, header_of
from builda.fs.tarread import iter_members, iter_offsets
from builda.fs.trees.directory import TreeTarget
from builda.fs.trees.unpack import extract
from builda.transfer.archive import OciArchiveSink, OciArchiveSource
from builda.transfer.copyimage import copy_image
from builda.transfer.validate import validate
from tests.support.memory import MemoryImage, random_image
from tests.unit.fs.trees import GID, UID, opened

QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        extract(io.BytesIO(data), TreeTarget(root))


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
        extract(io.BytesIO(data), ListTarget(tree, spool, 0))
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


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive with nothing wrong."""
    path = tmp_path_factory.mktemp("good") / "a.tar"
    copy_image(random_image(size=100), OciArchiveSink(str(path), "a:1"))
    return path.read_bytes()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_an_error_in_our_own_words_or_none(tmp_path: Path, good: bytes, data: st.DataObject) -> None:
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "bad.tar").write_bytes(content[: data.draw(st.none() | st.integers(0, len(content)))])
    try:
        copy_image(OciArchiveSource(str(tmp_path / "bad.tar"), None), sink := MemoryImage())
    except BuildaError:
        return
    assert validate(sink) == ()
