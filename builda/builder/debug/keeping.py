"""Keep the working container that a step failed in, under a name that people see, with a note of the step."""

from __future__ import annotations

import os

from builda.builder.debug.keptstep import KeptStep, to_json
from builda.builder.materialize import lasting
from builda.builder.mountpoint_cleanup import settle
from builda.builder.working_tree import occupied
from builda.errors import CommandFailed
from builda.plan import Context as BuildContext
from builda.plan import FromContainer, FromStage
from builda.store import failedsteps
from builda.store.failedsteps import PREFIX, FailedStep
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.builder.context import Context
    from builda.builder.imageoptions import Inputs
    from builda.plan import Run
    from builda.store.containers import WorkingContainer


def keep(
    ctx: Context, container: WorkingContainer, kept: KeptStep, stage: Callable[[int], WorkingContainer]
) -> WorkingContainer:
    """The container with a note of the step and a name of its own; from now on it is the user's to remove.

    `stage` gives the container of a stage that mounts of the step show; it is kept too, and removed with this one. A
    kill on the way leaves working containers that `debug --rm`, `rm` and `prune` remove.
    """
    indexes = [mount.from_.index for mount in kept.run.mounts if isinstance(mount.from_, FromStage)]
    shown = {index: _lasting(ctx, stage(index)) for index in dict.fromkeys(indexes)}
    container = _lasting(ctx, container)
    named = kept._replace(run=_of_containers(kept.run, {index: one.id for index, one in shown.items()}))
    others = tuple(one.id for one in shown.values())
    where, now = ctx.store.layout, ctx.now()
    failedsteps.write(where, container.id, FailedStep(now, to_json(named), others))
    for one in shown.values():
        failedsteps.write(where, one.id, FailedStep(now, {}, shown_in=container.id))
    renamed = ctx.store.containers.rename_freely(container, PREFIX)
    for index, one in shown.items():
        ctx.store.containers.rename_freely(one, f"{renamed.name}-stage-{index}")
    return renamed


def note(ctx: Context, container: WorkingContainer, kept: KeptStep) -> None:
    """Note the step in a container that stays what it is."""
    failedsteps.write(ctx.store.layout, container.id, FailedStep(ctx.now(), to_json(kept)))


def _lasting(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    with occupied(ctx, container) as current:
        settle(ctx, current)
        return lasting(ctx, current)


def _of_containers(run: Run, containers: dict[int, str]) -> Run:
    """The run with mounts of containers instead of stages."""
    return replace(
        run,
        mounts=tuple(
            replace(mount, from_=FromContainer(containers[mount.from_.index]))
            if isinstance(mount.from_, FromStage)
            else mount
            for mount in run.mounts
        ),
    )


def of_script(ctx: Context, run: Run, inputs: Inputs, error: Exception) -> KeptStep:
    """The note of a failed command of a script."""
    context = None if inputs.context is None else os.path.abspath(os.path.join(ctx.cwd_or_root, inputs.context))
    return KeptStep(
        run=_with_absolute_sources(run, str(ctx.cwd_or_root) if context is None else ""),
        text=run.text,
        error=error.what if isinstance(error, CommandFailed) and error.names_command else str(error),
        context=context,
        named=tuple(
            (name, os.path.abspath(os.path.join(ctx.cwd_or_root, path))) for name, path in inputs.named.items()
        ),
        in_build=False,
    )


def _with_absolute_sources(run: Run, directory: str) -> Run:
    """The run of a script, whose bind mounts may name files of this machine: from `directory`, unless that is ""."""
    return replace(
        run,
        mounts=tuple(
            replace(mount, source=os.path.join(directory, mount.source))
            if mount.type == "bind" and isinstance(mount.from_, BuildContext)
            else mount
            for mount in run.mounts
        ),
    )


def size_of(ctx: Context, container: WorkingContainer) -> int:
    """About how many bytes of disk the container's own files take: those that its last step changed."""
    from builda.store.drivers.bookkeeping import count

    snapshots = ctx.store.snapshots.kind_of(container.snapshot)
    size = snapshots.changed_size(container.snapshot)
    return count(snapshots.upper(container.snapshot))[1] if size is None else size
