"""Checks of a plan before it is performed: can its commands run here, and does it need trees?"""

from __future__ import annotations

from builda.builder.image.pull import machine_platform
from builda.errors import BuildaError, ContainerfileError
from builda.plan import Copy, FromImage, Run
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.context import Context
    from builda.plan import Plan
    from builda.runoptions import RunOptions
    from builda.store.store import Store


def check_runs(plan: Plan) -> None:
    """ContainerfileError for the first command that is for another processor, without an emulator for it."""
    here = machine_platform()
    for index in plan.needed():
        stage = plan.stages[index]
        platform = stage.platform or here
        step = next((step for step in stage.steps if isinstance(step, Run)), None)
        if step is None or platform.architecture == here.architecture:
            continue
        from builda.linux import binfmt

        if binfmt.runs(platform.architecture, here.architecture):
            continue
        at = step.at or stage.at
        raise ContainerfileError(
            f"commands for {platform} cannot run on this machine, which is {here}",
            file="" if at is None else at.file,
            line=0 if at is None else at.line,
            hint=f"register an emulator with binfmt_misc, flag F (qemu-user-static does), or build for {here}",
        )


def check_no_runs(ctx: Context, plan: Plan) -> None:
    """ContainerfileError for the plan's first command if the store has no trees to run commands in."""
    if ctx.store.snapshots.driver.has_trees:
        return
    found = first_run(plan)
    if found is not None:
        from builda.store.drivers.lists import no_trees

        at = found.at
        lacking = ctx.store.no_run or no_trees()
        raise ContainerfileError(
            f"no command can be run here: {lacking}",
            file="" if at is None else at.file,
            line=0 if at is None else at.line,
            hint=lacking.hint,
        )


def check_networks(ctx: Context, plan: Plan, options: RunOptions) -> None:
    """ContainerfileError for the first command with a network or namespace that it cannot have here."""
    for step in _runs(plan):
        asked = step.options.over(options)
        if not (asked.network or asked.pid or asked.ipc or asked.uts or asked.cgroupns):
            continue
        from builda.builder.run.run import check_namespaces  # most plans ask for none and do without it

        try:
            check_namespaces(ctx, asked)
        except BuildaError as error:
            file, line = ("", 0) if step.at is None else (step.at.file, step.at.line)
            raise ContainerfileError(str(error), file=file, line=line, hint=error.hint) from error


def first_run(plan: Plan) -> Run | None:
    """The first command of the plan, with its place; None if there is none."""
    return next(_runs(plan), None)


def _runs(plan: Plan) -> Iterator[Run]:
    """The commands of the plan, with their places."""
    for index in plan.needed():
        stage = plan.stages[index]
        yield from (replace(step, at=step.at or stage.at) for step in stage.steps if isinstance(step, Run))


def is_unpacked(store: Store, plan: Plan) -> bool:
    """Whether the plan uses images, and all of them are unpacked already."""
    names = set()
    for index in plan.needed():
        stage = plan.stages[index]
        sources = [step.source for step in stage.steps if isinstance(step, Copy)]
        names |= {source.name for source in (stage.base, *sources) if isinstance(source, FromImage)}
    images = [store.find_image(name) for name in names]
    return bool(images) and all(
        image is not None
        and not image.is_index
        and store.snapshots.new.driver.stacks
        and store.snapshots.new.is_unpacked(image)
        for image in images
    )
