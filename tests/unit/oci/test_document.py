"""JSON documents: what is read as Go reads it, and what is refused."""

from __future__ import annotations

import pytest

from builda.errors import CorruptContent
from builda.oci.document import decode_any, encode


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud800"', "\ufffd"),
        (r'"\uDFFFx"', "\ufffdx"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (r'"\ude00\ud83d"', "\ufffd\ufffd"),
        (r'"\\ud800 \" \\\ud800"', '\\ud800 " \\\ufffd'),
        (r'{"\ud800": "\udc41"}', {"\ufffd": "\ufffd"}),
    ],
)
def test_half_of_a_surrogate_pair_is_no_character(text: str, value: object) -> None:
    assert decode_any(text.encode(), "it") == value


def test_bytes_that_are_no_text_survive() -> None:
    assert decode_any(encode({"a": "\udcff\udc80"}), "it") == {"a": "\udcff\udc80"}


@pytest.mark.parametrize("text", ["[NaN]", "1e999", "[" * 100_000, "{", "", '"\\x"'])
def test_what_is_no_json_is_corrupt(text: str) -> None:
    with pytest.raises(CorruptContent, match="it is not JSON"):
        decode_any(text.encode(), "it")
