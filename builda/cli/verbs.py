"""The verbs by name, each imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from builda.cli.line import Rows
from builda.cli.options import answer
from builda.cli.verb import HELP, Verb
from builda.errors import InvalidValue

VERBS: Mapping[str, str] = {
    "add": "copy:add",
    "build": "build:build",
    "commit": "commit:commit",
    "completion": "system:completion",
    "config": "config:config",
    "containers": "containers:containers",
    "copy": "copy:copy",
    "doctor": "doctor:doctor",
    "from": "create:from_",
    "exists": "images:exists",
    "fsck": "fsck:fsck",
    "help": "help:help_",
    "images": "images:images",
    "info": "system:info",
    "inspect": "inspect:inspect",
    "login": "login:login",
    "logout": "login:logout",
    "mount": "containers:mount",
    "preprocess": "preprocess:preprocess",
    "prune": "images:prune",
    "pull": "registry:pull",
    "push": "registry:push",
    "rename": "containers:rename",
    "rm": "containers:rm",
    "rmi": "images:rmi",
    "run": "run:run",
    "tag": "images:tag",
    "umount": "containers:umount",
    "unshare": "unshare:unshare",
    "untag": "images:untag",
    "version": "system:version",
    "workdir": "workdir:workdir",
}
ALIASES: Mapping[str, str] = {
    "bud": "build",
    "build-using-dockerfile": "build",
    "delete": "rm",
    "list": "containers",
    "ls": "containers",
    "ps": "containers",
    "unmount": "umount",
}
OWN: Rows = (answer("--version", "-v", help="Print the version and leave."), HELP)
"""The options of builda itself that stand before the verb only."""


def verb_named(name: str) -> Verb:
    """The verb of this name, imported now; InvalidValue with the nearest name if there is none."""
    target = VERBS.get(ALIASES.get(name, name))
    if target is None:
        from builda.cli import hints

        raise InvalidValue(f"unknown command: {name}", hint=hints.of_verb(name, [*VERBS, *ALIASES]))
    module, _, attribute = target.partition(":")
    verb: Verb = getattr(import_module(f"builda.cli.{module}"), attribute)
    return verb
