"""Processes that work for this one and end with it."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGTERM

from builda.linux import fork, syscalls


def forked(child: Callable[[], int]) -> int:
    """Run `child` in a new process, which exits with its result and gets SIGTERM when this one ends; the process ID."""

    def inside() -> int:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGTERM)
        return child()

    return fork.start(inside)
