"""Commands in mode `traced` that try to leave their tree by system calls, races and descriptors, or to reach builda."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, in_traced
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root

MARKER = "outside-marker"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("hostile")
    return {name: compiled(name, directory) for name in ("hostile", "pathcalls", "supervision")}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory outside of the tree in which everybody may write."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "marker").write_text(MARKER)
    for each in (path, path / "marker"):
        each.chmod(0o777)
    return path


def state(directory: Path) -> list[tuple[object, ...]]:
    """All that a command could have changed in a directory and above it."""
    rows: list[tuple[object, ...]] = []
    for path in (directory.parent / "rootfs" / "..", directory, *sorted(directory.rglob("*"))):
        info = path.lstat()
        content = path.read_text() if path.is_file() else ""
        row = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns if path.name != ".." else info.st_mtime_ns < 10**10,
        )
        rows.append((path.name, content, *row, info.st_nlink if path.is_file() else 0, tuple(os.listxattr(path))))
    return rows


@pytest.mark.parametrize("rounds", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_a_hostile_command_reaches_nothing_outside(
    rounds: int, programs: dict[str, Path], outside: Path, new_box: Callable[..., Any]
) -> None:
    before = state(outside)
    output = in_traced(programs["hostile"], new_box, str(outside), str(rounds))
    *reached, won, done = output.splitlines()
    assert (reached, done) == ([], "done")
    assert won.endswith("races won")
    assert state(outside) == before


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 20))])
def test_calls_while_names_are_swapped_with_links_reach_nothing_outside(
    seed: int, programs: dict[str, Path], outside: Path, new_box: Callable[..., Any]
) -> None:
    before = state(outside)
    output = in_traced(programs["pathcalls"], new_box, "race", str(seed), "1", "1500", str(outside))
    assert output == ""
    assert state(outside) == before


def test_a_command_does_not_escape_its_supervisor(
    programs: dict[str, Path], outside: Path, new_box: Callable[..., Any]
) -> None:
    before = state(outside)
    output = in_traced(programs["supervision"], new_box, str(outside))
    assert output == "done\n"
    assert state(outside) == before
