"""Ends that nobody planned: closed streams, full devices, ^C and ^D at a prompt, a deleted directory, a bug."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("args", ["images", "from scratch", "--version", "info", "help", "bud -q -f Containerfile ."])
def test_closed_streams_do_no_harm(builda: Builda, tmp_path: Path, closed: tuple[int, ...], args: str) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nLABEL a=b\n")
    redirections = " ".join(f"{number}>&-" for number in closed)
    script = f'"$@" {args} {redirections}'
    command = ["sh", "-c", script, "sh", *builda.command]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean_environ())
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert builda("fsck") == ""


def test_a_failure_without_stderr_has_its_status(builda: Builda) -> None:
    result = subprocess.run(["sh", "-c", '"$@" rm nope 2>&-', "sh", *builda.command], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (125, "", "")


@pytest.mark.parametrize("args", [["images"], ["--version"], ["--help"], ["bud", "-f", "Containerfile", "."]])
def test_a_full_disk_under_stdout_is_named(builda: Builda, tmp_path: Path, args: list[str]) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\nLABEL a=b\n")
    with open("/dev/full", "wb") as full:
        result = subprocess.run([*builda.command, *args], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert result.returncode == 125
    assert "Error: no space left on device: standard output\n" in result.stderr


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [(b"\x03", 130, ""), (b"\x04", 125, "Error: the input ended where an answer was asked for")],
)
@pytest.mark.parametrize(
    "args", [["login", "localhost:1"], ["login", "-u", "me", "localhost:1"], ["pull", "--creds", "me", "x"]]
)
def test_keys_that_end_a_prompt(builda: Builda, args: list[str], typed: bytes, status: int, said: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.execve(builda.command[0], [*builda.command, *args], clean_environ())
    text = _read_until(terminal, b": ")
    time.sleep(0.2)
    os.write(terminal, typed)
    text += _read_until(terminal, b"\0")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    assert b"Traceback" not in text
    assert said in re.sub(r"\x1b\[[0-9;]*m", "", text.decode())


def _read_until(terminal: int, end: bytes) -> bytes:
    text = b""
    while end not in text:
        try:
            text += os.read(terminal, 4096)
        except OSError:  # the other side was closed
            break
    return text


def test_a_deleted_working_directory_is_named(builda: Builda, tmp_path: Path) -> None:
    container = builda("from", "scratch")
    (tmp_path / "file").write_text("x")
    script = f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; "$@"'
    run = ["sh", "-c", script, "sh", *builda.command]
    for args, status in (
        (["copy", "-q", container, f"{tmp_path}/file", "/x"], 0),
        (["copy", container, "file", "/x"], 125),
        (["bud", "."], 125),
        (["images"], 0),
    ):
        result = subprocess.run([*run, *args], capture_output=True, text=True, env=clean_environ())
        assert result.returncode == status, (args, result.stderr)
        assert "Traceback" not in result.stderr
        if status:
            assert "no such file or directory: " in result.stderr


def test_a_lack_of_memory_is_no_bug(builda: Builda) -> None:
    code = "import builda.cli.core.invoke as g, builda.cli.main as m\ng.read = lambda *_, **__: [0] * 2**62\nm.main()"
    python = str(Path(builda.command[0]).with_name("python"))
    result = subprocess.run([python, "-c", code, "images"], capture_output=True, text=True)
    assert result.returncode == 125
    assert result.stderr.splitlines()[0] == "Error: no memory is left for builda"
    assert "ulimit -v" in result.stderr


def test_a_bug_is_one_line(builda: Builda) -> None:
    code = "import builda.cli.core.invoke as g, builda.cli.main as m\ng.read = lambda *_, **__: 1 // 0\nm.main()"
    python = str(Path(builda.command[0]).with_name("python"))
    result = subprocess.run([python, "-c", code, "images"], capture_output=True, text=True)
    assert result.returncode == 125
    assert (
        result.stderr.splitlines()[0] == "Error: internal error: ZeroDivisionError: integer division or modulo by zero"
    )
    assert "Traceback" not in result.stderr
    assert "--log-level debug" in result.stderr
    shown = subprocess.run([python, "-c", code, "--log-level", "debug", "images"], capture_output=True, text=True)
    assert "Traceback" in shown.stderr
    assert shown.returncode == 125
