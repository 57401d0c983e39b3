"""Where `builda` begins and ends: exit statuses, errors as the user reads them, signals.

This is the only place that catches BuildaError. What is neither one nor an OSError is a bug and shows its traceback.
Click is imported after `--version` was answered.
"""

from __future__ import annotations

import gc
import os
import sys

from builda.errors import BuildaError, ContainerfileError, StepFailed, of_system

TYPE_CHECKING = False  # typing takes two milliseconds, which --version need not pay
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn, TypeVar

    T = TypeVar("T")

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE ended


def main() -> NoReturn:
    """The program. Leaves without tearing the interpreter down, which would take five milliseconds of every command."""
    gc.disable()  # imports make no garbage; a session turns it on again
    status = status_of(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = BROKEN_PIPE
    except OSError as error:
        status = _report(of_system(error))
    if _threads_run():
        sys.exit(status)
    os._exit(status)


def status_of(args: Sequence[str]) -> int:
    """Run one command line; its exit status. Errors were printed."""
    if list(args) in (["--version"], ["-v"]):
        from builda.cli.versions import version_line

        sys.stdout.write(version_line() + "\n")
        return 0
    try:
        return _ended(args)
    except BuildaError as error:
        return _report(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return BROKEN_PIPE
    except OSError as error:
        return _report(of_system(error))
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0


def each(items: Iterable[T], action: Callable[[T], None]) -> None:
    """Do `action` with every item, whatever becomes of the others; the last failure is raised, earlier ones printed."""
    last: BuildaError | None = None
    for item in items:
        try:
            action(item)
        except BuildaError as error:
            if last is not None:
                _report(last)
            last = error
    if last is not None:
        raise last


def _ended(args: Sequence[str]) -> int:
    import signal

    from builda.cli.group import complete, invoke

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end_cleanly)
    shell = os.environ.get("_BUILDA_COMPLETE")
    return complete(shell, args) if shell else invoke(args)


def _end_cleanly(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)  # contexts are left on the way out: leases, locks, mounts


def _threads_run() -> bool:
    threading = sys.modules.get("threading")
    return threading is not None and any(
        not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()
    )


def _forget_output() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _report(error: BuildaError) -> int:
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
    """What the user reads of `error`: where it is (in a Containerfile), what it is, its last words, and a way out."""
    text = f"Error: {error}\n"
    if isinstance(error, ContainerfileError | StepFailed) and error.file is not None:
        excerpt = f"{error.excerpt.rstrip()}\n" if error.excerpt else ""
        text = f"Error: {error.file}:{error.line}: {error}\n{excerpt}"
    if isinstance(error, StepFailed) and error.output:
        text += "the last lines of its output:\n" + "".join(f"  {line}\n" for line in error.output)
    return text + _hint(error)


def _hint(error: BuildaError) -> str:
    return f"hint: {error.hint}\n" if error.hint else ""


if __name__ == "__main__":
    main()
