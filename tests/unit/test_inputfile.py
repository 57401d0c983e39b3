"""Files that the user names: read up to a limit, pipes as well as files, and never waited for without end."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from builda import inputfile
from builda.errors import InvalidValue
from builda.inputfile import open_input, read_input, rereadable


def written(data: bytes) -> str:
    """The path of a pipe without a name that holds `data`, as `<(command)` gives one; its writer is gone."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return f"/proc/self/fd/{reader}"


def test_files_devices_and_pipes_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text\n" * 1000)
    assert read_input(tmp_path / "file", "file") == b"text\n" * 1000
    assert read_input("/dev/null", "device") == b""
    assert read_input(written(b"text"), "pipe") == b"text"
    assert read_input(written(b""), "pipe") == b""


def test_what_has_no_end_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    for path in ("/dev/zero", tmp_path / "sparse", written(b"x" * 11)):
        with pytest.raises(InvalidValue, match=rf"secret a has more bytes than the limit, 10: {path}"):
            read_input(path, "secret a", 10)
    assert read_input(written(b"x" * 10), "secret a", 10) == b"x" * 10


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, kind in ((tmp_path, IsADirectoryError), (tmp_path / "missing", FileNotFoundError)):
        with pytest.raises(kind) as caught:
            read_input(path, "file")
        assert str(caught.value.filename) == str(path)


def test_a_named_pipe_is_waited_for_and_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Timer(0.2, (tmp_path / "pipe").write_bytes, (b"late",))
    writer.start()
    assert read_input(tmp_path / "pipe", "file") == b"late"
    writer.join()
    monkeypatch.setattr(inputfile, "_PATIENCE", 0.1)
    with pytest.raises(InvalidValue, match="authfile is a pipe that nobody writes to"):
        read_input(tmp_path / "pipe", "authfile")


def test_a_slow_writer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputfile, "_PATIENCE", 0.05)
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR)

    def write() -> None:
        os.write(end, b"slow")
        os.close(end)

    writer = threading.Timer(0.3, write)
    writer.start()
    assert read_input(tmp_path / "pipe", "file") == b"slow"
    writer.join()


@pytest.mark.parametrize("again", [lambda path: path.write_text("x"), lambda path: path.symlink_to("/dev/null")])
def test_what_can_be_read_again_stays(tmp_path: Path, again: Callable[[Path], object]) -> None:
    again(tmp_path / "file")
    assert rereadable(str(tmp_path / "file"), "file") == str(tmp_path / "file")
    assert rereadable("/nonexistent", "file") == "/nonexistent"


def test_a_pipe_can_be_read_again() -> None:
    kept = rereadable(written(b"text"), "file")
    assert [Path(kept).read_bytes() for _ in range(2)] == [b"text"] * 2
    os.close(open_input(kept, "file"))
