"""execute: a Plan to an image, its stages and steps in order.

The cached prefix of a stage costs nothing: no container, no mount, no unpacking. At the first step that is not
remembered a working container is made on what was found, and from there each step is performed, frozen and remembered;
its layer is written and compressed on another thread while the next steps run.

`scheduler` says when a stage is performed, `stage_runner` and `step_runner` take it from step to step, `lookup` finds
steps, `perform` does what is not found, `keys` and `step_inputs` say what a result depends on, `stage_commit` makes the
image. This module chooses trees or lists, and wires them.
"""

from __future__ import annotations

from _thread import allocate_lock  # threading takes a millisecond to import

from builda.builder.execution.buildoptions import Built, ExecuteOptions
from builda.builder.execution.lookup import Lookup
from builda.builder.execution.output_tail import Tails
from builda.builder.execution.plan_needs import check_networks, check_no_runs, check_runs, first_run, is_unpacked
from builda.builder.execution.scheduler import run_stages
from builda.builder.execution.stage_commit import StageCommits
from builda.builder.execution.stage_runner import StageRunner
from builda.builder.execution.step_events import StepEvents
from builda.builder.execution.step_inputs import StepInputs
from builda.builder.execution.step_runner import StepRunner
from builda.builder.execution.tip import LayerLost
from builda.builder.execution.turns import Turns
from builda.builder.image.pull import machine_platform
from builda.errors import TreeNeeded
from builda.events import BlobProgress, Warned, WorkProgress
from builda.linux.stopping import Stop
from builda.plan import Run, stages_used
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.execution.cachefrom import ImportedSteps
    from builda.builder.execution.cacheto import Export
    from builda.builder.execution.perform import Performer
    from builda.builder.execution.tip import Tip
    from builda.events import Event
    from builda.plan import Plan
    from builda.store.containers import WorkingContainer
    from builda.store.store import Store


def execute(ctx: Context, plan: Plan, options: ExecuteOptions) -> Built:
    """Perform the plan and commit its target; StepFailed with the place of the step that fails.

    All working containers that it makes are gone afterwards, whatever happens.
    """
    check_runs(plan)
    check_no_runs(ctx, plan)
    check_networks(ctx, plan, options.run)
    if options.run.names_a_user_namespace:
        from builda.builder.run.usernamespace import checked

        checked(ctx, options.run)
    imported = _imported(ctx, plan, options)
    if not _composes(ctx, plan, options):
        if ctx.store.snapshots.memory is not None:
            ctx.emit(_kept_in_memory(ctx.store, ctx.store.snapshots.memory))
        return _try(ctx, plan, options, imported, as_list=False)
    try:
        return _try(ctx, plan, options, imported, as_list=True)
    except TreeNeeded as error:
        ctx.emit(Warned(message=f"beginning again, with the base image unpacked: {error}"))
        return _try(ctx, plan, options, imported, as_list=False)


def stop_before(ctx: Context, plan: Plan, options: ExecuteOptions) -> WorkingContainer:
    """Perform the plan up to the step that `options.stops_before` names; its container, kept as that of a failed step.

    The caller removes it. Raises what `execute` raises.
    """
    check_runs(plan)
    check_no_runs(ctx, plan)
    imported = _imported(ctx, plan, options)
    try:
        with _Execution(ctx, plan, options, imported, as_list=False, blobs=True) as work:
            return work.stop()
    except LayerLost as lost:
        ctx.emit(Warned(message=f"{lost}; going on without it"))
    with _Execution(ctx, plan, options, imported, as_list=False, blobs=False) as work:
        return work.stop()


def _composes(ctx: Context, plan: Plan, options: ExecuteOptions) -> bool:
    """Whether the build makes its layers as lists, without trees.

    It does if it runs no command, needs no file system afterwards, and trees would first have to be unpacked.
    """
    if not ctx.store.snapshots.driver.has_trees:
        return True
    if not ctx.store.snapshots.composes or options.commit.squash or first_run(plan) is not None:
        return False
    return not is_unpacked(ctx.store, plan)


def _kept_in_memory(store: Store, limit: int) -> Warned:
    return Warned(
        message=f"what this build writes is kept in memory until it ends, up to {limit >> 20} MiB, as no overlay can "
        f"be written in the store's file system: {store.root}",
        hint="a store on a volume (--root, BUILDA_ROOT) needs none; --storage-driver plain copies trees on the disk",
    )


def _try(ctx: Context, plan: Plan, options: ExecuteOptions, imported: ImportedSteps | None, *, as_list: bool) -> Built:
    try:
        return _execute(ctx, plan, options, imported, as_list=as_list, blobs=True)
    except LayerLost as lost:
        ctx.emit(Warned(message=f"{lost}; going on without it"))
        return _execute(ctx, plan, options, imported, as_list=as_list, blobs=False)


