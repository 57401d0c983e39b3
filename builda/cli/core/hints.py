"""Hints for users of other tools: the verbs of docker and podman, and names that were mistyped.

A wrong guess costs more than none, so a name has to be near.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_NEAR = 0.72
_RUNS_IMAGES = (
    "builda builds images and runs commands in working containers; podman, docker or a cluster run the result"
)
_ENGINE = "builda has no daemon, networks or volumes to look after"

VERBS: Mapping[str, str] = {
    "attach": _RUNS_IMAGES,
    "builder": "bud builds, prune removes what is remembered",
    "buildx": "bud builds, with --platform for several machines; -o says where the result goes",
    "clean": "prune removes what is not in use",
    "compose": _RUNS_IMAGES,
    "cp": "builda copy CONTAINER FILE… DESTINATION; out of a container: builda mount CONTAINER, then cp",
    "create": "builda from IMAGE makes a working container",
    "df": "builda image df shows what the store holds, builda info the room that is left",
    "diff": "builda image diff BEFORE AFTER compares two images",
    "events": "builda --events FD VERB writes what a verb does as lines of JSON",
    "exec": "builda run CONTAINER COMMAND",
    "export": "builda mount CONTAINER, then tar; or bud -o type=tar,dest=FILE",
    "history": "builda image history IMAGE",
    "import": "c=$(builda from scratch); builda add $c FILE.tar /; builda commit --rm $c NAME",
    "kill": _RUNS_IMAGES,
    "kube": _RUNS_IMAGES,
    "load": "builda image load -i FILE reads a docker-archive, an oci-archive or a layout",
    "logs": _RUNS_IMAGES,
    "container": "verbs of working containers stand alone: builda containers, rm, mount, inspect",
    "mkcw": "confidential workloads are not supported",
    "network": _ENGINE,
    "pause": _RUNS_IMAGES,
    "play": _RUNS_IMAGES,
    "pod": _RUNS_IMAGES,
    "port": _RUNS_IMAGES,
    "rebuild": "builda bud builds anew what has changed",
    "restart": _RUNS_IMAGES,
    "save": "builda image save -o FILE IMAGE writes a docker-archive; --format oci-archive another",
    "search": "builda image search HOST/WORD names repositories of a registry",
    "secret": "bud --secret id=ID,src=FILE gives one to RUN --mount=type=secret",
    "start": _RUNS_IMAGES,
    "stats": _RUNS_IMAGES,
    "stop": _RUNS_IMAGES,
    "system": "builda info, builda prune and builda doctor",
    "top": _RUNS_IMAGES,
    "unpause": _RUNS_IMAGES,
    "volume": _ENGINE,
    "wait": _RUNS_IMAGES,
}
"""Verbs of docker, podman and buildah that builda does not have, and what to do instead."""

FLAGS: Mapping[str, Mapping[str, str]] = {
    "run": {
        "-d": _RUNS_IMAGES,
        "--detach": _RUNS_IMAGES,
        "-i": "the command gets the standard input of builda anyway; -t gives it a terminal",
        "--interactive": "the command gets the standard input of builda anyway; -t gives it a terminal",
        "--name": "builda from --name NAME IMAGE names a working container; run works in one",
        "-p": _RUNS_IMAGES,
        "--publish": _RUNS_IMAGES,
        "--privileged": "give what is needed: --cap-add, --device, --security-opt",
        "--rm": "builda rm CONTAINER removes it; podman run --rm is for running images",
        "-w": "--workingdir DIR",
        "--workdir": "--workingdir DIR",
    },
    "images": {"--tree": "builda image tree IMAGE"},
    "commit": {"-m": "builda config --history-comment TEXT", "--message": "builda config --history-comment TEXT"},
    "pull": {"--all": "--all-tags"},
}
"""Flags that others have, by verb."""


def of_verb(name: str, known: Iterable[str]) -> str:
    """The way out for an unknown verb."""
    if name in VERBS:
        return VERBS[name]
    near = nearest(name, known)
    return f"did you mean {near}?" if near else "builda --help lists the commands"


def of_flag(verb: str, name: str, known: Iterable[str]) -> str | None:
    """The way out for an unknown flag; None where nothing is near."""
    said = FLAGS.get(verb, {}).get(name)
    if said is not None:
        return said
    bare = {flag.lstrip("-"): flag for flag in known if flag.startswith("--")}
    near = nearest(name.lstrip("-"), bare) if name.startswith("--") else None
    return f"did you mean {bare[near]}?" if near else None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, 1, _NEAR)), None)
