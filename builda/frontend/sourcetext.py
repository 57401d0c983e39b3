"""Source text whose every line knows the file and line that a user edits.

The preprocessor and the concatenation of several files move lines about; every later error looks its place up here.
"""

from __future__ import annotations

from builda.errors import ContainerfileError
from builda.plan import Location
from builda.values import NamedTuple

SIZE_LIMIT = 8 << 20
"""Bytes that a Containerfile may have; heredocs count."""


class SourceText(NamedTuple):
    """Lines without their ends, and as many places; `included` maps a file to the place that included it first."""

    lines: tuple[str, ...]
    places: tuple[Location, ...]
    included: tuple[tuple[str, Location], ...] = ()

    @classmethod
    def of(cls, text: str, file: str) -> SourceText:
        """`text` as it stands in `file`, lines counted from 1."""
        lines = tuple(text.split("\n"))
        if lines[-1] == "" and len(lines) > 1:  # an empty file keeps one line, which knows its name
            lines = lines[:-1]
        return cls(lines, tuple(Location(file, number) for number in range(1, len(lines) + 1)))

    def __add__(self, other: object) -> SourceText:
        """This text with another below it: what several `-f` mean."""
        assert isinstance(other, SourceText)
        return SourceText(self.lines + other.lines, self.places + other.places, self.included + other.included)

    def includers(self, file: str) -> tuple[Location, ...]:
        """The places of the #include lines that led to `file`, innermost first, up to the main file."""
        first = dict(reversed(self.included))
        found: list[Location] = []
        while file in first and first[file] not in found:
            found.append(first[file])
            file = found[-1].file
        return tuple(found)


def decode(data: bytes, file: str) -> str:
    """The text of a Containerfile: UTF-8, byte order mark and carriage returns before line ends dropped.

    Raises ContainerfileError for binaries, UTF-16 and files over SIZE_LIMIT.
    """

    def refused(message: str, hint: str | None = None) -> ContainerfileError:
        return ContainerfileError(message, file=file, line=1, hint=hint)

    if len(data) > SIZE_LIMIT:
        raise refused(f"Containerfile has more bytes than the limit: {SIZE_LIMIT}", "is this the file you meant?")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refused("Containerfile is UTF-16", "save it as UTF-8")
    if b"\0" in data:
        raise refused("Containerfile is a binary file", "is this the file you meant?")
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ContainerfileError("Containerfile is not UTF-8", file=file, line=line, hint="save it as UTF-8") from error
    if "\r" in text and "\n" not in text:
        raise refused("lines of the Containerfile end in carriage returns", "end them in line feeds: tr '\\r' '\\n'")
    return text.replace("\r\n", "\n")
