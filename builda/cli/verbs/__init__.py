"""The verbs by name, each imported when it is called.

A verb of a group (`manifest create`) is called `manifest-create` where one word is needed: in the names of manual
pages, in tables, and on command lines that spell it so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from builda.cli.core.line import Rows
from builda.cli.core.options import answer
from builda.cli.core.verb import HELP, Verb
from builda.errors import InvalidValue
from builda.values import NamedTuple

VERBS: Mapping[str, str] = {
    "add": "copy:add",
    "bake": "bake:bake",
    "build": "build:build",
    "commit": "commit:commit",
    "completion": "system:completion",
    "config": "config:config",
    "debug": "debug:debug",
    "containers": "containers:containers",
    "copy": "copy:copy",
    "doctor": "doctor:doctor",
    "from": "from_:from_",
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
    "pull": "pull_push:pull",
    "push": "pull_push:push",
    "rename": "containers:rename",
    "rm": "containers:rm",
    "rmi": "images:rmi",
    "run": "run:run",
    "session": "session:session",
    "tag": "images:tag",
    "umount": "containers:umount",
    "unshare": "unshare:unshare",
    "untag": "images:untag",
    "version": "system:version",
    "workdir": "workdir:workdir",
}


class Members(NamedTuple):
    """The verbs of a group by name, and what the group is for."""

    help: str
    verbs: Mapping[str, str]


GROUPS: Mapping[str, Members] = {
    "auth": Members("Explain which credentials are used for a registry.", {"explain": "auth:explain"}),
    "cache": Members(
        "List, explain and forget the results of steps that builds and scripts find again.",
        {"explain": "cache:explain", "ls": "cache:ls", "rm": "cache:rm"},
    ),
    "cluster": Members(
        "Look after builds in a cluster, which builda build --on kubernetes makes.",
        {
            "check": "cluster:check",
            "logs": "cluster:logs",
            "ls": "cluster:listing",
            "receive": "clusterwork:receive",
            "rm": "cluster:rm",
            "work": "clusterwork:work",
        },
    ),
    "image": Members(
        "Copy, inspect and compare images wherever they are: in the store, in registries, layouts and archives.",
        {
            "check": "image_facts:check",
            "copy": "image_copy:copy",
            "delete": "image_registry:delete",
            "df": "image_facts:df",
            "diff": "image_facts:diff",
            "exists": "image:exists",
            "history": "image_facts:history",
            "inspect": "image_facts:inspect",
            "list": "image:listing",
            "list-tags": "image_registry:list_tags",
            "load": "image_files:load",
            "mount": "image_mount:mount",
            "pull": "image:pull",
            "push": "image:push",
            "rm": "image:rm",
            "runlabel": "image:runlabel",
            "save": "image_files:save",
            "sbom": "sbom:sbom",
            "scan": "image_scan:scan",
            "search": "image_registry:search",
            "sign": "trust:sign",
            "sync": "image_copy:sync",
            "tag": "image:tag",
            "tree": "image_facts:tree",
            "trust": "trust:trust",
            "umount": "image_mount:umount",
            "untag": "image:untag",
            "verify": "trust:verify",
        },
    ),
    "lock": Members(
        "Renew lock files, which say by digest what builda bud --locked builds from.",
        {
            "update": "lock:update",
        },
    ),
    "manifest": Members(
        "Make and change lists of images, such as the images of one program for several platforms.",
        {
            "add": "manifest:add",
            "annotate": "manifest:annotate",
            "create": "manifest:create",
            "exists": "manifest:exists",
            "inspect": "manifest:inspect",
            "push": "manifest:push",
            "remove": "manifest:remove",
            "rm": "manifest:rm",
        },
    ),
    "script": Members(
        "Find faults in bash scripts that call builda, and see what they do.",
        {"lint": "script:lint", "trace": "script:trace"},
    ),
    "source": Members(
        "Make source images, which hold what an image was built from, and copy them to and from registries.",
        {
            "add": "source:add",
            "create": "source:create",
            "pull": "source:pull",
            "push": "source:push",
        },
    ),
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
    if target is not None:
        return _imported(target)
    group, hyphen, member = name.partition("-")
    if hyphen and group in GROUPS:
        return member_named(group, member)
    from builda.cli.core import hints

    raise InvalidValue(f"unknown command: {name}", hint=hints.of_verb(name, [*VERBS, *GROUPS, *ALIASES]))


def member_named(group: str, name: str) -> Verb:
    """The verb of a group, imported now; InvalidValue with the nearest name if there is none."""
    members = GROUPS[group].verbs
    target = members.get(name) or members.get(ALIASES.get(name, name))
    if target is not None:
        return _imported(target)
    from builda.cli.core import hints

    near = hints.nearest(name, members)
    hint = f"did you mean {group} {near}?" if near else f"builda {group} --help lists the commands"
    raise InvalidValue(f"unknown command: {group} {name}", hint=hint)


def every_verb() -> Iterator[str]:
    """All verbs, those of groups in one word."""
    yield from VERBS
    for group, members in GROUPS.items():
        yield from (f"{group}-{name}" for name in members.verbs)


def _imported(target: str) -> Verb:
    module, _, attribute = target.partition(":")
    # importlib's function would load `warnings`, which takes half a millisecond of every command
    verb: Verb = getattr(__import__(f"builda.cli.verbs.{module}", fromlist=[attribute]), attribute)
    return verb
