"""`--secret` and `--ssh` of `build` and `run`: what they name, read when the command begins."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from builda.errors import InvalidValue, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping
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
                raise NotFound(f"no such file or directory for the secret {name}: {source}") from error
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
                raise NotFound(f"no such file or directory (a socket or key) for --ssh {name}: {path}")
        if len(paths) == 1 and stat.S_ISSOCK(os.stat(paths[0]).st_mode):
            found[name] = paths[0]
        else:
            from builda.builder.agent import agent_with

            found[name] = stack.enter_context(agent_with(tuple(paths)))
    return found
