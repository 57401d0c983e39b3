"""`debug`: shells in failed steps that were kept, and in builds that are stopped before a step."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from builda.cli.core import shared_options
from builda.cli.core.options import Option, argument, many, switch, text
from builda.cli.core.output import print_json, print_line, print_table, say
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.main import each
from builda.cli.verbs import build as building
from builda.errors import InvalidValue, NotFound
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from builda.builder.debug.keptstep import KeptStep
    from builda.builder.imageoptions import Inputs
    from builda.cli.core.verbsession import Session
    from builda.plan import Run
    from builda.store.containers import WorkingContainer
    from builda.store.failedsteps import FailedStep

_BUILD_NAMES = frozenset("file build_arg build_arg_file target from_ ignorefile no_cache pull platform".split())
_OF_BUILD = tuple(row for row in building.build.rows if row.name in _BUILD_NAMES)
_NONE_KEPT = "builda bud --keep-failed and builda session --keep-failed keep them"


@verb(
    argument("step", nargs=-1, complete=complete.containers),
    switch("--list", "-l", "lists", help="List the failed steps that were kept."),
    switch("--json", help="With --list: print JSON."),
    switch("--rm", help="Remove kept steps: those that are named, or with --all all of them."),
    switch("--all", "-a", "everything", help="With --rm: remove all."),
    text(
        "--step",
        "until",
        metavar="N|STAGE:N|FILE:LINE",
        help="Build up to this step of a Containerfile and stop before it. N is the number that bud prints.",
    ),
    text("--export", metavar="FILE", help="Write the state into this file instead, for builda debug FILE elsewhere."),
    text("--shell", metavar="FILE", help="Run this program of this machine as the shell, as a static /bin/busybox."),
    switch("--keep", help="Keep the container that was made for --step or of a file."),
    many("--env", "-e", metavar="NAME[=VALUE]", help="Set a variable besides those of the step."),
    text("--user", metavar="USER[:GROUP]", help="Be this user instead of the step's."),
    text("--workingdir", metavar="PATH", help="Begin in this directory instead of the step's."),
    many("--mount", metavar="type=…,…", help="Mount this besides what the step has."),
    many("--secret", metavar="id=ID[,src=FILE|,env=NAME]", help="A secret that the step asks for: none is kept."),
    many("--ssh", metavar="default|ID[=SOCKET|KEY]", help="An ssh agent that the step asks for: none is kept."),
    many("--allow", metavar="PERMISSION", help="Allow again what bud was allowed for this step."),
    text("--contextdir", metavar="DIR", help="The build context, if it is elsewhere by now."),
    many("--build-context", metavar="NAME=DIR", help="A further context of the build, if it is elsewhere by now."),
    _OF_BUILD,
    shared_options.OF_RUN,
    shared_options.NAMESPACES,
    shared_options.PROCESS,
    shared_options.SECURITY,
    shared_options.REGISTRY,
    shared_options.RETRY,
    interspersed=True,
    has_command=True,
    example="builda bud --keep-failed -t app . || builda debug -- cat /app/build.log",
)
def debug(session: Session, *, step: tuple[str, ...], **values: Any) -> None:
    """Open a shell where a step failed, with its files, variables, mounts, user and working directory.

    STEP is the container of a failed step that was kept by bud --keep-failed or session --keep-failed, by default the
    last one; or a file of --export; or any working container. With --step it is the context of a build, by default
    the current directory. `-- COMMAND` runs a command instead of a shell; without a terminal there must be one. The
    exit status is that of the shell or command.

    What the shell changes stays in the container, and is in no cache and no image. A kept step has no secrets, no ssh
    agents and nothing that --allow allowed: they are given again here.
    """
    words, command = _split(step)
    _check(words, command, values)
    if values["lists"]:
        _list(session, as_json=values["json"])
    elif values["rm"]:
        _remove(session, words, everything=values["everything"])
    else:
        with ExitStack() as stack:
            opened = _opened(session, words[0] if words else None, values, stack)
            if values["export"] is not None:
                _export(session, opened, values["export"])
            elif status := _look(session, opened, command, values, stack):
                raise SystemExit(status)


def _split(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words before `--`, and the command behind it."""
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _check(words: tuple[str, ...], command: tuple[str, ...], values: dict[str, Any]) -> None:
    """InvalidValue for a line whose parts do not go together."""
    asked = [name for name, key in (("--list", "lists"), ("--rm", "rm"), ("--export", "export")) if values[key]]
    if len(asked) > 1:
        raise InvalidValue(f"{asked[0]} cannot be used with {asked[1]}")
    if asked and command:
        raise InvalidValue(f"{asked[0]} runs no command: {command[0]}")
    if values["lists"] and words:
        raise InvalidValue(f"--list lists all of them: {words[0]}")
    if values["json"] and not values["lists"]:
        raise InvalidValue("--json goes with --list")
    if values["everything"] and not values["rm"]:
        raise InvalidValue("--all goes with --rm")
    if len(words) > 1 and not values["rm"]:
        raise InvalidValue(f"one step at a time: {words[1]}", hint="a command stands behind --")
    if values["until"] is None and (given := [name for name in sorted(_BUILD_NAMES) if values.get(name)]):
        raise InvalidValue(f"--{given[0].rstrip('_').replace('_', '-')} goes with --step")
    if asked or command:
        return
    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stdout)):
        raise InvalidValue(
            "a shell needs a terminal on standard input and output",
            hint="run a command: builda debug -- COMMAND; or take the state elsewhere: builda debug --export FILE",
        )


