"""A context that goes to a pod through the API: whole or not at all."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest

from builda.cli.verbs.clusterwork import wait_for
from builda.cluster.chunks import ARRIVING, is_arriving, receive, streamed
from builda.errors import BuildaError, NotFound


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
