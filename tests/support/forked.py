"""Run builda's command line in a process that `tests.support.forkserver` forks, as `subprocess.run` would start it."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache
from io import FileIO
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")
"""How the variables begin that only the start of an interpreter heeds."""


START_ALWAYS = "TESTS_START_ALWAYS"
"""A variable of the tests' own environment: if it is set, every command line starts the program."""


def can_run(variables: Iterable[str]) -> bool:
    """Whether a command may be forked, and would behave as a started one that has these variables besides."""
    return START_ALWAYS not in os.environ and not any(name.startswith(READ_AT_START) for name in variables)


def run(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: Path | None,
    given: str | None,
    pass_fds: Sequence[int],
    seconds: float,
) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run(command, capture_output=True, text=True, ...)`; `given` is the standard input."""
    told = {
        "argv": list(command),
        "environ": dict(environ),
        "directory": str(directory or os.getcwd()),
        "umask": _umask(),
        "numbers": list(pass_fds),
    }
    deadline = time.monotonic() + seconds
    with ExitStack() as stack, ThreadPoolExecutor(2) as readers:
        its_stdin, stdin = _pipe(stack)
        stdout, its_stdout = _pipe(stack)
        stderr, its_stderr = _pipe(stack)
        if given is None:
            its_stdin = stack.enter_context(FileIO(os.devnull))
        answers = _asked(stack, told, (its_stdin, its_stdout, its_stderr), pass_fds)
        pid = int.from_bytes(answers.recv(4), "little")
        outputs = [readers.submit(end.readall) for end in (stdout, stderr)]
        with stdin, suppress(BrokenPipeError):
            stdin.write((given or "").encode())
        try:
            out, err = (output.result(deadline - time.monotonic()) for output in outputs)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(command), seconds) from None
        status = int.from_bytes(answers.recv(4), "little", signed=True)
    return subprocess.CompletedProcess(list(command), status, _text(out), _text(err))


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    """The end to read and the end to write."""
    reader, writer = os.pipe()
    return stack.enter_context(FileIO(reader, "rb")), stack.enter_context(FileIO(writer, "wb"))


def _asked(
    stack: ExitStack, told: Mapping[str, object], standard: Sequence[FileIO], pass_fds: Sequence[int]
) -> socket.socket:
    """Send a request and close what the forked process alone is to have. The socket on which the server answers."""
    answers, its_answers = socket.socketpair()
    stack.enter_context(answers)
    with its_answers, FileIO(os.memfd_create("request"), "r+b") as request:
        request.write(json.dumps(told).encode())
        request.seek(0)
        descriptors = [request.fileno(), its_answers.fileno(), *(end.fileno() for end in standard), *pass_fds]
        socket.send_fds(_server(), [b"?"], descriptors)
    for end in standard:
        end.close()
    return answers


@cache
def _server() -> socket.socket:
    """This process's end of a server that lives as long as this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno())]
        server = subprocess.Popen(command, pass_fds=(theirs.fileno(),), cwd=REPOSITORY, stdin=subprocess.DEVNULL)
    atexit.register(_end, ours, server)
    return ours


def _end(connection: socket.socket, server: subprocess.Popen[bytes]) -> None:
    """Let the server end, which it does with the connection."""
    connection.close()
    server.wait()


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _text(data: bytes) -> str:
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")