def _imported(ctx: Context, plan: Plan, options: ExecuteOptions) -> ImportedSteps | None:
    """The caches of --cache-from; None without any."""
    if not (options.cache_from and options.cache and options.layers):
        return None
    from builda.builder.execution.cachefrom import ImportedSteps

    target = _cache_target(plan, options)
    return ImportedSteps(ctx, tuple(place.reference(target) for place in options.cache_from), options.inputs.access)


def _cache_target(plan: Plan, options: ExecuteOptions) -> str:
    """The text that the tag of a cache is derived from: the platform, and the name of the target if it has one."""
    platform, name = options.pull.platform or machine_platform(), plan.stages[plan.target].name
    words = [platform.os, platform.architecture, platform.variant, name]
    return "-".join(word for word in words if word)[:100]


def _execute(
    ctx: Context,
    plan: Plan,
    options: ExecuteOptions,
    imported: ImportedSteps | None,
    *,
    as_list: bool,
    blobs: bool,
) -> Built:
    with _Execution(ctx, plan, options, imported, as_list=as_list, blobs=blobs) as work:
        return work.run()


class _Execution:
    """One build, by trees or by lists."""

    def __init__(
        self,
        ctx: Context,
        plan: Plan,
        options: ExecuteOptions,
        imported: ImportedSteps | None,
        *,
        as_list: bool,
        blobs: bool,
    ) -> None:
        """`blobs`: also use remembered layers of which there is only a blob, in this store or in a registry."""
        self._plan = plan
        self._options = options
        self._imported = imported
        self._as_list = as_list
        self._tips: dict[int, Tip] = {}
        self._stop = Stop()  # a stage failed, or a signal came: all others end at once
        self._tails = Tails(ctx.emit, hidden=options.hidden)
        self._ctx = replace(ctx, emit=self._show)
        self._lock = allocate_lock()
        self._made: Performer | None = None
        self._events = StepEvents(self._show, plan, options.platform_label)
        self._inputs = StepInputs(self._ctx, options.inputs, options.pull, self._tips)
        self._turns = Turns(ctx.store.layout.path("locks", "steps.lock"), self._stop.check, self._show)
        self._driver = (ctx.store.snapshots.lists if as_list else ctx.store.snapshots.new).driver
        self._steps = StepRunner(
            self._ctx,
            plan,
            options,
            self._tips,
            events=self._events,
            inputs=self._inputs,
            lookup=Lookup(self._ctx, imported, self._driver, options.cache_ttl, blobs=blobs, since=options.cache_since),
            performer=self._performer,
            turns=self._turns,
        )
        self._commits = StageCommits(self._ctx, plan, options, self._tips, self._performer, self._steps.is_changed)

    def __enter__(self) -> _Execution:
        self._ctx.store.lease()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        self._turns.close()
        if self._made is not None:
            self._made.close()
        self._inputs.save()

    def run(self) -> Built:
        """Perform all stages that are needed, and commit the target."""
        self._perform()
        image, cached = self._commits.target()
        return Built(
            image=image,
            cached=cached,
            stage=self._events.label(self._plan.target),
            export=self._export() if self._options.export else None,
        )

    def stop(self) -> WorkingContainer:
        """Perform all stages, the target up to a step; the container that the step would be performed in."""
        from builda.builder.execution.step_keeping import kept_step

        self._perform()
        step, target = self._options.stops_before, self._plan.target
        assert step is not None, "the caller chose one"
        if isinstance(step, Run):
            step = replace(step, mounts=(*self._options.mounts, *step.mounts))
        return self._steps.keep(target, kept_step(step, self._events.coming(target), self._options, None))

    def _perform(self) -> None:
        """Perform all stages that are needed."""
        self._events.begin()
        stages = StageRunner(
            self._ctx,
            self._plan,
            self._options,
            self._tips,
            driver=self._driver,
            events=self._events,
            steps=self._steps,
            commits=self._commits,
            stop=self._stop,
            tails=self._tails,
        )
        run_stages(
            self._plan.needed(),
            lambda index: stages_used(self._plan.stages[index]),
            stages.run,
            self._options.jobs,
            self._stop,
        )

    def _show(self, event: Event) -> None:
        """Pass an event on. Progress of a download or copy raises Stopped here if the build is to end."""
        if isinstance(event, BlobProgress | WorkProgress):
            self._stop.check()
        self._tails.show(event)

    def _performer(self) -> Performer:
        """The Performer, made at the first miss: a build that finds every step does not import it."""
        with self._lock:
            if self._made is None:
                from builda.builder.execution.perform import Performer

                self._made = Performer(
                    self._ctx,
                    self._options,
                    self._tips,
                    imported=self._imported,
                    events=self._events,
                    stop=self._stop,
                    as_list=self._as_list,
                )
            return self._made

    def _export(self) -> Export:
        """The results of all steps, for `cacheto`."""
        from builda.builder.execution.cacheto import Export
        from builda.builder.image.layers import LayerOptions

        target, how = _cache_target(self._plan, self._options), LayerOptions.of(self._options.commit)
        return Export(target, tuple(self._steps.done), how, self._imported)
