"""A child process that runs a function: the one place where builda calls fork(2).

Python calls functions of modules around a fork, where it prints and forgets the exception of a signal handler. Signals
are therefore blocked meanwhile. Runs in the child of a run too, and imports next to nothing.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has none
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def start(child: Callable[[], int]) -> int:
    """Run `child` in a forked process, which exits with its result; the process ID. OSError if there can be no process.

    The process handles signals as a program does that was just started, and blocks those that this thread blocks. A
    signal to this process is handled before the fork or when it is done.
    """
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _run(child, blocked)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)
    return pid


def _run(child: Callable[[], int], blocked: set[int]) -> NoReturn:
    status = 125
    try:
        _signal.set_wakeup_fd(-1)
        for number in _signal.valid_signals():
            if callable(_signal.getsignal(number)):
                _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)
        status = child()
    except MemoryError:
        os.write(2, b"Error: no memory is left for builda\n")
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
