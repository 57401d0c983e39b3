from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.errors import CorruptContent, InvalidValue
from builda.oci.digest import LITTLE, Digest, Hasher, VerifyingReader, sha256, verify


def reader(data: bytes, *, digest: Digest | None = None, size: int | None = None) -> VerifyingReader:
    return VerifyingReader(io.BytesIO(data), digest or Digest.of(data), len(data) if size is None else size)


@settings(deadline=None)
@given(st.binary())
def test_a_digest_survives_its_text(data: bytes) -> None:
    digest = Digest.of(data)
    assert Digest.parse(str(digest)) == digest
    assert digest.encoded == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 63 + "\n",
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "a" * 31 + "g" + "a" * 32,
        "sha256:" + "٣" * 64,
        "sha256:../../../etc/passwd" + "a" * 41,
        "md5:" + "a" * 32,
        "../x:" + "a" * 64,
        "SHA256:" + "a" * 64,
        "sha512:" + "a" * 64,
    ],
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        Digest.parse(text)


@settings(deadline=None)
@given(st.binary(), st.integers(1, 10))
def test_a_verifying_reader_gives_what_is_right(data: bytes, piece: int) -> None:
    source = reader(data)
    assert b"".join(iter(lambda: source.read(piece), b"")) == data
    assert source.read(piece) == b""


def test_a_verifying_reader_takes_sha512() -> None:
    digest = Digest("sha512", hashlib.sha512(b"x").hexdigest())
    assert reader(b"x", digest=digest).read() == b"x"


def test_content_that_is_too_long_fails_at_once() -> None:
    source = reader(b"abcdef", size=3)
    with pytest.raises(CorruptContent, match="longer than the 3 bytes"):
        source.read(4)


def test_content_that_ends_early_fails_at_its_end() -> None:
    source = reader(b"abc", size=4)
    assert source.read(10) == b"abc"
    with pytest.raises(CorruptContent, match="ends after 3 of 4 bytes"):
        source.read(10)


def test_other_content_fails_at_its_end() -> None:
    source = reader(b"abc", digest=Digest.of(b"abd"))
    assert source.read(3) == b"abc"
    with pytest.raises(CorruptContent, match="does not match"):
        source.read(3)


def test_reading_everything_verifies_without_another_read() -> None:
    with pytest.raises(CorruptContent):
        reader(b"abc", digest=Digest.of(b"abd")).read()


@pytest.mark.parametrize("size", [0, 1, LITTLE - 1, LITTLE, LITTLE + 1, 3 * LITTLE])
def test_little_and_much_are_hashed_alike(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    expected = hashlib.sha256(data)
    assert sha256(data) == expected.digest()
    assert Digest.of(data).encoded == expected.hexdigest()
    for step in (1000, LITTLE, LITTLE + 1):
        hasher = Hasher()
        for at in range(0, size, step):
            hasher.update(data[at : at + step])
        assert hasher.digest().encoded == expected.hexdigest()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 10, LITTLE + 1])
def test_bytes_are_verified_as_readers_do_it(algorithm: str, size: int) -> None:
    data = b"x" * size
    digest = Digest(algorithm, hashlib.new(algorithm, data).hexdigest())
    assert Digest.of(data, algorithm) == digest
    verify(data, digest, size)
    for wrong, promised in ((data + b"x", size), (data, size + 1), (b"y" * (size or 1), size or 1)):
        with pytest.raises(CorruptContent):
            verify(wrong, digest, promised)
