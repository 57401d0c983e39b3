"""Files that the documents for developers name are there, and have what the documents say is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
ROOMS = ("builda", "docs", "examples", "tests", "tools", "bench")
DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/store-format.md")

ABSENT = {"store/drivers/zfs.py"}  # the example of what is to be written

_PATH = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|md|sh|txt|toml)|(?:builda|tests|tools|bench|examples)/[\w./-]*)`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_DEFINED = re.compile(r"`((?:[\w-]+/)*[\w-]+\.py)` \(((?:`[\w.]+`(?:, )?)+)\)")


def files() -> frozenset[str]:
    """Every file of the tree, and every directory, by its path below the top."""
    found = [path for room in ROOMS for path in (TOP / room).rglob("*") if "__pycache__" not in path.parts]
    found += [path for path in TOP.iterdir() if path.is_file()]
    return frozenset(str(path.relative_to(TOP)) for path in [*found, *(TOP / room for room in ROOMS)])


def matching(name: str, among: frozenset[str]) -> list[str]:
    """What a document can mean by `name`: the end of a path, as documents leave out the package."""
    name = name.rstrip("/")
    return [path for path in among if path == name or path.endswith(f"/{name}")]


def paths_named(text: str) -> Iterator[str]:
    """The files and directories that are named as code."""
    yield from (match[1] for match in _PATH.finditer(text))


def definitions_named(text: str) -> Iterator[tuple[str, str]]:
    """Files with a name that follows in parentheses: `fs/tar.py` (`header_of`)."""
    for match in _DEFINED.finditer(text):
        yield from ((match[1], name) for name in re.findall(r"`([\w.]+)`", match[2]))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_are_there(document: str) -> None:
    among = files()
    named = set(paths_named((TOP / document).read_text())) - ABSENT
    assert [name for name in sorted(named) if not matching(name, among)] == []


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, "README.md", *(f"docs/{path.name}" for path in TOP.glob("docs/*.md"))]
)
def test_links_lead_somewhere(document: str) -> None:
    at = (TOP / document).parent
    links = {match[1] for match in _LINK.finditer((TOP / document).read_text())}
    assert [link for link in sorted(links) if not (at / link).exists()] == []


def test_names_in_parentheses_are_defined_in_the_file() -> None:
    text = (TOP / "docs/architecture.md").read_text()
    among = files()
    named = list(definitions_named(text))
    assert len(named) > 5
    wrong = [
        (path, name)
        for path, name in named
        if not any(_defines((TOP / file).read_text(), name) for file in matching(path, among))
    ]
    assert wrong == []


def _defines(source: str, name: str) -> bool:
    return all(re.search(rf"^\s*(def|class) {part}\b|^\s*{part}\b.*=", source, re.M) for part in name.split("."))


def test_what_is_missing_is_seen() -> None:
    text = "`builder/none.py`, `fs/tar.py` (`header_of`, `_none`), [x](gone.md)"
    assert [name for name in paths_named(text) if not matching(name, files())] == ["builder/none.py"]
    assert list(definitions_named(text)) == [("fs/tar.py", "header_of"), ("fs/tar.py", "_none")]
    assert not _defines("def header_of() -> None:", "_none")
