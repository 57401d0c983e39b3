"""In which order the stages of a plan are performed, and what happens to the others when one fails.

Rule: nothing here knows what a stage is. It calls `perform` with numbers, in threads of its own where there may be
several at a time.
"""

from __future__ import annotations

from _thread import allocate_lock  # threading takes a millisecond to import
from signal import SIGINT

from builda.linux.stopping import Stopped
from builda.threads import wait_for_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor

    from builda.linux.stopping import Stop


def run_stages(
    order: Sequence[int], below: Callable[[int], Sequence[int]], perform: Callable[[int], None], jobs: int, stop: Stop
) -> None:
    """Perform each stage of `order` after those that `below` names for it; at most `jobs` at a time, 0 for no limit.

    If one fails, or a signal asks for it, `stop` ends the commands of all. The first failure is raised; a signal
    becomes KeyboardInterrupt or SystemExit.
    """
    try:
        if jobs == 1 or len(order) == 1:
            for index in order:
                perform(index)
        else:
            _SideBySide(below, perform, stop).run(order, jobs)
    except Stopped:
        if stop.signal is None:
            raise
        if stop.signal == SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stop.signal) from None


class _SideBySide:
    def __init__(self, below: Callable[[int], Sequence[int]], perform: Callable[[int], None], stop: Stop) -> None:
        self._below = below
        self._perform = perform
        self._stop = stop
        self._lock = allocate_lock()
        self._failure: BaseException | None = None  # the first one's; others fail because of it

    def run(self, order: Sequence[int], jobs: int) -> None:
        from concurrent.futures import ThreadPoolExecutor

        pool = ThreadPoolExecutor(jobs or len(order), "builda-stage")
        try:
            waiting: dict[int, Future[None]] = {}
            for index in order:
                others = {other: waiting[other] for other in self._below(index)}
                waiting[index] = pool.submit(self._after, index, others)
            wait_for_threads(waiting.values())
        except BaseException:  # a signal
            self._stop.ask()
            raise
        finally:
            _end(pool, self._stop)
        if self._failure is not None:
            raise self._failure

    def _after(self, index: int, others: Mapping[int, Future[None]]) -> None:
        try:
            for other in others.values():
                other.result()
            self._perform(index)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
            self._stop.ask()
            raise


def _end(pool: ThreadPoolExecutor, stop: Stop) -> None:
    """Return when no thread of the pool runs any more. A signal meanwhile kills their commands."""
    while True:
        try:
            pool.shutdown(cancel_futures=True)
            return
        except (KeyboardInterrupt, SystemExit):
            stop.kill()
