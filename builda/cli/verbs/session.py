"""`session`: a script under one lease."""

from __future__ import annotations

import os
from contextlib import suppress

from builda.cli.building import clusteroptions
from builda.cli.core.options import argument, switch, text
from builda.cli.core.settings import for_session
from builda.cli.core.verb import verb
from builda.cli.verbs import scriptcache
from builda.errors import BuildaError, CommandFailed, InvalidValue, NotFound, of_system
from builda.events import Warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from builda.cli.core.verbsession import Session
    from builda.session.cachechoice import SessionCache
    from builda.session.lease import Lease
    from builda.session.pushes import Push
    from builda.session.supervisor import Supervisor
    from builda.session.trace import Wanted


@verb(
    argument("command", nargs=-1),
    switch("--keep", help="Leave working containers and images that the script did not remove."),
    switch("--keep-failed", help="If the script fails, leave the containers whose last step failed, for builda debug."),
    switch("--no-transaction", help="Change each name, and push, at once, whether the script fails or not."),
    switch("--no-cache", help="Perform every step."),
    switch("--trace-inputs", help="Warn of files that the script reads itself, which no step's key has."),
    scriptcache.PLACES,
    text("--authfile", metavar="FILE", help="Take credentials for the caches from this file."),
    switch("--tls-verify", default=None, is_on=True, help="Require HTTPS with a valid certificate for the caches."),
    text("--trace", metavar="FILE", help="Write what its commands took; as JSON to FILE.json, as a page to FILE.html."),
    text("--report", metavar="FILE", help="Write a page: times, what each command printed, layers of the images."),
    clusteroptions.OF_SESSION,
    checks_order=False,
    example="builda session ./build.sh 1.2",
)
def session(
    session: Session,
    *,
    command: tuple[str, ...],
    keep: bool,
    keep_failed: bool,
    no_transaction: bool,
    trace: str | None,
    report: str | None,
    trace_inputs: bool,
    **caching: Any,
) -> None:
    """Run a script whose working containers and mounts end with it, and whose names count only if it succeeds.

    Names that the script gives to images or takes off are seen by other commands when it has ended with status 0, all
    at the same moment; its pushes to registries are performed right before. If it fails names stay as they were, and
    nothing is pushed.

    However the script ends, everything that it made is removed: working containers, mounts, and images that have no
    name. If builda itself is killed, the next builda command does it. Processes that the script leaves running are
    ended. Without root, the script runs as root of a user namespace, so that it can write below `builda mount`.

    Steps of its working containers are looked up, and their results remembered, as a build does it.

    Without COMMAND the script is the shell that SHELL names, which looks up nothing unless an option about the cache is
    given. The exit status is the script's.

    With --on the script and its directory go to a pod of a cluster, and the session is there (docs/cluster.md).
    """
    on = clusteroptions.cluster_for_session(session.environ, caching)
    if on is not None:
        from builda.cli.jobs import clustersession

        values = {"keep": keep, "keep_failed": keep_failed, "no_transaction": no_transaction, "trace": trace}
        clustersession.session_on(
            session, command, {**values, "report": report, "trace_inputs": trace_inputs, **caching}, on
        )
        return
    clusteroptions.drop(caching, clusteroptions.OF_SESSION, is_used=False)
    if trace_inputs:
        from builda.cli.verbs import scriptinputs

        scriptinputs.warn(session, command)
    files = {**({trace: _form_of(trace)} if trace else {}), **({report: "html"} if report else {})}
    run_session(
        session,
        command,
        keep=keep,
        keep_failed=keep_failed,
        no_transaction=no_transaction,
        files=files,
        caching=caching,
    )


def _form_of(path: str) -> str:
    from builda.cli.verbs.tracing import form_of

    return form_of(path)


def run_session(
    session: Session,
    command: tuple[str, ...],
    *,
    keep: bool,
    no_transaction: bool,
    files: dict[str, str],
    keep_failed: bool = False,
    caching: Mapping[str, Any] = scriptcache.NOTHING_SAID,
) -> None:
    """Run a script in a session, and write its trace to `files`, each with its form. SystemExit if the script fails.

    `caching` are the values of the options about the cache.
    """
    from builda.session.supervisor import Supervisor

    args = command[1:] if command[:1] == ("--",) else command
    shell = session.environ.get("SHELL")
    if not args and not shell:
        raise CommandFailed("no command was given, and SHELL is not set", status=1)
    script = args or (str(shell),)
    supervisor = Supervisor()
    if session.is_joined:
        said = {
            "--keep": keep,
            "--keep-failed": keep_failed,
            "--no-transaction": no_transaction,
            "a trace or report": bool(files),
            "a cache": any(caching.values()),
        }
        if option := next((name for name, is_said in said.items() if is_said), None):
            raise InvalidValue(f"{option} belongs on the outer session, which this one is part of")
        status = supervisor.run(script, session.environ)
    else:
        status = _run(
            session,
            supervisor,
            script,
            keep=keep,
            keeps_failed=keep_failed,
            transaction=not no_transaction,
            wanted=_wanted(script, files),
            cache=scriptcache.for_session(caching) if args or any(caching.values()) else None,
        )
    if status:
        raise SystemExit(status)


