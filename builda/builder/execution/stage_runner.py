"""One stage from its FROM to its last instruction, and its image if that is kept."""

from __future__ import annotations

from builda.builder.execution.stage_start import base_text, first_tip
from builda.builder.execution.step_events import instructions
from builda.builder.execution.tip import LayerLost
from builda.errors import BuildaError, ContainerfileError, StepFailed, TreeNeeded, of_system
from builda.events import StageSaved
from builda.linux.stopping import Stopped
from builda.plan import Configure, FromStage, Run
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.execution.output_tail import Tails
    from builda.builder.execution.stage_commit import StageCommits
    from builda.builder.execution.step_events import StepEvents
    from builda.builder.execution.step_runner import StepRunner
    from builda.builder.execution.tip import Tip
    from builda.linux.stopping import Stop
    from builda.oci.digest import Digest
    from builda.plan import Plan, Stage, Step
    from builda.store.drivers import Driver


class StageRunner:
    """Performs the stages of one build, each as a whole. Threads may share it."""

    def __init__(
        self,
        ctx: Context,
        plan: Plan,
        options: ExecuteOptions,
        tips: dict[int, Tip],
        *,
        driver: Driver,
        events: StepEvents,
        steps: StepRunner,
        commits: StageCommits,
        stop: Stop,
        tails: Tails,
    ) -> None:
        """`driver` makes the snapshots of the build; each stage puts its tip into `tips` when it begins."""
        self._ctx = ctx
        self._plan = plan
        self._options = options
        self._tips = tips
        self._driver = driver
        self._events = events
        self._steps = steps
        self._commits = commits
        self._stop = stop
        self._tails = tails
        self._images: dict[int, Digest] = {}  # IDs of the stages that were made images

    def run(self, index: int) -> None:
        """Perform a stage; those that it needs are finished."""
        try:
            self._run(index, self._plan.stages[index])
        except BaseException as error:
            if not isinstance(error, TreeNeeded | LayerLost):  # after these the build begins again
                self._events.fail(index, error)
            raise
        finally:
            self._steps.leave(index)
        self._save(index)

    def _run(self, index: int, stage: Stage) -> None:
        self._events.start_stage(index)
        self._tips[index] = first_tip(self._ctx, stage, self._options, self._tips, self._driver)
        self._events.finish(index, cached=True)
        self._label(index, stage)
        mark = None  # of the instruction that has begun and not ended
        for step in stage.steps:
            if step is self._options.stops_before:
                break
            self._stop.check()
            if isinstance(step, Run) and self._options.mounts:
                step = replace(step, mounts=(*self._options.mounts, *step.mounts))
            if mark is None and (step.text or not isinstance(step, Configure)):
                mark = self._events.start_step(index, step, step.text or _following(stage.steps, step))
            found = self._step(index, step)
            self._stop.check()
            if mark is not None and found is not None:
                mark.found = found and mark.found is not False
            if mark is not None and step.text:
                self._events.finish(index, cached=bool(mark.found))
                mark = None
        self._steps.settle(index)
        if not self._options.layers and (self._is_below_another(index) or self._is_saved(index)):
            self._steps.close(index)

    def _label(self, index: int, stage: Stage) -> None:
        images = self._options.stage_images
        if images is not None and images.labelled and instructions(stage) > 1:
            from builda.builder.execution.stageimages import stage_labels

            base = base_text(self._plan, stage, self._tips, self._images)
            self._steps.run(index, stage_labels(stage.name or str(index), base))

    def _step(self, index: int, step: Step) -> bool | None:
        """Whether the step was found; None where nothing was looked up. Errors get the step's place and output."""
        try:
            return self._steps.run(index, step)
        except (BuildaError, OSError) as error:
            if self._stop.asked:  # which ended the command
                raise Stopped from error
            if isinstance(error, ContainerfileError | StepFailed):
                raise
            if isinstance(error, TreeNeeded) and self._ctx.store.snapshots.driver.has_trees:
                raise
            from builda.builder.execution.step_failure import step_failed

            cause = of_system(error) if isinstance(error, OSError) else error
            failure = step_failed(step, cause, self._tails.of(self._events.label(index)))
            if self._options.keeps_failed:
                from builda.builder.execution.step_keeping import keep_failed

                keep_failed(self._ctx, self._steps, self._events, index, step, self._options, failure)
            raise failure from error

    def _is_below_another(self, index: int) -> bool:
        bases = (self._plan.stages[other].base for other in self._plan.needed())
        return any(isinstance(base, FromStage) and base.index == index for base in bases)

    def _is_saved(self, index: int) -> bool:
        """Whether an image is made of a stage: one below the target that does something."""
        below = self._options.stage_images is not None and index != self._plan.target
        return below and instructions(self._plan.stages[index]) > 1

    def _save(self, index: int) -> None:
        """Make an image of a finished stage if --save-stages asks for it."""
        wanted = self._options.stage_images
        if wanted is None or not self._is_saved(index):
            return
        from builda.builder.execution.stageimages import stage_commit

        options = stage_commit(wanted, self._options.commit, self._tips[index].config)
        image, cached = self._commits.image_of(index, options)
        self._images[index] = image.id
        stage, name = self._events.label(index), self._plan.stages[index].name
        self._ctx.emit(StageSaved(id=image.id, digest=image.digest, cached=cached, stage=stage, stage_name=name))


def _following(steps: tuple[Step, ...], step: Step) -> str:
    """The text of the instruction that `step` is the first part of."""
    index = steps.index(step)
    return next((other.text for other in steps[index:] if other.text), "")
