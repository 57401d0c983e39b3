"""Who may import whom: the table of docs/architecture.md, checked against every import in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "builda"

DOCUMENT = Path(__file__).parents[1] / "docs/architecture.md"

BASE = frozenset({"errors", "events", "oci"})
ALLOWED: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "values": frozenset(),
    "display": frozenset(),
    "events": frozenset({"oci"}),
    "oci": frozenset({"errors"}),
    "linux": frozenset({"errors"}),
    "host": frozenset({"errors", "linux"}),
    "runoptions": frozenset(),
    "containersconf": frozenset({"errors", "oci", "mounts", "registry", "runoptions"}),
    "permissions": frozenset({"errors", "runoptions"}),
    "plan": frozenset({"oci", "runoptions"}),
    "mounts": frozenset({"errors", "plan"}),
    "fs": frozenset({"errors", "oci", "linux"}),
    "frontend": frozenset({"errors", "oci", "permissions", "plan", "mounts"}),
    "registry": BASE,
    "isolation": frozenset({"errors", "events", "linux"}),
    "store": BASE | {"linux", "fs", "runoptions"},
    "transfer": BASE | {"fs", "store"},
    "builder": BASE | {"linux", "fs", "permissions", "plan", "store", "isolation", "transfer"},
    "containerfile": BASE | {"permissions", "plan", "frontend", "builder", "store"},
    "api": BASE | {"containersconf", "host", "linux", "plan", "store", "isolation", "transfer", "registry", "builder"},
    "cli": BASE
    | {
        "containersconf",
        "host",
        "permissions",
        "plan",
        "runoptions",
        "mounts",
        "store",
        "transfer",
        "registry",
        "builder",
        "containerfile",
        "api",
    },
}


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and first component below builda of each import."""
    for node in ast.walk(ast.parse(path.read_bytes())):
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
            if there not in ALLOWED[here] | {here, "values", "display", "__version__"}:
                wrong.append(f"{path.relative_to(PACKAGE.parent)}:{line}: {here} imports {there}")
    assert not wrong, "\n".join(wrong)


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
