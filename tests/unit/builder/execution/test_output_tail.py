"""The last lines of a command are kept for its error where nobody has seen them."""

from __future__ import annotations

from builda.builder.execution.output_tail import KEPT, Tails
from builda.events import CommandOutput, Event, StepStarted


def tails(*events: Event, hidden: frozenset[str] = frozenset(), stage: str | None = None) -> tuple[str, ...]:
    seen: list[Event] = []
    kept = Tails(seen.append, hidden=hidden)
    for event in events:
        kept.show(event)
    assert seen == list(events)
    return kept.of(stage)


def begun(stage: str | None = None) -> StepStarted:
    return StepStarted(index=1, total=1, text="RUN x", stage=stage)


def wrote(data: bytes, stage: str | None = None, stream: str = "stdout") -> CommandOutput:
    return CommandOutput(data=data, stream="stdout" if stream == "stdout" else "stderr", stage=stage)


OUT = frozenset({"stdout"})


def test_what_was_shown_last_is_not_given_again() -> None:
    assert tails(begun(), wrote(b"a\nb\n")) == ()


def test_what_was_hidden_is_given_with_what_was_not() -> None:
    assert tails(begun(), wrote(b"a\n"), wrote(b"b\n", stream="stderr"), hidden=OUT) == ("a", "b")
    assert tails(begun(), wrote(b"b\n", stream="stderr"), hidden=OUT) == ()


def test_lines_come_in_pieces_and_the_last_ones_stay() -> None:
    pieces = [wrote(f"{number}".encode()) for number in range(100)]
    ends = [wrote(b"\n")] * len(pieces)
    events = [event for pair in zip(pieces, ends, strict=True) for event in pair]
    assert tails(begun(), *events, wrote(b"half"), hidden=OUT) == (
        *(str(number) for number in range(101 - KEPT, 100)),
        "half",
    )


def test_a_line_without_end_takes_no_memory() -> None:
    (line,) = tails(begun(), *[wrote(b"x" * 65536)] * 50, hidden=OUT)
    assert len(line) <= 400


def test_another_stage_in_between_hides_them() -> None:
    mixed = (begun("1"), begun("2"), wrote(b"mine\n", "1"), wrote(b"other\n", "2"))
    assert tails(*mixed, stage="1") == ("mine",)
    assert tails(*mixed, stage="2") == ()


def test_a_new_step_begins_anew() -> None:
    assert tails(begun(), wrote(b"old\n"), begun(), wrote(b"new\n"), hidden=OUT) == ("new",)


def test_colours_and_what_a_carriage_return_overwrote_are_left_out() -> None:
    assert tails(begun(), wrote(b"\x1b[31mred\x1b[0m\n1%\r2%\r\n\x07\n"), hidden=OUT) == ("red", "2%", "")
