"""Text on a terminal: nothing of a command's output moves the cursor, and nothing is wider than it may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.cli.progress.termtext import cells, cut, plain


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"10%\r20%\r30%\r", "30%"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b[2J\x1b[Hgone", "gone"),
        (b"tab\there", "tab here"),
        (b"bell\x07 back\x08", "bell  back "),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("\u202eevil".encode(), " evil"),
    ],
)
def test_what_a_line_is_in_the_end(data: bytes, text: str) -> None:
    assert plain(data) == text


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("", 0)])
def test_how_many_columns_text_takes(text: str, width: int) -> None:
    assert cells(text) == width


@given(st.text(), st.integers(1, 100))
def test_what_is_cut_fits(text: str, width: int) -> None:
    found = cut(text, width)
    assert cells(found) <= width
    assert found == text or found.endswith("…")


@given(st.binary())
def test_no_bytes_leave_a_control_character(data: bytes) -> None:
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in plain(data))
