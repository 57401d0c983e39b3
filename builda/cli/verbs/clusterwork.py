"""`cluster work` and `cluster receive`: what builda does in the pod of a Job. docs/cluster.md has the whole."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager

from builda.cli.core.options import argument
from builda.cli.core.verb import verb
from builda.errors import BuildaError, InvalidValue, NotFound, RegistryError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from builda.cli.building.contexts import BuildContext, ContextAt
    from builda.cli.core.verbsession import Session
    from builda.cli.progress.relayedview import Relay

_AGAIN = 75
"""The exit status of a pod whose build failed because a registry was away: the Job tries again."""
_SILENCE = 120.0
"""Seconds without a byte of the context after which a pod gives up waiting for it: longer than clients wait for a
server that is away."""


@verb(argument("directory"), name="cluster-receive", example="builda cluster receive /builda/work/context")
def receive(session: Session, *, directory: str) -> None:
    """Take, in the pod of a Job, a context that the client sends through the API. Not for people."""
    from pathlib import Path

    from builda.cluster.chunks import receive

    receive(sys.stdin.buffer, Path(directory))


@verb(name="cluster-work", example="builda cluster work")
def work(session: Session) -> None:
    """Do, in the pod of a Job, what builda build --on asked for. Not for people."""
    from builda.cli.progress.relayedview import Relay, RelayedOutput, Unseen
    from builda.cluster.objects import GIVEN, REQUEST

    asked = _asked(f"{GIVEN}/{REQUEST}")
    if "script" in asked:
        session.relay = Relay(os.dup(1), live=bool(asked["live"]))
        _silence_stdout()
        _reported(session.relay, lambda relay: _run_script(session, asked, relay))
        return
    with _one_stream() as descriptor:
        relay = session.relay = Relay(descriptor, live=bool(asked["live"]), platform=asked.get("platform"))
        session.watch(lambda others: Unseen())
        session.record(relay)
        sys.stdout = RelayedOutput(relay)
        _silence_stdout()
        _reported(relay, lambda relay: _work(session, asked, relay))


def _silence_stdout() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


@contextmanager
def _one_stream() -> Iterator[int]:
    """A descriptor for the log. Standard error goes there, too: a child process writes all of it in whole lines.

    A node's runtime keeps two streams apart and cuts long lines (of 16 KiB with containerd, wherever it has read to
    with CRI-O), so that a line of one could come into the middle of a line of the other.
    """
    from builda.session.ledstreams import WholeLines, lead

    lines = WholeLines(1)
    led = lead(lines.wrote, lambda status: lines.end())
    descriptor = os.dup(1)
    try:
        yield descriptor
    finally:
        sys.stderr.flush()
        os.close(descriptor)
        led.end(0)


def _reported(relay: Relay, perform: Callable[[Relay], None]) -> None:
    """Perform it, and write how it ended to the log and the pod's status. SystemExit if it failed."""
    from builda.cluster.objects import FAILED

    try:
        perform(relay)
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
    from builda import jsontext
    from builda.inputfile import read_input

    try:
        value = jsontext.loads(read_input(path, "request"))
    except FileNotFoundError as error:
        raise NotFound(f"no request for a build is here: {path}", hint="builda build --on makes one") from error
    except ValueError as error:
        raise InvalidValue(f"request is not JSON: {path}") from error
    if not isinstance(value, dict) or value.get("version") != 1:
        raise InvalidValue(
            "request was made by another version of builda",
            hint="use one version in builder image and client",
        )
    return value


def _run_script(session: Session, asked: Mapping[str, Any], relay: Relay) -> None:
    """Run a script in a session; this does not return."""
    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verb import COMPOSING
    from builda.cli.jobs import clusterscript
    from builda.cli.verbs import verb_named
    from builda.cluster.objects import OUT, WORK

    verb = verb_named("session")
    values = verb.read([*asked["words"], "--on="], {}, path="builda session").values(verb.rows)
    _configure(session, asked)
    session.enter(composing=verb.name in COMPOSING)
    access = RegistryAccess(tls_verify=values["tls_verify"])
    _fetch_all(session, asked["contexts"], access)
    _place_script(asked["script"][0])
    os.makedirs(OUT, exist_ok=True)
    os.chdir(f"{WORK}/context")
    session.relay = None
    clusterscript.perform(session, relay, asked, _give_back)


