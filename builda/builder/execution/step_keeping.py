"""Keep a step of a build: one that failed, or one that the build stopped before."""

from __future__ import annotations

import os

from builda.builder.debug.keeping import size_of
from builda.builder.debug.keptstep import KeptStep
from builda.builder.debug.looking import said_of
from builda.errors import BuildaError, CommandFailed, StepFailed, of_system
from builda.events import Warned
from builda.plan import Run
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.execution.buildoptions import ExecuteOptions
    from builda.builder.execution.step_events import StepEvents
    from builda.builder.execution.step_runner import StepRunner
    from builda.plan import Step
    from builda.store.containers import WorkingContainer


def keep_failed(
    ctx: Context,
    steps: StepRunner,
    events: StepEvents,
    index: int,
    step: Step,
    options: ExecuteOptions,
    failure: BuildaError,
) -> None:
    """Keep the container of a failed step, and say in the hint of its error how to look into it.

    If it cannot be kept, a warning says why, and the build ends with the step's own error.
    """
    kept = kept_step(step, events.name(index), options, _short(failure))
    try:
        made = steps.keep(index, kept)
        size = size_of(ctx, made)
    except (BuildaError, OSError) as error:
        cause = of_system(error) if isinstance(error, OSError) else error
        ctx.emit(Warned(message=f"the failed step cannot be kept: {cause}", hint=cause.hint))
        return
    failure.hint = _hint(failure.hint, made, kept)
    message = f"the failed step is kept as {made.name}, {_words(size)} upon its image; builda rm {made.name} removes it"
    ctx.emit(Warned(message=message, note=True))


def _short(failure: BuildaError) -> str:
    """The reason of the failure, without the text of the step."""
    cause = failure.cause if isinstance(failure, StepFailed) else failure
    return cause.what if isinstance(cause, CommandFailed) and cause.names_command else str(cause)


def _hint(before: str | None, container: WorkingContainer, kept: KeptStep) -> str:
    again = " ".join(("builda debug", *said_of(kept), container.name))
    known = f"{before}; " if before else ""
    return f"{known}to look at what it left: {again}"


def _words(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def kept_step(step: Step, number: str, options: ExecuteOptions, error: str | None) -> KeptStep:
    """The note of a failed step that `builda debug` reads."""
    run = step if isinstance(step, Run) else Run(args=())
    context, named = options.inputs.context, options.inputs.named
    return KeptStep(
        run=replace(run, stdin=None, script=None, created_by=None, text="", at=None),
        text=step.text,
        number=number,
        place="" if step.at is None else f"{step.at.file}:{step.at.line}",
        error=error,
        context=None if context is None else os.path.abspath(context),
        named=tuple((name, os.path.abspath(path)) for name, path in named.items()),
    )
