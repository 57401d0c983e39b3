"""`--layers=false` and BUILDAH_LAYERS=false: the same files and configuration, in one layer for each stage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.integration.test_bud import make_context, tree_of
from tests.support.corpus import CASES, Case

pytestmark = pytest.mark.root

WITH_STAGES = [case for case in CASES if case.text.count("FROM ") > 1]

STAGES = {
    "one on the other": ("FROM BASE AS one\nRUN echo a >/a\nFROM one\nRUN cat /a >/b\n", 2),
    "only configured": ("FROM BASE AS one\nENV A=1\nFROM one\nRUN echo $A >/b\n", 1),
    "nothing on top": ("FROM BASE AS one\nRUN echo a >/a\nFROM one\nENV A=1\n", 1),
    "two on one": (
        "FROM BASE AS one\nRUN echo a >/a\nFROM one AS two\nRUN echo b >/b\nFROM one\nCOPY --from=two /a /b /c/\n",
        2,
    ),
    "three deep": ("FROM BASE AS one\nCOPY f /f\nFROM one AS two\nRUN rm /f\nFROM two\nCOPY f /g\n", 3),
    "unchanged": ("FROM BASE AS one\nRUN true\nFROM one AS two\nRUN true\nFROM two\nRUN echo c >/c\n", 1),
    "from scratch": ("FROM scratch AS one\nCOPY f /f\nFROM one\nCOPY f /g\n", 2),
    "copied from and built upon": (
        "FROM BASE AS one\nRUN echo a >/a\nFROM one AS two\nRUN echo b >>/a\nFROM BASE\nCOPY --from=one /a /1\n"
        "COPY --from=two /a /2\n",
        1,
    ),
}


@pytest.mark.parametrize(("name", "jobs"), [*((name, "1") for name in STAGES), ("two on one", "3")])
def test_a_stage_that_others_stand_on_is_one_layer(
    builda: Builda, base: str, tmp_path: Path, name: str, jobs: str
) -> None:
    text, count = STAGES[name]
    (tmp_path / "Containerfile").write_text(text.replace("BASE", base))
    (tmp_path / "f").write_text("f")
    below = 0 if "scratch" in text else len(_config(builda, base)["rootfs"]["diff_ids"])
    image = builda("bud", "-q", "--jobs", jobs, tmp_path, BUILDAH_LAYERS="false")
    assert len(_config(builda, image)["rootfs"]["diff_ids"]) - below == count
    layered = builda("bud", "-q", tmp_path)
    assert _files(builda, image) == _files(builda, layered)
    assert _without_layers(_config(builda, image)) == _without_layers(_config(builda, layered))
    assert builda("containers", "-q") == ""


@pytest.mark.parametrize("case", WITH_STAGES, ids=lambda case: case.name)
def test_cases_with_stages_have_the_same_files(builda: Builda, base: str, tmp_path: Path, case: Case) -> None:
    context = make_context(case, tmp_path / "context", base)
    layered = builda("bud", "-q", *case.args, context)
    image = builda("bud", "-q", *case.args, context, BUILDAH_LAYERS="false")
    assert _files(builda, image) == _files(builda, layered)
    assert _without_layers(_config(builda, image)) == _without_layers(_config(builda, layered))


def _config(builda: Builda, image: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = json.loads(builda("inspect", "--type", "image", image))["OCIv1"]
    return found


def _without_layers(config: dict[str, dict[str, list[str]]]) -> dict[str, object]:
    return {name: value for name, value in config.items() if name not in ("created", "history", "rootfs")}


def _files(builda: Builda, image: str) -> dict[str, tuple[object, ...]]:
    container = builda("from", image)
    script = 'cd "$(builda_ mount "$1")" && tar -c --numeric-owner .'.replace("builda_", " ".join(builda.command))
    tar = subprocess.run(["sh", "-c", script, "sh", container], env=clean_environ(), stdout=subprocess.PIPE, check=True)
    builda("rm", container)
    return tree_of(tar.stdout)
