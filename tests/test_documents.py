"""Files that the documents for developers name are there, and have what the documents say is in them."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("package", sorted((TOP / "builda").rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_the_docstring_of_a_package_names_what_there_is(package: Path) -> None:
    room = package.parent
    modules, defined = module_names(), names_defined_in(room)
    text = ast.get_docstring(ast.parse(package.read_text())) or ""
    assert text
    assert [name for name in code_names(text) if not is_known(name, room, modules, defined)] == []


def test_a_module_of_another_package_needs_that_packages_name() -> None:
    room, modules = TOP / "builda/transfer", module_names()
    named = list(code_names("`copy`, `copyimage`, `registry`, `builder.copy`, `builder/copy/git.py`, `fs.none`, `x y`"))
    assert named == ["copy", "copyimage", "registry", "builder.copy", "builder.copy.git", "fs.none"]
    assert [name for name in named if not is_known(name, room, modules, frozenset())] == ["copy", "fs.none"]


def module_names() -> frozenset[str]:
    """Every module and package by its dotted name."""
    found = [path.relative_to(TOP).with_suffix("") for path in (TOP / "builda").rglob("*.py")]
    return frozenset(".".join(path.parts).removesuffix(".__init__") for path in found)


def names_defined_in(room: Path) -> frozenset[str]:
    """Functions and classes of a package's modules."""
    texts = [path.read_text() for path in room.rglob("*.py")]
    return frozenset(name for text in texts for name in re.findall(r"^\s*(?:def|class) (\w+)", text, re.M))


def code_names(text: str) -> Iterator[str]:
    """What may be the name of a module or function, with dots between its parts."""
    for name in re.findall(r"`([a-z_][\w./]*)`", text):
        yield name.replace("/", ".").removesuffix(".py")


def is_known(name: str, room: Path, modules: frozenset[str], defined: frozenset[str]) -> bool:
    """Whether a docstring of the package `room` may use a name: of a module in or beside it, or the end of a path."""
    head, dot, last = name.rpartition(".")
    if dot:
        owners = [module for module in modules if module.endswith(f".{head}")]
        return any(module.endswith(f".{name}") for module in modules) or any(
            _defines((TOP / (module.replace(".", "/") + ".py")).read_text(), last)
            for module in owners
            if (TOP / (module.replace(".", "/") + ".py")).is_file()
        )
    parts = room.relative_to(TOP).parts
    return last in defined or any(".".join((*parts[:count], name)) in modules for count in range(1, len(parts) + 1))
