"""The options with which a script makes layers and history as a build does, and the verbs that came with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root


def image_of(builda: Builda, container: str) -> dict[str, object]:
    image = builda("commit", "--quiet", container)
    found: dict[str, object] = json.loads(builda("inspect", "--type", "image", image))["OCIv1"]
    return found


def test_layer_closes_what_a_step_changed(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    container = builda("from", base)
    builda("run", "--layer", "--created-by", "the run", container, "--", "touch", "/ran")
    builda("copy", "--quiet", "--layer", "--created-by", "the copy", container, tmp_path / "file", "/copied")
    builda("workdir", "--layer", "--created-by", "the directory", container, "/made")
    builda("config", "--empty-layer", "--created-by", "the variable", "--env", "A=b", container)
    builda("run", "--layer", "--created-by", "nothing", container, "--", "true")
    before = json.loads(builda("inspect", "--type", "image", base))["OCIv1"]
    after = image_of(builda, container)
    history = after["history"][len(before["history"]) :]  # type: ignore[index]
    assert [entry["created_by"] for entry in history][:5] == [
        "the run",
        "the copy",
        "the directory",
        "the variable",
        "nothing",
    ]
    assert [entry.get("empty_layer", False) for entry in history][:5] == [False, False, False, True, True]
    assert after["config"]["WorkingDir"] == "/made"  # type: ignore[index]


def test_link_makes_layers_of_their_own(builda: Builda, tmp_path: Path) -> None:
    """What was done before and in between is in other layers; a mounted container shows all of it."""
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    container = builda("from", "scratch")
    root = Path(builda("mount", container))
    builda("copy", "--quiet", "--link", container, tmp_path / "one", "/")
    (root / "between").mkdir()
    builda("add", "--quiet", "--link", container, tmp_path / "one", tmp_path / "two", "/between/")
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == [
        "between",
        "between/one",
        "between/two",
        "one",
    ]
    builda("umount", container)
    found = image_of(builda, container)
    assert len(found["rootfs"]["diff_ids"]) == 3  # type: ignore[index]
    made = [entry["created_by"] for entry in found["history"]]  # type: ignore[attr-defined]
    assert ["COPY" in text for text in made] == [True, False, False]
    assert ["ADD" in text for text in made] == [False, False, True]


def test_a_container_begins_where_another_stands(builda: Builda, base: str) -> None:
    first = builda("from", base)
    builda("run", "--layer", first, "--", "sh", "-c", "echo one > /file")
    builda("config", "--env", "A=b", first)
    second = builda("from", f"container:{first}")
    builda("run", second, "--", "sh", "-c", "echo two > /file")
    assert builda("run", first, "cat", "/file") == "one"
    assert builda("run", second, "sh", "-c", "cat /file; echo $A").split() == ["two", "b"]
    builda("rm", first)
    assert builda("run", second, "cat", "/file") == "two"


def test_a_container_with_changes_that_are_no_layer_is_no_beginning(builda: Builda, base: str) -> None:
    first = builda("from", base)
    builda("run", first, "--", "touch", "/file")
    said = builda.fails("from", f"container:{first}")
    assert "has changes that are not in a layer" in said
    assert "--layer" in said
    assert builda("containers", "--quiet", "--noheading").count("\n") == 0


def test_literal_values_are_not_looked_at(builda: Builda, base: str) -> None:
    container = builda("from", base)
    builda("config", "--literal", "--env", "A=$PATH-", "--volume", "/v-", container)
    config = json.loads(builda("inspect", container))["OCIv1"]["config"]
    assert "A=$PATH-" in config["Env"]
    assert config["Volumes"] == {"/v-": {}}


def test_a_text_is_copied_as_a_file(builda: Builda, base: str) -> None:
    container = builda("from", base)
    builda("copy", "--quiet", "--inline", "a=one\n", "--inline", "b=two=2\n", container, "/d/")
    assert builda("run", container, "cat", "/d/a", "/d/b") == "one\ntwo=2"


def test_a_text_is_run_as_a_script(builda: Builda, base: str) -> None:
    container = builda("from", base)
    assert builda("run", "--inline", "echo from the script\n", container, "--", "sh") == "from the script"


def test_secrets_are_mounted_for_a_run(builda: Builda, base: str, tmp_path: Path) -> None:
    (tmp_path / "word").write_text("hidden")
    container = builda("from", base)
    options = ["--secret", f"id=s,src={tmp_path}/word", "--mount", "type=secret,id=s,target=/s"]
    assert builda("run", *options, container, "--", "cat", "/s") == "hidden"


# preprocess


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "more.in").write_text("LABEL from=more\n")
    (tmp_path / "Containerfile.in").write_text('#include "more.in"\nFROM BASE\n#ifdef X\nRUN x\n#endif\n# a comment\n')
    return tmp_path


def test_preprocess_prints_the_plain_containerfile(builda: Builda, source: Path) -> None:
    said = builda("preprocess", "--cpp-flag", "-DBASE=scratch", "Containerfile.in", cwd=source)
    assert [line for line in said.splitlines() if line] == ["LABEL from=more", "FROM scratch", "# a comment"]
    assert "RUN x" in builda("preprocess", "--cpp-flag=-DX", "Containerfile.in", cwd=source)
    assert "RUN x" in builda("preprocess", "Containerfile.in", cwd=source, BUILDAH_CPPFLAGS="-DX")


def test_preprocess_reads_standard_input_and_writes_a_file(builda: Builda, source: Path) -> None:
    builda("preprocess", "-o", "plain", "--cpp-flag=-DX=y", "-", cwd=source, given="FROM X\n")
    assert (source / "plain").read_text() == "FROM y\n"


def test_preprocess_finds_includes_where_it_is_told(builda: Builda, source: Path) -> None:
    (source / "inc").mkdir()
    (source / "more.in").rename(source / "inc/more.in")
    assert "LABEL from=more" in builda("preprocess", "-I", "inc", "Containerfile.in", cwd=source)
    assert "Containerfile.in:1: no such include file: more.in" in builda.fails(
        "preprocess", source / "Containerfile.in"
    )


def test_preprocess_names_what_is_not_there(builda: Builda, tmp_path: Path) -> None:
    assert "no such file or directory: nowhere.in" in builda.fails("preprocess", "nowhere.in")
    assert "is a directory" in builda.fails("preprocess", tmp_path)
