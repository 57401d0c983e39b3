"""After a power cut: what was not synced may be empty or gone, and no command fails of it.

A cut cannot be had here. What it does is done to the store instead: files that nobody syncs lose their content, as
file systems that write names before data leave them, and everything was written under an earlier boot.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root

CONTAINERFILE = "FROM {base}\nCOPY big /big\nRUN echo made > /made\nENV A=b\n"


@pytest.fixture
def context(tmp_path: Path, base: str) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    (place / "big").write_bytes(b"x" * 100_000)
    (place / "Containerfile").write_text(CONTAINERFILE.format(base=base))
    return place


def build(builda: Builda, context: Path) -> str:
    return builda("bud", "--quiet", "--timestamp=0", "-t", "app", context)


def restart(root: Path) -> None:
    """Every snapshot was written before the last boot."""
    for path in (root / "snapshots").glob("*/info.json"):
        if path.stat().st_size:
            path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "an earlier one"}))


def published(builda: Builda) -> dict[Path, int]:
    """What a published image is made of, by size."""
    places = (builda.root / "blobs/sha256", builda.root / "refs", builda.root / "images")
    return {path: path.stat().st_size for place in places for path in place.iterdir()}


@pytest.mark.parametrize("lost", ["steps/*", "snapshots/*/info.json", "digests/*", "cache/*", "containers/*/*.json"])
def test_files_that_nobody_syncs_may_be_empty(builda: Builda, context: Path, base: str, lost: str) -> None:
    image = build(builda, context)
    builda("from", "--name", "kept", base)
    for path in builda.root.glob(lost):
        if path.is_file():
            os.truncate(path, 0)
    restart(builda.root)
    before = published(builda)
    for command in (["images"], ["containers"], ["prune"], ["images"]):
        builda(*command)
    assert build(builda, context) == image
    assert builda("run", builda("from", "app"), "cat", "/made") == "made"
    assert {path: path.stat().st_size for path in before} == before
    builda("rm", "--all")
    builda("prune")


def test_a_container_of_an_earlier_boot_is_told_of_once(builda: Builda, base: str) -> None:
    container = builda("from", base)
    builda("run", container, "touch", "/made")
    restart(builda.root)
    said = builda.run("run", container, "true").stderr
    assert f"{container} was begun before this machine was started" in said
    assert "power cut" not in builda.run("run", container, "ls", "/made").stderr


def test_a_layer_that_lost_its_files_is_made_again(builda: Builda, context: Path) -> None:
    image = build(builda, context)
    for path in builda.root.glob("snapshots/*/fs/big"):
        path.unlink()
    for path in builda.root.glob("snapshots/*/fs/made"):
        os.truncate(path, 0)
    restart(builda.root)
    assert build(builda, context) == image
    container = builda("from", "app")
    assert builda("run", container, "cat", "/made") == "made"
    assert builda("run", container, "wc", "-c", "/big").split()[0] == "100000"


def test_a_frozen_step_that_lost_its_files_is_done_again(builda: Builda, context: Path) -> None:
    """A step that was frozen and never became part of an image has no layer that could tell what it holds."""
    (context / "Containerfile").write_text((context / "Containerfile").read_text() + "RUN false\n")
    assert builda.run("bud", "--quiet", context, check=False).returncode == 1
    for path in builda.root.glob("snapshots/*/fs/made"):
        os.truncate(path, 0)
    restart(builda.root)
    (context / "Containerfile").write_text((context / "Containerfile").read_text().replace("RUN false", "RUN true"))
    build(builda, context)
    assert builda("run", builda("from", "app"), "cat", "/made") == "made"
