"""Processes: start one with chosen descriptors, pass signals on to it, wait for it, and identify it later."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

# Signals that a user or supervisor sends to builda and means for the command that builda runs.
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH")


def process_identity(pid: int | None = None) -> tuple[int, int]:
    """(pid, start time in clock ticks since boot) of a process, by default this one. No two processes have the same.

    ProcessLookupError if it does not exist.
    """
    pid = os.getpid() if pid is None else pid
    fields = _stat(pid)
    if fields is None:
        raise ProcessLookupError(f"no such process: {pid}")
    return pid, int(fields[19])


def is_alive(pid: int, start_time: int) -> bool:
    """Whether the process with this identity still runs. A zombie does not."""
    fields = _stat(pid)
    return fields is not None and int(fields[19]) == start_time and fields[0] not in (b"Z", b"X")


def spawn(
    argv: list[str],
    *,
    executable: str | None = None,
    environ: Mapping[str, str],
    descriptors: Mapping[int, int],
    leads_session: bool = False,
) -> int:
    """Start `argv` and return its pid. `descriptors` maps its descriptors to this process's; 0, 1 and 2 are inherited.

    The FORWARDED signals are blocked in it from its first instruction: it unblocks them when it can handle them.
    With `leads_session` the terminal sends it none.
    """
    import signal

    # Two steps, so that no source is overwritten by an earlier target.
    base = max((*descriptors, *descriptors.values(), 2)) + 1
    numbered = list(enumerate(descriptors.items(), base))
    actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, ours, spare) for spare, (_, ours) in numbered]
    actions += [(os.POSIX_SPAWN_DUP2, spare, theirs) for spare, (theirs, _) in numbered]
    actions += [(os.POSIX_SPAWN_CLOSE, spare) for spare, _ in numbered]
    blocked = {getattr(signal, name) for name in FORWARDED} | signal.pthread_sigmask(signal.SIG_BLOCK, ())
    if sys.stdout is not None:
        sys.stdout.flush()  # builda's output comes before the program's
    return os.posix_spawn(
        executable or argv[0], argv, dict(environ), file_actions=actions, setsid=leads_session, setsigmask=blocked
    )


_ENDED_WITH_PARENT = """\
import ctypes, os, sys
signal, parent, *argv = sys.argv[1:]
ctypes.CDLL(None).prctl(1, int(signal))
if os.getppid() != int(parent):
    os._exit(1)
os.execvp(argv[0], argv)
"""


def ended_with_parent(argv: list[str], number: int) -> list[str]:
    """`argv` as the arguments of an interpreter that becomes it, and gets signal `number` when the thread that starts
    it ends, be it killed (PR_SET_PDEATHSIG of prctl(2)).

    A `preexec_fn` would do the same between fork and exec, where another thread may hold a lock for ever.
    """
    return [sys.executable, "-IS", "-c", _ENDED_WITH_PARENT, str(number), str(os.getpid()), *argv]


def find_program(name: str) -> str | None:
    """The path of a program in PATH or an sbin directory, where some distributions keep it; None if missing."""
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/bin", "/usr/sbin", "/bin", "/sbin"):
        path = f"{directory}/{name}"
        if directory and os.access(path, os.X_OK):
            return path
    return None


def wait(pid: int) -> int:
    """Wait for a child; returns its exit status, 128 + N if signal N ended it."""
    return exit_status(os.waitpid(pid, 0)[1])


def exit_status(wait_status: int) -> int:
    """A wait status as a shell shows it: 128 + N for signal N."""
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code < 0 else code


def can_forward() -> bool:
    """Whether this thread can handle signals: only the main thread can."""
    threading = sys.modules.get("threading")  # without it there are no other threads
    return threading is None or threading.current_thread() is threading.main_thread()


def forwarding(pid: int, also: Callable[[int], bool] | None = None) -> AbstractContextManager[None]:
    """Send FORWARDED signals on to `pid` for the block, instead of ending this process.

    `also` is called first with each signal's number. If it returns True, the signal is not sent on.
    """
    import signal

    def forward(number: int, _frame: object) -> None:
        if also is not None and also(number):
            return
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, number)

    @contextmanager
    def installed() -> Iterator[None]:
        before = {}
        try:
            for name in FORWARDED:
                number = getattr(signal, name)
                # An ignored signal stays so: `nohup builda …` must not pass SIGHUP on.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, forward)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    return installed()


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Have FORWARDED signals wait for the block, or until the function is called that it is given."""
    import signal

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in FORWARDED})

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    try:
        yield release
    finally:
        release()


def _stat(pid: int) -> list[bytes] | None:
    """The fields of /proc/PID/stat from the third (the state) on; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return data[data.rindex(b")") + 2 :].split()
