"""Commands that try to leave their tree by system calls, races and descriptors, or to reach builda.

Most in mode `traced`, where only builda's supervisor and Landlock keep them from that.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builda.isolation import begun
from tests.support.pathcalls import (
    NO_LANDLOCK,
    child_without,
    compiled,
    in_single,
    in_traced,
    outside_of_trees,
    state,
)
from tests.unit.isolation.conftest import answered as answered
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("hostile")
    return {name: compiled(name, directory) for name in ("hostile", "pathcalls", "supervision")}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return outside_of_trees(tmp_path)


@pytest.mark.usefixtures("answered")
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


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 20))])
def test_calls_while_names_are_swapped_with_links_reach_nothing_outside(
    seed: int, programs: dict[str, Path], outside: Path, new_box: Callable[..., Any]
) -> None:
    before = state(outside)
    output = in_traced(programs["pathcalls"], new_box, "race", str(seed), "1", "1500", str(outside))
    assert output == ""
    assert state(outside) == before


@pytest.mark.usefixtures("answered")
def test_a_command_does_not_escape_its_supervisor(
    programs: dict[str, Path], outside: Path, new_box: Callable[..., Any]
) -> None:
    before = state(outside)
    output = in_traced(programs["supervision"], new_box, str(outside))
    assert output == "done\n"
    assert state(outside) == before


IN_SINGLE = (
    "reached: prlimit of the supervisor (1)",  # its parent is the init of its own pid namespace, which can be spared
    "reached: limits of the supervisor (1)",
    "reached: SIGKILL by a descriptor (1)",  # says only that the parent is 1
    "reached: an untraced child",  # nothing is traced
    "reached: an untraced sibling",
    "reached: int 0x80 (0)",  # a 32-bit call, which the kernel answers in the sandbox
)
"""What the program tells of in mode `single`, where it may do so."""


def test_a_command_with_one_id_does_not_escape_its_supervisor(
    programs: dict[str, Path], outside: Path, tmp_path: Path
) -> None:
    (tmp_path / "rootfs").mkdir()
    before = state(outside)
    *reached, done = in_single(programs["supervision"], tmp_path, str(outside)).splitlines()
    assert [line for line in reached if not line.startswith(IN_SINGLE)] == []
    assert done == "done"
    assert state(outside) == before


def test_root_in_a_chroot_changes_nothing_outside(
    programs: dict[str, Path], outside: Path, new_box: Callable[..., Any]
) -> None:
    """It may read there: root leaves a chroot(2)."""
    box = new_box(None, can_mount=False)
    box.sandbox = replace(box.sandbox, network="host", hostname=None)
    shutil.copy(programs["supervision"], box.rootfs / "root")
    before = state(outside)
    assert box.run("/root/supervision", str(outside)) == 0, box.output
    assert box.output.endswith("done\n")
    assert state(outside) == before


def test_without_landlock_a_hostile_command_writes_nothing_outside(
    programs: dict[str, Path],
    outside: Path,
    new_box: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(begun, "_CHILD", child_without(NO_LANDLOCK, tmp_path))
    before = state(outside)
    *reached, _, done = in_traced(programs["hostile"], new_box, str(outside), "60", "no-sockets").splitlines()
    assert (reached, done) == ([], "done")
    assert state(outside) == before


@pytest.mark.usefixtures("answered")
def test_the_command_ends_with_a_supervisor_that_is_killed(new_box: Callable[..., Any]) -> None:
    """Its processes are in the middle of calls then. No call is performed without the supervisor."""
    box = new_box("native")
    box.trace()
    for name in ("null", "zero"):
        (box.rootfs / "dev" / name).touch()
    loop = "while :; do echo x >> /alive; mkdir /made; rmdir /made; done"
    script = f"({loop}) & setsid sh -c '{loop}' & grep PPid: /proc/$$/status > /status; mv /status /found; {loop}"
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(box.run("sh", "-c", script)))
    thread.start()
    found = box.rootfs / "found"
    _until(lambda: found.exists() and (box.rootfs / "alive").exists())
    os.kill(int(found.read_text().split()[1]), signal.SIGKILL)
    thread.join(60)
    assert status == [137]
    assert "builda: signal 9 killed the process that answers the command's calls\n" in box.output
    _until(lambda: not _those_in(box.rootfs))


def _those_in(directory: Path) -> list[str]:
    """The processes whose working directory or program is in a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(process / name) for name in ("cwd", "exe")]
        except OSError:
            continue
        found += [process.name for link in links if link.startswith(str(directory))]
    return found


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
