"""Who may import whom: the table of docs/architecture.md, checked against every import in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "builda"

DOCUMENT = Path(__file__).parents[1] / "docs/architecture.md"

BASE = frozenset({"errors", "events", "oci"})
OF_ALL = frozenset({"values", "display", "jsontext", "inputfile", "threads", "__version__"})
"""What every package may import."""
ALLOWED: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "values": frozenset(),
    "display": frozenset(),
    "jsontext": frozenset(),
    "inputfile": frozenset({"errors"}),
    "threads": frozenset(),
    "tomlfile": frozenset({"errors"}),
    "events": frozenset({"oci"}),
    "oci": frozenset({"errors"}),
    "linux": frozenset({"errors"}),
    "host": frozenset({"errors", "linux"}),
    "runoptions": frozenset(),
    "places": frozenset(),
    "containersconf": frozenset({"errors", "oci", "mounts", "places", "runoptions", "tomlfile"}),
    "permissions": frozenset({"errors", "runoptions"}),
    "plan": frozenset({"oci", "runoptions"}),
    "mounts": frozenset({"errors", "plan"}),
    "lockfile": frozenset({"errors", "oci", "outputfile"}),
    "outputfile": frozenset(),
    "fs": frozenset({"errors", "oci", "linux"}),
    "attestations": frozenset({"oci"}),
    "contents": frozenset({"errors", "fs", "oci"}),
    "scan": frozenset({"errors", "fs", "oci"}),
    "frontend": frozenset({"errors", "oci", "permissions", "plan", "mounts"}),
    "registry": BASE | {"places", "tomlfile"},
    "isolation": frozenset({"errors", "events", "linux"}),
    "store": BASE | {"linux", "fs", "runoptions"},
    "scriptlint": frozenset({"errors", "frontend"}),
    "session": frozenset({"errors", "oci", "linux", "fs", "store"}),
    "bake": frozenset({"errors", "oci"}),
    "cluster": BASE | {"fs", "linux", "transfer"},
    "transfer": BASE | {"fs", "store"},
    "trust": BASE | {"attestations", "places", "transfer"},
    "builder": BASE
    | {
        "attestations",
        "contents",
        "linux",
        "fs",
        "lockfile",
        "mounts",
        "permissions",
        "plan",
        "runoptions",
        "scan",
        "store",
        "isolation",
        "transfer",
    },
    "containerfile": BASE | {"permissions", "plan", "frontend", "builder", "store"},
    "api": BASE
    | {
        "containersconf",
        "host",
        "linux",
        "places",
        "plan",
        "store",
        "isolation",
        "session",
        "transfer",
        "registry",
        "trust",
        "builder",
    },
    "sessionapi": BASE | {"api", "builder", "host", "plan", "session", "store"},
    "cli": BASE
    | {
        "attestations",
        "bake",
        "cluster",
        "containersconf",
        "contents",
        "host",
        "lockfile",
        "outputfile",
        "scriptlint",
        "permissions",
        "places",
        "plan",
        "runoptions",
        "scan",
        "mounts",
        "store",
        "session",
        "transfer",
        "registry",
        "trust",
        "builder",
        "containerfile",
        "api",
    },
}


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and first component below builda of each import."""
    for node in _statements(path):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "builda" else [f"builda.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("builda."):
                yield node.lineno, name.split(".")[1]


def test_imports_go_only_where_the_architecture_allows() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if here in ("__init__", "__main__"):
            continue
        for line, there in _imports(path):
            if there not in ALLOWED[here] | OF_ALL | {here}:
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {here} imports {there}")
    assert not wrong, "\n".join(wrong)


WITHIN: dict[str, frozenset[str]] = {
    "builder": frozenset({"builder.run", "builder.copy", "builder.image", "builder.cached"}),
    "builder.run": frozenset({"builder", "builder.image"}),
    "builder.copy": frozenset({"builder", "builder.image"}),
    "builder.image": frozenset({"builder"}),
    "builder.debug": frozenset({"builder", "builder.run", "builder.image"}),
    "builder.execution": frozenset({"builder", "builder.run", "builder.copy", "builder.image", "builder.debug"}),
    "builder.cached": frozenset({"builder", "builder.run", "builder.copy", "builder.image", "builder.execution"}),
    "fs": frozenset({"fs.trees"}),
    "fs.trees": frozenset({"fs"}),
    "fs.lists": frozenset({"fs", "fs.trees"}),
    "cli": frozenset({"cli.core", "cli.guide"}),
    "cli.core": frozenset({"cli.verbs", "cli.guide", "cli.format", "cli.progress"}),
    "cli.verbs": frozenset(
        {"cli", "cli.core", "cli.guide", "cli.format", "cli.progress", "cli.report", "cli.building", "cli.jobs"}
    ),
    "cli.building": frozenset({"cli.core", "cli.verbs", "cli.format", "cli.progress", "cli.report"}),
    "cli.jobs": frozenset({"cli.core", "cli.verbs", "cli.building", "cli.format", "cli.progress"}),
    "cli.guide": frozenset({"cli.core", "cli.verbs"}),
    "cli.format": frozenset({"cli.core"}),
    "cli.progress": frozenset({"cli.format"}),
    "cli.report": frozenset({"cli.format"}),
}
"""Of a package with sub-packages, which of them may import which. In `builder`, `execution` uses the primitives, not
they it. In `fs`, what writes trees knows nothing of lists. In `cli`, `verbs` stands for its table: other rooms import
no verb's module until it is asked for."""


def _sub_package(name: str) -> str:
    return ".".join(name.split(".")[:2]) if ".".join(name.split(".")[:2]) in WITHIN else name.split(".")[0]


def test_imports_within_a_package_go_only_where_its_table_allows() -> None:
    modules = _modules()
    wrong = []
    for name, path in modules.items():
        here = _sub_package(name)
        for there in {_sub_package(other) for other in _imported_modules(path, modules)}:
            if here in WITHIN and there.split(".")[0] == here.split(".")[0] and there not in WITHIN[here] | {here}:
                wrong.append(f"{name} imports {there}")
    assert not wrong, "\n".join(wrong)
    for top in ("builder", "cli", "fs"):
        parts = {name for name in WITHIN if name.split(".")[0] == top}
        packages = {f"{top}.{path.name}" for path in (PACKAGE / top).iterdir() if (path / "__init__.py").exists()}
        assert parts == packages | {top}


@cache
def _statements(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """The import statements of a file, wherever they stand; parsing all files takes seconds, and each test asks."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def _modules() -> dict[str, Path]:
    paths = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__").removeprefix("builda."): path for name, path in paths.items()}


def _imported_modules(path: Path, modules: Mapping[str, Path]) -> set[str]:
    """The modules that one imports, wherever it does: at its top, in functions, for type checkers only.

    `from builda import NAME` means the module NAME: the root package itself holds only a version and the place of each
    public name.
    """
    found = set()
    for node in _statements(path):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name.removeprefix("builda.") in modules else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("builda.") for name in found if name.startswith("builda.")} & modules.keys()


def _circles(graph: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The groups of modules each of which leads to all others of its group."""
    left = {name: set(below) for name, below in graph.items()}
    while ends := [name for name, below in left.items() if not below & left.keys()]:
        for name in ends:  # imports nothing that is left, so no circle goes through it
            del left[name]
    reached = {name: below & left.keys() for name, below in left.items()}
    for middle in reached:
        for below in reached.values():
            if middle in below:
                below |= reached[middle]
    rings = {frozenset(other for other in below if name in reached[other]) for name, below in reached.items()}
    return {ring for ring in rings if len(ring) > 1}


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"e"}, "e": {"f"}, "f": {"d"}, "g": set(), "h": {"g", "a"}}
    assert _circles(graph) == {frozenset("bc"), frozenset("def")}


