"""A plan as text for people: stages with their bases, and steps as primitives, each with its place."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from builda.plan import (
    Configure,
    Context,
    Copy,
    FromContainer,
    FromImage,
    FromStage,
    MakeDirectory,
    NamedContext,
    Run,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.plan import Location, Plan, Source, Stage, Step


def plan_text(plan: Plan) -> str:
    """The stages that the target needs, in the order of building, without a line break at the end."""
    return "\n".join(line for index in plan.needed() for line in _stage(plan, index))


def _stage(plan: Plan, index: int) -> Iterator[str]:
    stage = plan.stages[index]
    name = f" {stage.name}" if stage.name else ""
    target = ", the target" if index == plan.target else ""
    yield f"stage {index + 1}{name}{target}: from {_base(plan, stage)}"
    rows = [(_place(step.at), *_shown(plan, step)) for step in stage.steps]
    width = max((len(place) for place, _, _ in rows), default=0)
    for place, primitive, what in rows:
        yield f"  {place:<{width}}  {primitive:<7} {what}".rstrip()


def _base(plan: Plan, stage: Stage) -> str:
    text = "scratch"
    if isinstance(stage.base, FromStage):
        text = _stage_name(plan, stage.base.index)
    elif stage.base is not None:
        text = stage.base.name
    return f"{text} ({stage.platform})" if stage.platform is not None else text


def _stage_name(plan: Plan, index: int) -> str:
    return plan.stages[index].name or f"stage {index + 1}"


def _place(at: Location | None) -> str:
    return "" if at is None else f"{at.file}:{at.line}"


def _shown(plan: Plan, step: Step) -> tuple[str, str]:
    """A step as one line: the primitive and its arguments."""
    match step:
        case Run():
            return "run", _line(" ".join((*_mounts(plan, step), shlex.join(step.args))))
        case Copy():
            origin = _origin(plan, step.source)
            inline = [f"<<{file.name}" for file in step.inline]
            what = f"{' '.join((*step.sources, *inline))} -> {step.destination}"
            return "add" if step.extract else "copy", what if origin is None else f"{what} (from {origin})"
        case MakeDirectory():
            return "workdir", step.path
        case Configure():
            return "config", _line(step.text or ", ".join(type(edit).__name__ for edit in step.edits))


def _mounts(plan: Plan, step: Run) -> Iterator[str]:
    for mount in step.mounts:
        origin = _origin(plan, mount.from_)
        yield f"[{mount.type} {mount.target or mount.id}{f' from {origin}' if origin else ''}]"


def _origin(plan: Plan, source: Source) -> str | None:
    """The source of a step's files in words; None for the build context."""
    match source:
        case Context():
            return None
        case FromStage(index):
            return _stage_name(plan, index)
        case NamedContext(name) | FromImage(name) | FromContainer(name):
            return name


def _line(text: str) -> str:
    return " ".join(text.split())
