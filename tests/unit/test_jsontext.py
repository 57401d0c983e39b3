from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_what_is_written_is_what_json_writes_and_is_read_again(value: Any, plain: bool) -> None:
    for separators in ((", ", ": "), (",", ":")):
        text = jsontext.dumps(value, separators=separators, ensure_ascii=plain)
        assert text == json.dumps(value, separators=separators, ensure_ascii=plain)
        assert jsontext.loads(text) == value
        assert jsontext.loads(f" \t\r\n{text}\n ".encode("utf-8", "replace")) == json.loads(
            text.encode("utf-8", "replace")
        )


@given(st.text(alphabet='{}[]",:\\ \n\t0123456789.eE+-ntfualsrINaity\u00a0é'))
def test_any_text_is_read_or_refused_as_json_does_it(text: str) -> None:
    assert outcome(jsontext.loads, text) == outcome(json.loads, text)


def outcome(read: Callable[[str], Any], text: str) -> str:
    """The value, written again, or what is wrong with the text."""
    try:
        return json.dumps(read(text))
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("text", ["", " ", "{", '{"a":1}}', "[1,]", "nul", '"\\ud', "\ufeff{}", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsontext.loads(text)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf{}", "{}".encode("utf-16"), b'"\xed\xa0\x80"', b"[" * 100_000, b"\xff"])
def test_bytes_are_utf_8_or_no_json(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        jsontext.loads(data)


def test_the_options_mean_what_they_mean_to_json() -> None:
    assert jsontext.loads("[Infinity, -Infinity]") == [math.inf, -math.inf]
    assert jsontext.loads("[1.5, NaN]", parse_float=str, parse_constant=str) == ["1.5", "NaN"]
    assert jsontext.loads('{"a": 1, "a": 2}', object_pairs_hook=list) == [("a", 1), ("a", 2)]
    with pytest.raises(ValueError, match="Out of range float values"):
        jsontext.dumps(math.nan, allow_nan=False)
    with pytest.raises(TypeError, match="Object of type set is not JSON serializable"):
        jsontext.dumps({"a": {1}})
    circular: list[Any] = []
    circular.append(circular)
    with pytest.raises(ValueError, match="Circular reference"):
        jsontext.dumps(circular)


def test_reading_and_writing_imports_neither_json_nor_re() -> None:
    code = "import sys; from builda import jsontext as j; j.loads(j.dumps({'a': [1]})); print('re' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
