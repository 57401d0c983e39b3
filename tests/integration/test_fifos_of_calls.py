"""Readers and writers of FIFOs that are killed or interrupted: what comes then meets no end that is gone.

tests/pathcalls/fifos.c tells what the kernel would not have done; a chroot and the mode `single`, where the kernel
opens FIFOs, show that it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, in_chroot, in_single, in_traced
from tests.unit.isolation.conftest import answered as answered
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 40))]
ROUNDS = "100"


@pytest.fixture(scope="module")
def fifos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("fifos", tmp_path_factory.mktemp("fifos"))


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_ends_are_gone_in_mode_traced(seed: int, fifos: Path, new_box: Callable[..., Any]) -> None:
    assert in_traced(fifos, new_box, str(seed), ROUNDS) == "done\n"


def test_killed_ends_are_gone_in_mode_single(fifos: Path, tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    assert in_single(fifos, tmp_path / "rootfs", "1", ROUNDS) == "done\n"


def test_killed_ends_are_gone_in_a_chroot(fifos: Path, tmp_path: Path) -> None:
    assert in_chroot(fifos, tmp_path / "root", "1", ROUNDS) == "done\n"
