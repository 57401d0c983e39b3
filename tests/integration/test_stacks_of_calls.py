"""Calls with parts of the stack that were never used, from its end, and from small stacks: as in a chroot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, in_chroot, in_single, in_traced
from tests.unit.isolation.conftest import answered as answered  # the fixtures, shared with the unit tests
from tests.unit.isolation.conftest import new_box as new_box

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("stacks", tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def kernels(program: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return in_chroot(program, tmp_path_factory.mktemp("chroot")).splitlines()


@pytest.mark.usefixtures("answered")
def test_stacks_grow_in_traced(program: Path, kernels: list[str], new_box: Callable[..., Any]) -> None:
    assert in_traced(program, new_box).splitlines() == kernels
    assert kernels[-2:] == ["executed with words", "executed with 190000 words"]


def test_stacks_grow_in_single(program: Path, kernels: list[str], tmp_path: Path) -> None:
    assert in_single(program, tmp_path).splitlines() == kernels


@pytest.mark.usefixtures("answered")
def test_calls_change_nothing_beside_a_small_stack(new_box: Callable[..., Any], tmp_path: Path) -> None:
    program = compiled("smallstacks", tmp_path)
    wanted = in_chroot(program, tmp_path / "chroot")
    assert "0 bytes changed" in wanted
    assert in_traced(program, new_box) == wanted
