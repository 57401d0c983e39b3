"""A shell or a command in the container of a failed step, with what the step's command had.

What it writes stays in the container, and reaches no cache, build context or image.
"""

from __future__ import annotations

import os

from builda.builder.run import command
from builda.builder.run.run import SUCCESS, run
from builda.errors import CommandFailed, InvalidValue, NotFound
from builda.events import Warned
from builda.plan import Context as BuildContext
from builda.plan import FromContainer, NamedContext, RunOptions
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.context import Context
    from builda.builder.debug.keptstep import KeptStep
    from builda.builder.imageoptions import Inputs
    from builda.builder.run.command import Surroundings
    from builda.plan import Run, RunMount
    from builda.store.containers import WorkingContainer

_PLACE = "/run/.builda-shell"
"""The directory inside where a shell of this machine is mounted."""
_MANY_IN_ONE = ("busybox", "toybox")


class Look(NamedTuple):
    """What to run in a failed step: a command, or a shell if `args` is empty."""

    args: tuple[str, ...] = ()
    shell: str | None = None  # a program of this machine, instead of the container's shell


def look(
    ctx: Context, container: WorkingContainer, step: Run, inputs: Inputs, around: Surroundings, wanted: Look
) -> int:
    """Run the command or shell with what the step's command had; its exit status.

    CommandFailed if there is no such program in the container.
    """
    args = wanted.args or _shell(container, wanted.shell)
    volumes = () if wanted.shell is None else (f"{os.path.realpath(wanted.shell)}:{_inside(wanted.shell)}:ro",)
    options = replace(step.options, terminal=None if wanted.args else True)
    looking = replace(
        step,
        args=args,
        script=None,
        stdin=None,
        created_by=None,
        mounts=tuple(map(_unlocked, step.mounts)),
        options=RunOptions(volumes=volumes).over(options),
    )
    try:
        run(ctx, container, looking, replace(inputs, keeps_caches=False), SUCCESS, around)
    except CommandFailed as error:
        if error.names_command:  # it ran
            return error.status
        raise CommandFailed(str(error), status=error.status, hint=_way_out(wanted)) from error
    return 0


def check_shell(path: str) -> None:
    """NotFound or InvalidValue for a program that `--shell` cannot bring into a container."""
    if not os.path.isfile(path):
        raise NotFound(f"no such program on this machine: {path}")
    if not os.access(path, os.X_OK):
        raise InvalidValue(f"not an executable file: {path}")
    if ":" in os.path.realpath(path):
        raise InvalidValue(f"a path with a colon cannot be mounted: {path}", hint="copy the program elsewhere")


def _shell(container: WorkingContainer, own: str | None) -> tuple[str, ...]:
    if own is None:
        return ((container.config.shell or ("/bin/sh",))[0],)
    inside = _inside(own)
    return (inside, "sh") if os.path.basename(inside).startswith(_MANY_IN_ONE) else (inside,)


def _inside(path: str) -> str:
    return f"{_PLACE}/{os.path.basename(path)}"


def _way_out(wanted: Look) -> str | None:
    if wanted.args:
        return None
    if wanted.shell is None:
        return "--shell FILE brings a shell of this machine that needs no libraries, as a static /bin/busybox"
    return "the shell may need libraries that the container lacks: name one that is linked statically"


def _unlocked(mount: RunMount) -> RunMount:
    """A cache mount without its lock, so that no build has to wait for the shell to end."""
    return replace(mount, sharing="shared") if mount.type == "cache" else mount


def available(ctx: Context, kept: KeptStep, inputs: Inputs) -> Run:
    """The Run of the step without mounts that are not available here. Warns of each."""
    mounts = []
    for mount in kept.run.mounts:
        lacking = _lacking(ctx, mount, inputs)
        if lacking is None:
            mounts.append(mount)
        else:
            ctx.emit(Warned(message=f"the shell does without {lacking[0]}", hint=lacking[1]))
    return replace(kept.run, mounts=tuple(mounts))


def _lacking(ctx: Context, mount: RunMount, inputs: Inputs) -> tuple[str, str] | None:
    """The missing source of a mount in words, and a hint how to give it; None if the mount can be made."""
    if mount.type == "secret" and mount.id not in inputs.secrets:
        return f"the secret {mount.id}, which is not kept with a step", f"give it by --secret id={mount.id},src=FILE"
    if mount.type == "ssh" and (mount.id or "default") not in inputs.ssh:
        return f"the ssh agent {mount.id or 'default'}", f"give it by --ssh {mount.id or 'default'}"
    if mount.type != "bind":
        return None
    match mount.from_:
        case BuildContext() if not _is_there(inputs.context, mount.source):
            return f"the build context at {mount.target}", "give it by --contextdir DIR"
        case NamedContext(name) if not _is_there(inputs.named.get(name, ""), mount.source):
            return f"the build context {name} at {mount.target}", f"give it by --build-context {name}=DIR"
        case FromContainer(name) if ctx.store.containers.find(name) is None:
            return f"the stage at {mount.target}, whose container was removed", "build again, up to this step: --step"
    return None


def _is_there(context: object, source: str) -> bool:
    if context is None:  # a script's: the source is a path of this machine
        return os.path.exists(source)
    return os.path.isdir(str(context))


def said_of(kept: KeptStep) -> Iterator[str]:
    """The options that the user has to give again: secrets and agents are not kept."""
    yield from (f"--secret id={name},src=FILE" for name in kept.secrets)
    yield from (f"--ssh {name}" for name in kept.agents)


def hostname_kept(container: WorkingContainer, kept: KeptStep) -> RunOptions:
    """The options by which a command of a script sees its container's name, as it did when it failed."""
    return RunOptions() if kept.in_build else RunOptions(hostname=command.hostname_of(container, RunOptions()))
