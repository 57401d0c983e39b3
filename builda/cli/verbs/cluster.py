"""`cluster`: builds in a cluster as their clients and their pods see them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from builda.cli.core.options import argument, switch
from builda.cli.core.output import print_line, print_table
from builda.cli.core.verb import verb
from builda.cli.verbs import clusteroptions
from builda.errors import BuildaError, InvalidValue, NotFound, RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.cli.verbs.contexts import BuildContext
    from builda.cluster.connection import Cluster

_AGAIN = 75
"""The exit status of a pod whose build failed because a registry was away: the Job tries again."""


def _connected(session: Session, on: str | None) -> Cluster:
    from builda.cluster.connection import connect
    from builda.cluster.where import parse_where

    return connect(parse_where(on or session.environ.get("BUILDA_ON") or "kubernetes"), session.environ)


@verb(
    clusteroptions.ON,
    switch("--quiet", "-q", help="Print the names only."),
    name="cluster-ls",
    example="builda cluster ls",
)
def listing(session: Session, *, on: str | None, quiet: bool) -> None:
    """List the Jobs of builds that the namespace has: name, state, age in seconds, and what the images are called."""
    from builda.cluster import objects, state

    found = _connected(session, on).list("jobs", label_selector=objects.SELECTOR)["items"]
    if quiet:
        for job in found:
            print_line(job["metadata"]["name"])
        return
    lines = ["NAME\tSTATE\tCREATED\tIMAGES"]
    for job in found:
        ended = state.finished(job)
        about = "running" if ended is None else f"failed: {ended.reason}" if ended.failed else "done"
        about = "queued" if state.is_suspended(job) else about
        metadata = job["metadata"]
        names = (metadata.get("annotations") or {}).get("builda.io/names", "")
        lines.append(f"{metadata['name']}\t{about}\t{metadata.get('creationTimestamp', '')}\t{names}")
    print_table(lines)


@verb(
    argument("job"),
    clusteroptions.ON,
    name="cluster-logs",
    interspersed=True,
    example="builda cluster logs builda-app-1f2e3d4c",
)
def logs(session: Session, *, job: str, on: str | None) -> None:
    """Show the build of JOB from its beginning on, and follow it: as builda build --attach JOB, but with status 0."""
    from builda.cli.verbs.clusterview import show_again

    show_again(session, _connected(session, on), job)


@verb(
    argument("job", nargs=-1, required=True),
    clusteroptions.ON,
    name="cluster-rm",
    interspersed=True,
    example="builda cluster rm builda-app-1f2e3d4c",
)
def rm(session: Session, *, job: tuple[str, ...], on: str | None) -> None:
    """Delete Jobs of builds, with their pods and Secrets. A build that is under way ends."""
    from builda.cli.main import each
    from builda.cluster import objects

    cluster = _connected(session, on)

    def remove(name: str) -> None:
        labels = cluster.get("jobs", name)["metadata"].get("labels") or {}
        if any(labels.get(label) != value for label, value in objects.MANAGED.items()):
            raise InvalidValue(f"Job is not one of builda's: {name}")
        cluster.delete("jobs", name)
        print_line(name)

    each(job, remove)


@verb(
    clusteroptions.ON,
    clusteroptions.OF_JOB,
    name="cluster-check",
    example="builda cluster check",
)
def check(session: Session, *, on: str | None, **values: Any) -> None:
    """Say what the namespace allows: version, PodSecurity, and the best kind of pod, and start one to look inside.

    Without --builder-image no pod is started.
    """
    import time

    from builda.cli.core.settings import environment
    from builda.cluster import podkinds

    began = time.monotonic()
    cluster = _connected(session, on)
    version, level = cluster.version(), cluster.level(podkinds.ENFORCE)
    print_line(f"version: {version[0]}.{version[1]}")
    print_line(f"namespace: {cluster.namespace}")
    print_line(f"PodSecurity: {level or 'nothing is enforced, or the labels may not be read'}")
    kind = podkinds.best(level, version, session.settings.mode)
    print_line(f"best kind of pod: {kind.mode}")
    if values["builder_image"] is None and environment(session.environ, "BUILDA_BUILDER_IMAGE") is None:
        print_line(f"answered in {time.monotonic() - began:.2f}s; --builder-image tries a build, too")
        return
    from builda.cli.verbs.clusterjob import try_build

    steps = time.monotonic()
    try_build(session, cluster, kind, clusteroptions.job_options(values, session.environ))
    print_line(f"a build of three lines: {time.monotonic() - steps:.2f}s")


@verb(name="cluster-work", example="builda cluster work")
def work(session: Session) -> None:
    """Do, in the pod of a Job, what builda build --on asked for. Not for people."""
    from builda.cli.progress.relayedview import Relay, RelayedOutput, Unseen
    from builda.cluster.objects import FAILED, GIVEN, REQUEST

    asked = _asked(f"{GIVEN}/{REQUEST}")
    relay = session.relay = Relay(os.dup(1), live=bool(asked["live"]), platform=asked.get("platform"))
    session.watch(lambda others: Unseen())
    session.record(relay)
    sys.stdout = RelayedOutput(relay)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        _work(session, asked)
    except BuildaError as error:
        _note(error)
        if _may_pass(error):
            relay.ended(error, is_last=False)
            raise SystemExit(_AGAIN) from error
        relay.ended(error)
        raise SystemExit(FAILED) from error
    except Exception as error:
        from builda.cli.core.reports import internal

        relay.ended(internal(error, ()))
        raise SystemExit(FAILED) from error
    _note(None)
    relay.ended(None)


def _may_pass(error: BaseException) -> bool:
    """Whether a registry that was away made the build fail, if only in one of its steps."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, RegistryError):
        cause = cause.__cause__
    return cause is not None and (cause.status is None or cause.status == 429 or cause.status >= 500)


