"""Digests: what content is called (OCI image-spec, descriptor.md, "Digests").

`Digest.parse` is the only way in from text, so a Digest is safe as a path component by construction.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache

from builda.errors import CorruptContent, InvalidValue
from builda.values import NamedTuple, Protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import hashlib
    from collections.abc import Callable
    from typing import Any, Self

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
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `data`."""
        if algorithm == "sha256":
            return cls(algorithm, sha256(data).hex())
        import hashlib

        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


CONTENT = "builda_content"
"""What provenance calls a digest over files: their names, types, modes, links, attributes and contents."""


def is_sha256(text: str) -> bool:
    """Whether this is the text of a sha256 digest."""
    return len(text) == 71 and text.startswith("sha256:") and not text[7:].strip(_DIGITS)


LITTLE = 1 << 16
"""Bytes that Python hashes itself. OpenSSL is several times faster, but takes three milliseconds to load."""


def sha256(data: bytes) -> bytes:
    """The 32 bytes of the sha256 digest of `data`."""
    if len(data) > LITTLE:
        import hashlib

        return hashlib.sha256(data).digest()
    digest: bytes = _own_sha256()(data).digest()
    return digest


@cache
def _own_sha256() -> Callable[[bytes], Any]:
    """The implementation that Python has itself; that of OpenSSL in a Python that was built without its own."""
    with suppress(ImportError):
        own: Callable[[bytes], Any] = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256
        return own
    import hashlib

    return hashlib.sha256


class Hasher:
    """The sha256 digest of what comes in parts, little or much."""

    def __init__(self) -> None:
        self._little = bytearray()
        self._much: hashlib._Hash | None = None

    def update(self, data: bytes) -> None:
        """Add `data` behind all that came before."""
        if self._much is not None:
            self._much.update(data)
            return
        self._little += data
        if len(self._little) > LITTLE:
            import hashlib

            self._much = hashlib.sha256(self._little)

    def digest(self) -> Digest:
        """Of all that came."""
        return Digest.of(bytes(self._little)) if self._much is None else Digest("sha256", self._much.hexdigest())


def verify(data: bytes, digest: Digest, size: int) -> None:
    """Raise CorruptContent unless `data` has this digest and size."""
    if len(data) > size:
        raise CorruptContent(f"{digest} is longer than the {size} bytes its descriptor promises")
    if len(data) < size:
        raise CorruptContent(f"{digest} ends after {len(data)} of {size} bytes")
    if Digest.of(data, digest.algorithm) != digest:
        raise CorruptContent(f"content does not match its digest: {digest}")


class Readable(Protocol):
    """Anything with a blocking `read`."""

    def read(self, size: int = -1, /) -> bytes: ...


class HashingReader:
    """A reader that counts and hashes what passes; `passed` is told how much each time."""

    def __init__(
        self, source: Readable, algorithm: str = "sha256", passed: Callable[[int], None] | None = None
    ) -> None:
        import hashlib

        self._source = source
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self._passed = passed
        self.count = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        data = self._source.read(size)
        self._hash.update(data)
        self.count += len(data)
        if self._passed is not None:
            self._passed(len(data))
        return data

    def digest(self) -> Digest:
        """The digest of what has passed."""
        return Digest(self._algorithm, self._hash.hexdigest())

    def digest_of_all(self) -> Digest:
        """The digest of the whole source; reads what is left of it."""
        while self.read(1 << 20):
            pass
        return self.digest()


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
