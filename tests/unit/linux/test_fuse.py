"""fuse-overlayfs as a detached mount: what the program gets, and when it ends."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from builda.errors import StoreUnavailable
from builda.linux import fuse
from tests.support import needs

LACKING = fuse.lacking()
pytestmark = [pytest.mark.root, needs.machine(LACKING)]


@pytest.fixture
def places(tmp_path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lower directories and the options of an overlay."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/file").write_text("x")
    return (f"{tmp_path}/lower",), (f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work")


def children() -> set[str]:
    """The processes that this one has started and not waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_the_program_has_nothing_of_ours_and_ends_with_the_mount(
    places: tuple[tuple[str, ...], tuple[str, ...]], tmp_path: Path
) -> None:
    before = children()
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    with fuse.served(*places) as mount:
        os.close(writer)
        assert os.read(reader, 1) == b""
        os.unlink("file", dir_fd=mount)
    os.close(reader)
    assert os.listdir(tmp_path / "upper") == [".wh.file"]
    assert children() == before


def test_the_next_one_waits_until_the_working_directory_is_free(
    places: tuple[tuple[str, ...], tuple[str, ...]], tmp_path: Path
) -> None:
    order: list[str] = []
    with fuse.served(*places):
        waiting = threading.Thread(target=lambda: _enter(str(tmp_path / "work"), order))
        waiting.start()
        order.append("served")
    waiting.join()
    assert order == ["served", "alone"]


def _enter(work: str, order: list[str]) -> None:
    with fuse.unserved(work):
        order.append("alone")


def test_a_program_that_was_killed_is_named(places: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    before = children()

    def killed() -> None:
        with fuse.served(*places):
            (child,) = children() - before
            os.kill(int(child), 9)

    with pytest.raises(StoreUnavailable, match="was ended by signal 9"):
        killed()


def test_what_it_cannot_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="takes no directory with a colon"), fuse.served((f"{tmp_path}/a:b",), ()):
        pass


def test_what_it_says_of_a_missing_directory_is_passed_on(
    places: tuple[tuple[str, ...], tuple[str, ...]], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="cannot read lower dirs") as caught, fuse.served((f"{tmp_path}/no",), places[1]):
        pass
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED)
