"""Python distributions: METADATA of *.dist-info and PKG-INFO of *.egg-info (core metadata specification)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builda.contents.facts import Fact, File, Flaw, Package, text

_MOST = 1000
"""Header lines that are read; the longest real ones have some hundred."""


def metadata(file: File) -> Iterator[Fact]:
    """The distribution that the file describes. Its description, behind the first blank line, is not looked at."""
    found: dict[bytes, str] = {}
    licences: list[str] = []
    for count, line in enumerate(file.lines()):
        if not line.strip() or count > _MOST:
            break
        name, colon, value = line.partition(b":")
        if not colon or line[:1] in b" \t":
            continue
        if name.strip().lower() == b"classifier" and value.strip().startswith(b"License ::"):
            licences.append(text(value.rpartition(b"::")[2]))
        else:
            found.setdefault(name.strip().lower(), text(value))
    name_, version = found.get(b"name", ""), found.get(b"version", "")
    if not name_ or not version:
        yield Flaw("describes a Python distribution without a name or version")
        return
    said = found.get(b"license-expression") or found.get(b"license", "")
    if said.upper() in ("", "UNKNOWN", "NONE"):
        said = ""
    yield Package(
        "pypi",
        re.sub(r"[-_.]+", "-", name_).lower(),
        version,
        licences=(said,) if said else tuple(dict.fromkeys(licences)),
        supplier=found.get(b"author", ""),
        homepage=found.get(b"home-page", ""),
    )
