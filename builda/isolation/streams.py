"""Standard input and output of a command: passed through as descriptors, captured, or relayed to a terminal.

Terminals, pipes and sockets of the caller are passed through. Its files are not: by /proc/self/fd a command could open
them again and change them. The command reads a file from a read-only mount or a pipe, and writes to a file by a pipe.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from builda.events import CommandOutput
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Literal

    from builda.events import Emit
    from builda.isolation.spec import Process

_CONSOLE = 6
_CHUNK = 1 << 16


class Streams:
    """The streams of one run: `theirs` maps the child's descriptors to ours.

    `owned` are the numbers of the pipes that builda made: the child gives them to the command's user.
    """

    def __init__(self, command: Process, emit: Emit) -> None:
        self.theirs: dict[int, int] = {}
        self.owned: tuple[int, ...] = ()
        self._command = command
        self._emit = emit
        self._ours: dict[int, Literal["stdout", "stderr"]] = {}
        self._files: dict[int, int] = {}  # pipe -> descriptor of the caller's file that its bytes go to
        self._feed = -1  # the pipe by which the command reads the caller's file
        self._mounted = -1
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
        if self._feed >= 0:
            self._end_feed()
        self._stack.close()

    def started(self) -> None:
        """Close the child's ends after it started: else builda would never read the end of a pipe."""
        self._started.close()

    def relay(self) -> None:
        """Move bytes until the command and all that it started have closed their ends. Streams passed through need
        nothing."""
        if self._command.terminal:
            self._relay_terminal()
        elif self._ours or self._feed >= 0:
            self._relay_pipes()

    def resize(self, number: int) -> None:
        """Pass the window size on after SIGWINCH."""
        import signal

        if number == signal.SIGWINCH and self._master >= 0:
            from builda.isolation.terminal import copy_size

            copy_size(self._master)

    def _open_plain(self) -> None:
        if self._command.stdin is not None:
            self.theirs[0] = self._input(self._command.stdin)
        elif _is_file(0):
            self.theirs[0] = self._read_only_file() or self._fed()
        if self._command.capture:
            self.theirs[1] = self._pipe("stdout")
            self.theirs[2] = self._pipe("stderr")
        else:
            self._open_files()
        self.owned = tuple(fd for fd in self.theirs if self.theirs[fd] != self._mounted)

    def _open_files(self) -> None:
        """Make one pipe for each file of the caller, and for output that is copied or noted.

        If both streams go to one file they share a pipe, which keeps their order.
        """
        watch = self._command.watch
        taken = watch is not None and watch.takes_output
        first = self._needs_pipe(1) or taken
        if first:
            self.theirs[1] = self._pipe("stdout", to=1)
        same = first and _is_same(1, 2)
        if self._needs_pipe(2) or (taken and same):
            self.theirs[2] = self.theirs[1] if same else self._pipe("stderr", to=2)

    def _needs_pipe(self, fd: int) -> bool:
        return _is_file(fd) or (self._command.copy_output and _is_open(fd))

    def _read_only_file(self) -> int | None:
        """The caller's standard input opened again on a read-only mount; None if that cannot be made.

        Afterwards the caller's file offset is where the command stopped reading, as if both shared the descriptor.
        """
        import fcntl

        if fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            return None
        with ExitStack() as stack:
            try:
                mount = sys_.open_tree(0, "", sys_.OPEN_TREE_CLONE | sys_.AT_EMPTY_PATH)
                stack.callback(os.close, mount)
                sys_.mount_setattr(mount, "", sys_.AT_EMPTY_PATH, attr_set=sys_.MOUNT_ATTR_RDONLY)
                reader = os.open(f"/proc/self/fd/{mount}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # no right to mount, or the file belongs to another mount namespace or to none
                return None
        os.lseek(reader, os.lseek(0, 0, os.SEEK_CUR), os.SEEK_SET)
        self._stack.callback(os.close, reader)
        self._stack.callback(lambda: os.lseek(0, os.lseek(reader, 0, os.SEEK_CUR), os.SEEK_SET))
        self._mounted = reader
        return reader

    def _fed(self) -> int:
        """The reading end of a pipe into which `relay` copies the caller's standard input."""
        reader, self._feed = os.pipe()
        os.set_blocking(self._feed, False)
        self._started.callback(os.close, reader)
        return reader

    def _pipe(self, name: Literal["stdout", "stderr"], to: int | None = None) -> int:
        reader, writer = os.pipe()
        self._stack.callback(os.close, reader)
        self._started.callback(os.close, writer)
        self._ours[reader] = name
        if to is not None:
            self._files[reader] = to
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
        """Give the command /dev/null for standard descriptors that are closed in this process."""
        for fd in (0, 1, 2):
            if fd in self.theirs:
                continue
            try:
                os.fstat(fd)
            except OSError:
                null = os.open(os.devnull, os.O_RDWR)
                self._started.callback(os.close, null)
                self.theirs[fd] = null

    def _relay_pipes(self) -> None:
        """Copy until the command and all that it started have closed the pipes."""
        import select

        poll = select.poll()
        for fd in self._ours:
            poll.register(fd, select.POLLIN)
        if self._feed >= 0:
            poll.register(self._feed, select.POLLOUT)
        open_ones = set(self._ours)
        pending = b""
        while open_ones or self._feed >= 0:
            for fd, _ in poll.poll():
                if fd == self._feed:
                    pending = self._fed_more(pending)
                    if not pending:
                        poll.unregister(fd)
                        self._end_feed()
                elif (data := os.read(fd, _CHUNK)) and self._pass_on(fd, data):
                    continue
                else:
                    poll.unregister(fd)
                    open_ones.remove(fd)

    def _pass_on(self, pipe: int, data: bytes) -> bool:
        """Pass output on to its readers; False if no reader is left."""
        if pipe not in self._files:
            self._emit(CommandOutput(data=data, stream=self._ours[pipe], stage=self._command.stage))
            return True
        if self._command.copy_output:
            self._emit(CommandOutput(data=data, stream=self._ours[pipe], stage=self._command.stage, shown=True))
        watch = self._command.watch
        if watch is not None and watch.takes_output and self._files[pipe] == 1:
            watch.take(data)
        while data:
            try:
                data = data[os.write(self._files[pipe], data) :]
            except BrokenPipeError:
                os.dup2(self._null(), pipe)  # nobody can write to it any more: SIGPIPE, as with the caller's own
                return False
            except OSError as error:
                raise OSError(error.errno, error.strerror, f"standard {self._ours[pipe][3:]}put") from error
        return True

    def _null(self) -> int:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._stack.callback(os.close, null)
        return null

    def _fed_more(self, pending: bytes) -> bytes:
        """Write some of the caller's standard input; the rest that the pipe did not take. Empty at the end of the
        input, or if no process has the pipe open for reading."""
        pending = pending or os.read(0, _CHUNK)
        try:
            return pending and (pending[os.write(self._feed, pending) :] or os.read(0, _CHUNK))
        except BrokenPipeError:
            return b""

    def _end_feed(self) -> None:
        os.close(self._feed)
        self._feed = -1

    def _relay_terminal(self) -> None:
        import socket

        from builda.isolation.terminal import relay

        with socket.socket(fileno=os.dup(self._console)) as console:
            _, received, _, _ = socket.recv_fds(console, 1, 1)
        self._master = received[0]
        self._stack.callback(os.close, self._master)
        output = self._output if self._command.capture else self._copied if self._command.copy_output else None
        relay(self._master, self._command.stdin, output, self._typed)

    def _typed(self) -> None:
        if self._command.watch is not None:
            self._command.watch.is_typed = True

    def _output(self, data: bytes) -> None:
        self._emit(CommandOutput(data=data, stream="stdout", stage=self._command.stage))

    def _copied(self, data: bytes) -> None:
        from builda.isolation.terminal import write_all

        self._emit(CommandOutput(data=data, stream="stdout", stage=self._command.stage, shown=True))
        write_all(data)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_same(one: int, other: int) -> bool:
    """Whether two of our descriptors are the same file, pipe or socket; False if one is closed."""
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False


def _is_file(fd: int) -> bool:
    """Whether our descriptor is a file, directory or disk: these a command could open again to change them."""
    try:
        kind = os.fstat(fd).st_mode & 0o170000
    except OSError:  # it is closed
        return False
    return kind in (0o100000, 0o040000, 0o060000)
