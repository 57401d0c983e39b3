"""Interactive shells on a terminal of their own, for what completion makes of a line."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMANDS: Mapping[str, list[str]] = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "--interactive"],
}
_SEQUENCE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[\[(?][0-9;?<>=]*[ -/]*[@-~]|\x1b.")
_SECONDS = 30


@dataclass
class Shell:
    """A shell that waits for keys."""

    terminal: int
    name: str
    count: int = 0

    def completed(self, line: str) -> list[str]:
        """The words of `line` after a tab, as the shell hands them to a command."""
        self.count += 1
        mark = f"end-{self.count}"
        os.write(self.terminal, line.encode() + b"\t\x01printf '<%s>' \x05\n")
        os.write(self.terminal, f"echo {mark[:4]}''{mark[4:]}\n".encode())
        text = self._until(mark)
        found = [match for match in re.findall(r"(?:<[^<>\r\n]*>)+", text) if "%s" not in match]
        assert found, text
        return re.findall(r"<([^<>]*)>", found[-1])

    def listed(self, line: str, wanted: str) -> str:
        """What two tabs after `line` show, up to `wanted`; the line is given up then."""
        os.write(self.terminal, line.encode() + b"\t\t")
        text = self._until(wanted)
        os.write(self.terminal, b"\x03")
        return text

    def run(self, command: str) -> None:
        """Do `command` and wait for its end."""
        self.count += 1
        os.write(self.terminal, f"{command}\necho ready''-{self.count}\n".encode())
        self._until(f"ready-{self.count}")

    def _until(self, wanted: str) -> str:
        text, end = "", time.monotonic() + _SECONDS
        while wanted not in text:
            assert time.monotonic() < end, text
            text += self._read(0.1)
        return text

    def _read(self, seconds: float) -> str:
        if not select.select([self.terminal], [], [], seconds)[0]:
            return ""
        data = os.read(self.terminal, 65536)
        if b"\x1b[c" in data or b"\x1b[0c" in data:  # fish asks what the terminal is
            os.write(self.terminal, b"\x1b[?1;2c")
        return _SEQUENCE.sub("", data.decode(errors="replace"))


@contextmanager
def interactive(name: str, directory: Path, environ: Mapping[str, str]) -> Iterator[Shell]:
    """The shell in `directory`, on a terminal of 40 lines."""
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover  # the child
        try:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
            os.chdir(directory)
            os.execvpe(COMMANDS[name][0], COMMANDS[name], {**environ, "TERM": "xterm", "PS1": "$ "})
        finally:
            os._exit(99)
    try:
        yield Shell(terminal, name)
    finally:
        os.close(terminal)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