def _wanted(script: tuple[str, ...], files: dict[str, str]) -> Wanted | None:
    if not files:
        return None
    from builda.cli.verbs import tracing

    return tracing.wanted(script, files)


def _run(
    session: Session,
    supervisor: Supervisor,
    script: tuple[str, ...],
    *,
    keep: bool,
    keeps_failed: bool,
    transaction: bool,
    wanted: Wanted | None,
    cache: SessionCache | None,
) -> int:
    """Run the script in a session of its own; its exit status."""
    from builda.cli.main import performed
    from builda.host.modes import move
    from builda.session import cachechoice, lease, program, pushes
    from builda.session.server import Server

    if session.mode.mounts_stay:
        move(session.settings.runroot, lease.own_mounts)
    with lease.held(session.store, transaction=transaction, keeps_failed=keeps_failed) as held:
        session.store.lease()  # within, as the end of a killed session is what removes leases of killed processes
        told = _begin_trace(held, wanted)
        ended = 125
        environ = {**session.environ, **for_session(session.settings, session.mode), lease.VARIABLE: held.place}
        if cache is not None:
            cachechoice.tell(held.place, cache)
        programs = program.install(held.place, environ.get("PATH"))
        if programs is not None:
            environ["PATH"] = f"{programs}:{environ.get('PATH', os.defpath)}"
        try:
            server = Server(held.place, program.code_name(), performed, told=told, rehearse=_rehearse)
            status = supervisor.run(script, environ, server)
            _end_others(session, supervisor)
            if status == 0:
                _push_steps(session, held.id, cache)
                _push(supervisor, pushes.noted(held.place))
                lease.publish(session.store, held)
            elif names := lease.changed_names(session.store, held):
                session.emit(Warned(message=f"the script failed, so these names stay as they were: {' '.join(names)}"))
            ended = status
            if status and keeps_failed:
                _keep_failed(session, held)
            return status
        finally:
            _end_others(session, supervisor)
            try:
                if wanted is not None:
                    _write_trace(session, held, ended, wanted)
            finally:
                for error in lease.end(session.store, held, keep=keep):
                    session.emit(Warned(message=str(error), hint=error.hint))


def _rehearse() -> None:
    from builda.containerfile import rehearse

    rehearse()


def _begin_trace(held: Lease, wanted: Wanted | None) -> Callable[[int, int], None] | None:
    """Begin a trace of the session, if `wanted`; a function to call with the pid and status of each ended command."""
    if wanted is None:
        return None
    from functools import partial

    from builda.session import trace

    trace.begin(held.place, wanted)
    return partial(trace.note_end, held.place)


def _write_trace(session: Session, held: Lease, status: int, wanted: Wanted) -> None:
    """Write the trace; a warning if that fails, as the names of the script count by now."""
    from builda.cli.verbs import tracing
    from builda.session import lease

    try:
        names = lease.changed_names(session.store, held) if status == 0 else ()
        images = tracing.images_of(session.builder.context, names, wanted)
        tracing.write(held.place, status, asked=wanted, images=images)
    except (BuildaError, OSError) as error:
        said = error if isinstance(error, BuildaError) else of_system(error)
        session.emit(Warned(message=f"the trace cannot be written: {said}", hint=said.hint))


def _keep_failed(session: Session, held: Lease) -> None:
    """Keep the containers whose last step failed, and say how to look into them."""
    from builda.session import lease

    for name in lease.keep_failed(session.store, held):
        message = f"the script failed, and the container of a failed step is kept as {name}"
        session.emit(
            Warned(message=message, hint=f"builda debug {name} opens a shell in it, builda rm {name} removes it")
        )


def _push_steps(session: Session, name: str, cache: SessionCache | None) -> None:
    """Push the steps of the working containers that the script leaves to the caches that they name."""
    if cache is None:
        return
    from builda.store import sessions

    for container_id in sessions.notes(session.store.layout, name, "containers"):
        with suppress(NotFound):  # the script removed it
            scriptcache.push(session, session.store.containers.load(container_id))


def _push(supervisor: Supervisor, noted: Sequence[Push]) -> None:
    """Perform the pushes that the script asked for; CommandFailed says which were done if one fails."""
    from builda.cli.main import performed
    from builda.session import pushes

    for number, push in enumerate(noted):
        status = supervisor.follow(pushes.start(push, performed))
        if status:
            done = ", ".join(push.destination for push in noted[:number]) or "none"
            left = ", ".join(push.destination for push in noted[number + 1 :]) or "none"
            raise CommandFailed(
                f"the session's push failed, so no name was changed: {push.destination}; "
                f"pushed before it: {done}; not tried: {left}",
                status=125,
                hint="what was pushed stays in its registry; run the script again",
            )


def _end_others(session: Session, supervisor: Supervisor) -> None:
    """End what the script left running, and let nothing but SIGKILL keep this process from what remains to be done."""
    supervisor.ignore_signals()
    if left := supervisor.end_others():
        session.emit(Warned(message=f"the script left processes running, which were ended: {', '.join(left)}"))
