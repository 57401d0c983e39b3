"""Answers to a part of the stack that was never used, and execve from its end: as in a chroot in both modes."""

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
