"""The warm process of a session: it has imported builda, and forks for each command of the script."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module

from builda.errors import BuildaError
from builda.linux import fork
from builda.session import client, served

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a command whose client was killed."""
MOST = 300
"""Commands that are served at once; further ones start by themselves."""
_FIRST = (
    "builda.cli.core.invoke",
    "builda.cli.verbs.from_",
    "builda.cli.verbs.config",
    "builda.cli.verbs.copy",
    "builda.cli.verbs.run",
    "builda.cli.verbs.commit",
    "builda.cli.verbs.images",
    "builda.cli.verbs.containers",
    "builda.cli.verbs.inspect",
    "builda.builder.builder",
    "builda.builder.from_image",
    "builda.builder.cached.cachestart",
    "builda.builder.cached.scriptsteps",
    "builda.fs.trees.walk",
    "builda.store.drivers.overlay",
    "builda.builder.image.merging",
    "builda.builder.copy.copying",
    "builda.builder.run.run",
    "builda.builder.image.commit",
)
"""Modules that nearly every script needs."""
_OTHERS = (
    "json",
    "_sha256",
    "encodings.ascii",
    "fcntl",
    "ctypes",
    "hashlib",
    "filelock",
    "difflib",
    "shutil",
    "tempfile",
    "subprocess",
    "threading",
)
_LATE = (
    "concurrent.futures.thread",
    "queue",
    "datetime",
    "isal.isal_zlib",
    "isal.igzip_threaded",
    "zstandard",
    "click",
)
_SKIPPED = ("builda.__main__", "builda.isolation.child", "builda.host.doctor", "builda.cli.guide", "builda.session")


class Server:
    """Serves the commands of a session. The caller polls, and tells of children that ended or stopped."""

    def __init__(
        self, place: str, code: str, main: Callable[[], None], *, told: Callable[[int, int], None] | None = None
    ) -> None:
        """`told` gets the process ID and the wait status of each command that has ended."""
        self._code = code
        self._main = main
        self._told = told
        self._clients: dict[int, socket.socket] = {}  # by the process that serves each
        self._processes: dict[int, int] = {}  # by the descriptor of the client's socket
        self._dying: dict[int, float] = {}  # when each process whose client is gone is killed
        self._identity = served.identity("self")
        self._poll = select.epoll()
        self._listener = _listener(place)
        self._poll.register(self._listener, select.EPOLLIN)
        self._imports = _imports()
        self._is_closed = False
        self.is_warm = False

    def begin(self, events: int) -> None:
        """From now on `poll` returns when there is something to read from the descriptor `events`."""
        self._poll.register(events, select.EPOLLIN)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # served commands get their client's limits

    def poll(self) -> None:
        """Serve whoever asks, or import what is not imported yet, until something happens."""
        wait = None if self.is_warm else 0.0
        for pid, moment in self._dying.items():
            wait = 0.1
            if time.monotonic() > moment:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for descriptor, _ in self._poll.poll(wait):
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._processes:
                self._lost(descriptor)
        if not self.is_warm:
            self._import_one()

    def _import_one(self) -> None:
        try:
            name = next(self._imports, None)
            if name is None:
                self.is_warm = True
            elif name not in sys.modules:
                import_module(name)
        except (ImportError, BuildaError, OSError):  # an extra that is not installed, or no descriptor is left:
            return  # a command that needs the module imports it itself, and says what is wrong

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left: the client waits until one is
            self._poll.modify(self._listener, 0)
            return
        if len(self._clients) >= MOST:
            _refuse(connection)
            return
        parent = os.getpid()
        try:
            pid = fork.start(lambda: served.run(connection, parent, self._identity, self._code, self._main))
        except OSError:  # no process is left
            _refuse(connection)
            return
        self._clients[pid] = connection
        self._processes[connection.fileno()] = pid
        self._poll.register(connection, select.EPOLLRDHUP)

    def _lost(self, descriptor: int) -> None:
        """A client was killed: its command is asked to end, and killed if that takes long."""
        pid = self._processes[descriptor]
        self._dying[pid] = time.monotonic() + GRACE
        self._poll.unregister(descriptor)
        del self._processes[descriptor]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

    def stopped(self, pid: int) -> None:
        """Tell the client of a process that it was stopped."""
        if pid in self._clients:
            _tell(self._clients[pid], client.STOPPED)

    def ended(self, pid: int, status: int) -> None:
        """Tell the client of a process how that ended."""
        connection = self._clients.pop(pid, None)
        if connection is not None:
            if self._told is not None:
                self._told(pid, status)
            _tell(connection, client.ENDED + status.to_bytes(4, "little"))
            if self._processes.pop(connection.fileno(), None) is not None:
                self._poll.unregister(connection)
            connection.close()
            self._dying.pop(pid, None)
            if not self._is_closed:
                self._poll.modify(self._listener, select.EPOLLIN)

    def refuse(self) -> None:
        """Serve no further commands."""
        self._is_closed = True
        self._poll.unregister(self._listener)
        self._listener.close()


def _listener(place: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    directory = os.open(place, os.O_PATH | os.O_CLOEXEC)  # a path in the kernel is short enough for any place
    try:
        listener.bind(f"/proc/self/fd/{directory}/{client.SOCKET.decode()}")
    finally:
        os.close(directory)
    listener.listen(4096)
    return listener


def _refuse(connection: socket.socket) -> None:
    _tell(connection, client.PLAIN)
    connection.close()


def _tell(connection: socket.socket, message: bytes) -> None:
    with suppress(OSError):  # the client is gone, or so slow that its socket is full
        connection.send(message, socket.MSG_DONTWAIT)


def _imports() -> Iterator[str]:
    """The names of all modules that commands may need, those first that scripts need most."""
    import pkgutil

    import builda

    yield from _OTHERS
    yield from _FIRST
    yield from _LATE
    for module in pkgutil.walk_packages(builda.__path__, "builda."):
        if not module.name.startswith(_SKIPPED):
            yield module.name
