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
from builda.oci.digest import sha256
from builda.oci.reference import parse_short
from builda.session import client, served
from builda.session.spare import Spare
from builda.session.writtenpages import Pages

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a command whose client was killed."""
IDLE = 0.05
"""Seconds without a request after which the session imports what few scripts need."""
MOST = 300
"""Commands that are served at once; further ones start by themselves."""
_FIRST = (
    "builda.cli.verbs.from_",
    "builda.builder.builder",
    "builda.builder.image.pull",
    "builda.builder.from_image",
    "_json",
    "_sha256",
    "builda.store.drivers.overlay",
    "builda.builder.image.push",
    "builda.builder.cached.cachestart",
    "builda.places",
    "builda.inputfile",
    "builda.oci.manifest",
)
"""Modules that the first command of nearly every script needs; it waits until they are imported."""
_STEPS = (
    "builda.cli.verbs.config",
    "builda.cli.verbs.copy",
    "builda.cli.verbs.failing",
    "builda.builder.cached.scriptsteps",
    "builda.builder.copy.copysources",
    "hashlib",
    "builda.fs.layer",
    "builda.cli.progress.observer",
    "builda.cli.verbs.run",
    "builda.cli.building.secrets",
    "builda.builder.run.command",
    "builda.builder.run.security",
    "builda.builder.run.rootfiles",
    "builda.cli.verbs.commit",
    "builda.cli.building.attesting",
    "builda.builder.image.commit",
    "builda.builder.image.merging",
    "builda.builder.image.merge_config",
    "builda.isolation.made_mountpoints",
    "datetime",
)
"""Modules that the steps of a script need if their results are remembered."""
_OTHERS = (
    "builda.builder.copy.copying",
    "builda.builder.run.run",
    "builda.cli.verbs.images",
    "builda.cli.verbs.containers",
    "builda.cli.verbs.inspect",
    "builda.cli.verbs.build",
    "filelock",
    "dockerfile_parse",
    "encodings.ascii",
    "difflib",
    "shutil",
    "tempfile",
    "subprocess",
    "concurrent.futures.thread",
    "isal.isal_zlib",
    "isal.igzip_threaded",
    "zstandard",
    "click",
)
_SKIPPED = ("builda.__main__", "builda.isolation.child", "builda.host.doctor", "builda.cli.guide", "builda.session")


class Server:
    """Serves the commands of a session. The caller polls, and tells of children that ended or stopped."""

    def __init__(
        self,
        place: str,
        code: str,
        main: Callable[[], int],
        *,
        told: Callable[[int, int], None] | None = None,
        rehearse: Callable[[], None] | None = None,
    ) -> None:
        """`main` runs this process's command line and returns its exit status.

        `told` gets the process ID and the wait status of each command that has ended. `rehearse` is called when all
        is imported: what it makes, served commands find made.
        """
        self._code = code
        self._main = main
        self._told = told
        self._rehearse = rehearse
        self._clients: dict[int, socket.socket] = {}  # by the process that serves each
        self._processes: dict[int, int] = {}  # by the descriptor of the client's socket
        self._dying: dict[int, float] = {}  # when each process whose client is gone is killed
        self._identity = served.identity("self", served.status("self"))
        self._poll = select.epoll()
        self._listener = _listener(place)
        self._poll.register(self._listener, select.EPOLLIN)
        self._soon = [*reversed((*_FIRST, *_STEPS))]
        self._later = _imports()
        self._pages = Pages()
        self._spare: Spare | None = None
        self._lacks_spare = False
        self._is_idle = False
        self._is_closed = False
        self.is_warm = False

    def begin(self, events: int) -> None:
        """Make `poll` return, from now on, when the descriptor `events` can be read."""
        self._poll.register(events, select.EPOLLIN)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # served commands get their client's limits

    def poll(self) -> None:
        """Serve each client that asks, or use the time to get ready for the next command, until something happens."""
        asked = self._poll.poll(self._patience())
        for descriptor, _ in asked:
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._processes:
                self._lost(descriptor)
        if asked:
            self._is_idle = False
        else:
            self._get_ready()

    def _patience(self) -> float | None:
        """The seconds to wait for something to happen; None if there is nothing else to do."""
        for pid, moment in self._dying.items():
            if time.monotonic() > moment:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._lacks_spare or self._soon or (self._is_idle and not self.is_warm):
            return 0.0
        if self._dying:
            return 0.1
        return None if self.is_warm else IDLE

    def _get_ready(self) -> None:
        """Do a part of what makes the next command quicker."""
        if self._soon:
            self._import(self._soon.pop())
            if not self._soon:
                parse_short("localhost/name:tag")  # which compiles regular expressions at its first use
                sha256(b"")  # which looks for the quickest implementation
                self._lacks_spare = True
        elif self._lacks_spare:
            self._fork_spare()
        elif not self.is_warm:
            self._is_idle = True
            self._import_one()

    def _import_one(self) -> None:
        name = None
        with suppress(OSError):  # no descriptor is left
            name = next(self._later, None)
        if name is not None:
            self._import(name)
            return
        self.is_warm = True
        if self._rehearse is not None:
            with suppress(ImportError, BuildaError, OSError, MemoryError):  # a command says what is wrong
                self._rehearse()
        self._drop_spare()  # it lacks what was imported since
        self._lacks_spare = True

    def _import(self, name: str) -> None:
        if name not in sys.modules:
            with suppress(ImportError, BuildaError, OSError):  # an extra is not installed, or no descriptor is left:
                self._import_ahead(name)  # a command that needs the module imports it itself, and says what is wrong

    def _import_ahead(self, name: str) -> None:
        """Import a module; where memory lacks (`ulimit -v`) nothing more is imported ahead."""
        try:
            import_module(name)
        except MemoryError:
            self._soon.clear()
            self._later = iter(())

    def _fork_spare(self) -> None:
        """Fork the process that serves the next client; without one, that client waits for a fork."""
        self._lacks_spare = False
        parent = os.getpid()

        def serve(connection: socket.socket) -> int:
            return served.run(connection, parent, self._identity, self._code, self._main, self._pages)

        def rehearse() -> None:
            if not self._pages.copy():
                served.rehearse(self._identity, self._code)

        with suppress(OSError):  # no process or descriptor is left
            self._spare = Spare(serve, rehearse)

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            spare.end()

    def _accept(self) -> None:
        try:
            connection = self._accepted()
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left: the client waits until one is
            self._poll.modify(self._listener, 0)
            return
        if len(self._clients) >= MOST:
            _refuse(connection)
            return
        for name in _FIRST:
            self._import(name)
        try:
            pid = self._process_for(connection)
        except OSError:  # no process is left
            _refuse(connection)
            return
        self._clients[pid] = connection
        self._processes[connection.fileno()] = pid
        self._poll.register(connection, select.EPOLLRDHUP)
        self._lacks_spare = not self._soon

    def _accepted(self) -> socket.socket:
        """The connection of a client; OSError if there is none, or no descriptor."""
        try:
            return self._listener.accept()[0]
        except BlockingIOError:
            raise
        except OSError:
            if self._spare is None:
                raise
            self._drop_spare()  # its descriptor is needed more here
            return self._listener.accept()[0]

    def _process_for(self, connection: socket.socket) -> int:
        """A process that serves the client: the spare one, or a new one."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.take(connection):
            return spare.pid
        parent = os.getpid()
        return fork.start(lambda: served.run(connection, parent, self._identity, self._code, self._main, self._pages))

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
        if self._spare is not None and self._spare.pid == pid:
            self._drop_spare()
        if pid in self._clients:
            _tell(self._clients[pid], client.STOPPED)

    def ended(self, pid: int, status: int) -> None:
        """Tell the client of a process how that ended."""
        if self._spare is not None and self._spare.pid == pid:
            self._spare = None
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

    def serves(self, pid: int) -> bool:
        """Whether this process serves a client: it is none of the script's, though its client may be."""
        return pid in self._clients

    def refuse(self) -> None:
        """Serve no further commands."""
        self._is_closed = True
        self._drop_spare()
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
    """The names of all modules that commands may need, those first that more scripts need."""
    import pkgutil

    import builda

    yield from _OTHERS
    for module in pkgutil.walk_packages(builda.__path__, "builda."):
        if not module.name.startswith(_SKIPPED):
            yield module.name