def _place_script(path: str) -> None:
    """A script that came by itself becomes an executable file."""
    from pathlib import Path

    from builda.cluster.objects import GIVEN, SCRIPT

    sent, place = Path(GIVEN, SCRIPT), Path(path)
    if sent.exists():
        place.parent.mkdir(exist_ok=True)
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755), "wb") as file:
            file.write(sent.read_bytes())


def _configure(session: Session, asked: Mapping[str, Any]) -> None:
    """Set what the files and variables of the client say, for this process and for commands of a script."""
    from builda.cluster.objects import GIVEN, REGISTRIES

    os.environ.update({str(name): str(value) for name, value in asked["environ"].items()})
    conf = f"{GIVEN}/{REGISTRIES}"
    if os.path.exists(conf):
        session.settings = session.settings._replace(registries_conf=conf)
        os.environ["BUILDA_REGISTRIES_CONF"] = conf
    if os.path.exists(f"{GIVEN}/auth.json"):
        os.environ["REGISTRY_AUTH_FILE"] = f"{GIVEN}/auth.json"


def _work(session: Session, asked: Mapping[str, Any], relay: Relay) -> None:
    from builda.cli.core import shared_options
    from builda.cli.core.verb import COMPOSING
    from builda.cli.verbs import verb_named
    from builda.cluster.objects import OUT

    build = verb_named("build")
    values = build.read(asked["words"], {}, path="builda build").values(build.rows)
    _configure(session, asked)
    with _private_keys(values):
        session.enter(composing=build.name in COMPOSING)
        session.quiet = values["quiet"]
        access = shared_options.registry_access(dict(values), session.environ)
        _fetch_all(session, asked["contexts"], access)
        os.makedirs(OUT, exist_ok=True)
        try:
            build.function(session, **{**values, "context": _context(asked)})
        finally:
            _give_back(relay)


def _context(asked: Mapping[str, Any]) -> BuildContext | ContextAt:
    from pathlib import Path

    from builda.cli.building.contexts import BuildContext, ContextAt
    from builda.cluster.objects import GIVEN, WORK

    files = tuple((str(one["name"]), Path(GIVEN, one["key"]).read_bytes()) for one in asked["files"])
    if "where" in asked:
        return ContextAt(asked["where"], dict(files))
    ignore = Path(GIVEN, "ignore")
    ignore_file = None
    if ignore.exists():
        ignore_file = f"{WORK}/ignore"
        Path(ignore_file).write_bytes(ignore.read_bytes())
    context = Path(WORK, "context")
    context.mkdir(exist_ok=True)
    return BuildContext(context, files, ignore_file)


def _fetch_all(session: Session, contexts: Sequence[Mapping[str, str]], access: Any) -> None:
    """All contexts are in their places: fetched from a registry, or sent by the client, which is asked for all once."""
    from pathlib import Path

    from builda.cluster.chunks import unpack
    from builda.oci.reference import Reference

    if any("reference" not in one for one in contexts):
        assert session.relay is not None, "the pod's output is relayed"
        session.relay.awaits()
    for one in contexts:
        into = Path(one["into"])
        if "reference" in one:
            into.mkdir()
            unpack(session.builder.context.remote.source(Reference.parse(one["reference"]), access), into)
        else:
            wait_for(into, _SILENCE)


def wait_for(into: Path, silence: float) -> None:
    """Wait for a context that the client sends; NotFound if nothing of it comes for `silence` seconds."""
    from builda.cluster.chunks import is_arriving

    end = time.monotonic() + silence
    while not into.exists():
        if time.monotonic() > end and not is_arriving(into, silence) and not into.exists():
            raise NotFound(
                f"no client sent the context to the pod within {silence:.0f} s",
                hint="with --context-via api it comes from the client that began the build, which must be there when "
                "a pod is replaced; a registry (--context-via REPO) needs no client",
            )
        time.sleep(0.05)


def _give_back(relay: Relay) -> None:
    """Write the files that the client wants to the log, each by the name of its option."""
    from builda.cluster.objects import OUT

    for entry in sorted(os.scandir(OUT), key=lambda entry: entry.name):
        with open(entry.path, "rb") as file:
            relay.returns(entry.name.partition(".")[0], file.read())


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
    """Write the end of the build into the pod's status, where kubectl shows it."""
    text = "built" if error is None else f"failed: {error}"
    try:
        with open("/dev/termination-log", "wb") as file:
            file.write(text.encode(errors="replace")[:2000])
    except OSError:
        pass  # a pod may have none; the log has it all
