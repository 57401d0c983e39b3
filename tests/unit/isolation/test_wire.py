"""The message to the child: what is written is read, and what reads it needs the standard library only."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "builda"
ISOLATION = PACKAGE / "isolation"
SCRIPTS = ("start", "device_hook")  # executed, not imported
MODULES = [
    *(
        (f"builda.isolation.{package}", path.stem)
        for package in ("child", "emulated", "single", "traced")
        for path in sorted((ISOLATION / package).glob("*.py"))
        if path.stem not in ("__init__", *SCRIPTS)
    ),
    *(
        ("builda.linux", name)
        for name in ("acl", "cfunctions", "detached", "filecaps", "fork", "landlock", "netlink", "ptrace", "syscalls")
    ),
    ("builda", "values"),
]
# Each of these takes milliseconds to import, for which every RUN step would wait.
SLOW = {"typing", "re", "enum", "signal", "socket", "subprocess", "dataclasses", "json"}
# What the child calls the parts of the message, and of which type they are.
NAMES = {"wire": "Wire", "runtime": "Runtime", "plain_tree": "PlainTree", "traced_tree": "TracedTree"}


def _path(package: str, name: str) -> Path:
    return PACKAGE.parent / package.replace(".", "/") / f"{name}.py"


def _declared() -> dict[str, set[str]]:
    """The keys of each type of the message."""
    tree = ast.parse((ISOLATION / "wire.py").read_bytes())
    return {
        node.name: {
            row.target.id for row in node.body if isinstance(row, ast.AnnAssign) and isinstance(row.target, ast.Name)
        }
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name in NAMES.values()
    }


def _part(node: ast.expr) -> str | None:
    """The type of the message that an expression of the child is: `wire`, `wire["runtime"]`, `runtime` …"""
    if isinstance(node, ast.Name):
        return NAMES.get(node.id)
    if isinstance(node, ast.Subscript) and _part(node.value) == "Wire" and isinstance(node.slice, ast.Constant):
        return NAMES.get(str(node.slice.value))
    return None


def _read() -> dict[str, set[str]]:
    """The keys that the child's modules look up, by the type that has them."""
    found: dict[str, set[str]] = {name: set() for name in NAMES.values()}
    for package, name in MODULES:
        for node in ast.walk(ast.parse(_path(package, name).read_bytes())):
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                part = _part(node.value)
                if part is not None:
                    found[part].add(str(node.slice.value))
    return found


def test_what_is_declared_is_read_and_what_is_read_is_declared() -> None:
    assert _read() == _declared()


def test_what_is_declared_is_written_by_one_function() -> None:
    (function,) = (
        node
        for node in ast.walk(ast.parse((ISOLATION / "wire.py").read_bytes()))
        if isinstance(node, ast.FunctionDef) and node.name == "to_wire"
    )
    literals = [node for node in ast.walk(function) if isinstance(node, ast.Dict)]
    written = {key.value for key in literals[-1].keys if isinstance(key, ast.Constant)}
    assert written == _declared()["Wire"]


def test_nobody_changes_the_message() -> None:
    for path in ISOLATION.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
                assert _part(node.value) is None, f"{path.name}:{node.lineno}"


# What the child does before it imports anything: see the script that the parent executes.
_BEGIN = """
import sys
sys.path.insert(0, {root!r})
for name in (
    "builda", "builda.linux", "builda.isolation",
    "builda.isolation.child", "builda.isolation.emulated", "builda.isolation.single", "builda.isolation.traced",
):
    module = type(sys)(name)
    module.__path__ = [{root!r} + "/" + name.replace(".", "/")]
    sys.modules[name] = module
before = set(sys.modules)
__import__({module!r})
print(*set(sys.modules) - before)
"""


@pytest.mark.parametrize(("package", "name"), MODULES)
def test_modules_of_the_child_need_the_standard_library_only(package: str, name: str) -> None:
    code = _BEGIN.format(root=str(PACKAGE.parent), module=f"{package}.{name}")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    allowed = {f"{package}.{name}" for package, name in MODULES}
    foreign = [
        module
        for module in loaded
        if module not in allowed
        and module.partition(".")[0] not in (*sys.stdlib_module_names, *sys.builtin_module_names)
    ]
    assert foreign == []
    # Each takes milliseconds to import, and every RUN step would wait for them.
    if package != "builda.isolation.traced":  # few runs are traced, and these take longer anyway
        assert not SLOW & loaded


def test_late_imports_of_the_child_are_modules_of_the_child() -> None:
    """Those within functions, of which the test above sees nothing."""
    allowed = {f"{package}.{name}" for package, name in MODULES}
    for package, name in MODULES:
        for node in ast.walk(ast.parse(_path(package, name).read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("builda"):
                whole = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert whole & (allowed | {"builda.isolation.wire"}), f"{name}:{node.lineno}: {node.module}"


@pytest.mark.root
def test_signals_that_the_caller_blocks_are_blocked_in_the_command(box: object) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        text = box.shell("grep SigBlk: /proc/self/status")  # type: ignore[attr-defined]  # a fixture of conftest.py
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert int(text.split()[1], 16) == 1 << signal.SIGUSR1 - 1
