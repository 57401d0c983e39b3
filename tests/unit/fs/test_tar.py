"""The tar writer and reader against each other, Python's tarfile, GNU tar, and archives made to harm."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import CorruptContent
from builda.fs.tar import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    HEADER_LIMIT,
    REGULAR,
    SYMBOLIC_LINK,
    TarEntry,
    TarWriter,
    header_of,
)
from builda.fs.tarread import Limits, is_header, iter_members
from tests.unit.fs.trees import archive, directory, entry, fails, file, members, picture, read_archive

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/"))
ENTRIES = st.builds(
    TarEntry,
    NAMES,
    st.sampled_from([DIRECTORY, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK, FIFO]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**40), 2**40),
    link=NAMES,
    size=st.just(0),
    major=st.just(0),
    minor=st.just(0),
    mtime_ns=st.just(0),
    xattrs=st.dictionaries(st.sampled_from(["user.a", "security.capability", "user.\u00e4"]), st.binary(max_size=600)),
)


@given(ENTRIES)
@settings(max_examples=300)
def test_what_is_written_is_read(value: TarEntry) -> None:
    (found,) = members(archive(value))
    assert found.entry._replace(mtime_ns=0) == value
    assert found.entry.mtime_ns == value.mtime * 10**9


@given(st.lists(st.tuples(NAMES, st.binary(max_size=2000)), max_size=6, unique_by=lambda item: item[0]))
def test_python_reads_what_is_written(files: list[tuple[bytes, bytes]]) -> None:
    data = archive(*[(TarEntry(name, REGULAR, len(body)), body) for name, body in files])
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
        found = {}
        for info in tar:
            content = tar.extractfile(info)
            assert content is not None
            found[os.fsencode(info.name).strip(b"/")] = content.read()
    assert found == {name.strip(b"/"): body for name, body in files}


def test_gnu_tar_reads_what_is_written(tmp_path: Path) -> None:
    long = "d/" + "n" * 200
    data = archive(
        directory("d/", mtime=7),
        file("d/a", b"x" * 5000, mode=0o4755, mtime=5),
        file(long, b"long", mtime=5),
        file("caf\u00e9", b"1", mtime=-5),
        entry("l", SYMBOLIC_LINK, link=b"t" * 150),
        entry("h", HARD_LINK, link=b"d/a"),
    )
    subprocess.run(["tar", "-xpf", "-", "-C", tmp_path], input=data, check=True)
    seen = picture(tmp_path)
    assert set(seen) == {"d", "d/a", long, "caf\u00e9", "l", "h"}
    assert seen["d/a"][0] == "0o104755"
    assert seen["caf\u00e9"][3] == -5
    assert seen["h"][5] == "d/a"
    assert os.readlink(tmp_path / "l") == "t" * 150


def test_headers_are_plain_ustar_unless_a_value_does_not_fit() -> None:
    assert len(header_of(entry("a" * 100, REGULAR))) == 512
    assert len(header_of(entry("d" * 150 + "/" + "a" * 100, REGULAR))) == 512
    assert len(header_of(entry("caf\u00e9", REGULAR, uid=0o7777777))) == 512
    assert len(header_of(entry("a" * 101, REGULAR))) > 512
    assert len(header_of(entry("a", REGULAR, uid=0o10000000))) > 512
    assert len(header_of(entry("a", REGULAR, size=8 << 30))) > 512
    assert len(header_of(entry("a", REGULAR, mtime=-1))) > 512
    assert b"mtime" not in header_of(entry("a" * 300, REGULAR, mtime=5))


def test_sizes_over_8_gib_are_written_and_read() -> None:
    (found,) = [next(iter_members(io.BytesIO(header_of(entry("a", REGULAR, size=9 << 30)))))]
    assert found.entry.size == 9 << 30


def test_python_reads_xattrs_and_large_ids() -> None:
    data = archive(directory("d", uid=3_000_000, xattrs={"user.a": b"1"}))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (info,) = tar
    assert info.uid == 3_000_000
    assert info.pax_headers == {"uid": "3000000", "SCHILY.xattr.user.a": "1"}


@pytest.mark.parametrize("sizes", [[1], [7, 512, 3000], [1 << 20], [(1 << 20) - 1, 2, 1 << 21]])
def test_pieces_in_which_content_arrives_do_not_show(sizes: list[int]) -> None:
    whole = bytes(range(256)) * 5000
    out = io.BytesIO()
    tar = TarWriter(out)
    tar.add(entry("a", REGULAR, size=len(whole)))
    at = turn = 0
    while at < len(whole):
        step = max(sizes[turn % len(sizes)], 50)
        tar.data(whole[at : at + step])
        at, turn = at + step, turn + 1
    tar.pad(len(whole))
    tar.close()
    assert out.getvalue() == archive(file("a", whole))


class Trickle:
    """A source that gives what it likes."""

    def __init__(self, data: bytes, step: int) -> None:
        self.file = io.BytesIO(data)
        self.step = step

    def read(self, size: int = -1, /) -> bytes:
        return self.file.read(min(self.step, size) if size >= 0 else self.step)


@pytest.mark.parametrize("step", [1, 13, 511, 513, 4096])
def test_reading_does_not_depend_on_the_source_s_pieces(step: int) -> None:
    data = archive(directory("d/"), file("d/" + "a" * 150, b"x" * 1500), entry("l", SYMBOLIC_LINK, link=b"to"))
    found = [(member.entry, member.content.read(1 << 20)) for member in iter_members(Trickle(data, step))]
    assert [item.name for item, _ in found] == [b"d/", b"d/" + b"a" * 150, b"l"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_python_are_read(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name in ("short", "d" * 80 + "/" + "n" * 90):
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mode, info.mtime = 5, 1234, 0o640, 99
            info.uname = "somebody"
            tar.addfile(info, io.BytesIO(b"hello"))
    found = read_archive(out.getvalue())
    assert [name.decode() for name in found] == ["short", "d" * 80 + "/" + "n" * 90]
    assert all(
        body == b"hello" and (value.uid, value.mode, value.mtime) == (1234, 0o640, 99) for value, body in found.values()
    )


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_archives_of_gnu_tar_are_read(form: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "d").mkdir(parents=True)
    (source / "d" / "file").write_bytes(b"body" * 1000)
    os.link(source / "d" / "file", source / "hard")
    os.symlink("d/file", source / "soft")
    if form not in ("v7", "ustar"):
        (source / ("x" * 200)).write_bytes(b"long")
        os.symlink("y" * 200, source / "longlink")
    os.mkfifo(source / "pipe") if form != "v7" else None
    command: list[str | Path] = ["tar", "--format", form, "-C", source, "-cf", "-", "."]
    found = read_archive(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert found[b"./d/"][0].type == DIRECTORY
    assert {found[b"./d/file"][0].type, found[b"./hard"][0].type} == {REGULAR, HARD_LINK}
    assert b"body" * 1000 in (found[b"./d/file"][1], found[b"./hard"][1])
    assert found[b"./soft"][0].link == b"d/file"
    if form not in ("v7", "ustar"):
        assert found[b"./" + b"x" * 200][1] == b"long"
        assert found[b"./longlink"][0].link == b"y" * 200


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0", "oldgnu"])
@pytest.mark.parametrize("pieces", [0, 1, 3, 60])
def test_sparse_files_of_gnu_tar_are_read(version: str, pieces: int, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with open(path, "wb") as out:
        for index in range(pieces):
            out.seek((2 * index + 1) * 65536)
            out.write(b"%d" % index * 3000)
        out.truncate(20 << 20)
    form = ["--format=oldgnu"] if version == "oldgnu" else ["--format=posix", f"--sparse-version={version}"]
    data = subprocess.run(
        ["tar", *form, "-S", "-C", tmp_path, "-cf", "-", "sparse"], check=True, stdout=subprocess.PIPE
    ).stdout
    assert len(data) < 10 << 20
    value, body = read_archive(data)[b"sparse"]
    assert value.size == 20 << 20
    assert body == path.read_bytes()


def test_xattrs_of_gnu_tar_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    os.setxattr(tmp_path / "a", "user.key", b"va=l\nue")
    command: list[str | Path] = ["tar", "--xattrs", "-C", tmp_path, "-cf", "-", "a"]
    data = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    assert read_archive(data)[b"a"][0].xattrs["user.key"] == b"va=l\nue"


def test_an_archive_may_end_without_its_zeros_or_after_one() -> None:
    whole = archive(file("a", b"x"))
    assert len(members(whole[:-1024])) == 1
    assert len(members(whole[:-512])) == 1
    assert members(b"") == []


def test_what_stands_behind_the_archive_is_read_too() -> None:
    source = io.BytesIO(archive(file("a")) + b"trailing" * 100)
    assert len(list(iter_members(source))) == 1
    assert source.read() == b""


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 600, 1023])
def test_a_truncated_archive_is_corrupt(cut: int) -> None:
    whole = archive(file("a", b"x" * 600))
    assert "truncated" in fails(lambda: members(whole[:cut]), CorruptContent)


def test_a_wrong_checksum_is_corrupt() -> None:
    data = bytearray(archive(file("a")))
    data[0] ^= 1
    assert fails(lambda: members(bytes(data)), CorruptContent) == "tar header has a wrong checksum"
    assert not is_header(bytes(data[:512]))


@given(st.binary(min_size=512, max_size=4096), st.integers(0, 3))
@settings(max_examples=200)
def test_noise_is_corrupt_and_nothing_worse(noise: bytes, whole: int) -> None:
    data = archive(*[file(f"f{index}", b"x") for index in range(whole)])[: whole * 1024] + noise
    with suppress(CorruptContent):
        members(data)


@given(st.data())
@settings(max_examples=300)
def test_damaged_headers_are_corrupt_and_nothing_worse(data: st.DataObject) -> None:
    """A wrong byte with a right checksum: what somebody who means harm would send."""
    good = bytearray(archive(file("n" * 150, b"abc", xattrs={"user.a": b"b"}), entry("l", SYMBOLIC_LINK, link=b"x")))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1025))] = data.draw(st.integers(0, 255))
    for at in range(0, len(good) - 1024, 512):
        header = good[at : at + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            good[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    with suppress(CorruptContent):
        members(bytes(good))


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(entries=3), "more than 3 entries"),
        (Limits(total_bytes=8), "more than 8 bytes"),
        (Limits(name_bytes=1), "longer than 1 bytes"),
    ],
)
def test_limits_are_named_when_exceeded(limits: Limits, words: str) -> None:
    many = archive(*[file(f"f{index}", b"123") for index in range(4)])
    assert words in fails(lambda: list(iter_members(io.BytesIO(many), limits)), CorruptContent)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_a_header_that_claims_gigabytes_is_refused_before_they_are_read(kind: bytes) -> None:
    for size in (HEADER_LIMIT + 1, 7 << 30):
        bomb = header_of(TarEntry(b"x", kind, size=size))
        assert "more than the limit" in fails(partial(members, bomb), CorruptContent)


@pytest.mark.parametrize(
    "body",
    [b"5 a=b\n", b"99 path=x\n", b"x path=x\n", b"12 path=xyzzyx", b"9 pathxx\n", b"999999999999999999999999 a=b\n"],
)
def test_malformed_pax_records_are_corrupt(body: bytes) -> None:
    data = header_of(TarEntry(b"x", b"x", size=len(body))) + body.ljust(512, b"\0") + archive(file("a"))
    assert "pax header" in fails(lambda: members(data), CorruptContent)


@pytest.mark.parametrize("record", [b"11 uid=abc\n", b"10 uid=-1\n", b"18 uid=4294967295\n", b"15 mtime=later\n"])
def test_pax_values_out_of_range_are_corrupt(record: bytes) -> None:
    body = record
    assert int(record.split()[0]) == len(record)
    data = header_of(TarEntry(b"x", b"x", size=len(body))) + body.ljust(512, b"\0") + archive(file("a"))
    fails(lambda: members(data), CorruptContent)


def test_names_with_nul_are_corrupt() -> None:
    body = b"14 path=a\0b/c\n"
    data = header_of(TarEntry(b"x", b"x", size=len(body))) + body.ljust(512, b"\0") + archive(file("a"))
    assert "NUL" in fails(lambda: members(data), CorruptContent)


def test_a_sparse_map_that_lies_is_corrupt() -> None:
    def sparse(text: bytes, stored: int) -> bytes:
        pairs = [b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=1000", b"GNU.sparse.name=s"]
        body = b"".join(b"%d %b\n" % (len(pair) + 4, pair) for pair in pairs)
        head = header_of(TarEntry(b"x", b"x", size=len(body))) + body.ljust(512, b"\0")
        return head + archive((TarEntry(b"s", REGULAR, size=512 + stored), text.ljust(512, b"\0") + b"d" * stored))

    assert read_archive(sparse(b"1\n10\n5\n", 5))[b"s"][1][8:16] == b"\0\0ddddd\0"
    for text in (b"1\n10\n4\n", b"1\n999\n5\n", b"2\n10\n3\n9\n2\n", b"1\n-1\n5\n", b"99999999\n", b"nonsense"):
        fails(partial(read_archive, sparse(text, 5)), CorruptContent)


def test_a_global_header_counts_for_all_that_follow() -> None:
    body = b"11 mtime=9\n"
    data = header_of(TarEntry(b"g", b"g", size=len(body))) + body.ljust(512, b"\0")
    assert [member.entry.mtime for member in members(data + archive(file("a"), file("b")))] == [9, 9]
