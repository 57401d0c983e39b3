"""Prints errors on stderr: in words for users, and safe for a terminal."""

from __future__ import annotations

import os
import sys

from builda.errors import BuildaError, ContainerfileError, StepFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def show(error: BuildaError) -> int:
    """Print what went wrong on stderr; the exit status of it."""
    from contextlib import suppress

    with suppress(BrokenPipeError):
        text = report_of(error)
        sys.stderr.write(_coloured(text) if _takes_colours() else text)
    return error.exit_status


def _takes_colours() -> bool:
    dumb = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("NO_COLOR")
    return not dumb and sys.stderr is not None and sys.stderr.isatty()


def _coloured(text: str) -> str:
    """The first word red, marked lines bold, the hint's word in another colour."""
    lines = []
    for number, line in enumerate(text.split("\n")):
        if number == 0:
            line = line.replace("Error:", "\033[1;31mError:\033[0m", 1)
        elif line.startswith(">"):
            line = f"\033[1m{line}\033[0m"
        elif line.startswith("hint:"):
            line = line.replace("hint:", "\033[36mhint:\033[0m", 1)
        lines.append(line)
    return "\n".join(lines)


def report_of(error: BuildaError) -> str:
    """The text of `error` for the user: place in a Containerfile, message, a failed command's last output, hints.

    It has no terminal escapes, and quoted text cannot look like a line of builda's own.
    """
    from builda.display import displayed

    place, excerpt = "", ""
    if isinstance(error, ContainerfileError | StepFailed) and error.file is not None:
        place = f"{error.file}:{error.line}: "
        excerpt = f"{error.excerpt.rstrip()}\n" if error.excerpt else ""
    text = _indented(f"Error: {place}{error}") + excerpt
    if isinstance(error, StepFailed) and error.output:
        text += "the last lines of its output:\n" + "".join(f"  {line}\n" for line in error.output)
    return displayed(text + (_indented(f"hint: {error.hint}") if error.hint else ""))


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ") + "\n"


def internal(error: Exception, args: Sequence[str]) -> BuildaError:
    """The error for a bug, or for memory or stack that ran out; its traceback is printed if `args` ask for it."""
    debug = _wants_traceback(args)
    if debug:
        import traceback

        sys.stderr.write("".join(traceback.format_exception(error)))
    if isinstance(error, MemoryError):
        return BuildaError("no memory is left for builda", hint="raise the limit of this process (ulimit -v)")
    said = f": {error}" if str(error) else ""
    hint = "this is a fault of builda's; with --log-level debug it shows where it happened"
    return BuildaError(f"internal error: {type(error).__name__}{said}", hint=None if debug else hint)


def _wants_traceback(args: Sequence[str]) -> bool:
    said = " ".join(args).replace("=", " ")
    level = os.environ.get("BUILDA_LOG_LEVEL", "")
    return level in ("debug", "trace") or any(f"--log-level {one}" in said for one in ("debug", "trace"))
