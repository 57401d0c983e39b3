"""Prepares the inputs of a build in a cluster: its contexts, files and credentials."""

from __future__ import annotations

import os
from contextlib import suppress

from builda.cli.building.clusteroptions import ClusterValues
from builda.cli.building.clusterrequest import REFUSED, quoted
from builda.cli.jobs import clusternames
from builda.errors import BuildaError, InvalidValue, NotFound, Unsupported, of_system
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path
    from typing import Any

    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.building.clusterrequest import Request
    from builda.cli.building.contexts import BuildContext
    from builda.cli.core.settings import Settings
    from builda.cli.core.verbsession import Session
    from builda.cluster.connection import Cluster

API = "api"
"""The value of --context-via that means the API server."""
_SENT_VARIABLES = ("BUILDA_FORMAT", "BUILDAH_FORMAT", "BUILDAH_LAYERS")


class Stream(NamedTuple):
    """A directory that goes to the pod through the API, as the text of its ignore file leaves it."""

    top: str
    ignore: str
    ignore_file: str
    into: str


class Prepared(NamedTuple):
    """The files that pods are given, the rest of the request, and what texts from the pods mean on this machine."""

    given: Mapping[str, bytes]
    asked: Mapping[str, Any]
    local: Mapping[str, str]
    access: RegistryAccess
    streams: tuple[Stream, ...] = ()


class _Directory(NamedTuple):
    """A directory of this machine that pods are to have as `into`, without what its ignore file names."""

    path: str | Path
    ignore_file: str | None
    into: str


class Contexts:
    """The contexts of a build: sent to a repository, or noted for the API (`place` is `api`)."""

    def __init__(
        self, session: Session, place: str, access: RegistryAccess, sent: dict[object, dict[str, str]] | None = None
    ) -> None:
        """`sent` has what other builds of this command line have sent, and gets what is sent now."""
        self._sent = {} if sent is None else sent
        self._session = session
        self._place = place
        self._access = access
        self.streams: list[Stream] = []

    def add(self, directory: object, ignore_file: str | None, into: str) -> dict[str, str]:
        """What the pod is told of a directory that it is to have as `into`."""
        from builda.inputfile import read_input

        top = os.path.abspath(str(directory))
        text = "" if ignore_file is None else read_input(ignore_file, "ignore file").decode(errors="surrogateescape")
        stream = Stream(top, text, ignore_file or "", into)
        if self._place != API:
            if (self._place, stream) not in self._sent:
                self._sent[self._place, stream] = _send(self._session, stream, self._place, self._access)
            return self._sent[self._place, stream]
        self.streams.append(stream)
        return {"into": into}


def feeder(session: Session, cluster: Cluster, streams: Sequence[Stream]) -> Callable[[str], None] | None:
    """A function that sends the contexts to a pod by name, again after a broken connection; None without contexts."""
    if not streams:
        return None

    def feed(pod: str) -> None:
        for stream in streams:
            _feed(session, cluster, pod, stream)

    return feed


def _feed(session: Session, cluster: Cluster, pod: str, stream: Stream) -> None:
    """Send a context, again and again while the connection breaks or the server is away.

    Nothing is sent to a pod that ended: the one that replaces it asks again. JobFailed if the pod cannot have it.
    """
    import time

    from builda.cluster.connection import AWAY, Away
    from builda.cluster.follow import JobFailed
    from builda.cluster.objects import CONTAINER

    end, pause = 0.0, 0.2
    while True:
        began, asked = time.monotonic(), 0.0
        try:
            cluster.feed(pod, CONTAINER, ["builda", "cluster", "receive", stream.into], _pieces(session, stream))
        except (Away, NotFound) as error:
            if _is_over(cluster, pod):
                return
            words, asked = str(error), error.pause if isinstance(error, Away) else 0.0
        except JobFailed:
            raise
        except BuildaError as error:
            raise JobFailed(f"context cannot go to the pod through the API: {error}", hint=error.hint) from error
        else:
            return
        now = time.monotonic()
        if not end or now - began > AWAY:  # the last attempt got far
            end, pause = now + AWAY, 0.2
        session.warn(f"context did not reach pod {pod}: {words}")
        wait = max(pause, asked)
        if now + wait > end:
            raise JobFailed(f"context did not reach the pod for {AWAY:.0f} s: {words}")
        time.sleep(wait)
        pause = min(pause * 2, 5.0)


