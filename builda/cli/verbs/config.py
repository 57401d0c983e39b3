"""`config`: options to edits of the image configuration, in the order in which Buildah applies them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from builda.cli.core import shared_options
from builda.cli.core.options import argument, duration, listed, many, number, switch, text
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.errors import CorruptContent, InvalidValue
from builda.events import Warned
from builda.oci import edits
from builda.oci.config import Healthcheck, check_hostname
from builda.oci.document import decode_any
from builda.plan import Configure
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from builda.cli.core.verbsession import Session
    from builda.events import Emit
    from builda.oci.config import ImageConfig

Values: TypeAlias = "Mapping[str, Any]"
_VARIABLE = r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))"


class Change(NamedTuple):
    """One setting changed: the edits, and what history says of it."""

    edits: tuple[edits.ConfigEdit, ...]
    history: str
    set_annotations: Mapping[str, str] = {}
    unset_annotations: tuple[str, ...] = ()


@verb(
    argument("container", complete=complete.containers),
    text("--cmd", metavar="COMMAND", help="The default command: a JSON array, or words; empty clears it."),
    text("--entrypoint", metavar="COMMAND", help="The entrypoint: a JSON array, or a shell command; empty clears it."),
    many(
        "--env",
        "-e",
        metavar="NAME=VALUE",
        help="Set a variable; $NAME in VALUE is the container's, a bare NAME the caller's. NAME- drops it, - all.",
    ),
    many("--label", "-l", metavar="NAME[=VALUE]", help="Set a label; NAME- drops it, - all."),
    many(
        "--annotation", "-a", metavar="NAME[=VALUE]", help="Set an annotation of the manifest; NAME- drops it, - all."
    ),
    text("--workingdir", metavar="PATH", help="The directory where commands start."),
    text("--user", "-u", metavar="USER[:GROUP]", help="The user that commands run as."),
    listed("--port", "-p", metavar="N[/PROTO],…", help="Expose ports; N- hides one, - all."),
    listed("--volume", "-v", metavar="PATH,…", help="Declare volumes; PATH- removes one, - all."),
    text("--shell", metavar="COMMAND", help="The shell of shell-form instructions (docker format)."),
    text("--stop-signal", metavar="SIGNAL", help="The signal that stops a container."),
    listed("--onbuild", metavar="INSTRUCTION,…", help="Run this when the image is a base; - drops all."),
    text("--healthcheck", metavar="TEST", help="NONE, CMD … or CMD-SHELL …; empty removes it (docker format)."),
    duration("--healthcheck-interval", help="The time between two checks."),
    duration("--healthcheck-timeout", help="How long a check may take."),
    number("--healthcheck-retries", help="Failures after which a container is unhealthy."),
    duration("--healthcheck-start-period", help="The time in which failures do not count."),
    duration("--healthcheck-start-interval", help="The time between checks meanwhile."),
    text("--author", help="The author of the image."),
    text("--created-by", help="What history says of the new layer."),
    text("--comment", help="A comment on the image (docker format)."),
    text("--history-comment", help="A comment on the new history entry."),
    text("--hostname", metavar="NAME", help="The host name of containers (docker format)."),
    text("--domainname", metavar="NAME", help="The domain of containers (docker format)."),
    text("--os", help="The operating system of the image."),
    text("--arch", help="The architecture of the image."),
    text("--variant", help="The variant of the architecture."),
    text("--os-version", help="The version of the operating system (Windows)."),
    many(
        "--os-feature",
        metavar="NAME",
        help="A needed feature of the operating system (Windows); NAME- drops it, - all.",
    ),
    listed("--unsetlabel", metavar="NAME,…", help="Drop labels of the base."),
    listed("--unsetannotation", metavar="NAME,…", help="Drop annotations of the base."),
    switch("--empty-layer", help="Record the changes as one entry of the history, with the text of --created-by."),
    switch("--literal", help="Take values as they are: $ names nothing, and a - at the end drops nothing."),
    switch("--add-history", default=None, is_on=True, help="Record each change in the history.  [env: BUILDA_HISTORY]"),
    example="""builda config --entrypoint '["lua","main.lua"]' --env MODE=prod --port 8080 $c""",
)
def config(session: Session, *, container: str, **values: Any) -> None:
    """Change what the image will say of itself.

    That is its command, variables, labels, ports and so on. No file is touched, and nothing is printed. The
    entrypoint is set before the command.
    """
    target = session.container(container)
    changes = tuple(changes_of(values, target.config, session.emit))
    created_by, comment = values["created_by"], values["history_comment"]
    if values["empty_layer"]:
        shown = created_by or f"/bin/sh -c #(nop) {' '.join(change.history for change in changes)}".rstrip()
        session.builder.config(target, _configure(changes, shown, comment))
        return
    if shared_options.adds_history(values["add_history"], session.environ):
        for change in changes:
            session.builder.config(target, _configure((change,), f"/bin/sh -c #(nop) {change.history}", comment))
    elif changes:
        session.builder.config(target, _configure(changes, None, None))
    if created_by is not None or comment is not None:
        with session.store.containers.locked(target) as current:
            session.store.update(
                replace(
                    current,
                    created_by=current.created_by if created_by is None else created_by or None,
                    comment=current.comment if comment is None else comment or None,
                )
            )


def _configure(changes: tuple[Change, ...], created_by: str | None, comment: str | None) -> Configure:
    return Configure(
        edits=tuple(edit for change in changes for edit in change.edits),
        set_annotations={name: value for change in changes for name, value in change.set_annotations.items()},
        unset_annotations=tuple(name for change in changes for name in change.unset_annotations),
        created_by=created_by,
        history_comment=comment,
    )


def changes_of(values: Values, before: ImageConfig, emit: Emit) -> Iterator[Change]:
    """The changes that the options in `values` ask for; InvalidValue for what cannot mean anything."""
    yield from _texts(values, ("author", "MAINTAINER", "author"))
    yield from _platform(values, before)
    yield from _texts(values, ("user", "USER", "user"))
    if values["shell"] is not None:
        yield Change((edits.SetShell(_command(values["shell"], "--shell")),), f"SHELL {values['shell']}")
    yield from _texts(values, ("stop_signal", "STOPSIGNAL", "stop_signal"))
    literal = values.get("literal", False)
    yield from _entries(values["port"], "EXPOSE", edits.AddPort, edits.RemovePort, literal=literal)
    yield from _environment(values["env"], before, emit, literal=literal)
    yield from _entrypoint(values, before, emit)
    if values["cmd"] is not None:
        yield Change((edits.SetCmd(_command(values["cmd"], "--cmd")),), f"CMD {values['cmd']}")
    yield from _entries(values["volume"], "VOLUME", edits.AddVolume, edits.RemoveVolume, literal=literal)
    yield from _labels(values)
    check_hostname(values["hostname"] or "", "--hostname")
    yield from _texts(
        values,
        ("workingdir", "WORKDIR", "working_dir"),
        ("comment", "COMMENT", "comment"),
        ("domainname", "DOMAINNAME", "domainname"),
        ("hostname", "HOSTNAME", "hostname"),
    )
    for instruction in values["onbuild"]:
        trigger = edits.ClearOnbuild() if instruction == "-" else edits.AddOnbuild(instruction)
        yield Change((trigger,), f"ONBUILD {instruction}")
    yield from _annotations(values)
    yield from _healthcheck(values, before)


def _texts(values: Values, *fields: tuple[str, str, str]) -> Iterator[Change]:
    for option, keyword, field in fields:
        if values[option] is not None:
            yield Change((edits.SetText(field, values[option]),), f"{keyword} {values[option]}")


def _platform(values: Values, before: ImageConfig) -> Iterator[Change]:
    platform = before.platform
    names = {"os": "os", "arch": "architecture", "variant": "variant", "os_version": "os_version"}
    said = {field: values[option] for option, field in names.items() if values[option] is not None}
    if said or values["os_feature"]:
        features = _edited(platform.os_features, values["os_feature"])
        shown = " ".join([*said.values(), *values["os_feature"]])
        yield Change((edits.SetPlatform(replace(platform, **said, os_features=features)),), f"PLATFORM {shown}")


def _edited(items: tuple[str, ...], written: tuple[str, ...]) -> tuple[str, ...]:
    for item in written:
        if item == "-":
            items = ()
        elif item.endswith("-"):
            items = tuple(other for other in items if other != item[:-1])
        elif item not in items:
            items = (*items, item)
    return items


def _command(written: str, option: str) -> tuple[str, ...] | None:
    """A JSON array or shell words; None for a blank one."""
    if not written.strip():
        return None
    array = _array(written, option)
    if array is not None:
        return array
    import shlex

    try:
        return tuple(shlex.split(written))
    except ValueError as error:
        raise InvalidValue(f"{option} cannot be split into words: {written}") from error


def _array(written: str, option: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None for what is no try at one (`[ -f x ]` is a shell's)."""
    try:
        value = decode_any(written.encode(errors="surrogateescape"), option)
    except CorruptContent as error:
        if written.lstrip()[:1] == "[" and written.lstrip()[1:].lstrip()[:1] in ("'", '"'):
            raise InvalidValue(
                f"{option} is not a valid JSON array: {written}", hint="""as in '["/bin/app", "--serve"]'"""
            ) from error
        return None
    if not isinstance(value, list):
        return None
    if not all(isinstance(item, str) for item in value):
        raise InvalidValue(f"{option} is not a JSON array of strings: {written}")
    return tuple(value)


