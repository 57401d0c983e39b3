"""Columns as tabwriter makes them, and sizes and ages as Docker writes them."""

from __future__ import annotations

import pytest

from builda.cli.format.table import align, human_age, human_size, human_time


def test_columns_are_three_spaces_apart_and_the_last_is_not_padded() -> None:
    assert align(["REPOSITORY\tTAG", "a\tlatest", "longer-name\t1"]) == (
        "REPOSITORY    TAG\na             latest\nlonger-name   1"
    )


def test_a_column_is_aligned_only_over_neighbouring_lines_that_have_it() -> None:
    assert align(["aaaa\tb", "no cells", "a\tb"]) == "aaaa   b\nno cells\na   b"


def test_an_empty_cell_keeps_its_column() -> None:
    assert align(["\tx", "\ty"]) == "   x\n   y"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (3414, "3.41 KB"),
        (3400, "3.4 KB"),
        (999_999, "1 MB"),
        (117_900_000, "118 MB"),
        (5_000_000_000, "5 GB"),
    ],
)
def test_sizes_have_three_digits_in_decimal_units(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second ago"),
        (0.4, "Less than a second ago"),
        (1, "1 second ago"),
        (59, "59 seconds ago"),
        (60, "About a minute ago"),
        (150, "2 minutes ago"),
        (3600, "About an hour ago"),
        (3 * 3600, "3 hours ago"),
        (3 * 86400, "3 days ago"),
        (20 * 86400, "2 weeks ago"),
        (100 * 86400, "3 months ago"),
        (800 * 86400, "2 years ago"),
    ],
)
def test_ages_are_written_as_docker_writes_them(seconds: float, text: str) -> None:
    assert human_age(seconds) == text


def test_times_have_minutes_and_hours() -> None:
    assert [human_time(seconds) for seconds in (0, 3.14, 59.94, 59.97, 754.3, 3599.7, 3723)] == [
        "0.0s",
        "3.1s",
        "59.9s",
        "1m00s",
        "12m34s",
        "1h00m00s",
        "1h02m03s",
    ]
    assert human_time(3.14159, 2) == "3.14s"
