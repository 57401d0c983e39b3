"""Spans of time in Go's syntax."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from builda.oci.duration import nanoseconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("0s", 0),
        ("1ns", 1),
        ("1us", 1000),
        ("1µs", 1000),
        ("1ms", 10**6),
        ("30s", 30 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        (".5s", 5 * 10**8),
        ("1.s", 10**9),
        ("0.1s", 10**8),
        ("2562047h47m16.854775807s", 2**63 - 1),
        ("2562047h47m16.854775808s", None),
        ("9" * 90 + "h", None),
        ("9" * 5000 + "s", None),
        ("", None),
        ("1", None),
        ("s", None),
        ("1 s", None),
        ("1s ", None),
        ("-1s", None),
        ("1d", None),
        ("1e3s", None),
        ("٣s", None),
    ],
)
def test_nanoseconds(text: str, expected: int | None) -> None:
    assert nanoseconds(text) == expected


@given(strategies.text(alphabet="0123456789.nuµmsh", max_size=120))
def test_no_text_fails(text: str) -> None:
    nanoseconds(text)