def _entrypoint(values: Values, before: ImageConfig, emit: Emit) -> Iterator[Change]:
    written = values["entrypoint"]
    if written is None:
        return
    shell = False
    args: tuple[str, ...] | None = None
    if written.strip():
        args = _array(written, "--entrypoint")
        shell = args is None
        args = args if args is not None else ("/bin/sh", "-c", written)
    if before.cmd and values["cmd"] is None and args:
        fate = (
            "ignored because the entrypoint is a shell command" if shell else "passed to the entrypoint as parameters"
        )
        emit(Warned(message=f"the command stays and will be {fate}: {' '.join(before.cmd)}", hint="--cmd '' clears it"))
    yield Change((edits.SetEntrypoint(args),), f"ENTRYPOINT {written}")


def _entries(
    written: tuple[str, ...],
    keyword: str,
    add: Callable[[str], edits.ConfigEdit],
    remove: Callable[[str | None], edits.ConfigEdit],
    *,
    literal: bool,
) -> Iterator[Change]:
    made = tuple(add(item) if literal or not item.endswith("-") else remove(item[:-1] or None) for item in written)
    if made:
        yield Change(made, f"{keyword} {' '.join(written)}")


def _environment(written: tuple[str, ...], before: ImageConfig, emit: Emit, *, literal: bool) -> Iterator[Change]:
    import os

    if not written:
        return
    known = before.environ()
    made: list[edits.ConfigEdit] = []
    for item in written:
        name, equals, value = item.partition("=")
        if not name:
            raise InvalidValue(f"variable has no name: {item!r}")
        if not equals and name.endswith("-"):
            known = {} if name == "-" else {key: text_ for key, text_ in known.items() if key != name[:-1]}
            made.append(edits.UnsetEnv(name[:-1] or None))
            continue
        if literal and equals:
            known[name] = value
        elif equals:
            known[name] = _expanded(value, known, emit)
        elif os.environ.get(name):
            known[name] = os.environ[name]
        else:
            raise InvalidValue(f"setting env {name!r}: no value given", hint=f"write {name}=, or export {name} first")
        made.append(edits.SetEnv(name, known[name]))
    yield Change(tuple(made), f"ENV {' '.join(written)}")


