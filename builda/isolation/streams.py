"""Standard input and output of a command: passed through as descriptors, captured, or relayed to a terminal."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Literal

from builda.events import CommandOutput

if TYPE_CHECKING:
    from types import TracebackType

    from builda.events import Emit
    from builda.isolation.spec import Process

_CONSOLE = 6
_CHUNK = 1 << 16


class Streams:
    """`theirs` maps the child's descriptors to ours; `owned` are those we made, for the command's user to have."""

    def __init__(self, command: Process, emit: Emit) -> None:
        self.theirs: dict[int, int] = {}
        self.owned: tuple[int, ...] = ()
        self._command = command
        self._emit = emit
        self._ours: dict[int, Literal["stdout", "stderr"]] = {}
        self._console = -1
        self._master = -1
        self._stack = ExitStack()
        self._started = ExitStack()

    def __enter__(self) -> Streams:
        if self._command.terminal:
            self._open_console()
        else:
            self._open_plain()
        self._fill_missing()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.close()
        self._stack.close()

    def started(self) -> None:
        """The child has its descriptors: ours of them are closed, so that their end shows."""
        self._started.close()

    def relay(self) -> None:
        """Move bytes until the command and all it started have closed their ends; nothing to do for plain ones."""
        if self._command.terminal:
            self._relay_terminal()
        elif self._ours:
            self._relay_output()

    def resize(self, number: int) -> None:
        """Pass the window size on after SIGWINCH."""
        import signal

        if number == signal.SIGWINCH and self._master >= 0:
            from builda.isolation.terminal import copy_size

            copy_size(self._master)

    def _open_plain(self) -> None:
        if self._command.stdin is not None:
            self.theirs[0] = self._input(self._command.stdin)
        if self._command.capture:
            self.theirs[1] = self._pipe("stdout")
            self.theirs[2] = self._pipe("stderr")
        self.owned = tuple(self.theirs)

    def _pipe(self, name: Literal["stdout", "stderr"]) -> int:
        reader, writer = os.pipe()
        self._stack.callback(os.close, reader)
        self._started.callback(os.close, writer)
        self._ours[reader] = name
        return writer

    def _input(self, data: bytes) -> int:
        fd = os.memfd_create("builda-stdin")
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
        os.close(fd)
        self._started.callback(os.close, reader)
        return reader

    def _open_console(self) -> None:
        import socket

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._stack.callback(ours.close)
        self._started.callback(theirs.close)
        self._console = ours.fileno()
        self.theirs[_CONSOLE] = theirs.fileno()

    def _fill_missing(self) -> None:
        """A standard descriptor that we do not have ourselves is /dev/null for the command."""
        for fd in (0, 1, 2):
            if fd in self.theirs:
                continue
            try:
                os.fstat(fd)
            except OSError:
                null = os.open(os.devnull, os.O_RDWR)
                self._started.callback(os.close, null)
                self.theirs[fd] = null

    def _relay_output(self) -> None:
        import select

        poll = select.poll()
        for fd in self._ours:
            poll.register(fd, select.POLLIN)
        open_ones = dict(self._ours)
        while open_ones:
            for fd, _ in poll.poll():
                data = os.read(fd, _CHUNK)
                if data:
                    self._emit(CommandOutput(data=data, stream=open_ones[fd], stage=self._command.stage))
                else:
                    poll.unregister(fd)
                    del open_ones[fd]

    def _relay_terminal(self) -> None:
        import socket

        from builda.isolation.terminal import relay

        with socket.socket(fileno=os.dup(self._console)) as console:
            _, received, _, _ = socket.recv_fds(console, 1, 1)
        self._master = received[0]
        self._stack.callback(os.close, self._master)
        output = self._output if self._command.capture else None
        relay(self._master, self._command.stdin, output)

    def _output(self, data: bytes) -> None:
        self._emit(CommandOutput(data=data, stream="stdout", stage=self._command.stage))
