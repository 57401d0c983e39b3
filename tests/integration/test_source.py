"""Source images: as Buildah makes them, digest for digest, and through a registry and back."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda
from tests.support import needs
from tests.support.registry import Registry

pytestmark = pytest.mark.root
INSECURE = "--tls-verify=false"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A directory with a file, a tree with a link, and an archive."""
    where = tmp_path / "sources"
    (where / "tree/deep").mkdir(parents=True)
    (where / "file").write_text("111\n")
    (where / "tree/deep/f").write_text("x")
    (where / "tree/l").symlink_to("deep/f")
    subprocess.run(["tar", "-C", where, "-czf", where / "archive.tar.gz", "file"], check=True)
    return where


def manifest_of(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    assert len(index["manifests"]) == 1
    found: dict[str, Any] = json.loads(blob(layout, index["manifests"][0]["digest"]))
    return found


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


def files_in(layout: Path, digest: str) -> list[str]:
    """What tar says of a layer."""
    path = layout / "blobs/sha256" / digest.removeprefix("sha256:")
    listed = ["tar", "-tvzf", str(path), "--numeric-owner"]
    return subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()


def made(builda: Builda, sources: Path, layout: Path) -> Path:
    builda("source", "create", "--author", "me", layout)
    builda("source", "add", "--annotation", "k=v", layout, sources / "file")
    builda("source", "add", layout, sources / "tree")
    builda("source", "add", layout, sources / "archive.tar.gz")
    return layout


def test_a_source_image_has_a_layer_for_each_artifact(builda: Builda, sources: Path, tmp_path: Path) -> None:
    layout = made(builda, sources, tmp_path / "src")
    manifest = manifest_of(layout)
    config = json.loads(blob(layout, manifest["config"]["digest"]))
    assert manifest["config"]["mediaType"] == "application/vnd.oci.source.image.config.v1+json"
    assert config["author"] == "me"
    assert config["created"].endswith("Z")
    first, second, third = manifest["layers"]
    assert first["annotations"] == {"k": "v"}
    assert [line.split()[-1] for line in files_in(layout, first["digest"])] == ["file"]
    assert [line.split(None, 5)[-1] for line in files_in(layout, second["digest"])] == [
        "deep/",
        "deep/f",
        "l -> deep/f",
    ]
    assert [line.split()[-1] for line in files_in(layout, third["digest"])] == ["archive.tar.gz"]
    names = {path.name for path in (layout / "blobs/sha256").iterdir()}
    assert len(names) == 5  # the manifests before are gone
    assert all(len(name) == 64 for name in names)


@needs.program("buildah")
def test_the_form_is_that_of_buildah(builda: Builda, sources: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "STORAGE_DRIVER": "vfs"}

    def buildah(*arguments: str | Path) -> None:
        command = ["buildah", "--root", tmp_path / "b", "--runroot", tmp_path / "r", "source", *arguments]
        subprocess.run(command, check=True, capture_output=True, env=environ)

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    builda("source", "create", "--time-stamp=false", "--author", "me", ours)
    buildah("create", "--time-stamp=false", "--author", "me", theirs)
    assert manifest_of(ours) == manifest_of(theirs)
    assert {path.name for path in ours.glob("blobs/*/*")} == {path.name for path in theirs.glob("blobs/*/*")}
    for artifact in ("file", "tree", "archive.tar.gz"):
        builda("source", "add", ours, sources / artifact)
        buildah("add", theirs, sources / artifact)
    for own, other in zip(manifest_of(ours)["layers"], manifest_of(theirs)["layers"], strict=True):
        assert own["mediaType"] == other["mediaType"]
        assert files_in(ours, own["digest"]) == files_in(theirs, other["digest"])
    buildah("add", ours, sources / "file")  # each adds to what the other made
    builda("source", "add", theirs, sources / "file")
    assert len(manifest_of(ours)["layers"]) == len(manifest_of(theirs)["layers"]) == 4


@needs.program("skopeo")
def test_a_source_image_goes_to_a_registry_and_back(
    builda: Builda, sources: Path, tmp_path: Path, server: Registry
) -> None:
    layout, back, digest = made(builda, sources, tmp_path / "src"), tmp_path / "back", tmp_path / "digest"
    name = server.name("sources:1")
    builda("source", "push", "-q", INSECURE, "--digestfile", digest, layout, name)
    assert digest.read_text() == json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    builda("source", "pull", "-q", INSECURE, name, back)
    assert manifest_of(back) == manifest_of(layout)
    assert {path.name for path in back.glob("blobs/*/*")} == {path.name for path in layout.glob("blobs/*/*")}
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{layout}"], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(raw) == manifest_of(layout)
    assert "already exists" in builda.fails("source", "pull", INSECURE, name, back)
    builda("pull", "-q", f"oci:{layout}", check=False)  # whatever it says, it is no traceback


def test_an_empty_one_can_be_added_to_by_its_name(builda: Builda, sources: Path, tmp_path: Path) -> None:
    builda("source", "create", f"{tmp_path}/src:latest-source")
    builda("source", "add", f"{tmp_path}/src:latest-source", sources / "file")
    entry = json.loads((tmp_path / "src/index.json").read_text())["manifests"][0]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": "latest-source"}
    assert len(manifest_of(tmp_path / "src")["layers"]) == 1


def test_what_cannot_be_done_is_said_and_changes_nothing(
    builda: Builda, base: str, sources: Path, tmp_path: Path, server: Registry
) -> None:
    layout = made(builda, sources, tmp_path / "src")
    before = sorted(layout.rglob("*"))
    said = builda.fails("source", "create", layout)
    assert "creating source image: " in said
    assert " already exists" in said
    assert "no such file or directory for the artifact" in builda.fails("source", "add", layout, "/nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a directory" in builda.fails("source", "add", layout, tmp_path / "pipe")
    assert "not an OCI image layout" in builda.fails("source", "add", tmp_path, sources / "file")
    twice = ("--annotation", "a=b", "--annotation", "a=c")
    assert "annotation is given twice: a" in builda.fails("source", "add", *twice, layout, sources / "file")
    assert "short name is not supported" in builda.fails("source", "push", layout, "sources:1")
    assert sorted(layout.rglob("*")) == before
    builda("push", "-q", INSECURE, base, server.name("base:1"))
    said = builda.fails("source", "pull", INSECURE, server.name("base:1"), tmp_path / "none")
    assert "invalid media type of image config" in said
    assert not (tmp_path / "none").exists()
    builda("push", "-q", base, f"oci:{tmp_path}/plain")
    assert "invalid media type" in builda.fails("source", "add", tmp_path / "plain", sources / "file")
