"""What is told of long copies: nothing at first, then how far they are, and the end."""

from __future__ import annotations

import pytest

from builda.builder import byteprogress
from builda.builder.byteprogress import words
from builda.events import Event, WorkProgress, ignore


def told(pieces: list[int], patience: float, monkeypatch: pytest.MonkeyPatch) -> list[WorkProgress]:
    monkeypatch.setattr(byteprogress, "_PATIENCE", patience)
    monkeypatch.setattr(byteprogress, "_PERIOD", 0.0)
    seen: list[Event] = []
    with byteprogress.moving(seen.append, "copy", "src", lambda: 10) as moved:
        assert moved is not None
        for piece in pieces:
            moved(piece)
    return [event for event in seen if isinstance(event, WorkProgress)]


def test_a_long_copy_is_told_of_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = told([4, 4, 2], 0.0, monkeypatch)
    assert [(event.offset, event.total, event.done) for event in seen] == [
        *((4, 10, False), (8, 10, False), (10, 10, False)),
        (10, 10, True),
    ]
    assert {(event.work, event.subject) for event in seen} == {("copy", "src")}


def test_more_than_was_counted_is_no_more_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [event.total for event in told([4, 8], 0.0, monkeypatch)] == [10, 12, 12]


def test_a_short_copy_is_not_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told([4, 4], 60.0, monkeypatch) == []


def test_nothing_is_counted_when_nobody_watches() -> None:
    with byteprogress.moving(ignore, "copy", "src", lambda: 1) as moved:
        assert moved is None


def test_several_sources_are_called_by_the_first() -> None:
    assert (words(("a",)), words(("a", "b", "c"))) == ("a", "a and 2 more")
