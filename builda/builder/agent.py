"""A socket of a command's own that leads to an ssh agent: with its owner and mode, and gone with the command."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builda.errors import NotFound
from builda.fs import owners

_CHUNK = 1 << 16


@contextmanager
def relayed(agent: str, directory: str, *, owner: tuple[int, int], mode: int) -> Iterator[str]:
    """A socket in `directory`, which is empty, that passes on to the agent's while the block runs; its path.

    NotFound when nobody listens at the agent's.
    """
    with _connected(agent):
        pass
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(f"/proc/self/fd/{fd}/agent")  # a path of any length is too long for an address
            owners.chown("agent", *owner, dir_fd=fd)
            os.chmod("agent", mode, dir_fd=fd)
        finally:
            os.close(fd)
        server.listen()
        thread = threading.Thread(target=_serve, args=(server, agent), daemon=True)
        thread.start()
        try:
            yield f"{directory}/agent"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def _connected(agent: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(agent)
    except OSError as error:
        client.close()
        raise NotFound(f"no ssh agent listens ({error.strerror}): {agent}") from error
    return client


def _serve(server: socket.socket, agent: str) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:  # shut down
            return
        threading.Thread(target=_pass_on, args=(client, agent), daemon=True).start()


def _pass_on(client: socket.socket, agent: str) -> None:
    """Questions to the agent and its answers back, until either side has had enough."""
    with client, suppress(OSError, NotFound), _connected(agent) as other:
        answers = threading.Thread(target=_copy, args=(other, client), daemon=True)
        answers.start()
        _copy(client, other)
        answers.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
