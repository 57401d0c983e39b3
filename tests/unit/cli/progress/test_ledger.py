"""Finished steps are told in the order of their stage, when their bytes are known."""

from __future__ import annotations

from builda.cli.progress.ledger import Ledger
from builda.events import LayerStored, StepFailure, StepFinished, StepStarted
from builda.oci.digest import Digest

DIGEST = Digest.of(b"x")


def started(index: int, text: str = "RUN x", stage: str | None = None) -> StepStarted:
    return StepStarted(index=index, total=3, text=text, stage=stage)


def finished(index: int, *, pending: bool = False, stage: str | None = None, cached: bool = False) -> StepFinished:
    return StepFinished(index=index, total=3, cached=cached, seconds=1.5, pending=pending, stage=stage)


def stored(index: int, stage: str | None = None) -> LayerStored:
    return LayerStored(index=index, total=3, digest=DIGEST, bytes=2_000_000, stage=stage)


def told(*events: StepStarted | StepFinished | StepFailure | LayerStored) -> list[list[str]]:
    ledger = Ledger()
    return [[f"{done.head} {done.text} {done.cost}" for done in ledger.note(event)] for event in events]


def test_a_step_waits_for_its_layer_and_those_behind_wait_for_it() -> None:
    assert told(started(1), finished(1, pending=True), started(2), finished(2), stored(1)) == [
        [],
        [],
        [],
        [],
        ["1/3 RUN x 1.50s, 2 MB", "2/3 RUN x 1.50s"],
    ]


def test_a_layer_that_is_stored_before_its_step_is_over_counts() -> None:
    assert told(started(1), stored(1), finished(1, pending=True))[2] == ["1/3 RUN x 1.50s, 2 MB"]


def test_stages_do_not_wait_for_each_other() -> None:
    events = (
        started(1, stage="1/2"),
        started(1, stage="2/2"),
        finished(1, pending=True, stage="1/2"),
        finished(1, stage="2/2"),
    )
    assert told(*events)[3] == ["[2/2] 1/3 RUN x 1.50s"]


def test_what_is_not_known_in_the_end_is_told_without_bytes() -> None:
    ledger = Ledger()
    for event in (started(1), finished(1, pending=True)):
        assert ledger.note(event) == []
    assert ledger.storing() == ["1/3"]
    assert [done.cost for done in ledger.rest()] == ["1.50s"]
    assert ledger.rest() == []


def test_a_remembered_step_says_so() -> None:
    assert told(started(2), finished(2, cached=True))[1] == ["2/3 RUN x cached"]


def test_a_step_that_fails_is_told_at_once_after_those_that_wait() -> None:
    lost = StepFailure(index=2, total=3, seconds=754.3, message="command failed", stage=None)
    stopped = StepFailure(index=1, total=2, seconds=3.2, message=None, stage="2/2")
    events = (started(1), finished(1, pending=True), started(2), lost, started(1, stage="2/2"), stopped)
    assert told(*events)[3] == ["1/3 RUN x 1.50s", "2/3 RUN x failed after 12m34s"]
    assert told(*events)[5] == ["[2/2] 1/2 RUN x stopped after 3.20s"]
