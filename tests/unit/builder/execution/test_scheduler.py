"""Stages: each after those that it needs, and all ended by the first failure."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from builda.builder.execution.scheduler import run_stages
from builda.linux.stopping import Stop, Stopped

NEEDS: Mapping[int, Sequence[int]] = {0: (), 1: (), 2: (0, 1), 3: (2,)}


def ran(perform: Callable[[int], None], jobs: int, stop: Stop, order: Sequence[int] = (0, 1, 2, 3)) -> None:
    run_stages(order, NEEDS.__getitem__, perform, jobs, stop)


@pytest.fixture
def stop() -> Iterator[Stop]:
    made = Stop()
    yield made
    made.close()


def test_one_at_a_time_is_the_given_order(stop: Stop) -> None:
    done: list[int] = []
    ran(done.append, 1, stop)
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize("jobs", [0, 2, 8])
def test_a_stage_waits_for_those_that_it_needs(stop: Stop, jobs: int) -> None:
    done: list[int] = []

    def perform(index: int) -> None:
        assert set(NEEDS[index]) <= set(done)
        done.append(index)

    ran(perform, jobs, stop)
    assert sorted(done) == [0, 1, 2, 3]


def test_stages_that_need_nothing_of_each_other_run_at_the_same_time(stop: Stop) -> None:
    both = threading.Barrier(2, timeout=20)

    def perform(index: int) -> None:
        if index < 2:
            both.wait()

    ran(perform, 2, stop)


@pytest.mark.parametrize("jobs", [1, 4])
def test_after_a_failure_nothing_more_is_begun(stop: Stop, jobs: int) -> None:
    done: list[int] = []

    def perform(index: int) -> None:
        done.append(index)
        if index == 0:
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        ran(perform, jobs, stop)
    assert 2 not in done
    assert 3 not in done


def test_the_first_failure_ends_the_others_and_is_the_one_raised(stop: Stop) -> None:
    running = threading.Event()

    def perform(index: int) -> None:
        if index == 1:
            running.set()
            while not stop.asked:  # a command that only ends when it is told to
                pass
            raise Stopped
        assert running.wait(20)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        ran(perform, 2, stop, (0, 1))


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_signal_ends_the_build_as_it_would_end_a_program(
    stop: Stop, number: int, raised: type[BaseException], jobs: int
) -> None:
    def perform(index: int) -> None:
        stop.signal = number
        raise Stopped

    with pytest.raises(raised) as caught:
        ran(perform, jobs, stop)
    assert raised is KeyboardInterrupt or caught.value.code == 128 + number  # type: ignore[attr-defined]