def _asked(path: str) -> dict[str, Any]:
    import json

    from builda.inputfile import read_input

    try:
        value = json.loads(read_input(path, "request"))
    except FileNotFoundError as error:
        raise NotFound(f"no request for a build is here: {path}", hint="builda build --on makes one") from error
    except ValueError as error:
        raise InvalidValue(f"request is no JSON: {path}") from error
    if not isinstance(value, dict) or value.get("version") != 1:
        raise InvalidValue(
            "request is of another version of builda", hint="the builder image and the client are to be of one version"
        )
    return value


def _work(session: Session, asked: Mapping[str, Any]) -> None:
    from builda.cli.core import shared_options
    from builda.cli.core.verb import COMPOSING
    from builda.cli.verbs import verb_named
    from builda.cluster.objects import GIVEN

    build = verb_named("build")
    values = build.read(asked["words"], {}, path="builda build").values(build.rows)
    os.environ.update({str(name): str(value) for name, value in asked["environ"].items()})
    if os.path.exists(f"{GIVEN}/auth.json"):
        os.environ["REGISTRY_AUTH_FILE"] = f"{GIVEN}/auth.json"
    with _private_keys(values):
        session.enter(composing=build.name in COMPOSING)
        session.quiet = values["quiet"]
        access = shared_options.registry_access(dict(values), session.environ)
        for one in asked["contexts"]:
            _fetch(session, one["reference"], one["into"], access)
        build.function(session, **{**values, "context": asked.get("where") or _context(asked)})


def _context(asked: Mapping[str, Any]) -> BuildContext:
    from pathlib import Path

    from builda.cli.verbs.contexts import BuildContext
    from builda.cluster.objects import GIVEN, WORK

    files = tuple((str(one["name"]), Path(GIVEN, one["key"]).read_bytes()) for one in asked["files"])
    ignore = Path(GIVEN, "ignore")
    ignore_file = None
    if ignore.exists():
        ignore_file = f"{WORK}/ignore"
        Path(ignore_file).write_bytes(ignore.read_bytes())
    context = Path(WORK, "context")
    context.mkdir(exist_ok=True)
    return BuildContext(context, files, ignore_file)


def _fetch(session: Session, reference: str, into: str, access: Any) -> None:
    from pathlib import Path

    from builda.cluster.chunks import unpack
    from builda.oci.reference import Reference

    os.mkdir(into)
    unpack(session.builder.context.remote.source(Reference.parse(reference), access), Path(into))


@contextmanager
def _private_keys(values: dict[str, Any]) -> Iterator[None]:
    """The key files of --ssh as files that only this user may read, which agents insist on."""
    import shutil
    import tempfile

    if not values["ssh"]:
        yield
        return
    with tempfile.TemporaryDirectory() as place:
        items = []
        for number, item in enumerate(values["ssh"]):
            name, _, path = item.partition("=")
            copy = f"{place}/{number}"
            with (
                open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
                open(path, "rb") as key,
            ):
                shutil.copyfileobj(key, file)
            items.append(f"{name}={copy}")
        values["ssh"] = tuple(items)
        yield


def _note(error: BuildaError | None) -> None:
    """Leave a word in the pod's status, for those who look at it with kubectl."""
    text = "built" if error is None else f"failed: {error}"
    try:
        with open("/dev/termination-log", "wb") as file:
            file.write(text.encode(errors="replace")[:2000])
    except OSError:
        pass  # a pod may have none; the log has it all
