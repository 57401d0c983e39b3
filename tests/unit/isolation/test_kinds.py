"""The table of isolations: what a name means, and that a row says all that callers ask."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from builda.errors import InvalidValue, IsolationUnavailable
from builda.isolation.kinds import CHROOT, KINDS, NATIVE, OCI, PLAIN_CHROOT, Kind, find_kind, isolation_name

PACKAGE = Path(__file__).parents[3] / "builda"


@pytest.mark.parametrize("can_mount", [True, False])
def test_a_name_means_one_isolation(can_mount: bool) -> None:
    names = [name for kind in KINDS if kind.mounts == can_mount for name in (kind.name, *kind.aliases)]
    assert len(names) == len(set(names))
    assert all(find_kind(name, can_mount=can_mount).mounts == can_mount for name in names)


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
    assert caught.value.hint == "it is native, oci or chroot"
    with pytest.raises(IsolationUnavailable, match="isolation oci needs mounts"):
        find_kind("oci", can_mount=False)


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
