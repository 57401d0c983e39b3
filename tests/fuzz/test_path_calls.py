"""Random calls with paths: in mode `traced` each returns what it returns in a root directory of chroot(2)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, differences, in_chroot, in_traced
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root

SEEDS = (1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in (3, 4, 5, 6, 7, 8, 9, 10, *range(12, 20))))
CALLS = 300


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("pathcalls", tmp_path_factory.mktemp("pathcalls"))


@pytest.mark.parametrize("seed", SEEDS)
def test_calls_return_what_they_return_in_a_chroot(
    seed: int, program: Path, tmp_path: Path, new_box: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--fuzz-seconds"):
        seed = random.randrange(10**6)
    root = tmp_path / "chroot"
    root.mkdir(exist_ok=True)
    words = (str(seed), "1", str(CALLS))
    alike, found = differences(in_chroot(program, root, *words), in_traced(program, new_box, *words))
    assert not found, f"seed {seed} after {alike} lines:\n" + "\n".join(found)
