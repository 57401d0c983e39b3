"""What readers find in the files of an image, as values.

The author of an image may be hostile: a text is cut to `TEXT` characters, and what is no text in it is U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from builda.errors import CorruptContent
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias


TEXT = 1024
"""Characters of a name, a version or a licence."""
LINE = 1 << 16
"""Bytes of a line that are kept; what follows them on the line is dropped."""
DATABASE = 128 << 20
"""Bytes of a package database of text that are read."""
_PIECE = 1 << 18
_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


class Package(NamedTuple):
    """A piece of software. `type`, `namespace`, `qualifiers` are those of its package URL.

    `licences` are as the package says them; all of them apply. `is_declared`: a lock file names it, and nothing shows
    that it is installed.
    """

    type: str
    name: str
    version: str
    namespace: str = ""
    qualifiers: tuple[tuple[str, str], ...] = ()
    licences: tuple[str, ...] = ()
    supplier: str = ""
    homepage: str = ""
    is_declared: bool = False


class Licences(NamedTuple):
    """The licences of a package in its Debian copyright file."""

    licences: tuple[str, ...]


class System(NamedTuple):
    """The distribution, in the words of os-release(5)."""

    id: str
    version: str


class Flaw(NamedTuple):
    """Why what was found is not all there is."""

    message: str


Fact: TypeAlias = "Package | Licences | System | Flaw"


class File:
    """A file of a layer: its path, and its content, which can be read once."""

    def __init__(self, path: str, size: int, read: Callable[[int], bytes]) -> None:
        self.path = path
        self.size = size
        self._read = read

    def pieces(self) -> Iterator[bytes]:
        """The content in pieces of at most 256 KiB."""
        return iter(lambda: self._read(_PIECE), b"")

    def whole(self, limit: int) -> bytes:
        """All of the content; CorruptContent for more than `limit` bytes."""
        if self.size > limit:
            raise CorruptContent(f"has {self.size} bytes, more than the limit of {limit}")
        return b"".join(self.pieces())

    def lines(self) -> Iterator[bytes]:
        """The lines without their ends, each cut to LINE bytes; CorruptContent behind DATABASE bytes."""
        count, rest = 0, b""
        for piece in self.pieces():
            count += len(piece)
            if count > DATABASE:
                raise CorruptContent(f"has more than {DATABASE} bytes; what lies behind them was not read")
            first, *lines = piece.split(b"\n")
            rest = (rest + first)[:LINE]
            if lines:
                yield rest
                yield from lines[:-1]
                rest = lines[-1][:LINE]
        if rest:
            yield rest


def text(data: bytes | str) -> str:
    """The text of a field: without blanks around it, cut, and with U+FFFD for everything that is no text."""
    said = data[: 4 * TEXT].decode("utf-8", "replace") if isinstance(data, bytes) else data[: 4 * TEXT]
    return _NO_TEXT.sub("\ufffd", said.strip())[:TEXT]


def stanzas(file: File, wanted: frozenset[bytes], separator: bytes = b":") -> Iterator[dict[bytes, str]]:
    """The groups of `Name: value` lines that blank lines separate, as dictionaries of the wanted names in lower case.

    Lines that go on with a field are left out; the first of several fields of one name counts.
    """
    found: dict[bytes, str] = {}
    for line in file.lines():
        if not line.strip():
            if found:
                yield found
                found = {}
            continue
        if line[:1] in b" \t":
            continue
        name, colon, value = line.partition(separator)
        if colon and (key := name.strip().lower()) in wanted:
            found.setdefault(key, text(value))
    if found:
        yield found
