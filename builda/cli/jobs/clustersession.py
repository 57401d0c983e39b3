"""`session --on`: a script and its directory become a request for a pod, which runs the script in a session there."""

from __future__ import annotations

import os
import re

from builda.cli.building import clusteroptions, clusterrequest
from builda.cli.building.clusteroptions import ClusterValues
from builda.cli.jobs import clustergiven, clusternames
from builda.errors import InvalidValue, NotFound, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verbsession import Session
    from builda.cli.jobs.clustergiven import Prepared

_REFUSED = {
    "keep": "working containers and images would be in the pod's store, which ends with it; push them",
    "keep_failed": "the container would be in the pod's store, which ends with it; run the script here to look into it",
}
_SENT = ("no_transaction", "no_cache", "trace_inputs", "explain_cache")
_NAME = r"(?:[a-z0-9-]+\.[a-z0-9.-]+|localhost)(?::\d+)?/[a-z0-9][a-z0-9._/-]*|[a-z0-9.-]+:\d+/[a-z0-9][a-z0-9._/-]*"
_TEXT_LIMIT = 1 << 20


class _Script(NamedTuple):
    """The command line of the script in the pod, and the script itself if it is not in the directory that travels."""

    command: tuple[str, ...]
    sent: bytes | None


def session_on(session: Session, command: tuple[str, ...], values: dict[str, Any], on: str) -> None:
    """Run the script in the cluster, and end with its exit status."""
    from builda.cli.core.output import check_files
    from builda.cli.jobs.clusterbuild import attach, watch
    from builda.cli.jobs.clusterjob import made_for
    from builda.cli.verbs import verb_named
    from builda.cluster.connection import connect
    from builda.cluster.where import parse_where

    where = parse_where(on)
    said = ClusterValues(on, values["context_via"], values["detach"], values["attach"])
    check_files(values["report"], values["trace"])
    shown = {**clusterrequest.NO_VALUES, **values}
    if said.attach is not None:
        clusteroptions.check_attach(verb_named("session").rows, values, command)
        attach(session, connect(where, session.environ, session.warn), said.attach, shown, live=False)
        return
    for name, why in _REFUSED.items():
        if values[name]:
            raise Unsupported(f"--{name.replace('_', '-')} cannot be used with --on: {why}")
    options = clusteroptions.job_options(values, session.environ)
    prepared, name = _prepared(session, command[1:] if command[:1] == ("--",) else command, values, said)
    cluster = connect(where, session.environ, session.warn)
    job = made_for(cluster, session, options, prepared, name, ())
    watch(session, cluster, job, prepared, shown, live=False, leaves=said.detach)


def _prepared(
    session: Session, command: Sequence[str], values: Mapping[str, Any], said: ClusterValues
) -> tuple[Prepared, str]:
    """Send the directory, and put together what the pod is given; the name is that of the script."""
    from builda.cli.jobs.clustergiven import Contexts, Prepared, place_of
    from builda.cluster.objects import SCRIPT, WORK, check_size
    from builda.containerfile import find_ignore_file

    if not command:
        raise InvalidValue("no script is named, and a pod has no terminal for a shell", hint="name the script")
    directory = values["contextdir"] or "."
    if not os.path.isdir(directory):
        raise NotFound(f"no such directory for the script: {directory}")
    script = _script(command, directory)
    access = _access(values)
    place = place_of(said, values["cache_to"], ())
    contexts = Contexts(session, place, access)
    ignore_file = find_ignore_file(directory, "Containerfile")
    asked: dict[str, Any] = {"version": 1, "words": _words(values), "live": False, "script": list(script.command)}
    asked["environ"] = dict(clusterrequest.named(values["env"], session.environ))
    given = dict(clustergiven.configuration(session.settings))
    if script.sent is not None:
        given[SCRIPT] = script.sent
    names = [*clusternames.in_caches(values), *_names_in(command, directory)]
    auth = clustergiven.credentials(session, access, names if place == clustergiven.API else [place, *names])
    if auth is not None:
        given["auth.json"] = auth
    check_size(given)
    asked["contexts"] = [contexts.add(directory, None if ignore_file is None else str(ignore_file), f"{WORK}/context")]
    local = {f"{WORK}/context": os.path.abspath(directory), script.command[0]: command[0]}
    return Prepared(given, asked, local, access, tuple(contexts.streams)), os.path.basename(command[0])


def _script(command: Sequence[str], directory: str) -> _Script:
    """A script that is in the directory is run from there; one that is elsewhere is sent; a bare name is the pod's."""
    from builda.cluster.objects import SCRIPT, WORK
    from builda.inputfile import read_input

    first, *rest = command
    if "/" not in first:
        return _Script((first, *rest), None)
    if not os.path.isfile(first):
        raise NotFound(f"no such script: {first}")
    inside = os.path.relpath(os.path.realpath(first), os.path.realpath(directory))
    if not inside.startswith("../"):
        return _Script((f"./{inside}", *rest), None)
    if not os.access(first, os.X_OK):
        raise InvalidValue(f"script is not executable: {first}", hint=f"chmod +x {first}")
    return _Script((f"{WORK}/{SCRIPT}/{os.path.basename(first)}", *rest), read_input(first, "script"))


def _words(values: Mapping[str, Any]) -> list[str]:
    """The options of the session in the pod."""
    words = [f"--{name.replace('_', '-')}" for name in _SENT if values[name]]
    words += [f"--{name.replace('_', '-')}={one}" for name in ("cache_from", "cache_to") for one in values[name]]
    if values["tls_verify"] is not None:
        words.append(f"--tls-verify={'true' if values['tls_verify'] else 'false'}")
    return [*words, *clusterrequest.returned(values)]


def _access(values: Mapping[str, Any]) -> RegistryAccess:
    from builda.builder.imageoptions import RegistryAccess

    return RegistryAccess(authfile=values["authfile"], tls_verify=values["tls_verify"])


def _names_in(command: Sequence[str], directory: str) -> Iterator[str]:
    """The words of the command line, and of files that it names, that look like names of images with a registry."""
    for word in command:
        yield from re.findall(_NAME, word)
        for path in (word, os.path.join(directory, word)):
            if os.path.isfile(path) and os.path.getsize(path) < _TEXT_LIMIT:
                with open(path, encoding="utf-8", errors="replace") as file:
                    yield from dict.fromkeys(re.findall(_NAME, file.read()))
                break
