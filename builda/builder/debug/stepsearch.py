"""Which step of a plan a user means: by its number, with its stage, or by a line of a Containerfile. Pure."""

from __future__ import annotations

import os

from builda.errors import InvalidValue
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.plan import Location, Plan, Stage, Step

_WRITTEN = "write --step N, --step STAGE:N or --step FILE:LINE"


class _Instruction(NamedTuple):
    """An instruction below a FROM: its first step, where a build stops before it."""

    number: int  # FROM is 1
    step: Step
    text: str
    at: Location | None


def found_step(plan: Plan, where: str, lines: Mapping[str, int]) -> tuple[Plan, Step]:
    """The plan whose target is the stage of the step that `where` names, and the first step of that instruction.

    `where` is N, counted as a build prints it (FROM is 1) in the target stage; STAGE:N with the name or the number of a
    stage as --target takes it; or FILE:LINE, FILE being one of `lines`, which says how many lines each has.
    InvalidValue says what there is.
    """
    head, colon, tail = where.rpartition(":")
    if not (tail.isascii() and tail.isdecimal() and len(tail) < 10):
        raise InvalidValue(f"not a step: {where}", hint=_WRITTEN)
    number = int(tail)
    file = _file(head, lines) if colon else None
    if file is not None:
        index, step = _at_line(plan, file, number, lines[file])
    else:
        index = _stage(plan, head, where) if colon else plan.target
        step = _numbered(plan.stages[index], number)
    return replace(plan, target=index, unused=False), step


def _file(head: str, lines: Mapping[str, int]) -> str | None:
    """The file with this name, or whose path ends with it; None if there is none. An empty name means the only file."""
    if not head:
        return next(iter(lines)) if len(lines) == 1 else None
    same = [file for file in lines if file == head or os.path.normpath(file) == os.path.normpath(head)]
    alike = [file for file in lines if os.path.basename(file) == head]
    return next(iter(same or alike), None)


def _stage(plan: Plan, name: str, where: str) -> int:
    for index, stage in enumerate(plan.stages):
        if stage.name is not None and stage.name.lower() == name.lower():
            return index
    if name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < len(plan.stages):
        return int(name)
    names = ", ".join(stage.name or str(index) for index, stage in enumerate(plan.stages))
    raise InvalidValue(f"no such stage or Containerfile: {where}", hint=f"the stages are {names}; {_WRITTEN}")


def _instructions(stage: Stage) -> tuple[_Instruction, ...]:
    found: list[_Instruction] = []
    first: Step | None = None
    for step in stage.steps:
        first = first or step
        if step.text:
            found.append(_Instruction(len(found) + 2, first, step.text, step.at or first.at))
            first = None
    return tuple(found)


def _numbered(stage: Stage, number: int) -> Step:
    known = _instructions(stage)
    for one in known:
        if one.number == number:
            return one.step
    if number == 1 and known:
        raise _of_from("1", known)
    raise InvalidValue(f"stage has no step {number}", hint=_listed(known))


def _of_from(what: str, known: tuple[_Instruction, ...]) -> InvalidValue:
    return InvalidValue(f"there is no state before FROM, which is step {what}", hint=_listed(known))


def _listed(known: tuple[_Instruction, ...]) -> str:
    if not known:
        return "it has no step besides FROM: builda from IMAGE, then builda run, looks at the image"
    shown = [f"{one.number} {one.text.partition(chr(10))[0][:40]}" for one in known[:20]]
    more = f"; and so on to {known[-1].number}" if len(known) > 20 else ""
    return f"it has the steps {'; '.join(shown)}{more}"


def _at_line(plan: Plan, file: str, line: int, last: int) -> tuple[int, Step]:
    """The instruction that begins at the line, or whose later line it is."""
    if not 0 < line <= last:
        raise InvalidValue(f"no such line, {file} has {last}: {line}")
    best: tuple[int, int, _Instruction | None] | None = None  # where it begins, its stage; None: a FROM
    for index, stage in enumerate(plan.stages):
        begun = [(stage.at, None), *((one.at, one) for one in _instructions(stage))]
        for at, one in begun:
            if at is None or at.file != file or at.line > line or at.origin:
                continue
            if best is None or at.line > best[0]:
                best = at.line, index, one
    if best is None:
        raise InvalidValue(f"no instruction begins at line {line} of {file}, or before it")
    begins, index, found = best
    if found is None:
        raise _of_from(f"1 (line {begins})", _instructions(plan.stages[index]))
    return index, found.step
