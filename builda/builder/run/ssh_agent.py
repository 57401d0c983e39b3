"""ssh agents for commands: a relay socket that only one command sees, and an agent started for key files."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builda.errors import InvalidValue, NotFound, Unsupported
from builda.fs import nodes, owners

_CHUNK = 1 << 16


@contextmanager
def relayed(agent: str, directory: str, *, owner: tuple[int, int], mode: int) -> Iterator[str]:
    """The path of a socket in the empty `directory` that is relayed to the agent's during the block.

    NotFound if no agent listens there.
    """
    with _connected(agent):
        pass
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # owners may be kept in its attributes
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(f"/proc/self/fd/{fd}/agent")  # a path of any length is too long for an address
            with nodes.pinned(fd, "agent", stat.S_IFSOCK) as path:
                owners.chown_node(fd, b"agent", path, *owner)
                os.chmod(path, mode)
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
    """Relay requests and answers until one side closes."""
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


@contextmanager
def agent_with(keys: tuple[str, ...]) -> Iterator[str]:
    """The socket of an ssh-agent with these key files. It ends with the block, or with this process.

    InvalidValue for a file that ssh-add does not take, Unsupported where ssh-agent is not installed.
    """
    import shutil
    import signal
    import subprocess
    import tempfile

    from builda.linux.process import ended_with_parent

    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        raise Unsupported(
            "key files need ssh-agent and ssh-add", hint="install openssh-client, or name an agent's socket"
        )
    with tempfile.TemporaryDirectory(prefix="builda-ssh-") as directory:
        place = f"{directory}/agent"
        agent = subprocess.Popen(
            ended_with_parent(["ssh-agent", "-D", "-a", place], signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert agent.stdout is not None
        with agent.stdout:
            try:
                agent.stdout.readline()  # it has said where it listens
                for key in keys:
                    _add(key, place)
                yield place
            finally:
                agent.terminate()
                agent.wait()


def _add(key: str, agent: str) -> None:
    import subprocess

    environ = {**os.environ, "SSH_AUTH_SOCK": agent, "SSH_ASKPASS_REQUIRE": "never"}
    done = subprocess.run(
        ["ssh-add", "-q", key], env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise InvalidValue(f"ssh-add does not take the key file ({said}): {key}", hint="keys must need no passphrase")
