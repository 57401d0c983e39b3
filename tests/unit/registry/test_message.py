"""Answers as bytes: what they mean, and which ones nobody should believe."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import InvalidValue
from builda.registry.message import (
    HEADER_LIMIT,
    LINE_LIMIT,
    Answer,
    CutShort,
    Incoming,
    NoAnswer,
    NotHttp,
    read_answer,
    request_head,
)
from builda.registry.pace import Pace, Paced


class Sent:
    """A server that has sent `data`, which arrives in pieces of `step` bytes."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data = data
        self._step = step

    def recv(self, size: int, /) -> bytes:
        count = min(size, self._step)
        data, self._data = self._data[:count], self._data[count:]
        return data


def incoming(data: bytes, step: int = 1 << 20) -> Incoming:
    return Incoming(Paced(Sent(data, step), Pace()), lambda: True)


def content(answer: Answer) -> bytes:
    return b"".join(iter(lambda: answer.read(1000), b""))


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize(
    ("data", "body", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200\r\ncontent-length:5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 x\r\n\r\n", b"", True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nhel\r\n02\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
            b"hello",
            True,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"hello",
            False,
        ),
    ],
)
def test_where_an_answer_ends(data: bytes, body: bytes, keeps: bool, step: int) -> None:
    answer = read_answer(incoming(data, step), "GET")
    assert (content(answer), answer.keeps) == (body, keeps)
    assert answer.left == 0 or not keeps


def test_an_answer_to_head_has_no_content() -> None:
    rest = incoming(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")
    answer = read_answer(rest, "HEAD")
    assert (content(answer), answer.headers["content-length"]) == (b"", "5")
    assert read_answer(rest, "GET").status == 404


def test_names_have_no_case_and_values_may_be_repeated_or_folded() -> None:
    data = b"HTTP/1.1 401 x\r\nWWW-Authenticate: Basic\r\nX: a\r\n\t b\r\nwww-authenticate: Bearer\r\n\r\n"
    headers = read_answer(incoming(data), "GET").headers
    assert headers.all("WWW-authenticate") == ("Basic", "Bearer")
    assert headers["Www-Authenticate"] == "Basic, Bearer"
    assert (headers["x"], len(headers), headers.get("y")) == ("a b", 2, None)


@pytest.mark.parametrize(
    ("text", "value"), [("naïve".encode(), "naïve"), ("naïve".encode("latin-1"), "naïve"), (b"\xff\xfe", "ÿþ")]
)
def test_values_are_utf8_or_latin1(text: bytes, value: str) -> None:
    assert read_answer(incoming(b"HTTP/1.1 200 x\r\nX: " + text + b"\r\n\r\n"), "GET").headers["X"] == value


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5, 6",
        b"Content-Length: -5",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Content-Length: " + "٥".encode(),
        b"Content-Length: " + b"9" * 400,
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity",
        b"no colon",
        b"Name : x",
        b": x",
    ],
)
def test_an_answer_that_others_may_read_differently_is_refused(header: bytes) -> None:
    with pytest.raises(NotHttp):
        read_answer(incoming(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\nhello"), "GET")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"<html>\r\n",
        b"\r\n",
    ],
)
def test_what_is_no_answer_is_said_so(data: bytes) -> None:
    with pytest.raises(NotHttp, match="it begins with"):
        read_answer(incoming(data), "GET")


@pytest.mark.parametrize("size", [b"", b"x", b"-1", b"+1", b"1 2", b"0x1", b"1_0", b"f" * 17])
def test_a_chunk_without_a_usable_length_is_refused(size: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"
    with pytest.raises(NotHttp):
        content(read_answer(incoming(data), "GET"))


def test_a_chunk_that_is_longer_than_announced_is_refused() -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n"
    answer = read_answer(incoming(data), "GET")
    with pytest.raises(NotHttp, match="longer than announced"):
        content(answer)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3 * LINE_LIMIT,
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * (HEADER_LIMIT + 1) + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    ],
)
def test_a_header_without_end_is_refused(data: bytes) -> None:
    with pytest.raises(NotHttp, match=r"more than|longer than"):
        read_answer(incoming(data, 5000), "GET")


def test_the_end_of_the_connection_is_told_apart() -> None:
    with pytest.raises(NoAnswer):
        read_answer(incoming(b""), "GET")
    with pytest.raises(CutShort):
        read_answer(incoming(b"HTTP/1.1 200"), "GET")
    with pytest.raises(CutShort):
        read_answer(incoming(b"HTTP/1.1 200 OK\r\nX: y\r\n"), "GET")


@pytest.mark.parametrize("coding", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_what_arrived_before_the_connection_broke_is_read_first(coding: bytes) -> None:
    body = b"hello" if b"Length" in coding else b"9\r\nhello"
    answer = read_answer(incoming(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n\r\n" + body, step=3), "GET")
    assert answer.read(9) == b"hello"
    with pytest.raises(CutShort):
        answer.read(9)


def test_no_value_becomes_a_header_of_its_own() -> None:
    assert request_head("GET", "/x", {"Host": "h"}) == b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
    for value in ("a\r\nX: y", "a\nb", "a\0"):
        with pytest.raises(InvalidValue, match="line break"):
            request_head("GET", "/", {"X": value})


@settings(deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]),
)
def test_any_bytes_are_an_answer_or_an_error(data: bytes, start: bytes) -> None:
    with suppress(OSError):
        content(read_answer(incoming(start + data, 50), "GET"))
