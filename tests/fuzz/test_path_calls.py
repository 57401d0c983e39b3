"""Calls with paths: in mode `traced` each returns what it returns in a root directory of chroot(2)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import (
    FOUND,
    compiled,
    fewest_calls,
    first_difference,
    in_chroot,
    in_traced,
    made_before,
    runs,
)
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root

SAMPLE = pytest.param(1, 2, 300, id="sample")
WHOLE = pytest.param(100, 40, 1000, id="long", marks=pytest.mark.long)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("pathcalls", tmp_path_factory.mktemp("pathcalls"))


@pytest.fixture
def both(program: Path, tmp_path: Path, new_box: Callable[..., Any]) -> Callable[[list[str]], tuple[str, str]]:
    """What the program prints for runs in a root directory of chroot(2), and in mode `traced`."""
    return lambda words: (in_chroot(program, tmp_path / "chroot", *words), in_traced(program, new_box, *words))


@pytest.mark.parametrize(("first", "seeds", "calls"), [SAMPLE, WHOLE])
def test_random_calls_return_what_they_return_in_a_chroot(
    first: int, seeds: int, calls: int, both: Callable[[list[str]], tuple[str, str]], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--fuzz-seconds"):
        first, seeds, calls = random.randrange(10**6), 20, 1000
    chosen = range(first, first + seeds)
    expected, found = (runs(output) for output in both([f"{seed}:{calls}" for seed in chosen]))
    for seed, wanted, got in zip(chosen, expected, found, strict=True):
        at = first_difference(wanted, got)
        if at is not None:
            pytest.fail(_reproduction(both, seed, made_before(wanted, at)))


def _reproduction(both: Callable[[list[str]], tuple[str, str]], seed: int, numbers: list[int]) -> str:
    """The fewest calls of a seed that return something else, and the argument of pathcalls that makes them."""
    run = f"{seed}={','.join(map(str, fewest_calls(both, str(seed), numbers)))}"
    expected, found = (runs(output)[0] for output in both([run]))
    at = first_difference(expected, found)
    if at is None:
        return f"seed {seed}: the calls {numbers} differ, but not again"
    lines = (expected[at : at + 1] or ["(end)"])[0], (found[at : at + 1] or ["(end)"])[0]
    return "\n".join([f"pathcalls {run}", *expected[:at], f"expected {lines[0]}", f"found    {lines[1]}"])


def test_calls_that_once_returned_something_else(both: Callable[[list[str]], tuple[str, str]]) -> None:
    blocks = FOUND.read_text().split("\n\n")
    texts = [" ".join(line for line in block.splitlines() if line[0] != "#") for block in blocks]
    expected, found = both([text for text in texts if text])
    assert found == expected
