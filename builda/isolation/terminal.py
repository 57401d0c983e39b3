"""Copies between the caller's terminal and the command's pseudo terminal."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import tty
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STDIN, _STDOUT = 0, 1
_CHUNK = 1 << 16
_END_OF_FILE = b"\x04"
_TYPED_AT_ONCE = 1024  # the line discipline holds 4096 bytes and blocks beyond


def relay(master: int, stdin: bytes | None, output: Callable[[bytes], None] | None, typed: Callable[[], None]) -> None:
    """Move bytes both ways until the last process has closed the terminal.

    `stdin` replaces what the caller types, and `output` gets what would be written to our standard output. `typed` is
    called when the caller has typed something.
    """
    copy_size(master)
    with _raw(_STDIN if stdin is None else -1):
        _move(master, None if stdin is None else stdin + _END_OF_FILE, output or write_all, typed)


def copy_size(master: int) -> None:
    """Give the pseudo terminal the size of the caller's terminal, if it has one."""
    for fd in (0, 1, 2):
        with suppress(OSError):
            fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
            return


def _move(master: int, given: bytes | None, output: Callable[[bytes], None], typed: Callable[[], None]) -> None:
    poll = select.poll()
    if given is None:
        poll.register(_STDIN, select.POLLIN)
    pending = given or b""
    while True:
        # Wait for room only while there is input left: a command that does not read must not stop its own output.
        poll.register(master, select.POLLIN | (select.POLLOUT if pending else 0))
        for fd, happened in poll.poll():
            if fd == _STDIN:
                data = os.read(_STDIN, _CHUNK)
                typed()
                # An empty read is the end of the file. A terminal says that by a character.
                pending += data or _END_OF_FILE
                if not data:
                    poll.unregister(_STDIN)
            elif happened & (select.POLLIN | select.POLLHUP | select.POLLERR):
                data = _read_master(master)
                if not data:
                    return
                output(data)
            else:
                pending = pending[os.write(master, pending[:_TYPED_AT_ONCE]) :]


def _read_master(master: int) -> bytes:
    try:
        return os.read(master, _CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:  # no process has the other side open any more
            return b""
        raise


def write_all(data: bytes) -> None:
    """Write to our standard output."""
    while data:
        data = data[os.write(_STDOUT, data) :]


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Put the caller's terminal into raw mode for the block: every key goes to the command."""
    if fd < 0 or not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSADRAIN)  # what was typed before is for the command
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
