"""`run`: a command in a working container."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from builda.cli.building import lockfiles
from builda.cli.core import shared_options
from builda.cli.core.options import argument, listed, many, switch, text
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.verbs import scriptcache
from builda.cli.verbs.failing import noting
from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.imageoptions import Inputs
    from builda.cli.core.verbsession import Session
    from builda.plan import RunMount
    from builda.store.containers import WorkingContainer


@verb(
    argument("container", complete=complete.containers),
    argument("command", nargs=-1),
    many("--env", "-e", metavar="NAME[=VALUE]", help="Set a variable; NAME alone, NAME* and * copy from the caller's."),
    text("--user", metavar="USER[:GROUP]", help="Run as this user."),
    text("--workingdir", metavar="PATH", help="Run in this directory."),
    many("--mount", metavar="type=…,…", help="Mount a bind, cache, tmpfs, secret or ssh agent."),
    text("--contextdir", metavar="DIR", help="Sources of bind mounts start here and never leave it."),
    many("--build-context", metavar="NAME=DIR", help="Give a directory a name, for from=NAME in --mount."),
    many("--secret", metavar="id=ID[,src=FILE|,env=NAME]", help="A secret for --mount type=secret."),
    many("--ssh", metavar="default|ID[=SOCKET|KEY]", help="An agent, or key files for one, for --mount type=ssh."),
    text("--script", metavar="FILE|-", help="Run this file, or standard input, by the container's shell with set -eu."),
    text("--inline", metavar="TEXT", help="Make a file of this text, whose path follows the words of the command."),
    switch("--layer", help="Make a layer of what changes, as a build does; bind mounts drop what is written to them."),
    text("--created-by", metavar="TEXT", help="What the history says of the command."),
    listed("--valid-exit-codes", metavar="N,…", help="Statuses that are no failure.  [default: 0]"),
    switch("--add-history", default=None, is_on=True, help="Record the command in the history.  [env: BUILDA_HISTORY]"),
    scriptcache.OF_RUN,
    switch("--quiet", "-q", help="Do not say that the result was found in the cache."),
    shared_options.OF_RUN,
    shared_options.NAMESPACES,
    shared_options.PROCESS,
    shared_options.SECURITY,
    checks_order=False,
    example="builda run --env DEBIAN_FRONTEND=noninteractive $c -- apt-get install -y curl",
)
def run(session: Session, *, container: str, command: tuple[str, ...], **values: Any) -> None:
    """Run a command in a working container.

    The image's entrypoint and command play no part. Input and output are the command's own, and so is the exit
    status. What the command writes stays in the container; no process of it outlives the command.

    --script may stand behind the container, too: builda run $c --script - << 'END'. The script runs inside, nothing
    in it is expanded outside, and the first command that fails ends it. A script with a #! line is run as a program.
    """
    file, args = _script_file(values.pop("script"), command)
    if file is None and not args:
        raise InvalidValue("command must be specified", hint=_without_command(session, container))
    session.quiet = values.pop("quiet")
    target = session.container(container)
    command_line = _by_words(args, values.pop("inline")) if file is None else _by_script(file, args, target)
    layer, created_by = values.pop("layer"), values.pop("created_by")
    if created_by is None and (shared_options.adds_history(values.pop("add_history"), session.environ) or layer):
        created_by = f"/bin/sh -c {command_line.text}"
    with ExitStack() as stack:
        inputs = _inputs(session, values, stack, layer=layer)
        _run(session, target, command_line, inputs, created_by, values, layer=layer)


class _Command(NamedTuple):
    """A command line, to which the path of a file with `script` is appended, and its text for the history."""

    args: tuple[str, ...]
    script: bytes | None
    text: str


def _by_words(args: tuple[str, ...], inline: str | None) -> _Command:
    script = None if inline is None else inline.encode("utf-8", "surrogateescape")
    return _Command(args, script, shlex.join(args))


def _by_script(file: str, args: tuple[str, ...], container: WorkingContainer) -> _Command:
    """A script in a file, or in standard input if that is `-`. The command gets what is left of standard input."""
    if args:
        raise InvalidValue(
            f"--script stands in place of a command: {shlex.join(args)}", hint="give a script its values by --env"
        )
    from builda.inputfile import read_input

    script = read_input("/dev/stdin" if file == "-" else file, "script")
    if not script.strip():
        raise InvalidValue(f"script is empty: {'standard input' if file == '-' else file}")
    shell = (container.config.shell or ("/bin/sh",))[0]
    words = () if script.startswith(b"#!") else (shell, "-c", _STRICT)
    return _Command(words, script, script.decode("utf-8", "surrogateescape").rstrip("\n"))


_STRICT = 'set -eu; (set -o pipefail) 2>/dev/null && set -o pipefail; . "$0"'
"""The shell's own words for a script, whose path is $0: not every shell knows pipefail."""


