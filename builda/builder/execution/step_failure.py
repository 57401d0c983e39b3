"""The error of a failed step: its place, how its command ended, and a hint."""

from __future__ import annotations

import re

from builda.errors import BuildaError, CommandFailed, ContainerfileError, StepFailed
from builda.plan import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.plan import Step

_MEANINGS = {
    126: "126 is a shell's way to say that it may not execute the command: is it a program, and executable?",
    127: "127 is a shell's way to say that there is no such command: is it installed, and in PATH?",
    139: "SIGSEGV: the program itself crashed",
}
_EXEC_FORM = re.compile(r"RUN\s+(--\S+\s+)*\[")


def step_failed(step: Step, error: BuildaError, output: tuple[str, ...]) -> BuildaError:
    """The build's error for a step that failed with `error`; `output` are last lines that the user has not seen."""
    place = step.at
    origin = f" ({place.origin})" if place is not None and place.origin else ""
    if isinstance(error, CommandFailed):
        file, line = (None, 0) if place is None else (place.file, place.line)
        message = f"{error.what}: {_first_line(step.text)}" if error.names_command else error.what
        hint = error.hint or _hint(step, error)
        return StepFailed(message + origin, cause=error, file=file, line=line, output=output, hint=hint)
    if place is None:
        return StepFailed(str(error), cause=error)
    return ContainerfileError(f"{error}{origin}", file=place.file, line=place.line, hint=error.hint)


def _first_line(text: str) -> str:
    first, feed, _ = text.partition("\n")
    return f"{first[:200]}…" if feed or len(first) > 200 else first


def _hint(step: Step, error: CommandFailed) -> str | None:
    if isinstance(step, Run) and _EXEC_FORM.match(step.text) and step.args[-1].startswith("["):
        return "this is no JSON array of strings, so a shell got it as it stands: strings have double quotes"
    if not isinstance(step, Run) or error.names_command:
        return _MEANINGS.get(error.status)
    shell = not _EXEC_FORM.match(step.text)
    if shell and error.status == 127 and error.what.endswith(f": {step.args[0]}"):
        return 'the image has no shell: copy one in, or write the exec form, RUN ["program", "argument"]'
    return None
