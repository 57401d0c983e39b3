"""`--save-stages`, `--stage-labels` and `--layer-label`: the stages below the target as images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root

NAME, BASE = "io.buildah.stage.name", "io.buildah.stage.base"
CHAIN = """FROM BASE AS one
RUN echo 1 >/one
FROM one AS two
RUN echo 2 >/two
FROM BASE AS empty
FROM empty
COPY --from=two /one /two /
"""
UNNAMED = "FROM scratch\nCOPY f /f\nFROM 0\nCOPY f /g\nFROM scratch\nCOPY --from=1 /f /g /\n"


def context(path: Path, text: str, base: str) -> Path:
    (path / "Containerfile").write_text(text.replace("BASE", base))
    (path / "f").write_text("f")
    return path


def saved(builda: Builda) -> list[str]:
    """The IDs of images without a name, oldest first."""
    return builda("images", "-q", "--no-trunc", "--filter", "dangling=true").split()[::-1]


def config(builda: Builda, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(builda("inspect", "--type", "image", image))["OCIv1"]
    return found


def by_stage(builda: Builda) -> dict[str, tuple[str, dict[str, str]]]:
    """ID and labels of the kept images, by the name of their stage."""
    found = {}
    for image in saved(builda):
        labels = config(builda, image)["config"]["Labels"]
        found[labels[NAME]] = image.removeprefix("sha256:"), labels
    return found


@pytest.mark.parametrize(("layers", "jobs"), [("true", "1"), ("true", "3"), ("false", "1")])
def test_each_stage_with_instructions_is_an_image(
    builda: Builda, base: str, tmp_path: Path, layers: str, jobs: str
) -> None:
    build = ("bud", f"--layers={layers}", "--jobs", jobs)
    where = context(tmp_path, CHAIN, base)
    builda(*build, "-t", "plain", where)
    assert saved(builda) == []
    said = builda(*build, "-t", "target", "--save-stages", "--stage-labels", where)
    stages = by_stage(builda)
    assert set(stages) == {"one", "two"}
    assert stages["one"][1][BASE] == base
    assert stages["two"][1][BASE] == stages["one"][0]
    assert f"[1/4] COMMIT\n--> {stages['one'][0][:12]}\n" in said
    own = config(builda, stages["two"][0])
    assert f'LABEL "{NAME}"="two" "{BASE}"="{stages["one"][0]}"' in {entry["created_by"] for entry in own["history"]}
    below = config(builda, base)["rootfs"]["diff_ids"]
    assert len(own["rootfs"]["diff_ids"]) == len(below) + 2
    target = config(builda, "target")["config"]["Labels"]
    assert target[NAME] == "3"
    assert target[BASE] == config_id(builda, base)
    container = builda("from", "-q", "--pull-never", stages["two"][0]).strip()
    assert builda("run", container, "cat", "/one", "/two") == "1\n2"


def config_id(builda: Builda, image: str) -> str:
    return builda("images", "-q", "--no-trunc", image).strip().removeprefix("sha256:")


@pytest.mark.parametrize("layers", [True, False])
def test_a_remembered_stage_keeps_its_image(builda: Builda, base: str, tmp_path: Path, layers: bool) -> None:
    build = ("bud", "-q", f"--layers={str(layers).lower()}", "--save-stages", context(tmp_path, CHAIN, base))
    first = builda(*build)
    kept = saved(builda)
    assert len(kept) == 3  # the target, too, has no name
    again = builda(*build)
    assert (again == first) is layers
    assert len(saved(builda)) == (3 if layers else 6)
    if layers:
        builda("rmi", kept[0])
        assert builda(*build) == first
        assert len(saved(builda)) == 3


def test_labels_of_stages_are_part_of_what_is_remembered(builda: Builda, base: str, tmp_path: Path) -> None:
    where = context(tmp_path, CHAIN, base)
    plain = builda("bud", "-q", "--save-stages", where)
    labelled = builda("bud", "-q", "--save-stages", "--stage-labels", where)
    assert labelled != plain
    assert builda("bud", "-q", "--save-stages", "--stage-labels", where) == labelled
    assert builda("bud", "-q", where) == plain
    said = builda("bud", "--save-stages", "--stage-labels", where)
    assert said.count("--> Using cache") == 3


def test_a_stage_without_a_name_is_called_by_its_number(builda: Builda, tmp_path: Path) -> None:
    builda("bud", "-q", "-t", "t", "--save-stages", "--stage-labels", context(tmp_path, UNNAMED, ""))
    stages = by_stage(builda)
    assert set(stages) == {"0", "1"}
    assert stages["0"][1][BASE] == "scratch"
    assert stages["1"][1][BASE] == stages["0"][0]


def test_which_stages_are_kept(builda: Builda, tmp_path: Path) -> None:
    text = "FROM scratch AS unused\nCOPY f /f\nFROM scratch AS used\nCOPY f /g\nFROM scratch\nCOPY --from=used /g /\n"
    where = context(tmp_path, text, "")
    for options, names in (
        (("--skip-unused-stages=false",), {"unused", "used"}),
        ((), {"used"}),
        (("--target", "used"), set()),
    ):
        builda("prune", "--all", "--force")
        builda("bud", "-q", "-t", "t", "--save-stages", "--stage-labels", *options, where)
        assert set(by_stage(builda)) == names


def test_layer_labels_are_those_of_kept_images(builda: Builda, tmp_path: Path) -> None:
    text = "FROM scratch AS one\nLABEL own=1\nCOPY f /f\nFROM one\nCOPY f /g\n"
    options = ("--save-stages", "--layer-label", "own=2", "--layer-label", "more=3", "--label", "last=4")
    builda("bud", "-q", "-t", "t", *options, context(tmp_path, text, ""))
    [stage] = saved(builda)
    labels = {name: value for name, value in config(builda, stage)["config"]["Labels"].items() if "." not in name}
    assert labels == {"own": "1", "more": "3"}
    labels = {name: value for name, value in config(builda, "t")["config"]["Labels"].items() if "." not in name}
    assert labels == {"own": "1", "last": "4"}


def test_a_squashed_build_has_squashed_stages(builda: Builda, base: str, tmp_path: Path) -> None:
    builda("bud", "-q", "-t", "t", "--squash", "--save-stages", context(tmp_path, CHAIN, base))
    assert [len(config(builda, image)["rootfs"]["diff_ids"]) for image in saved(builda)] == [1, 1]


def test_labels_of_stages_need_the_stages(builda: Builda, tmp_path: Path) -> None:
    where = context(tmp_path, "FROM scratch\nCOPY f /f\n", "")
    assert '"--stage-labels" requires "--save-stages"' in builda.fails("bud", "--stage-labels", where)
    builda("bud", "-q", "-t", "t", "--save-stages", "--stage-labels=false", where)
    assert NAME not in config(builda, "t")["config"]["Labels"]
    assert saved(builda) == []
    assert "--print-script" in builda.fails("bud", "--save-stages", "--print-script", where)
