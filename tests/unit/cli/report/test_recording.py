"""A build put together from its events."""

from __future__ import annotations

from builda.cli.report.page import page
from builda.cli.report.recording import OUTPUT_LIMIT, Recorder
from builda.events import (
    BuildFailed,
    BuildStarted,
    CommandOutput,
    Event,
    LayerStored,
    StepFailure,
    StepFinished,
    StepMissed,
    StepStarted,
    Warned,
)


def recorded(*events: Event) -> Recorder:
    times = iter(range(1000))
    recorder = Recorder(clock=lambda: float(next(times)))
    for event in events:
        recorder.show(event)
    return recorder


def started(index: int, stage: str | None = None, text: str = "RUN x") -> StepStarted:
    return StepStarted(index=index, total=3, text=text, stage=stage)


def test_events_of_stages_that_go_on_at_once_are_kept_apart() -> None:
    build = recorded(
        started(1, "1/2"),
        started(1, "2/2"),
        CommandOutput(data=b"one", stream="stdout", stage="1/2"),
        CommandOutput(data=b"two", stream="stderr", stage="2/2"),
        StepMissed(index=1, total=3, reason="because", stage="1/2"),
        StepFinished(index=1, total=3, cached=True, seconds=2.0, stage="2/2"),
        StepFinished(index=1, total=3, cached=False, seconds=3.0, stage="1/2", pending=True),
        LayerStored(index=1, total=3, digest=None, bytes=7, stage="1/2"),
    ).build
    one, two = build.steps
    assert (bytes(one.output), bytes(two.output)) == (b"one", b"two")
    assert (one.began, one.seconds, one.cached, one.reason, one.size) == (1.0, 3.0, False, "because", 7)
    assert (two.began, two.seconds, two.cached) == (2.0, 2.0, True)
    assert build.rows == ["1/2", "2/2"]


def test_a_build_that_begins_again_is_shown_once() -> None:
    build = recorded(BuildStarted(stages=1, steps=1), started(1), BuildStarted(stages=1, steps=1), started(1)).build
    assert len(build.steps) == 1


def test_only_the_end_of_a_long_output_is_kept() -> None:
    data = b"x" * OUTPUT_LIMIT
    build = recorded(
        started(1),
        CommandOutput(data=b"begin", stream="stdout"),
        CommandOutput(data=data, stream="stdout"),
        CommandOutput(data=b"end", stream="stdout"),
    ).build
    step = build.steps[0]
    assert len(step.output) == OUTPUT_LIMIT
    assert step.output.endswith(b"xend")
    assert step.lost == 8
    assert "8 bytes of output before this are not kept" in page(build, "t")


def test_texts_of_others_act_on_nothing() -> None:
    text = "<b onclick=x>\x1b[31m\u202e'\"&%BODY%%TITLE%"
    build = recorded(
        started(1, text, text),
        CommandOutput(data=text.encode(), stream="stdout", stage=text),
        StepFailure(index=1, total=3, seconds=1.0, message=text, stage=text),
        Warned(message=text),
        BuildFailed(message=text, status=1, seconds=1.0),
    ).build
    found = page(build, text)
    assert "<b onclick" not in found
    assert "\x1b" not in found
    assert "\u202e" not in found
    assert found.count("</html>") == found.count("<h2>Time") == 1


def test_a_build_of_nothing_has_a_page() -> None:
    assert "interrupted" in page(recorded().build, "t")
