"""`run`: a command in a working container."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from builda.cli import complete, groups
from builda.cli.options import argument, listed, many, switch, text
from builda.cli.verb import verb
from builda.errors import InvalidValue

if TYPE_CHECKING:
    from builda.cli.session import Session
    from builda.plan import RunMount
    from builda.store.store import WorkingContainer


@verb(
    argument("container", complete=complete.containers),
    argument("command", nargs=-1),
    many("--env", "-e", metavar="NAME[=VALUE]", help="Set a variable; NAME alone, NAME* and * copy from the caller's."),
    text("--user", metavar="USER[:GROUP]", help="Run as this user."),
    text("--workingdir", metavar="PATH", help="Run in this directory."),
    many("--mount", metavar="type=…,…", help="Mount a bind, cache or tmpfs for the command."),
    text("--contextdir", metavar="DIR", help="Where relative sources of bind mounts start."),
    listed("--valid-exit-codes", metavar="N,…", help="Statuses that are no failure.  [default: 0]"),
    switch("--add-history", default=None, help="Record the command in the history.  [env: BUILDA_HISTORY]"),
    groups.OF_RUN,
    groups.NAMESPACES,
    groups.PROCESS,
    checks_order=False,
    example="builda run --env DEBIAN_FRONTEND=noninteractive $c -- apt-get install -y curl",
)
def run(session: Session, *, container: str, command: tuple[str, ...], **values: Any) -> None:
    """Run a command in a working container.

    The image's entrypoint and command play no part. Input and output are the command's own, and so is the exit
    status. What the command writes stays in the container; no process of it outlives the command.
    """
    from builda.builder.options import Inputs
    from builda.plan import Run

    args = command[1:] if command[:1] == ("--",) else command
    if not args:
        raise InvalidValue("command must be specified", hint=f"as in: builda run {container} -- ls -l")
    target = session.container(container)
    context = values.pop("contextdir")
    history = groups.adds_history(values.pop("add_history"), session.environ)
    step = Run(
        args=args,
        env=tuple(variables(values.pop("env"), session.environ)),
        user=values.pop("user"),
        working_dir=values.pop("workingdir"),
        mounts=tuple(_mounts(session, target, values.pop("mount"))),
        created_by=f"/bin/sh -c {shlex.join(args)}" if history else None,
        text=shlex.join(args),
        options=groups.run_options(values_without(values, "valid_exit_codes"), session.environ),
    )
    valid = statuses(values["valid_exit_codes"])
    session.builder.run(target, step, inputs=Inputs(context=_path(context)), valid_statuses=valid)


def values_without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A copy of `values` that lacks `names`."""
    return {name: value for name, value in values.items() if name not in names}


def variables(written: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The variables that `--env` options mean: `K=V`, `K` of the caller's when set, `P*` and `*` all that match."""
    for item in written:
        name, equals, value = item.partition("=")
        if not name:
            raise InvalidValue(f"variable has no name: {item!r}")
        if equals:
            yield name, value
        elif name.endswith("*"):
            yield from ((key, environ[key]) for key in sorted(environ) if key.startswith(name[:-1]))
        elif name in environ:
            yield name, environ[name]


def statuses(written: Sequence[str]) -> frozenset[int]:
    """The exit statuses of --valid-exit-codes; 0 when none is written."""
    try:
        return frozenset(int(item) for item in written) if written else frozenset({0})
    except ValueError:
        raise InvalidValue(f"exit codes are numbers: {','.join(written)}") from None


def _mounts(session: Session, container: WorkingContainer, written: Sequence[str]) -> Iterator[RunMount]:
    """One mount for each `--mount`; one without a type has the type of the one before it."""
    if not written:
        return
    from builda.mounts import parse_mount
    from builda.plan import FromContainer, FromImage, Source

    def source_of(name: str) -> Source:
        return FromContainer(name) if session.store.find_container(name) is not None else FromImage(name)

    kind = "bind"
    for item in written:
        types = [part[5:] for part in item.split(",") if part.startswith("type=")]
        kind = types[-1] if types else kind
        if kind not in ("bind", "cache", "tmpfs"):
            raise InvalidValue(f"unsupported mount type {kind!r}: {item}", hint="run takes bind, cache and tmpfs")
        text_ = item if types else f"type={kind},{item}"
        yield parse_mount(text_, source_of, container.config.working_dir or "/")


def _path(text_: str | None) -> Any:
    from pathlib import Path

    return None if text_ is None else Path(text_)
