"""`--secret` and `--ssh` of `build` and `run`: what they name, read when the command begins."""

from __future__ import annotations

import os
import stat

from builda.errors import InvalidValue, NotFound
from builda.inputfile import read_input
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack

_WRITTEN = "write --secret id=NAME,src=FILE or id=NAME,env=VARIABLE"


class Secret(NamedTuple):
    """A parsed --secret: its ID, and the variable or the file that has it."""

    name: str
    variable: str | None
    path: str | None
    is_guess: bool
    """Whether only the ID says that it is a file."""


def secrets_of(items: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, bytes]:
    """Read the secrets, by ID; NotFound for a missing file or variable, InvalidValue for a malformed option."""
    return {found.name: _content(found, environ) for found in (secret_of(item, environ) for item in items)}


def secret_of(item: str, environ: Mapping[str, str]) -> Secret:
    """Parse `id=ID[,src=FILE|,env=NAME|,src=NAME,type=env]`; the later of src and env counts, as in Buildah.

    With an ID alone it is the variable of that name, else the file.
    """
    name, source, kind = "", "", ""
    for key, value in (part.partition("=")[::2] for part in item.split(",")):
        match key.strip().lower():
            case "id":
                name = value
            case "src" | "source":
                source = value
            case "env":
                source, kind = value, "env"
            case "type" if value in ("file", "env"):
                kind = value
            case "type":
                raise InvalidValue(f"secret has an unknown type {value}: {item}", hint="it is file or env")
            case other:
                raise InvalidValue(f"secret has an unknown key {other}: {item}", hint=_WRITTEN)
    if not name:
        raise InvalidValue(f"secret has no id: {item}", hint=_WRITTEN)
    if kind == "env" or (not kind and not source and name in environ):
        return Secret(name, source or name, None, is_guess=False)
    return Secret(name, None, os.path.expanduser(source or name), is_guess=not source and not kind)


def _content(secret: Secret, environ: Mapping[str, str]) -> bytes:
    name = secret.name
    if secret.path is None:
        variable = secret.variable or name
        if variable not in environ:
            raise NotFound(f"variable of the secret {name} is not set: {variable}")
        return os.fsencode(environ[variable])
    try:
        return read_input(secret.path, f"secret {name}")
    except FileNotFoundError as error:
        if not secret.is_guess:
            raise NotFound(f"no such file or directory for the secret {name}: {secret.path}") from error
        raise NotFound(
            f"no variable and no file is called like the secret: {name}",
            hint=f"write --secret id={name},src=FILE or id={name},env=VARIABLE",
        ) from error


def agents_of(items: tuple[str, ...], environ: Mapping[str, str], stack: ExitStack) -> dict[str, str]:
    """The sockets of agents by ID; for key files an agent is started that ends with `stack`."""
    found: dict[str, str] = {}
    for item in items:
        name, named = agent_paths(item)
        paths = named or [environ.get("SSH_AUTH_SOCK", "")]
        if not paths[0]:
            raise NotFound(f"no agent for --ssh {name}", hint="start ssh-agent, or name its socket or a key file")
        for path in paths:
            if not os.path.exists(path):
                raise NotFound(f"no such file or directory (a socket or key) for --ssh {name}: {path}")
        kinds = {stat.S_IFMT(os.stat(path).st_mode) for path in paths}
        if kinds == {stat.S_IFSOCK} and len(paths) == 1:
            found[name] = paths[0]
        elif kinds != {stat.S_IFREG}:
            raise InvalidValue(f"--ssh {name} takes one agent's socket, or regular files of keys: {','.join(paths)}")
        else:
            from builda.builder.run.ssh_agent import agent_with

            found[name] = stack.enter_context(agent_with(tuple(paths)))
    return found


def agent_paths(item: str) -> tuple[str, list[str]]:
    """The ID of an agent, and the socket or key files that the option names for it."""
    name, _, value = item.partition("=")
    return name, [os.path.expanduser(path) for path in value.split(",") if path]
