"""Secrets in one file: through a window, at the right line, whatever the file is."""

from __future__ import annotations

import io
import random
import zlib

import pytest

from builda.scan.filescan import WINDOW, secrets_in
from builda.scan.secretkinds import LONGEST

TOKEN = b"ghp_" + b"k3Xc9Qw7ZtP2Lm8Rv4NsB6Yh1Jf5Gd0TaEiU"
KEY = b"-----BEGIN EC PRIVATE" + b" KEY-----\nMHcCAQEEIK3xn3d8xqR9sT2vLkWq0aZpYx7u1Jm5cBhGfDe\n"


SIZE = WINDOW // 4


class Pieces:
    """A stream that gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def read(self, size: int = -1, /) -> bytes:
        step = min(size, 70_001)
        self.at += step
        return self.data[self.at - step : self.at]


@pytest.mark.parametrize("at", [0, WINDOW - 50, WINDOW - LONGEST, WINDOW - 1, WINDOW, 2 * WINDOW - 9000, 2 * WINDOW])
@pytest.mark.parametrize("secret", [TOKEN, KEY])
def test_a_secret_is_found_once_wherever_it_lies(at: int, secret: bytes) -> None:
    before = (b"some words\n" * (at // 11 + 1))[:at]
    data = before + b"\n" + secret + b"\n" + b"more words\n" * (WINDOW // 8)
    hits = list(secrets_in(Pieces(data), "/x"))
    assert [hit.line for hit in hits] == [before.count(b"\n") + 2]


def test_several_secrets_of_a_line_and_of_a_file_come_in_order() -> None:
    data = b"a\n" + TOKEN + b" " + TOKEN + b"\n\n" + KEY + b"\n" + TOKEN
    assert [(hit.rule.name, hit.line) for hit in secrets_in(io.BytesIO(data), "/x")] == [
        ("github-token", 2),
        ("github-token", 2),
        ("private-key", 4),
        ("github-token", 7),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"a" * (3 * WINDOW),
        b"a://" * (SIZE // 8),
        b"password" * (SIZE // 16),
        b"PRIVATE KEY-----" * (SIZE // 16),
        b"-----BEGIN PRIVATE KEY-----\n" * (SIZE // 32),
        b"eyJ" + b"a.eyJ" * (SIZE // 8),
        b"a://b:" + b"c" * SIZE + b"@",
        b"key=" * (SIZE // 8),
        b" " * SIZE + b"password " + b" " * SIZE,
        b"SG." * (SIZE // 4),
        b"/" * SIZE,
        b":" * SIZE,
        b'"auth": ' + b" " * SIZE,
        bytes(2 * WINDOW),
        b"",
    ],
    ids=range(15),
)
@pytest.mark.parametrize(
    "path", ["/x.conf", "/root/.docker/config.json", "/root/.pgpass", "/root/.netrc", "/.kube/config"]
)
def test_hostile_content_is_read_in_linear_time(data: bytes, path: str) -> None:
    for _ in secrets_in(io.BytesIO(data), path):
        pass


def test_random_bytes_and_archives_hold_nothing() -> None:
    data = random.Random(1).randbytes(4 * WINDOW)
    assert list(secrets_in(io.BytesIO(data), "/x.conf")) == []
    assert list(secrets_in(io.BytesIO(zlib.compress(KEY * 1000)), "/x")) == []  # what is compressed is not opened


def test_a_program_of_the_distribution_may_have_keys_for_its_own_tests() -> None:
    assert list(secrets_in(io.BytesIO(b"\x7fELF\0" + KEY), "/usr/lib/x86_64-linux-gnu/libgnutls.so.30")) == []
    assert [hit.rule.name for hit in secrets_in(io.BytesIO(b"\x7fELF\0" + KEY), "/app/server")] == ["private-key"]
