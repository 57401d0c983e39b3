from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.errors import CorruptContent, NotFound
from builda.transfer import blobfile
from builda.transfer.archive import OciArchiveSink
from builda.transfer.copyimage import ImageSink, copy_image
from builda.transfer.flatdir import DirectorySink
from builda.transfer.ocilayout import LayoutSink
from tests.support.memory import random_image


@pytest.fixture(params=["nameless", "named"], autouse=True)
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of file systems: those that have files without a name, and those that have not."""
    if request.param == "named":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # opening a directory to write is EISDIR
    return str(request.param)


def test_a_staged_file_appears_at_the_end(tmp_path: Path) -> None:
    with blobfile.staged(tmp_path / "a") as file:
        blobfile.write_all(file, b"whole")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_it_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with open(tmp_path / "a", "rb") as reader:
        blobfile.write_whole(tmp_path / "a", b"new")
        assert reader.read() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), blobfile.staged(tmp_path / "a") as file:
        file.write(b"half" * (1 // 0))
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_the_mode_is_what_the_user_wants_of_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        blobfile.write_whole(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_many_writers_of_one_file_all_succeed(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=blobfile.write_whole, args=(tmp_path / "a", bytes([number]) * 1000))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_a_long_name_has_room_for_its_temporary_one(tmp_path: Path) -> None:
    blobfile.write_whole(tmp_path / ("a" * 255), b"1")
    blobfile.write_whole(tmp_path / ("a" * 255), b"2")
    assert len(os.listdir(tmp_path)) == 1


def test_a_kill_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from builda.transfer import blobfile\n"
        "with blobfile.staged(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(CorruptContent, match="not a regular file"), blobfile.open_at(path):
            pass
    with pytest.raises(NotFound, match="no such file"):
        blobfile.read_small(tmp_path / "missing", 1)


def test_a_small_file_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    assert blobfile.read_small(tmp_path / "a", 4) == b"1234"
    with pytest.raises(CorruptContent, match="more than 3 bytes"):
        blobfile.read_small(tmp_path / "a", 3)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["oci", "oci-archive", "dir"])
def test_a_full_disk_publishes_nothing(full: Path, kind: str) -> None:
    image = random_image(size=100_000)
    sinks: dict[str, ImageSink] = {"oci": LayoutSink(str(full / "l"), None), "dir": DirectorySink(str(full / "d"))}
    with pytest.raises(OSError, match="No space left") as caught:
        copy_image(image, sinks.get(kind) or OciArchiveSink(str(full / "a.tar"), None))
    assert caught.value.errno == errno.ENOSPC
    files = [path.name for path in full.rglob("*") if path.is_file()]
    assert set(files) <= {"version"}