def _is_over(cluster: Cluster, pod: str) -> bool:
    """Whether a pod ended, or is not there any more."""
    from builda.cluster import state

    try:
        return state.pod_of(cluster.get("pods", pod)).ended
    except NotFound:
        return True


def _pieces(session: Session, stream: Stream) -> Iterator[bytes]:
    """The stream of a context, with its progress. JobFailed if files change meanwhile or cannot be read."""
    from builda.cluster import chunks
    from builda.cluster.follow import JobFailed
    from builda.events import BlobProgress

    never = session.store.layout.inodes()
    offset = 0
    pieces = chunks.streamed(stream.top, stream.ignore, stream.ignore_file, never, session.warn)
    while True:
        try:
            piece = next(pieces, None)
        except NotFound as error:
            raise JobFailed(str(error), hint=error.hint) from error
        except OSError as error:
            raise JobFailed(str(of_system(error))) from error
        if piece is None:
            break
        yield piece
        offset += len(piece)
        session.emit(BlobProgress(action="push", digest=None, offset=offset, total=None))
    session.emit(BlobProgress(action="push", digest=None, offset=offset, total=offset, done=True))


def prepared_for(
    session: Session,
    context: str | BuildContext | None,
    request: Request,
    values: dict[str, Any],
    said: ClusterValues,
    stack: ExitStack,
    *,
    live: bool,
    sent: dict[object, dict[str, str]] | None = None,
) -> Prepared:
    """Put together what the pod is given, and send the contexts, unless they are `sent` already."""
    from builda.cli.building.contexts import is_fetched, open_context
    from builda.cli.core import shared_options
    from builda.cluster.objects import WORK, check_size

    access = shared_options.registry_access(dict(values), session.environ)
    given, local = {**request.given, **configuration(session.settings)}, dict[str, str]()
    asked: dict[str, Any] = {"version": 1, "words": [], "live": live, "contexts": []}
    asked["environ"] = {name: session.environ[name] for name in _SENT_VARIABLES if name in session.environ}
    contexts = Contexts(session, place_of(said, values["cache_to"], request.names), access, sent)
    directories: list[_Directory] = []
    if isinstance(context, str) and is_fetched(context) and context != "-":
        _add_own_files(values, given, asked)
        asked["where"] = context
    else:
        if context is None or isinstance(context, str):
            opened = open_context(session.builder, context, values["file"], values["ignorefile"], access, stack)
        else:
            opened = context
        _add_files(opened, given, asked)
        directories.append(_Directory(opened.directory, opened.ignore_file, f"{WORK}/context"))
        if opened.ignore_file is not None:
            local[f"{WORK}/ignore"] = opened.ignore_file
    for number, item in enumerate(values["build_context"]):
        word, directory = _named(item, f"{WORK}/named-{number}")
        asked["words"].append(f"--build-context={word}")
        if directory is not None:
            directories.append(directory)
    args = clusternames.arguments_in(request.words)
    files = (data.decode(errors="replace") for key, data in given.items() if key.startswith("file-"))
    images = (name for text in files for name in clusternames.in_containerfile(text, args))
    auth = credentials(session, access, [*clusternames.in_options(values), *images])
    if auth is not None:
        given["auth.json"] = auth
    check_size(given)
    for one in directories:  # last: what is wrong with the rest is said before anything is sent
        asked["contexts"].append(contexts.add(one.path, one.ignore_file, one.into))
        local[one.into] = str(one.path)
    return Prepared(given, asked, local, access, tuple(contexts.streams))


def _named(item: str, into: str) -> tuple[str, _Directory | None]:
    """What the pod is told of a named context; if it is a directory of this machine, that, which goes to `into`.

    InvalidValue or NotFound if it is neither a directory nor what a pod can fetch.
    """
    from builda.cli.building.contexts import LAYOUT, check_directory, is_fetched, is_image, named_context

    name, value = named_context(item)
    is_layout = value.startswith(LAYOUT)
    if is_image(value) or (not is_layout and value != "-" and is_fetched(value)):
        return item, None
    place, colon, image = value.removeprefix(LAYOUT).partition(":") if is_layout else (value, "", "")
    check_directory(name, place)
    return f"{name}={LAYOUT if is_layout else ''}{into}{colon}{image}", _Directory(place, None, into)


