"""Substitution, quoting and splitting, checked against what the Dockerfile reference says of each operator."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builda.errors import InvalidValue
from builda.frontend import words

VALUES = {"a": "1", "empty": "", "path": "/usr/local/bin", "two": "x y", "star": "a*b", "ab": "abab"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$a", "1"),
        ("${a}", "1"),
        ("x${a}y$a", "x1y1"),
        (r"\$a", "$a"),
        ("'$a'", "$a"),
        ('"$a"', "1"),
        (r'"\$a"', "$a"),
        (r'"\n"', r"\n"),
        ("$", "$"),
        ("$/", "$/"),
        ("$unset.", "."),
        ("${unset:-w}", "w"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${unset-w}", "w"),
        ("${a:+w}", "w"),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${unset+w}", ""),
        ("${a:?no}", "1"),
        ("${unset:-${a}-${empty:-z}}", "1-z"),
        ("${path#*/}", "usr/local/bin"),
        ("${path##*/}", "bin"),
        ("${path%/*}", "/usr/local"),
        ("${path%%/*}", ""),
        ("${path#nothing}", "/usr/local/bin"),
        ("${star#a\\*}", "b"),
        ("${ab/b/X}", "aXab"),
        ("${ab//b/X}", "aXaX"),
        ("${ab//?/X}", "XXXX"),
        ("${ab/b/}", "aab"),
        (r"${path//\//-}", "-usr-local-bin"),
        ("a'b c'd", "ab cd"),
        ("", ""),
    ],
)
def test_expand(text: str, result: str) -> None:
    assert words.expand(text, VALUES.get) == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${a", "substitution lacks its }: ${a"),
        ("${}", "bad substitution"),
        ("${:-x}", "bad substitution"),
        ("${unset:?must be set}", "unset: must be set"),
        ("${empty:?}", "not allowed to be empty"),
        ("${unset?}", "not allowed to be unset"),
        ("${a:x}", "unsupported modifier"),
        ("'open", "quote is not closed: 'open"),
        ('"open', 'quote is not closed: "open'),
        ("${a:-open", "substitution lacks its }: ${a:-open"),
        ("${a/x}", "substitution lacks its /: ${a/x}"),
    ],
)
def test_what_does_not_parse_says_why(text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(message)):
        words.expand(text, VALUES.get)


def test_split_keeps_quoted_white_space_together_and_splits_expanded_one() -> None:
    assert words.split("a  'b c' $two", VALUES.get) == ("a", "b c", "x", "y")


def test_split_does_not_split_inside_double_quotes() -> None:
    assert words.split('"$two" z', VALUES.get) == ("x y", "z")


def test_the_backtick_escapes_when_the_directive_says_so() -> None:
    assert words.expand("`$a C:\\x", VALUES.get, "`") == "$a C:\\x"


def test_heredoc_bodies_keep_their_quotes() -> None:
    assert words.keep_quotes('it\'s "$a" \\$a', VALUES.get) == 'it\'s "1" $a'


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("\\\n", "\n"),
        ("a\\b", "ab"),
        ('\\"$a\\"', '"1"'),
        ("\\'q\\'", "'q'"),
        ("\\\\", "\\"),
        ("\\\\$a", "\\1"),
        ("end\\", "end"),
        ("`$a", "`1"),
        ("${unset:-'x'}", "'x'"),
    ],
)
def test_a_backslash_in_a_heredoc_body_goes(text: str, result: str) -> None:
    assert words.keep_quotes(text, VALUES.get) == result


@given(st.text(alphabet=st.characters(blacklist_characters="$'\"\\", blacklist_categories=["Cs"])))
def test_plain_text_expands_to_itself(text: str) -> None:
    assert words.expand(text, VALUES.get) == text


@given(st.text(alphabet="ab*?$", max_size=8), st.text(alphabet="ab", max_size=8))
def test_single_quotes_make_anything_literal(text: str, value: str) -> None:
    assert words.expand(f"'{text}'", {"a": value}.get) == text


@given(st.text(alphabet="abc/", max_size=12))
def test_stripping_prefix_and_suffix_partitions_the_value(value: str) -> None:
    lookup = {"v": value}.get
    head, tail = words.expand("${v%%/*}", lookup), words.expand("${v#*/}", lookup)
    if "/" in value:
        assert head + "/" + tail == value
    else:
        assert head == tail == value
