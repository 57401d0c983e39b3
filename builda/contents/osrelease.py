"""The distribution of an image: os-release(5)."""

from __future__ import annotations

from collections.abc import Iterator

from builda.contents.facts import Fact, File, System, text

_LIMIT = 1 << 16


def system(file: File) -> Iterator[Fact]:
    """The distribution by ID and VERSION_ID."""
    found = {}
    for line in file.whole(_LIMIT).splitlines():
        name, equals, value = line.partition(b"=")
        if equals:
            found[name.strip()] = text(value.strip().strip(b"\"'"))
    yield System(found.get(b"ID", "linux").lower(), found.get(b"VERSION_ID", ""))
