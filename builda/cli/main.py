"""Where `builda` begins and ends: exit statuses, errors as the user reads them, signals.

Only this module turns a BuildaError into an exit status. An exception that is neither one nor an OSError is a bug of
builda's: it is reported in one line, with its traceback under `--log-level debug`.
The modules that report errors are imported after `--version` was answered.
"""

from __future__ import annotations

import gc
import io
import os
import sys

TYPE_CHECKING = False  # typing takes two milliseconds, which --version need not pay
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import NoReturn, TypeVar

    from _typeshed import ReadableBuffer as Buffer

    from builda.cli.core.verbtrace import VerbTrace
    from builda.errors import BuildaError

    T = TypeVar("T")

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE ended


def main() -> NoReturn:
    """The program; in a session the process that is warm already does the work."""
    if "BUILDA_SESSION" in os.environ:
        from builda.session import client, program

        client.serve(sys.argv[1:], program.code_name())
    work()


def work() -> NoReturn:
    """Run this process's command line, and end the process.

    It leaves without tearing the interpreter down, which would take five milliseconds of every command.
    """
    status = performed()
    if _threads_run():
        sys.exit(status)
    os._exit(status)


def performed() -> int:
    """Run this process's command line; its exit status. Its output is written, and threads may still run."""
    gc.disable()  # imports make no garbage; a session turns it on again
    trace = _trace()
    _open_standard_streams(trace)
    status = status_of(sys.argv[1:], trace)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = BROKEN_PIPE
    except OSError as error:
        from builda.errors import of_system

        status = status or _report(of_system(error))  # a failure was reported already, perhaps this one
    if trace is not None:
        trace.end(status)
    return status


def _trace() -> VerbTrace | None:
    """The recorder of this command for the trace of its session; None unless the session is traced."""
    place = os.environ.get("BUILDA_SESSION")
    if not place or not os.path.exists(f"{place}/trace"):
        return None
    from builda.cli.core.verbtrace import verb_trace

    return verb_trace(place, sys.argv[1:], is_push="BUILDA_SESSION_PUSH" in os.environ)


def status_of(args: Sequence[str], trace: VerbTrace | None = None) -> int:
    """Run one command line; its exit status. Errors were printed. `trace` gets events and errors."""
    if list(args) in (["--version"], ["-v"]):
        from builda.cli.core.versions import version_line

        sys.stdout.write(version_line() + "\n")
        return 0
    from builda.errors import BuildaError, of_system

    try:
        return _ended(args, trace)
    except BuildaError as error:
        return _report(error, trace)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_output()
        return BROKEN_PIPE
    except OSError as error:
        return _report(of_system(error), trace)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except Exception as error:
        from builda.cli.core.reports import internal

        return _report(internal(error, args), trace)


def each(items: Iterable[T], action: Callable[[T], None]) -> None:
    """Do `action` with every item, whatever becomes of the others; the last failure is raised, earlier ones printed."""
    from builda.errors import BuildaError

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


def _ended(args: Sequence[str], trace: VerbTrace | None) -> int:
    import _signal  # type: ignore[import-not-found]  # as `signal` without enum, which takes two milliseconds

    from builda.cli.core.invoke import end_cleanly, invoke

    for number in (_signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, end_cleanly)
    shell = os.environ.get("_BUILDA_COMPLETE")
    if not shell:
        return invoke(args, trace)
    from builda.cli.guide.completing import complete

    return complete(shell, args)


class _Stream(io.FileIO):
    """A standard stream; a trace that keeps output gets all that is written."""

    def __init__(self, number: int, trace: VerbTrace | None) -> None:
        super().__init__(number, "w", closefd=False)
        self._trace = trace if trace is not None and trace.keeps_output else None

    def _told(self, data: Buffer) -> None:
        if self._trace is not None:
            self._trace.say(bytes(data))


class _Output(_Stream):
    """Standard output: what it refuses names it."""

    def write(self, data: Buffer, /) -> int:
        self._told(data)
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "standard output"
            raise


class _Messages(_Stream):
    """Standard error: where it takes nothing, messages are lost, and the exit status tells."""

    def write(self, data: Buffer, /) -> int:
        self._told(data)
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return memoryview(data).nbytes


def _open_standard_streams(trace: VerbTrace | None) -> None:
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
    out = io.BufferedWriter(_Output(1, trace))
    sys.stdout = io.TextIOWrapper(out, encoding, errors="surrogateescape", line_buffering=by_line)
    raw = io.BufferedWriter(_Messages(2, trace))
    sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, errors="backslashreplace", line_buffering=True)


def _threads_run() -> bool:
    threading = sys.modules.get("threading")
    return threading is not None and any(
        not thread.daemon and thread is not threading.main_thread() for thread in threading.enumerate()
    )


def _forget_output() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _report(error: BuildaError, trace: VerbTrace | None = None) -> int:
    """Print what went wrong on stderr; the exit status of it."""
    from builda.cli.core.reports import show

    if trace is not None:
        trace.fail(str(error))
    return show(error)


if __name__ == "__main__":
    main()
