"""The table of what is looked for: which files, and the function that reads one.

A new ecosystem is a module and a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from builda.contents import apk, dpkg, golang, node, osrelease, python, rpm
from builda.contents.facts import Fact, File
from builda.values import NamedTuple


class Ecosystem(NamedTuple):
    """`path` matches the paths of the files, without a leading slash; `what` is what a document says of them."""

    what: str
    path: bytes
    read: Callable[[File], Iterator[Fact]]


_RPM = rb"(?:usr/lib/sysimage|var/lib)/rpm/"
ECOSYSTEMS: tuple[Ecosystem, ...] = (
    Ecosystem("dpkg database", rb"var/lib/dpkg/status(?:\.d/[^/]+(?<!\.md5sums))?", dpkg.status),
    Ecosystem("copyright file", rb"usr/share/doc/[^/]+/copyright", dpkg.copyright),
    Ecosystem("apk database", rb"(?:usr/)?lib/apk/db/installed", apk.installed),
    Ecosystem("rpm database", _RPM + rb"rpmdb\.sqlite", rpm.database),
    Ecosystem("rpm database", _RPM + rb"rpmdb\.sqlite-wal", rpm.log),
    Ecosystem("rpm database", _RPM + rb"Packages(?:\.db)?", rpm.other),
    Ecosystem("Python metadata", rb"(?:.*/)?[^/]+\.dist-info/METADATA", python.metadata),
    Ecosystem("Python metadata", rb"(?:.*/)?[^/]+\.egg-info(?:/PKG-INFO)?", python.metadata),
    Ecosystem("package.json", rb"(?:.*/)?node_modules/(?:@[^/]+/)?[^/@.][^/]*/package\.json", node.package),
    Ecosystem("npm lock file", rb"(?!.*(?:^|/)node_modules/)(?:.*/)?package-lock\.json", node.lock),
    Ecosystem("os-release", rb"(?:etc|usr/lib)/os-release", osrelease.system),
)
PROGRAMS = Ecosystem("Go program", b"", golang.program)
"""What is tried of each executable file that no row wants by its path."""
_ANY = re.compile(b"|".join(b"(%b)" % row.path for row in ECOSYSTEMS), re.DOTALL)


def wanted(path: bytes) -> Ecosystem | None:
    """The row that reads the file at `path`."""
    found = _ANY.fullmatch(path)
    return None if found is None or found.lastindex is None else ECOSYSTEMS[found.lastindex - 1]
