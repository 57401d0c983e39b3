"""A context that goes to a pod through the API: whole or not at all."""

from __future__ import annotations

import os
import socket
import struct
from io import BytesIO
from pathlib import Path

import pytest

from builda.cli.verbs.clusterwork import wait_for
from builda.cluster import chunks
from builda.cluster.chunks import ARRIVING, is_arriving, receive, streamed
from builda.errors import BuildaError, NotFound
from builda.fs.ignore import Matcher


@pytest.fixture
def sent(tmp_path: Path) -> bytes:
    top = tmp_path / "top"
    (top / "dir").mkdir(parents=True)
    (top / "file").write_text("text")
    (top / "file").chmod(0o750)
    (top / "left").write_text("nothing")
    (top / "dir/link").symlink_to("../file")
    return b"".join(streamed(str(top), "left", ".dockerignore", frozenset()))


def test_a_context_that_is_received_is_what_the_ignore_file_leaves(sent: bytes, tmp_path: Path) -> None:
    receive(BytesIO(sent), tmp_path / "there")
    assert sorted(str(one.relative_to(tmp_path / "there")) for one in (tmp_path / "there").rglob("*")) == [
        "dir",
        "dir/link",
        "file",
    ]
    assert (tmp_path / "there/dir/link").read_text() == "text"
    assert (tmp_path / "there/file").stat().st_mode & 0o777 == 0o750


def test_names_of_one_file_are_names_of_one_file_in_the_pod(tmp_path: Path) -> None:
    """However far apart, and though the name that is first in the order of a context is left out."""
    top = tmp_path / "top"
    (top / "z/y").mkdir(parents=True)
    (top / "a").write_text("text")
    os.link(top / "a", top / "b")
    os.link(top / "a", top / "z/y/c")
    for number in range(3000):
        (top / f"f{number}").touch()
    receive(BytesIO(b"".join(streamed(str(top), "a", ".dockerignore", frozenset()))), tmp_path / "there")
    one, other = (tmp_path / "there" / name for name in ("b", "z/y/c"))
    assert one.samefile(other)
    assert one.read_text() == "text"
    assert one.stat().st_nlink == 2


def test_a_file_that_is_no_further_name_of_another_any_more_is_sent_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    os.link(tmp_path / "a", tmp_path / "b")
    later = chunks.now() + 10
    before = chunks.grouped(chunks.listing(str(tmp_path), Matcher.parse("")), later)
    after = chunks.grouped(chunks.listing(str(tmp_path), Matcher.parse("a")), later)
    assert not {chunk.key for chunk in before} & {chunk.key for chunk in after}


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


@pytest.mark.root
def test_attributes_that_an_image_has_arrive(tmp_path: Path) -> None:
    """Capabilities, access control lists, and attributes of users; also of directories."""
    top, there = tmp_path / "top", tmp_path / "there"
    (top / "dir").mkdir(parents=True)
    (top / "file").touch()
    os.setxattr(top / "file", "security.capability", CAPABILITY)
    for name in ("file", "dir"):
        os.setxattr(top / name, "user.x", name.encode())
    receive(BytesIO(b"".join(streamed(str(top), "", "", frozenset()))), there)
    assert os.getxattr(there / "file", "security.capability") == CAPABILITY
    assert [os.getxattr(there / name, "user.x") for name in ("file", "dir")] == [b"file", b"dir"]


def test_a_directory_with_other_attributes_is_sent_again(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    keys = set()
    for value in (b"1", b"2"):
        os.setxattr(tmp_path / "dir", "user.x", value)
        keys |= {chunk.key for chunk in chunks.grouped(chunks.listing(str(tmp_path), Matcher.parse("")), chunks.now())}
    assert len(keys) == 2


def test_what_cannot_be_sent_is_said(tmp_path: Path) -> None:
    top, said = tmp_path / "top", list[str]()
    (top / "left").mkdir(parents=True)
    for place in ("s", "left/s"):
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(top / place))
    os.mkfifo(top / "f")
    receive(BytesIO(b"".join(streamed(str(top), "left", ".dockerignore", frozenset(), said.append))), tmp_path / "x")
    assert said == ["socket is not copied: s"]
    assert [one.name for one in (tmp_path / "x").iterdir()] == ["f"]


@pytest.mark.parametrize("cut", [0, 1, 3, 60, -3, -1])
def test_a_context_that_breaks_off_is_not_there(sent: bytes, tmp_path: Path, cut: int) -> None:
    with pytest.raises(BuildaError):
        receive(BytesIO(sent[:cut]), tmp_path / "there")
    assert not list(tmp_path.glob("there*"))


def test_a_second_attempt_finds_what_the_first_made(sent: bytes, tmp_path: Path) -> None:
    for _ in range(2):
        receive(BytesIO(sent), tmp_path / "there")
    assert (tmp_path / "there/file").read_text() == "text"


def test_a_pod_without_a_client_does_not_wait_for_ever(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no client sent the context to the pod within 0 s") as failure:
        wait_for(tmp_path / "there", 0.1)
    assert "needs no client" in (failure.value.hint or "")


def test_each_piece_of_a_long_file_says_that_more_comes(sent: bytes, tmp_path: Path) -> None:
    class Slow(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert is_arriving(tmp_path / "there", 3600)
            for place in tmp_path.glob(f"there{ARRIVING}*"):
                os.utime(place, (1, 1))  # as long ago
                seen.append(is_arriving(tmp_path / "there", 3600))
            return super().read(min(size, 8) if size else size)

    seen: list[bool] = []
    receive(Slow(sent), tmp_path / "there")
    assert len(seen) > 20
    assert not any(seen)


def test_a_pod_waits_while_something_comes(tmp_path: Path) -> None:
    from threading import Timer

    (tmp_path / f"there{ARRIVING}x").mkdir()
    timer = Timer(0.3, (tmp_path / "there").mkdir)
    timer.start()
    try:
        wait_for(tmp_path / "there", 30)
    finally:
        timer.join()
