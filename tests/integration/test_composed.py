"""Builds and scripts without commands, where layers are composed and nothing unpacked: root's images, by no right."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.corpus import CASES, OWN, Case, both, context_of

pytestmark = pytest.mark.root
WITHOUT_RUN = tuple(case for case in CASES if "RUN" not in case.text.upper().replace("ONBUILD RUN", ""))


@pytest.mark.parametrize("case", [*WITHOUT_RUN, *OWN], ids=lambda case: case.name)
def test_a_composed_image_is_the_one_that_root_builds(case: Case, tmp_path: Path, busybox: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    unpacked, composed = both(tmp_path, busybox, "composed", context_of(case, context), *case.args)
    assert composed["OCIv1"] == unpacked["OCIv1"]
    assert composed["FromImageDigest"] == unpacked["FromImageDigest"]


def test_what_needs_a_tree_is_refused_and_harms_nothing(builda: Builda, tmp_path: Path) -> None:
    driver = ("--storage-driver", "composed")
    (tmp_path / "file").write_text("x")
    container = builda(*driver, "from", "scratch")
    builda(*driver, "copy", container, tmp_path / "file", "/dir/file")
    for words in (("run", container, "true"), ("mount", container), ("commit", "--squash", container, "squashed")):
        assert "lists of files instead of trees" in builda.fails(*driver, *words)
    assert "where a file is: /dir/file" in builda.fails(*driver, "copy", container, tmp_path, "/dir/file")
    builda(*driver, "commit", container, f"oci:{tmp_path}/layout")
    assert builda(*driver, "fsck") == ""
    builda(*driver, "rm", "-a")
    builda(*driver, "prune", "-af")
    assert os.listdir(builda.root / "snapshots") == []


@pytest.mark.parametrize("drivers", [("overlay", "composed"), ("composed", "overlay")])
def test_trees_and_lists_do_not_mix_in_one_store(builda: Builda, drivers: tuple[str, str]) -> None:
    builda("--storage-driver", drivers[0], "from", "scratch")
    told = builda.fails("--storage-driver", drivers[1], "from", "scratch")
    assert f"store was made with driver {drivers[0]}, this is {drivers[1]}" in told


def test_a_command_is_refused_before_the_build_starts_and_named(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {base} AS unused\nRUN false\nFROM {base}\nWORKDIR /a\nRUN true\n")
    told = builda.fails("--storage-driver", "composed", "bud", tmp_path)
    assert "Containerfile:5: no command can be run here" in told
    assert os.listdir(builda.root / "containers") == []
