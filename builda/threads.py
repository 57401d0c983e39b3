"""Waiting for threads so that signals are handled meanwhile."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from concurrent.futures import Future
    from typing import Any

PERIOD = 0.1
"""Seconds after which the main thread looks for signals again."""


def wait_for_threads(futures: Collection[Future[Any]], *, all_of_them: bool = True) -> set[Future[Any]]:
    """Wait until all futures are done, or one has failed, or (not `all_of_them`) one is done: those that are done.

    CPython runs signal handlers in the main thread only. A signal that another thread takes, or that comes right before
    the main thread sleeps, does not wake it: without a timeout, a command of an hour would delay ^C for an hour.
    """
    from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, wait

    until = FIRST_EXCEPTION if all_of_them else FIRST_COMPLETED
    while True:
        done, waiting = wait(futures, PERIOD, until)
        failed = any(future.cancelled() or future.exception() is not None for future in done)
        if failed or not waiting or (done and not all_of_them):
            return done
