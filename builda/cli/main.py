"""Where `builda` begins and ends: exit statuses, errors as the user reads them, signals.

This is the only place that catches BuildaError. What is neither one nor an OSError is a bug of builda's: it is said in
one line, and shows its traceback to who asks for `--log-level debug`.
Click is imported after `--version` was answered.
"""

from __future__ import annotations

import gc
import io
import os
import sys

from builda.errors import BuildaError, ContainerfileError, StepFailed, of_system

TYPE_CHECKING = False  # typing takes two milliseconds, which --version need not pay
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn, TypeVar

    from _typeshed import ReadableBuffer as Buffer

    T = TypeVar("T")

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE ended


def main() -> NoReturn:
    """The program. Leaves without tearing the interpreter down, which would take five milliseconds of every command."""
    gc.disable()  # imports make no garbage; a session turns it on again
    _open_standard_streams()
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
    except Exception as error:
        return _report(_internal(error, debug=_wants_traceback(args)))


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


class _Output(io.FileIO):
    """Standard output: what it refuses names it."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "standard output"
            raise


def _open_standard_streams() -> None:
    """Descriptors 0, 1 and 2 that the caller has closed lead nowhere, rather than to what is opened next."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, so this one
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            stream = open(number, mode, closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115  # stays open
            setattr(sys, name, stream)
    encoding, by_line = sys.stdout.encoding, bool(sys.stdout.line_buffering)
    out = io.BufferedWriter(_Output(1, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(out, encoding, errors="surrogateescape", line_buffering=by_line)


def _internal(error: Exception, *, debug: bool) -> BuildaError:
    """A bug, or an end of memory or stack that nobody foresaw."""
    if debug:
        import traceback

        sys.stderr.write("".join(traceback.format_exception(error)))
    said = f": {error}" if str(error) else ""
    hint = "this is a fault of builda's; with --log-level debug it shows where it happened"
    return BuildaError(f"internal error: {type(error).__name__}{said}", hint=None if debug else hint)


def _wants_traceback(args: Sequence[str]) -> bool:
    said = " ".join(args).replace("=", " ")
    level = os.environ.get("BUILDA_LOG_LEVEL", "")
    return level in ("debug", "trace") or any(f"--log-level {one}" in said for one in ("debug", "trace"))


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
    """What the user reads of `error`: where it is (in a Containerfile), what it is, its last words, and a way out.

    Nothing in it acts on a terminal, and what it quotes looks like no line of builda's own.
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


if __name__ == "__main__":
    main()
