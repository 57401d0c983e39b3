"""What a build in a cluster is given: its contexts, which go through a registry, its files, and credentials."""

from __future__ import annotations

import os
from contextlib import suppress

from builda.cli.verbs.clusterrequest import REFUSED
from builda.errors import InvalidValue, Unsupported
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from typing import Any

    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verbsession import Session
    from builda.cli.verbs.clusteroptions import ClusterValues
    from builda.cli.verbs.clusterrequest import Request
    from builda.cli.verbs.contexts import BuildContext

_SENT_VARIABLES = ("BUILDA_FORMAT", "BUILDAH_FORMAT", "BUILDAH_LAYERS")


class Prepared(NamedTuple):
    """The files that pods are given, the rest of what they are asked, and what texts of theirs mean here."""

    given: Mapping[str, bytes]
    asked: Mapping[str, Any]
    local: Mapping[str, str]
    access: RegistryAccess


def prepared_for(
    session: Session,
    context: str | None,
    request: Request,
    values: dict[str, Any],
    said: ClusterValues,
    stack: ExitStack,
    *,
    live: bool,
) -> Prepared:
    """Send the contexts, and put together what the pod is given."""
    from builda.cli.core import shared_options
    from builda.cli.verbs.contexts import is_fetched, open_context
    from builda.cluster.objects import WORK

    access = shared_options.registry_access(dict(values), session.environ)
    given, local = dict(request.given), dict[str, str]()
    asked: dict[str, Any] = {"version": 1, "words": [], "live": live, "contexts": []}
    asked["environ"] = {name: session.environ[name] for name in _SENT_VARIABLES if name in session.environ}
    place = _place(said, values, request)
    if is_fetched(context) and context != "-":
        _check_fetched(values)
        asked["where"] = context
    else:
        opened = open_context(session.builder, context, values["file"], values["ignorefile"], access, stack)
        _add_files(opened, given, asked)
        asked["contexts"].append(_send(session, opened.directory, opened.ignore_file, place, access, f"{WORK}/context"))
        local[f"{WORK}/context"] = str(opened.directory)
        if opened.ignore_file is not None:
            local[f"{WORK}/ignore"] = opened.ignore_file
    for number, item in enumerate(values["build_context"]):
        name, _, value = item.partition("=")
        if os.path.isdir(value):
            into = f"{WORK}/named-{number}"
            asked["contexts"].append(_send(session, value, None, place, access, into))
            asked["words"].append(f"--build-context={name}={into}")
            local[into] = value
        elif value.startswith("oci-layout://") or "://" not in value:
            raise Unsupported(f"--build-context cannot be used with --on but for directories and URLs: {item}")
        else:
            asked["words"].append(f"--build-context={item}")
    auth = _credentials(session, access, [*request.names, *values["cache_to"], *values["cache_from"]], given)
    if auth is not None:
        given["auth.json"] = auth
    return Prepared(given, asked, local, access)


def _check_fetched(values: Mapping[str, Any]) -> None:
    if values["file"] or values["ignorefile"]:
        raise Unsupported("--file and --ignorefile cannot be used with --on and a context that the pod fetches")


def _add_files(opened: BuildContext, given: dict[str, bytes], asked: dict[str, Any]) -> None:
    asked["files"] = []
    for number, (name, data) in enumerate(opened.files):
        if name.endswith(".in"):
            raise Unsupported(f"file to be preprocessed cannot be used with --on: {name}", hint=REFUSED["preprocess"])
        given[f"file-{number}"] = data
        asked["files"].append({"name": name, "key": f"file-{number}"})
    if opened.ignore_file is not None:
        from builda.inputfile import read_input

        given["ignore"] = read_input(opened.ignore_file, "ignore file")


def _place(said: ClusterValues, values: Mapping[str, Any], request: Request) -> str:
    """The repository that contexts go through."""
    from builda.cli.verbs import buildcache

    if said.context_via == "api":
        raise Unsupported(
            "--context-via api is not supported: a context goes through a registry",
            hint="name a repository that you may push to and the pod may pull from",
        )
    if said.context_via is not None:
        return said.context_via
    caches = buildcache.places(values["cache_to"], "--cache-to")
    if caches:
        return f"{caches[0].registry}/{caches[0].repository}"
    if request.names:
        from builda.oci.reference import Reference

        return Reference.parse(request.names[0].removeprefix("docker://")).name
    raise InvalidValue(
        "no registry is named through which the context could go to the pod",
        hint="name the image with -t, a cache with --cache-to, or the repository itself with --context-via",
    )


def _send(
    session: Session, directory: object, ignore_file: str | None, place: str, access: RegistryAccess, into: str
) -> dict[str, str]:
    import hashlib
    import socket

    from builda.cluster.sending import send
    from builda.inputfile import read_input
    from builda.oci.reference import Reference

    top = os.path.abspath(str(directory))
    text = "" if ignore_file is None else read_input(ignore_file, "ignore file").decode(errors="surrogateescape")
    unique = hashlib.sha256(os.fsencode(f"{socket.gethostname()}\0{session.settings.uid}\0{top}")).hexdigest()[:16]
    reference = Reference.parse(place)._replace(tag=f"builda-context-{unique}", digest=None)
    remote = session.builder.context.remote
    sent = send(
        top,
        text,
        ignore_file or "",
        remote.source(reference, access),
        remote.sink(reference, access),
        session.emit,
    )
    return {"reference": str(reference._replace(tag=None, digest=sent.digest)), "into": into}


def _credentials(
    session: Session, access: RegistryAccess, names: Sequence[str], given: Mapping[str, bytes]
) -> bytes | None:
    """A file with the credentials for all registries that the build names, and no others; None without any."""
    from pathlib import Path

    from builda.registry.keyring import auth_file
    from builda.registry.registryclient import RegistryClient, RegistryOptions

    settings = session.settings
    options = RegistryOptions(
        authfile=None if access.authfile is None else Path(access.authfile),
        creds=access.creds,
        registries_conf=None if settings.registries_conf is None else Path(settings.registries_conf),
    )
    found = {}
    with RegistryClient(options, environ=session.environ, uid=settings.uid) as client:
        for name in (*map(_repository, names), *_images(given)):
            with suppress(InvalidValue):  # a variable of the Containerfile, which the pod expands
                for place, looks in client.explained(name):
                    if looks and looks[-1].credentials is not None:
                        found[place.name] = looks[-1].credentials
    return auth_file(found) if found else None


def _images(given: Mapping[str, bytes]) -> Iterator[str]:
    """The names of images in the Containerfiles."""
    import re

    for key, data in given.items():
        if key.startswith("file-"):
            text = data.decode(errors="replace")
            yield from re.findall(r"(?im)^\s*FROM\s+(?:--\S+\s+)*(\S+)", text)
            yield from re.findall(r"--from=(\S+)", text)


def _repository(text: str) -> str:
    """The name in the value of -t, --cache-to or --cache-from."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    return (fields.get("ref") or text).removeprefix("docker://")
