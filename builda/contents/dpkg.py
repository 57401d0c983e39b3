"""Debian packages: dpkg's status file, the status.d of images without dpkg, copyright files (deb-control(5), DEP-5)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builda.contents.facts import Fact, File, Flaw, Licences, Package, stanzas, text

_FIELDS = frozenset({b"package", b"status", b"version", b"architecture", b"source", b"maintainer", b"homepage"})
_COPYRIGHT = 1 << 20
"""Bytes of a copyright file that are read."""
_MOST = 64
"""Licences of one package."""
_INSTALLED = frozenset({"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"})
"""States of packages whose files are there (dpkg(1))."""


def status(file: File) -> Iterator[Fact]:
    """The installed packages of a status file."""
    for stanza in stanzas(file, _FIELDS):
        state = stanza.get(b"status", "").split()
        if state and state[-1] not in _INSTALLED:
            continue
        name, version = stanza.get(b"package", ""), stanza.get(b"version", "")
        if not name or not version:
            yield Flaw("has a package without a name or version")
            continue
        source = stanza.get(b"source", "")
        qualifiers = [("arch", stanza.get(b"architecture", ""))]
        if source and source != name:
            qualifiers.append(("upstream", re.sub(r"\s*\((.*)\)$", r"@\1", source)))
        yield Package(
            "deb",
            name,
            version,
            qualifiers=tuple(pair for pair in qualifiers if pair[1]),
            supplier=stanza.get(b"maintainer", ""),
            homepage=stanza.get(b"homepage", ""),
        )


def copyright(file: File) -> Iterator[Fact]:  # noqa: A001  # the file's name
    """The licences that a copyright file names in the machine-readable format; nothing for other copyright files."""
    lines = iter(file.lines())
    if not next(lines, b"").lower().startswith(b"format:"):
        return
    found: dict[str, None] = {}
    read = 0
    for line in lines:
        read += len(line) + 1
        if line[:8].lower() == b"license:" and (licence := text(line[8:])):
            found[licence] = None
        if len(found) == _MOST or read > _COPYRIGHT:
            break
    if found:
        yield Licences(tuple(found))
