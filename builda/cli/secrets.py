"""`--secret` and `--ssh` of `build` and `run`: what they name, read when the command begins."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builda.errors import InvalidValue, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def agents_of(items: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    """The sockets of agents by ID."""
    found: dict[str, str] = {}
    for item in items:
        name, _, path = item.partition("=")
        socket = path or environ.get("SSH_AUTH_SOCK", "")
        if not socket:
            raise NotFound(f"no agent for --ssh {name}", hint="start ssh-agent, or name its socket")
        found[name] = socket
    return found