def _is_terminal(stream: Any) -> bool:
    return stream is not None and bool(stream.isatty())


class _Opened(NamedTuple):
    """A container to look into, and its step."""

    container: WorkingContainer
    kept: KeptStep


def _opened(session: Session, word: str | None, values: dict[str, Any], stack: ExitStack) -> _Opened:
    """The container that the line names. One made for it is removed when `stack` ends, unless --keep is given."""
    if values["until"] is not None:
        made = _built(session, word, values, stack)
        removed: Callable[[WorkingContainer], None] = session.builder.remove
    else:
        container = _last(session) if word is None else session.store.containers.find(word)
        if container is not None:
            return _Opened(container, _step_of(session, container))
        assert word is not None
        made = _read(session, word)
        removed = _remove_read(session)
    if values["keep"]:
        say(f"kept as {made.container.name}")
    else:
        stack.callback(removed, made.container)
    return made


def _remove_read(session: Session) -> Callable[[WorkingContainer], None]:
    """A function that removes a container that was made of a file, with its image."""
    from functools import partial

    from builda.builder.debug.statefile import remove

    return partial(remove, session.builder.context)


def _last(session: Session) -> WorkingContainer:
    found = [(failed.when, container) for container, failed in _kept(session)]
    if not found:
        raise NotFound("no failed step is kept", hint=_NONE_KEPT)
    return max(found, key=lambda one: one[0])[1]


def _kept(session: Session) -> Iterator[tuple[WorkingContainer, FailedStep]]:
    """The containers of failed steps, oldest first. Warns of one whose note cannot be read, and leaves it out."""
    from builda.store import failedsteps
    from builda.store.layout import Damaged

    for container in session.store.containers.iter():
        try:
            failed = failedsteps.read(session.store.layout, container.id)
        except Damaged as error:
            session.store.report(error)
            continue
        if failed is not None and failed.shown_in is None:
            yield container, failed


def _step_of(session: Session, container: WorkingContainer) -> KeptStep:
    """The step that is noted in a container; of one without a note, a step that has nothing of its own."""
    from builda.builder.debug.keptstep import KeptStep, from_json
    from builda.plan import Run
    from builda.store import failedsteps

    failed = failedsteps.read(session.store.layout, container.id)
    if failed is None or failed.shown_in is not None:
        return KeptStep(run=Run(args=()), text="", in_build=False)
    return from_json(failed.step)


def _read(session: Session, path: str) -> _Opened:
    import os

    if not os.path.exists(path):
        known = ", ".join(container.name for container, _ in _kept(session))
        hint = f"there are {known}" if known else _NONE_KEPT
        raise NotFound(f"no such failed step, working container or file: {path}", hint=hint)
    from builda.builder.debug.statefile import read

    return _Opened(*read(session.builder.context, path))


def _built(session: Session, context: str | None, values: dict[str, Any], stack: ExitStack) -> _Opened:
    """The container of a build that stopped before the step of --step."""
    from builda import containerfile

    defaults = {row.name: row.default for row in building.build.rows if isinstance(row, Option) and not row.refusal}
    of_build = {**defaults, **{name: value for name, value in values.items() if name in defaults}}
    of_build |= {"mount": (), "env": (), "report": None}
    request, options = building.prepared(session, context, of_build, stack)
    container = containerfile.stop_before(session.builder, request, options, values["until"])
    return _Opened(container, _step_of(session, container))


def _export(session: Session, opened: _Opened, path: str) -> None:
    from builda.builder.debug import statefile

    statefile.check_path(path)
    statefile.write(session.builder.context, opened.container, opened.kept, path)
    say(f"{path} has {opened.container.name}, with its files and variables; builda debug {path} opens it elsewhere")


