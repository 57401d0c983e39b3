"""What a terminal shows: enough of one for what builda writes, with the lines that wrap and those that scroll away."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import clean_environ

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+|\x1b")


@dataclass
class Screen:
    """Rows of text and a cursor; a row that is full wraps when the next character comes."""

    columns: int
    rows: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0
    colours: int = 0

    def feed(self, text: str) -> None:
        """Do what `text` says; AssertionError for what no test expects."""
        for match in _TOKEN.finditer(text):
            token = match[0]
            if token == "\r":
                self.column = 0
            elif token == "\n":
                self._down()
            elif match[2] is not None:
                self._control(match[1], match[2])
            else:
                assert token != "\x1b", text
                self._write(token)

    @property
    def text(self) -> str:
        """Everything on it, and what has scrolled away."""
        return "\n".join(line.rstrip() for line in self.rows).rstrip("\n")

    def _write(self, text: str) -> None:
        for character in text:
            width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
            if self.column + width > self.columns:
                self.column = 0
                self._down()
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += width

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")

    def _control(self, argument: str, letter: str) -> None:
        match letter:
            case "A":
                self.row = max(0, self.row - int(argument or 1))
            case "K":
                assert argument in ("", "0")
                self.rows[self.row] = self.rows[self.row][: self.column]
            case "m":
                self.colours += argument not in ("", "0")
            case _:
                raise AssertionError(f"unexpected control: {argument}{letter}")


@dataclass
class Shown:
    """How a program on a terminal ended, and what it wrote there, piece by piece with its time."""

    status: int
    pieces: list[tuple[float, str]]

    @property
    def text(self) -> str:
        return "".join(piece for _, piece in self.pieces)

    def screen(self, columns: int = 80) -> Screen:
        screen = Screen(columns)
        screen.feed(self.text)
        return screen


def on_terminal(
    command: list[str],
    *,
    size: tuple[int, int] = (24, 80),
    stdout: Path | None = None,
    act: Callable[[int, int, str], None] | None = None,
    **environ: str,
) -> Shown:
    """Run `command` on a terminal of its own (`stdout` goes elsewhere if given).

    `act(pid, terminal, text)` is called after each read with all that was read.
    """
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover  # the child
        try:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.execve(command[0], command, {**clean_environ(), "TERM": "xterm", **environ})
        finally:
            os._exit(99)
    pieces: list[tuple[float, str]] = []
    try:
        _read(pid, terminal, pieces, act)
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    return Shown(os.waitstatus_to_exitcode(status), pieces)


def _read(
    pid: int, terminal: int, pieces: list[tuple[float, str]], act: Callable[[int, int, str], None] | None
) -> None:
    left = b""
    while True:
        assert select.select([terminal], [], [], 60)[0], "the program is silent"
        try:
            data = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has it open any more
            return
        text, left = _decoded(left + data)
        pieces.append((time.monotonic(), text))
        if act is not None:
            act(pid, terminal, "".join(piece for _, piece in pieces))


def _decoded(data: bytes) -> tuple[str, bytes]:
    """The whole characters of `data`, and the beginning of the one that was cut."""
    for length in range(4):
        end = len(data) - length
        try:
            return data[:end].decode(), data[end:]
        except UnicodeDecodeError:
            continue
    raise AssertionError(data)
