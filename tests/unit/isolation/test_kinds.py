"""The table of isolations: what a name means, and that a row says all that callers ask."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from builda.errors import InvalidValue, IsolationUnavailable
from builda.isolation.kinds import CHROOT, KINDS, NATIVE, OCI, PLAIN_CHROOT, TRACED, Kind, find_kind, isolation_name

PACKAGE = Path(__file__).parents[3] / "builda"


@pytest.mark.parametrize(("can_mount", "can_chroot"), [(True, True), (False, True), (False, False)])
def test_a_name_means_one_isolation(can_mount: bool, can_chroot: bool) -> None:
    kinds = [kind for kind in KINDS if kind.mounts == can_mount and kind.traces != can_chroot]
    names = [name for kind in kinds for name in (kind.name, *kind.aliases)]
    assert len(names) == len(set(names)) > 0
    assert all(find_kind(name, can_mount=can_mount, can_chroot=can_chroot) in kinds for name in names)


@pytest.mark.parametrize(
    ("name", "can_mount", "kind"),
    [
        (None, True, NATIVE),
        ("rootless", True, NATIVE),
        ("oci", True, OCI),
        ("chroot", True, CHROOT),
        (None, False, PLAIN_CHROOT),
        ("chroot", False, PLAIN_CHROOT),
    ],
)
def test_names_are_looked_up_where_they_work(name: str | None, can_mount: bool, kind: Kind) -> None:
    assert find_kind(name, can_mount=can_mount) is kind


def test_unknown_names_and_those_that_need_mounts_are_told_apart() -> None:
    with pytest.raises(InvalidValue, match="unknown isolation: vm") as caught:
        find_kind("vm", can_mount=False)
    assert caught.value.hint == "it is native, oci, chroot or traced"
    with pytest.raises(IsolationUnavailable, match="isolation oci needs mounts"):
        find_kind("oci", can_mount=False)
    with pytest.raises(IsolationUnavailable, match=r"isolation chroot needs chroot\(2\)"):
        find_kind("chroot", can_mount=False, can_chroot=False)
    with pytest.raises(IsolationUnavailable, match="isolation traced works in mode traced only"):
        find_kind("traced")


def test_a_command_is_traced_where_nothing_else_works() -> None:
    assert find_kind(None, can_mount=False, can_chroot=False) is TRACED


def test_a_named_runtime_means_the_isolation_that_takes_one() -> None:
    assert isolation_name(None) is None
    assert isolation_name(None, has_runtime=True) == "oci"
    assert isolation_name("rootless", has_runtime=True) == "native"


def test_nothing_outside_the_package_compares_the_name_of_an_isolation() -> None:
    """What an isolation can do is asked of its row."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        if "isolation" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if (
                isinstance(node, ast.Compare)
                and "isolation" in ast.unparse(node.left)
                and not isinstance(node.ops[0], ast.Is | ast.IsNot)
            ):
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []
