"""Attributes are written by descriptor, not by a name that another process may have put a link at meanwhile.

A name may be used where nothing follows it, or where nobody else can write; each such place is listed with its reason.
What recurses is banned by ruff (pyproject.toml, banned-api).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "builda"
WRITES = frozenset({"chmod", "chown", "lchmod", "lchown", "utime", "setxattr", "removexattr", "truncate"})
_CALLS = re.compile(
    rb"\b(%b)\b" % b"|".join(sorted(word.encode() for word in WRITES))
)  # parsing all files takes seconds
OPENS = frozenset({"open", "open_in_root", "dup", "existing_directory", "_directory_in", "directory", "directory_at"})

PINNED = "the path is /proc/self/fd/N of a descriptor whose type was checked (fs.nodes.pinned)"
OWN = "a directory of the store or of a run, which only its owner can write; no command sees its name"
ALLOWED = {
    "builda/fs/nodes.py": PINNED,
    "builda/builder/run/ssh_agent.py": PINNED,
    "builda/builder/run/emulated_mounts.py": f"{PINNED}, or a held descriptor",
    "builda/fs/owners.py": PINNED,
    "builda/fs/paths.py": "the path is /proc/self/fd/N of a descriptor that was opened as a directory",
    "builda/fs/xattrs.py": "the caller's descriptor, a path that is not followed, or one of fs.nodes.pinned",
    "builda/isolation/single/acls.py": "the path is /proc/self/fd/N of a held descriptor",
    "builda/isolation/single/emulator.py": "the path is /proc/self/fd/N of a held descriptor",
    "builda/isolation/single/keeper.py": "the path is /proc/self/fd/N of a held descriptor",
    "builda/store/layout.py": OWN,
    "builda/store/drivers/memory.py": OWN,
    "builda/store/drivers/plain.py": OWN,
    "builda/store/drivers/overlay.py": OWN,
    "builda/isolation/oci_runtime.py": OWN,
    "builda/isolation/traced/kept_aside.py": "paths in /proc of descriptors, the supervisor's or the caller's",
    "builda/isolation/traced/attributes.py": "the path is /proc/self/fd/N of a descriptor opened inside the tree",
    "builda/isolation/traced/changes.py": "the path is /proc/self/fd/N of a descriptor opened inside the tree",
    "builda/isolation/traced/tree.py": "the path is /proc/self/fd/N of a descriptor whose type was checked",
    "builda/linux/private.py": OWN,
}


def by_name(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls that write attributes, or sizes, of what a name leads to."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        descriptors = set(_descriptors(function))
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if _writes(call) and not _follows_nothing(call) and not _is_descriptor(call.args[0], descriptors):
                yield call


def _writes(call: ast.Call) -> bool:
    """Calls of os, and methods of paths; an open file's truncate is no name's, and fs.owners follows nothing."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in WRITES or not call.args:
        return False
    if isinstance(function.value, ast.Name) and function.value.id == "os":
        return True
    return function.attr in ("chmod", "lchmod") and ast.unparse(function.value) != "paths"


def _follows_nothing(call: ast.Call) -> bool:
    return any(
        word.arg == "follow_symlinks" and isinstance(word.value, ast.Constant) and word.value.value is False
        for word in call.keywords
    )


def _is_descriptor(argument: ast.expr, descriptors: set[str]) -> bool:
    return isinstance(argument, ast.Name) and argument.id in descriptors


def _descriptors(function: ast.FunctionDef) -> Iterator[str]:
    """Names in a function that are of type int, or that hold what was opened."""
    for parameter in function.args.args + function.args.kwonlyargs:
        if isinstance(parameter.annotation, ast.Name) and parameter.annotation.id == "int":
            yield parameter.arg
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _opens(node.value):
            yield node.targets[0].id
        elif isinstance(node, ast.withitem) and isinstance(node.optional_vars, ast.Name) and _opens(node.context_expr):
            yield node.optional_vars.id


def _opens(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return False
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    return name in OPENS


def test_attributes_are_not_written_by_name() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{call.lineno}: {ast.unparse(call)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if str(path.relative_to(PACKAGE.parent)) not in ALLOWED and _CALLS.search(text := path.read_bytes())
        for call in by_name(ast.parse(text))
    ]
    assert not wrong, "\n".join([*wrong, "use a descriptor (os.fchmod …) or fs.nodes.pinned"])


def test_nothing_is_allowed_that_is_not_there() -> None:
    idle = [name for name in ALLOWED if not list(by_name(ast.parse((PACKAGE.parent / name).read_bytes())))]
    assert not idle


def test_the_check_sees_names() -> None:
    text = """
def f(parent: int, name: str) -> None:
    os.chmod(name, 0o755, dir_fd=parent)
    os.utime(name, ns=(1, 1), follow_symlinks=False)
    fd = os.open(name, 0)
    os.utime(fd, ns=(1, 1))
    Path(name).chmod(0o1)
    os.setxattr(parent, "user.x", b"")
"""
    found = [ast.unparse(call) for call in by_name(ast.parse(text))]
    assert found == ["os.chmod(name, 493, dir_fd=parent)", "Path(name).chmod(1)"]


LOOKED_AT = {
    "builda/linux/regular.py": "this is how it is done",
    "builda/fs/owners.py": "a file of ours, or one in a directory that was just looked at, and no link is followed",
    "builda/fs/trees/beneath.py": "a file of a layer that was just looked at, and no link is followed",
    "builda/fs/trees/diff.py": "a file of a layer that was just looked at, and no link is followed",
    "builda/fs/trees/walk.py": "an entry of a directory that was just looked at, and no link is followed",
    "builda/cli/guide/completing.py": "a path that the user is writing",
    "builda/builder/image/sourceimages.py": "a file or directory that the user names; a pipe is not waited for",
    "builda/inputfile.py": "a file that the user names; a pipe is not waited for",
    "builda/isolation/single/finding.py": "a file that was just looked at; the command has the same rights",
}


def test_a_file_of_others_is_looked_at_before_it_is_opened() -> None:
    """To open what turned out to be a device can be an act, so a type that is only checked afterwards is too late."""
    word = "O_RDONLY | os." + "O_NONBLOCK"
    found = {
        str(path.relative_to(PACKAGE.parent))
        for path in PACKAGE.rglob("*.py")
        if word in path.read_text().replace("O_NOFOLLOW | os.", "")
    }
    assert found == LOOKED_AT.keys(), "use fs.paths.open_regular"
