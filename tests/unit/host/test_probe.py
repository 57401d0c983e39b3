"""What a process may do, and the mode that follows from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.errors import InvalidValue
from builda.host import modes, probe
from builda.host.probe import Abilities, choose_mode
from builda.linux import userns

NO = "Operation not permitted"


@pytest.mark.parametrize(
    ("abilities", "mode"),
    [
        (Abilities(private_mounts=None), "direct"),
        (Abilities(private_mounts=NO, user_namespace=None, identity_map=None), "userns"),
        (Abilities(private_mounts=NO, user_namespace=None, identity_map=NO, subordinate_map=None), "subid"),
        (Abilities(NO, None, NO, NO, single_map=None), "single"),
        (Abilities(NO, None, NO, NO, single_map=NO, change_root=None), "chroot"),
        (Abilities(NO, None, NO, NO, single_map=NO, change_root=NO), "traced"),
        (Abilities(private_mounts=NO, user_namespace=NO, change_root=None), "chroot"),
        (Abilities(private_mounts=NO, user_namespace=NO, change_root=NO), "traced"),
    ],
)
def test_the_best_mode_that_works_is_chosen(abilities: Abilities, mode: str) -> None:
    assert choose_mode(abilities) == mode


@pytest.mark.root
def test_root_works_directly_and_nothing_else_was_tried() -> None:
    assert probe.decisive() == Abilities(private_mounts=None)


@pytest.mark.root
def test_the_answer_is_remembered_for_these_rights_only(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    first = modes.abilities(run)
    (file,) = (tmp_path / "run").iterdir()
    key, *answers = file.read_text().split("\n")
    file.write_text("\n".join([key, "told otherwise", *answers[1:]]))
    assert modes.abilities(run).private_mounts == "told otherwise"
    file.write_text("\n".join(["other rights", "told otherwise", *answers[1:]]))
    assert modes.abilities(run) == first


def test_a_run_root_that_cannot_be_written_does_not_matter() -> None:
    assert modes.abilities("/proc/nothing") == probe.decisive()


@pytest.mark.root
def test_what_works_in_a_user_namespace_with_an_identity_map_is_told() -> None:
    found = probe.details(userns.identity())
    assert found["overlay userxattr"] is None
    assert found["device nodes"] == NO
    assert found["fresh proc"] is None


def test_trying_changes_nothing_here_and_takes_little_time() -> None:
    before = [os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt", "pid", "net")]
    start = _processor_time()
    probe.decisive()
    assert _processor_time() - start < 0.5
    assert [os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt", "pid", "net")] == before


def _processor_time() -> float:
    """Seconds of the processor for this process and its children; a busy machine adds none."""
    return sum(os.times()[:4])


def test_modes_have_names() -> None:
    assert modes.parse_mode("userns") == "userns"
    assert modes.parse_mode("auto") is modes.parse_mode(None) is None
    with pytest.raises(InvalidValue, match="no such mode: rootful"):
        modes.parse_mode("rootful")