def _script_file(option: str | None, command: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The file of --script, which may also be the first word behind the container, and the other words."""
    head, equals, value = (command[0] if command else "").partition("=")
    if option is None and head == "--script":
        if not equals and len(command) == 1:
            raise InvalidValue("option --script needs a file, or - for standard input")
        return (value, command[1:]) if equals else (command[1], command[2:])
    return option, command[1:] if command[:1] == ("--",) else command


def _without_command(session: Session, container: str) -> str:
    if session.store.containers.find(container) is not None:
        return f"as in: builda run {container} -- ls -l"
    return f"{container} stands where a container is named; does an option before it lack its value?"


def _run(
    session: Session,
    target: WorkingContainer,
    command: _Command,
    inputs: Inputs,
    created_by: str | None,
    values: dict[str, Any],
    *,
    layer: bool,
) -> None:
    from builda.plan import Run

    caching = scriptcache.caching(session, target, values)
    options = shared_options.run_options(values_without(values, "valid_exit_codes"), session.environ)
    shared_options.check_commands(options)
    step = Run(
        args=command.args,
        env=tuple(variables(values.pop("env"), session.environ)),
        user=values.pop("user"),
        working_dir=values.pop("workingdir"),
        mounts=tuple(mounts_of(session, target, values.pop("mount"), inputs)),
        script=command.script,
        created_by=None if layer else created_by,
        text=command.text,
        options=options,
    )
    valid = statuses(values["valid_exit_codes"])
    with noting(session, target, step, inputs):
        session.builder.run(
            target, step, inputs=inputs, valid_statuses=valid, copy_output=session.keeps_output, caching=caching
        )
    if layer:
        session.builder.freeze(target, created_by=created_by, background=False)


def _inputs(session: Session, values: dict[str, Any], stack: ExitStack, *, layer: bool) -> Inputs:
    from builda.builder.imageoptions import Inputs
    from builda.cli.building.secrets import agents_of, secrets_of

    return Inputs(
        context=values.pop("contextdir") or None,
        named=named_directories(values.pop("build_context")),
        secrets=secrets_of(values.pop("secret"), session.environ),
        ssh=agents_of(values.pop("ssh"), session.environ, stack),
        discard_writes=layer,
    )


def named_directories(items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    if wrong := [item for item, pair in zip(items, pairs, strict=True) if not all(pair)]:
        raise InvalidValue(f"build context is written NAME=DIR: {wrong[0]}")
    return {name: value for name, _, value in pairs}


def values_without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A copy of `values` that lacks `names`."""
    return {name: value for name, value in values.items() if name not in names}


def variables(written: Sequence[str], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Parse `--env` options: `K=V`; `K` takes the caller's variable if set, `P*` and `*` all that match."""
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
        raise InvalidValue(f"exit codes must be numbers: {','.join(written)}") from None


def mounts_of(
    session: Session, container: WorkingContainer, written: Sequence[str], inputs: Inputs
) -> Iterator[RunMount]:
    """One mount for each `--mount`; one without a type has the type of the one before it."""
    if not written:
        return
    from builda.mounts import parse_mount
    from builda.plan import FromContainer, FromImage, NamedContext, Source

    def source_of(name: str) -> Source:
        if name in inputs.named:
            return NamedContext(name)
        if session.store.containers.find(name) is not None:
            return FromContainer(name)
        return FromImage(lockfiles.image(session, name, None, inputs.access))

    kind = "bind"
    for item in written:
        types = [part[5:] for part in item.split(",") if part.startswith("type=")]
        kind = types[-1] if types else kind
        text_ = item if types else f"type={kind},{item}"
        yield parse_mount(text_, source_of, container.config.working_dir or "/")
