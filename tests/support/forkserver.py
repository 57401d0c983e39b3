"""A server that has imported builda and forks for each command line: that takes a tenth of the time of a start.

    python -m tests.support.forkserver DESCRIPTOR

What is forked is a process of its own, with the arguments, environment, working directory, umask and descriptors that
the client gives it. It shares the start of the interpreter and the imports with the others, and nothing that a command
did: the server never runs one. It therefore has the hash seed of the server. It ends when the client's end is closed.

A request is a message with descriptors: a memory file with JSON, a socket for the answers, standard input, output and
error, then those to pass on. The answers are the process id and, when that process has ended, its status.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import selectors
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOST_DESCRIPTORS = 64
IMPORT = re.compile(r"^ *(?:from|import) (?!_)([\w.]+)(?: import (\([^)]*\)|.*))?", re.MULTILINE)
HIGH = 500  # where descriptors are out of the way of the numbers that a command has them by


class Request(NamedTuple):
    """A command line and what its process gets."""

    argv: list[str]
    environ: dict[str, str]
    directory: str
    umask: int
    descriptors: dict[int, int]  # by the number that the command has each by


def main() -> None:
    """Serve until the client is gone; in a forked child, be builda."""
    control = socket.socket(fileno=int(sys.argv[1]))
    preload()
    with suppress(KeyboardInterrupt):
        request = serve(control)
        if request is not None:
            become(request)
            builda = importlib.import_module("builda.cli.main")
            builda.main()


def preload() -> None:
    """Import every module that some module or function of builda imports, its own and others'."""
    import builda

    sys.modules["kubernetes_validate"] = None  # type: ignore[assignment]  # the client of Kubernetes would take 3 s for it
    sources = Path(*builda.__path__).rglob("*.py")
    for name in sorted({name for path in sources for name in imported(path)}):
        with suppress(ImportError):  # no module, or one that other systems have
            importlib.import_module(name)


def imported(path: Path) -> Iterator[str]:
    """What a source file may import anywhere: modules, and names in builda's packages that may be modules.

    Lines are matched, as parsing all files takes a second and a half.
    """
    for module, names in IMPORT.findall(path.read_text(encoding="utf-8")):
        yield module
        if module.startswith("builda"):
            yield from (f"{module}.{name}" for name in re.findall(r"\w+", names))


def serve(control: socket.socket) -> Request | None:
    """Fork for each request. Returns it in the child, and None when the client is gone."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    selector.unregister(key.fileobj)
                    _tell_the_end(key.fd, key.data)
                    continue
                message, received, _, _ = socket.recv_fds(control, 1, MOST_DESCRIPTORS)
                if not message:
                    return None
                answers = socket.socket(fileno=received[1])
                pid = os.fork()
                if pid == 0:
                    answers.close()
                    return _request(received[0], received[2:])
                answers.send(pid.to_bytes(4, "little"))
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, answers)
                for descriptor in (received[0], *received[2:]):
                    os.close(descriptor)


def _tell_the_end(pidfd: int, answers: socket.socket) -> None:
    """Reap a command and send its status, negative for a signal as `subprocess` has it."""
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    assert ended is not None
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    with suppress(BrokenPipeError):  # a client that waits no longer
        answers.send(status.to_bytes(4, "little", signed=True))
    answers.close()
    os.close(pidfd)


def _request(described: int, received: list[int]) -> Request:
    with os.fdopen(described) as file:
        told = json.load(file)
    numbers = (0, 1, 2, *told["numbers"])
    descriptors = dict(zip(numbers, received, strict=True))
    return Request(told["argv"], told["environ"], told["directory"], told["umask"], descriptors)


def become(request: Request) -> None:
    """Give this process what the request says, and nothing else that is open here."""
    import fcntl
    import time

    aside = {number: fcntl.fcntl(found, fcntl.F_DUPFD, HIGH) for number, found in request.descriptors.items()}
    os.closerange(3, HIGH)
    for number, descriptor in aside.items():
        os.dup2(descriptor, number)
    os.closerange(HIGH, HIGH + MOST_DESCRIPTORS)
    os.environ.clear()
    os.environ.update(request.environ)
    time.tzset()
    os.umask(request.umask)
    os.chdir(request.directory)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = request.argv


if __name__ == "__main__":
    main()
