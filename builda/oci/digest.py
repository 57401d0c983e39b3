"""Digests: what content is called (OCI image-spec, descriptor.md, "Digests").

`Digest.parse` is the only way in from text, so a Digest is safe as a path component by construction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from builda.errors import CorruptContent, InvalidValue
from builda.values import NamedTuple

if TYPE_CHECKING:
    from typing import Self

HEX_LENGTHS = {"sha256": 64, "sha512": 128}
_DIGITS = "0123456789abcdef"


class Digest(NamedTuple):
    """`algorithm:encoded`; compares and hashes by value."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest that `text` names; InvalidValue for unknown algorithms, wrong lengths, upper case."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise InvalidValue(f"not a digest: {text!r}")
        length = HEX_LENGTHS.get(algorithm)
        if length is None:
            raise InvalidValue(f"unsupported digest algorithm: {text!r}", hint="builda reads sha256 and sha512")
        if len(encoded) != length or encoded.strip(_DIGITS):
            raise InvalidValue(f"not {length} lower-case hexadecimal digits: {text!r}")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The sha256 digest of `data`."""
        import hashlib  # OpenSSL takes three milliseconds to load, which a list of images need not pay

        return cls("sha256", hashlib.sha256(data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def is_sha256(text: str) -> bool:
    """Whether this is the text of a sha256 digest."""
    return len(text) == 71 and text.startswith("sha256:") and not text[7:].strip(_DIGITS)


class Readable(Protocol):
    """Anything with a blocking `read`."""

    def read(self, size: int = -1, /) -> bytes: ...


class VerifyingReader:
    """A reader that fails unless exactly the promised bytes come through it.

    Raises CorruptContent as soon as more than `size` bytes arrive, or at the end of input when the size or the
    digest is wrong. A caller that stops early has verified nothing.
    """

    def __init__(self, source: Readable, digest: Digest, size: int | None) -> None:
        import hashlib

        self._source = source
        self._digest = digest
        self._size = size
        self._hash = hashlib.new(digest.algorithm)
        self._count = 0
        self._verified = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; b"" only after everything was verified."""
        data = self._source.read(size)
        self._hash.update(data)
        self._count += len(data)
        if self._size is not None and self._count > self._size:
            raise CorruptContent(f"{self._digest} is longer than the {self._size} bytes its descriptor promises")
        if (not data and size != 0) or size < 0:
            self._verify()
        return data

    def _verify(self) -> None:
        if self._verified:
            return
        if self._size is not None and self._count != self._size:
            raise CorruptContent(f"{self._digest} ends after {self._count} of {self._size} bytes")
        if self._hash.hexdigest() != self._digest.encoded:
            raise CorruptContent(f"content does not match its digest: {self._digest}")
        self._verified = True
