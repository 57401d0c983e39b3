"""`--secret` and `--ssh` of `build` and `run`: what they name, read when the command begins."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builda.errors import InvalidValue, NotFound, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import ExitStack


def secrets_of(items: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, bytes]:
    """The secrets by ID."""
    found: dict[str, bytes] = {}
    for item in items:
        parts = dict(part.partition("=")[::2] for part in item.split(","))
        name = parts.get("id", "")
        unknown = parts.keys() - {"id", "src", "source", "env", "type"}
        if not name or unknown:
            what = f"secret has an unknown key {min(unknown)}" if unknown else "secret has no id"
            raise InvalidValue(f"{what}: {item}", hint="write --secret id=NAME,src=FILE or id=NAME,env=VARIABLE")
        source = parts.get("src") or parts.get("source")
        variable = parts.get("env") or (name if source is None and parts.get("type") != "file" else None)
        if source is not None:
            try:
                with open(os.path.expanduser(source), "rb") as file:
                    found[name] = file.read()
            except FileNotFoundError as error:
                raise NotFound(f"no such file for the secret {name}: {source}") from error
        elif variable is not None and variable in environ:
            found[name] = environ[variable].encode()
        else:
            raise NotFound(f"variable of the secret {name} is not set: {variable}")
    return found


def agents_of(items: tuple[str, ...], environ: Mapping[str, str], stack: ExitStack) -> dict[str, str]:
    """The sockets of agents by ID; for key files an agent is started that ends with `stack`."""
    found: dict[str, str] = {}
    for item in items:
        name, _, value = item.partition("=")
        paths = [os.path.expanduser(path) for path in value.split(",") if path] or [environ.get("SSH_AUTH_SOCK", "")]
        if not paths[0]:
            raise NotFound(f"no agent for --ssh {name}", hint="start ssh-agent, or name its socket or a key file")
        for path in paths:
            if not os.path.exists(path):
                raise NotFound(f"no such socket or key file for --ssh {name}: {path}")
        if len(paths) == 1 and stat.S_ISSOCK(os.stat(paths[0]).st_mode):
            found[name] = paths[0]
        else:
            found[name] = stack.enter_context(_agent_with(tuple(paths)))
    return found


@contextmanager
def _agent_with(keys: tuple[str, ...]) -> Iterator[str]:
    """The socket of an ssh-agent that knows these keys, and ends with the block or with this process."""
    import shutil
    import signal
    import subprocess
    import tempfile

    from builda.linux import syscalls as sys_

    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        raise Unsupported(
            "key files need ssh-agent and ssh-add", hint="install openssh-client, or name an agent's socket"
        )
    with tempfile.TemporaryDirectory(prefix="builda-ssh-") as directory:
        place = f"{directory}/agent"
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", place],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: sys_.prctl(sys_.PR_SET_PDEATHSIG, signal.SIGTERM),
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
