"""On which processors a thread is that opens many files, and the supervisor that opens them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import cast

import pytest

from builda.isolation.child.notification import Listener
from builda.isolation.traced import injecting
from builda.isolation.traced.injecting import Injecting

HERE = os.sched_getaffinity(0)
LONG = 800  # calls


class Kernel:
    """Stands in for the listener; notes where the supervisor and the caller are while a call is answered."""

    switches = True

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self.seen: list[tuple[set[int], set[int]]] = []

    def inject(self, identity: int, fd: int, flags: int) -> int | None:
        self.seen.append((os.sched_getaffinity(0), os.sched_getaffinity(self.tid)))
        return None


@pytest.fixture
def others() -> Iterator[list[int]]:
    """Two processes that wait."""
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    yield [process.pid for process in started]
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def kernel(others: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    if len(HERE) == 1:
        pytest.skip("one processor")
    monkeypatch.setattr(injecting, "_SLOW", -1)
    yield Kernel(others[0])
    os.sched_setaffinity(0, HERE)


def injecting_by(kernel: Kernel) -> Injecting:
    return Injecting(cast(Listener, kernel))


def test_a_long_row_stays_on_one_processor(kernel: Kernel) -> None:
    one = injecting_by(kernel)
    for _ in range(LONG):
        one.inject(kernel.tid, 1, 2, 0)
        assert os.sched_getaffinity(kernel.tid) == HERE
    together = [own for own, callers in kernel.seen if own == callers and len(own) == 1]
    assert len(together) > LONG / 2
    assert kernel.seen[:250] == [(HERE, HERE)] * 250  # not before it is long
    assert one.is_kept
    one.release()
    assert os.sched_getaffinity(0) == HERE


def test_it_ends_with_a_call_of_another_thread(kernel: Kernel, others: list[int]) -> None:
    one = injecting_by(kernel)
    for _ in range(LONG):
        one.inject(kernel.tid, 1, 2, 0)
    one.inject(others[1], 1, 2, 0)
    assert not one.is_kept
    assert kernel.seen[-1] == (HERE, HERE)
    assert os.sched_getaffinity(0) == HERE


def test_where_it_is_quick_nothing_is_kept(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(injecting, "_SLOW", 1 << 60)
    one = injecting_by(kernel)
    for _ in range(LONG):
        one.inject(kernel.tid, 1, 2, 0)
    assert kernel.seen == [(HERE, HERE)] * LONG


def test_a_process_made_meanwhile_gets_the_processors_of_the_one_that_made_it(
    kernel: Kernel, others: list[int]
) -> None:
    one = injecting_by(kernel)
    for _ in range(LONG):
        one.inject(kernel.tid, 1, 2, 0)
    os.sched_setaffinity(others[1], {min(HERE)})
    one.made(kernel.tid, others[1])
    assert os.sched_getaffinity(others[1]) == HERE


def test_what_a_thread_chooses_itself_stays(kernel: Kernel) -> None:
    one = injecting_by(kernel)
    for _ in range(LONG):
        one.inject(kernel.tid, 1, 2, 0)
    one.may_change()
    os.sched_setaffinity(kernel.tid, {max(HERE)})
    for _ in range(LONG):
        one.inject(kernel.tid, 1, 2, 0)
        assert os.sched_getaffinity(kernel.tid) == {max(HERE)}
    one.release()


def test_a_caller_that_has_ended_stops_nothing(kernel: Kernel, others: list[int]) -> None:
    one = injecting_by(kernel)
    for _ in range(LONG):
        one.inject(kernel.tid, 1, 2, 0)
    kernel.tid, gone = others[1], 0x3FFFFF  # a number that no thread has
    for _ in range(LONG):
        one.inject(gone, 1, 2, 0)
    assert os.sched_getaffinity(0) == HERE
