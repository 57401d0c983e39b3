"""Alpine packages: the database of installed packages (apk-installed file format of apk-tools)."""

from __future__ import annotations

from collections.abc import Iterator

from builda.contents.facts import Fact, File, Flaw, Package, text

_WANTED = frozenset(b"PVALomU")


def installed(file: File) -> Iterator[Fact]:
    """The packages of lib/apk/db/installed, in which the case of a field's one letter counts."""
    found: dict[int, str] = {}
    for line in file.lines():
        if not line.strip():
            yield from _package(found)
            found = {}
        elif line[1:2] == b":" and line[0] in _WANTED:
            found.setdefault(line[0], text(line[2:]))
    yield from _package(found)


def _package(found: dict[int, str]) -> Iterator[Fact]:
    if not found:
        return

    def said(letter: str) -> str:
        return found.get(ord(letter), "")

    if not said("P") or not said("V"):
        yield Flaw("has a package without a name or version")
        return
    qualifiers = [("arch", said("A"))]
    if said("o") != said("P"):
        qualifiers.append(("upstream", said("o")))
    yield Package(
        "apk",
        said("P"),
        said("V"),
        qualifiers=tuple(pair for pair in qualifiers if pair[1]),
        licences=(said("L"),) if said("L") else (),
        supplier=said("m"),
        homepage=said("U"),
    )
