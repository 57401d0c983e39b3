"""Node packages: package.json below node_modules, and lock files of npm (npm's docs, package-lock.json)."""

from __future__ import annotations

from collections.abc import Iterator

from builda.contents.facts import Fact, File, Flaw, Package, text
from builda.oci.document import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_PACKAGE = 1 << 20
_LOCK = 32 << 20
_MOST = 50_000
"""Packages of one lock file."""


def package(file: File) -> Iterator[Fact]:
    """The package whose package.json this is. Those of parts of a package, which have no version, are none."""
    found = decode(file.whole(_PACKAGE), "it", _PACKAGE)
    name, version = found.get("name"), found.get("version")
    if isinstance(name, str) and isinstance(version, str) and name.strip() and version.strip():
        homepage = found.get("homepage")
        yield _npm(name, version, _licences(found), homepage if isinstance(homepage, str) else "")


def lock(file: File) -> Iterator[Fact]:
    """The packages that a package-lock.json names: to be installed, whether they are or not."""
    found = decode(file.whole(_LOCK), "it", _LOCK)
    count = 0
    for name, entry in _entries(found):
        if not isinstance(entry, dict) or entry.get("link"):
            continue
        name, version = entry.get("name", name), entry.get("version")
        if not (isinstance(name, str) and isinstance(version, str) and name.strip() and version.strip()):
            continue
        count += 1
        if count > _MOST:
            yield Flaw(f"names more than {_MOST} packages; the others were left out")
            return
        yield _npm(name, version, _licences(entry), "")._replace(is_declared=True)


def _entries(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The names of packages and what the lock file says of each."""
    packages = found.get("packages")
    if not isinstance(packages, dict):
        yield from _nested(found.get("dependencies"))
        return
    for key, entry in packages.items():
        if key:  # the project itself has none
            yield key.rpartition("node_modules/")[2], entry


def _nested(dependencies: Any) -> Iterator[tuple[str, Any]]:
    """The entries of a lock file of version 1, which lie in each other."""
    pending = [dependencies]
    while pending:
        here = pending.pop()
        if not isinstance(here, dict):
            continue
        for name, entry in here.items():
            yield name, entry
            if isinstance(entry, dict):
                pending.append(entry.get("dependencies"))


def _npm(name: str, version: str, licences: tuple[str, ...], homepage: str) -> Package:
    namespace, _, own = text(name).rpartition("/")
    return Package("npm", own, text(version), namespace, licences=licences, homepage=text(homepage))


def _licences(found: dict[str, Any]) -> tuple[str, ...]:
    """The licence in `license`, or in the `licenses` of old packages."""
    said = found.get("license", found.get("licenses"))
    items = said if isinstance(said, list) else [said]
    words = (item.get("type") if isinstance(item, dict) else item for item in items[:16])
    return tuple(text(word) for word in words if isinstance(word, str) and word.strip())
