"""A command on a pseudo terminal: relayed between builda's own terminal, here one of the test, and the command's."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.root

RUNNER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import Box
from builda.isolation import isolation_for
box = Box(Path({rootfs!r}), Path({scratch!r}))
box.isolation = isolation_for({isolation!r}, state=Path({scratch!r}))
sys.exit(box.run(*sys.argv[1:], capture=False, stdin=None, terminal=True, network="host"))
"""


class Screen:
    """builda on a pseudo terminal."""

    def __init__(self, box: Any, tmp_path: Path, *args: str) -> None:
        names = {"tests": str(Path(__file__).parent), "rootfs": str(box.rootfs), "scratch": str(tmp_path)}
        code = RUNNER.format(**names, isolation=box.isolation.kind.name)
        self.shown = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execv(sys.executable, [sys.executable, "-c", code, *args])
            finally:
                os._exit(99)  # never a second pytest

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def read_until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + 20
        while wanted not in self.shown:
            assert time.monotonic() < deadline, self.shown
            if select.select([self.fd], [], [], 1)[0]:
                try:
                    self.shown += os.read(self.fd, 4096)
                except OSError:
                    break
        assert wanted in self.shown

    def wait(self) -> int:
        while True:
            try:
                data = os.read(self.fd, 4096)
            except OSError:
                break
            if not data:
                break
            self.shown += data
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("isolation", ["native", "chroot", "oci"])
def test_input_output_and_status_go_through(new_box: Callable[[str], Any], tmp_path: Path, isolation: str) -> None:
    if isolation == "oci" and shutil.which("crun") is None:
        pytest.skip("crun is not installed")
    box = new_box(isolation)
    screen = Screen(box, tmp_path, "sh", "-c", "test -t 0 && test -t 1 && echo ready; read a; echo got $a; exit 7")
    screen.read_until(b"ready")
    screen.type(b"hello\n")
    screen.read_until(b"got hello")
    assert screen.wait() == 7


def test_the_terminal_is_one_of_the_container(box: Any, tmp_path: Path) -> None:
    screen = Screen(
        box, tmp_path, "sh", "-c", "tty; ls -l /dev/console; echo x > /dev/console; echo y > /dev/tty; id -u"
    )
    assert screen.wait() == 0
    assert b"/dev/pts/0" in screen.shown
    assert b"x\r\n" in screen.shown
    assert b"y\r\n" in screen.shown


def test_the_interrupt_key_ends_the_command(box: Any, tmp_path: Path) -> None:
    screen = Screen(box, tmp_path, "sh", "-c", "echo up; sleep 60; echo never")
    screen.read_until(b"up")
    screen.type(b"\x03")
    assert screen.wait() == 130
    assert b"never" not in screen.shown


def test_what_was_typed_before_the_command_began_reaches_it(box: Any, tmp_path: Path) -> None:
    screen = Screen(box, tmp_path, "sh", "-c", "read a; echo got $a")
    screen.type(b"early\n")
    screen.read_until(b"got early")
    assert screen.wait() == 0


def test_the_size_follows_the_callers(box: Any, tmp_path: Path) -> None:
    screen = Screen(box, tmp_path, "sh", "-c", "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.05; done")
    screen.read_until(b"up")
    fcntl.ioctl(screen.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    screen.read_until(b"33 99")
    assert screen.wait() == 0


def test_the_callers_terminal_is_as_before_afterwards(box: Any, tmp_path: Path) -> None:
    screen = Screen(box, tmp_path, "sh", "-c", "echo up; read a")
    before = termios.tcgetattr(screen.fd)
    screen.read_until(b"up")
    screen.type(b"\n")
    fd = os.dup(screen.fd)
    assert screen.wait() == 0
    after = termios.tcgetattr(fd)
    os.close(fd)
    assert after[3] & termios.ECHO == before[3] & termios.ECHO


def test_captured_terminal_output_and_given_input(box: Any) -> None:
    assert box.run("sh", "-c", "test -t 1 && cat", terminal=True, stdin=b"typed\n") == 0
    assert "typed\r\n" in box.output