def test_no_modules_import_each_other() -> None:
    """Type-only imports and those in functions count: what needs each other cannot be read alone."""
    modules = _modules()
    graph = {name: _imported_modules(path, modules) - {name} for name, path in modules.items()}
    found = _circles(graph)
    assert not found, "\n".join(" ".join(sorted(ring)) for ring in found)


def test_primitives_take_a_context_and_no_builder() -> None:
    """Only what wires a Builder, or offers one to scripts and verbs, knows the class."""
    modules = _modules()
    knowing = {name for name, path in modules.items() if "builder.builder" in _imported_modules(path, modules)}
    assert not {name for name in knowing if name.startswith("builder.")}


def test_images_from_outside_are_opened_where_the_policy_is_asked() -> None:
    """policy.json counts for every image only while nothing else than Remote.source opens one."""
    opening = re.compile(r"\bopen_source\(")
    found = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if opening.search(path.read_text())}
    assert found == {"api.py", "transfer/locate.py"}


def test_every_package_has_a_row() -> None:
    names = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert names - {"__init__", "__main__"} <= ALLOWED.keys()


def test_the_documented_table_is_this_one() -> None:
    rows = re.findall(r"^\| (`[a-z`, ]+`) \|.*\| ([a-z, –]*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    documented = {
        name: frozenset(re.findall("[a-z]+", allowed))
        for names, allowed in rows
        for name in re.findall("[a-z]+", names)
    }
    assert documented == ALLOWED


SHARED_NAMES = frozenset(
    "auth commit config containers doctor fsck images manifest preprocess run".split()  # the verb and what it calls
)


def test_a_file_name_that_stands_twice_means_the_same_thing() -> None:
    """A verb may be called like the module of what it does; nothing else shares a name."""
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py" and path.stem not in SHARED_NAMES:
            places.setdefault(path.stem, []).append(path.relative_to(PACKAGE).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