def _add_own_files(values: Mapping[str, Any], given: dict[str, bytes], asked: dict[str, Any]) -> None:
    """Add -f and --ignorefile for a context that the pod fetches: files of the context, else of this machine."""
    from builda.cli.building.contexts import own_file

    named = ((name, own_file(name)) for name in values["file"])
    _add_named([(name, data) for name, data in named if data is not None], given, asked)
    asked["words"] += [f"--file={quoted(name)}" for name in values["file"]]
    if values["ignorefile"]:
        from builda.cluster.objects import GIVEN
        from builda.inputfile import read_input

        given["ignore"] = read_input(values["ignorefile"], "ignore file")
        asked["words"].append(f"--ignorefile={GIVEN}/ignore")


def _add_files(opened: BuildContext, given: dict[str, bytes], asked: dict[str, Any]) -> None:
    _add_named(opened.files, given, asked)
    if opened.ignore_file is not None:
        from builda.inputfile import read_input

        given["ignore"] = read_input(opened.ignore_file, "ignore file")


def configuration(settings: Settings) -> Mapping[str, bytes]:
    """The files of global options that the pod is given. Unsupported for an option that it cannot have."""
    from builda.cluster.objects import REGISTRIES
    from builda.inputfile import read_input

    for option, value in (
        ("--registries-conf-dir", settings.registries_conf_dir),
        ("--short-name-alias-conf", settings.short_name_aliases),
    ):
        if value is not None:
            raise Unsupported(f"{option} cannot be used with --on", hint="--registries-conf FILE is sent to the pod")
    if settings.registries_conf is None:
        return {}
    return {REGISTRIES: read_input(settings.registries_conf, "registries.conf")}


def repository_of(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The repository in which Jobs of one build meet; None if no registry is named."""
    via = values.get("context_via")
    said = ClusterValues("", None if via == API else via, False, None)
    try:
        return place_of(said, values["cache_to"], names)
    except InvalidValue:
        return None


def _add_named(files: Sequence[tuple[str, bytes]], given: dict[str, bytes], asked: dict[str, Any]) -> None:
    """Note Containerfiles for the pod."""
    asked["files"] = []
    for number, (name, data) in enumerate(files):
        if name.endswith(".in"):
            raise Unsupported(f"file to be preprocessed cannot be used with --on: {name}", hint=REFUSED["preprocess"])
        given[f"file-{number}"] = data
        asked["files"].append({"name": name, "key": f"file-{number}"})


def place_of(said: ClusterValues, cache_to: tuple[str, ...], names: Sequence[str]) -> str:
    """The repository that contexts go through, or API."""
    from builda.cli.building import buildcache

    if said.context_via is not None:
        return said.context_via
    caches = buildcache.places(cache_to, "--cache-to")
    if caches:
        return f"{caches[0].registry}/{caches[0].repository}"
    if names:
        from builda.oci.reference import Reference

        return Reference.parse(names[0].removeprefix("docker://")).name
    raise InvalidValue(
        "no registry is named through which the context could go to the pod",
        hint="name a cache with --cache-to, a repository with --context-via, or send it through the API server: "
        "--context-via api",
    )


def _send(session: Session, stream: Stream, place: str, access: RegistryAccess) -> dict[str, str]:
    """Send a context to a repository; what the pod is told of it."""
    import hashlib
    import socket

    from builda.cluster.sending import send
    from builda.oci.reference import Reference

    unique = hashlib.sha256(os.fsencode(f"{socket.gethostname()}\0{session.settings.uid}\0{stream.top}")).hexdigest()
    reference = Reference.parse(place)._replace(tag=f"builda-context-{unique[:16]}", digest=None)
    remote = session.builder.context.remote
    source, sink = remote.source(reference, access), remote.sink(reference, access)
    never = session.store.layout.inodes()
    sent = send(stream.top, stream.ignore, stream.ignore_file, never, source, sink, session.emit)
    return {"reference": str(reference._replace(tag=None, digest=sent.digest)), "into": stream.into}


def credentials(session: Session, access: RegistryAccess, names: Sequence[str]) -> bytes | None:
    """A file with the credentials for the registries of these images, and for no others; None without any."""
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
        for name in dict.fromkeys(names):
            with suppress(InvalidValue):  # it is no name of an image
                for place, looks in client.explained(name):
                    if looks and looks[-1].credentials is not None:
                        found[place.name] = looks[-1].credentials
    return auth_file(found) if found else None
