"""Times as image configurations write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.builder.records import timestamp
from builda.errors import InvalidValue


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (1.5, "1970-01-01T00:00:01.5Z"),
        (-0.25, "1969-12-31T23:59:59.75Z"),
        (0.9999999, "1970-01-01T00:00:01Z"),
        (1764320000.000001, "2025-11-28T08:53:20.000001Z"),
        (253402300799, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_has_a_fraction_only_where_it_needs_one(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=4e9))
def test_a_time_is_written_as_datetime_does(seconds: float) -> None:
    said = datetime.fromisoformat(timestamp(seconds))
    assert abs(said - datetime.fromtimestamp(seconds, UTC)) == timedelta(0)


@pytest.mark.parametrize("seconds", [253402300800, -62135596801, 10**30, float("inf"), float("nan")])
def test_a_year_that_cannot_be_written_is_an_error(seconds: float) -> None:
    with pytest.raises(InvalidValue, match="outside the years"):
        timestamp(seconds)