def _look(session: Session, opened: _Opened, command: tuple[str, ...], values: dict[str, Any], stack: ExitStack) -> int:
    from builda.builder.debug.looking import Look, available, check_shell, look
    from builda.builder.run.command import surroundings

    shell = values.pop("shell")
    if shell is not None:
        if command:
            raise InvalidValue("--shell cannot be used with a command")
        check_shell(shell)
    container, kept, ctx = opened.container, opened.kept, session.builder.context
    inputs = _inputs(session, kept, values, stack)
    run = _run(session, opened, available(ctx, kept, inputs), inputs, values)
    if not command:
        _greet(opened)
    around = surroundings(ctx, capture=False, stage=None, stop=None)
    return look(ctx, container, run, inputs, around, Look(command, shell))


def _inputs(session: Session, kept: KeptStep, values: dict[str, Any], stack: ExitStack) -> Inputs:
    from builda.builder.imageoptions import Inputs
    from builda.cli.building.secrets import agents_of, secrets_of
    from builda.cli.verbs.run import named_directories

    return Inputs(
        context=values.pop("contextdir") or kept.context,
        named={**dict(kept.named), **named_directories(values.pop("build_context"))},
        secrets=secrets_of(values.pop("secret"), session.environ),
        ssh=agents_of(values.pop("ssh"), session.environ, stack),
        discard_writes=True,
        keeps_caches=False,
        access=shared_options.registry_access(values, session.environ),
    )


def _run(session: Session, opened: _Opened, run: Run, inputs: Inputs, values: dict[str, Any]) -> Run:
    """The run of the step, with what the command line adds. InvalidValue for what --allow would have to allow."""
    from builda.builder.debug.looking import hostname_kept
    from builda.cli.verbs.run import mounts_of, variables
    from builda.permissions import parse_permissions
    from builda.plan import NO_OPTIONS

    container, kept = opened
    added = (*variables(values.pop("env"), session.environ),)
    mounts = tuple(mounts_of(session, container, values.pop("mount"), inputs))
    user, directory, allowed = (values.pop(name) for name in ("user", "workingdir", "allow"))
    asked = shared_options.run_options(values, session.environ)
    shared_options.check_commands(asked)
    if values["until"] is not None:  # the build had these options, so the container has them
        asked = NO_OPTIONS
    if kept.in_build:
        default = session.builder.default_network(container.options)
        permissions = parse_permissions(allowed, container.options.network)
        permissions.check(run.options, host_is_default=default == "host")
    return replace(
        run,
        env=(*run.env, *added),
        user=user or run.user,
        working_dir=directory or run.working_dir,
        mounts=(*run.mounts, *mounts),
        options=asked.over(hostname_kept(container, kept).over(run.options)),
    )


def _greet(opened: _Opened) -> None:
    kept = opened.kept
    if kept.text:
        say(f"{kept.error}: {kept.title}" if kept.error else f"before {kept.title}")
    say(f"a shell begins in {opened.container.name}; what it changes stays there, and in no cache or image")


def _list(session: Session, *, as_json: bool) -> None:
    rows = [_facts(session, container, failed) for container, failed in _kept(session)]
    if as_json:
        print_json(rows)
        return
    import time

    from builda.cli.format.table import human_age, human_size

    lines = ["NAME\tKEPT\tSIZE\tSTEP\tERROR\t"]
    for row in rows:
        age, size = human_age(time.time() - row["when"]), human_size(row["size"])
        error = (row["error"] or "not begun").partition("\n")[0]
        lines.append(f"{row['name']}\t{age}\t{size}\t{row['title']}\t{error}\t")
    print_table(lines)


def _facts(session: Session, container: WorkingContainer, failed: FailedStep) -> dict[str, Any]:
    from builda.builder.debug.keeping import size_of
    from builda.builder.debug.keptstep import from_json

    kept = from_json(failed.step)
    return {
        "name": container.name,
        "id": container.id,
        "when": failed.when,
        "size": size_of(session.builder.context, container),
        "title": kept.title,
        "step": kept.text,
        "place": kept.place,
        "error": kept.error,
        "secrets": list(kept.secrets),
        "ssh": list(kept.agents),
    }


def _remove(session: Session, names: tuple[str, ...], *, everything: bool) -> None:
    if everything == bool(names):
        raise InvalidValue("--rm removes the steps that are named, or with --all all of them")
    known = {container.id for container, _ in _kept(session)}

    def remove(name: str) -> None:
        container = session.container(name)
        if container.id not in known:
            hint = f"builda rm {name} removes any working container"
            raise InvalidValue(f"working container is not a kept step: {name}", hint=hint)
        session.builder.remove(container)
        print_line(container.id)

    each(sorted(known) if everything else names, remove)
