"""`unshare`: a command in the place where builda builds, with working containers mounted for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from builda.cli.core.options import argument, listed
from builda.cli.core.settings import for_inside
from builda.cli.core.verb import verb
from builda.errors import CommandFailed, InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

    from builda.cli.core.verbsession import Session


@verb(
    argument("command", nargs=-1),
    listed("--mount", "-m", metavar="[NAME=]CONTAINER,…", help="Mount a working container; NAME holds the path."),
    checks_order=False,
    example="""builda unshare --mount ROOT=$c -- sh -c 'cp motd "$ROOT/etc/"'""",
)
def unshare(session: Session, *, command: tuple[str, ...], mount: tuple[str, ...]) -> None:
    """Run a command where builda builds.

    As root that is here; for others it is a user namespace in which they are root, and the only place where `builda
    mount` can show them a working container. Those of --mount are mounted for the command. Without COMMAND it is the
    shell that SHELL names. Its exit status is the command's; the mounts end with it.
    """
    args = command[1:] if command[:1] == ("--",) else command
    shell = session.environ.get("SHELL")
    if not args and not shell:
        raise CommandFailed("no command was given, and SHELL is not set", status=1)
    with ExitStack() as stack:
        paths = {}
        for item in mount:
            variable, equals, name = item.partition("=")
            path = stack.enter_context(_mounted(session, name if equals else item))
            if equals:
                if not variable:
                    raise InvalidValue(f"--mount is written [NAME=]CONTAINER: {item}")
                paths[variable] = path
        _ = session.store  # made here when it is not there, so that it is this user's rather than the namespace's
        environ = {**session.environ, **for_inside(session.settings), **paths}
        status = _run(args or (str(shell),), environ)
    if status:
        raise SystemExit(status)


@contextmanager
def _mounted(session: Session, name: str) -> Iterator[str]:
    """The path of a container's root file system; unmounted again unless it was mounted before."""
    container = session.container(name)
    was_mounted = container.mount_point is not None
    path = str(session.builder.mount(container))
    try:
        yield path
    finally:
        if not was_mounted:
            session.builder.umount(session.container(container.id))


def _run(args: tuple[str, ...], environ: dict[str, str]) -> int:
    """The command's exit status, 128 + N when signal N ended it."""
    import subprocess

    isolation = {"BUILDAH_ISOLATION": "rootless", **environ}
    try:
        with subprocess.Popen(args, env=isolation) as process:
            status = _waited(process)
    except FileNotFoundError:
        raise CommandFailed(f"no such command: {args[0]}", status=127) from None
    except PermissionError:
        raise CommandFailed(f"command cannot be executed: {args[0]}", status=126) from None
    return 128 - status if status < 0 else status


def _waited(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the terminal told the command too; it decides