def _expanded(value: str, known: Mapping[str, str], emit: Emit) -> str:
    if "$" not in value:
        return value
    import re

    def found(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in known:
            emit(Warned(message=f"no such variable in the container, its name is used instead: {name}"))
        return known.get(name, name)

    return re.sub(_VARIABLE, found, value)


def _labels(values: Values) -> Iterator[Change]:
    made = tuple(_label(item) for item in values["label"]) + tuple(map(edits.UnsetLabel, values["unsetlabel"]))
    if made:
        yield Change(made, f"LABEL {' '.join([*values['label'], *(f'{name}-' for name in values['unsetlabel'])])}")


def _label(item: str) -> edits.ConfigEdit:
    name, equals, value = item.partition("=")
    if not name:
        raise InvalidValue(f"label has no name: {item!r}")
    if not equals and name.endswith("-"):
        return edits.UnsetLabel(name[:-1] or None)
    return edits.SetLabel(name, value)


def _annotations(values: Values) -> Iterator[Change]:
    given: dict[str, str] = {}
    dropped: list[str] = list(values["unsetannotation"])
    for item in values["annotation"]:
        name, equals, value = item.partition("=")
        if not equals and name.endswith("-"):
            dropped.append(name[:-1])
        elif not name:
            raise InvalidValue(f"annotation has no name: {item!r}")
        else:
            given[name] = value
    if given or dropped:
        shown = " ".join([*values["annotation"], *(f"{name}-" for name in values["unsetannotation"])])
        yield Change((), f"ANNOTATION {shown}", given, tuple(dropped))


def _healthcheck(values: Values, before: ImageConfig) -> Iterator[Change]:
    names = ("interval", "timeout", "retries", "start_period", "start_interval")
    said = {name: values[f"healthcheck_{name}"] for name in names if values[f"healthcheck_{name}"] is not None}
    test = values["healthcheck"]
    if test is None and not said:
        return
    if test is not None and not test.strip():
        yield Change((edits.SetHealthcheck(None),), "HEALTHCHECK NONE")
        return
    check = Healthcheck(test=_test(test)) if test is not None else before.healthcheck
    if check is None:
        raise InvalidValue("there is no health check to change", hint="give --healthcheck too")
    yield Change(
        (edits.SetHealthcheck(replace(check, **said)),), f"HEALTHCHECK {_health_flags(said)}{test or ''}".rstrip()
    )


def _health_flags(said: Mapping[str, int]) -> str:
    """The options as a Containerfile writes them, in Buildah's order."""
    from builda.cli.format.gofuncs import Nanoseconds

    order = ("interval", "retries", "start_period", "start_interval", "timeout")
    shown = {name: str(value) if name == "retries" else str(Nanoseconds(value)) for name, value in said.items()}
    return "".join(f"--{name.replace('_', '-')}={shown[name]} " for name in order if name in shown)


def _test(written: str) -> tuple[str, ...]:
    kind, _, rest = written.strip().partition(" ")
    if kind == "NONE" and not rest:
        return ("NONE",)
    if kind == "CMD-SHELL" and rest.strip():
        return ("CMD-SHELL", rest.strip())
    if kind == "CMD" and rest.strip():
        return ("CMD", *(_command(rest, "--healthcheck") or ()))
    raise InvalidValue(f"health check is written NONE, CMD … or CMD-SHELL …: {written}")
