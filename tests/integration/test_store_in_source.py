"""A store that lies in what is copied: the copy holds all but the store, and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support.base_images import busybox_tree

pytestmark = pytest.mark.root
NOT_COPIED = "the store lies in the source and is not copied"


@pytest.fixture(params=["overlay", "plain"])
def within(tmp_path: Path, request: pytest.FixtureRequest) -> Builda:
    """builda on a store that lies in the directory `context`, beside two files."""
    context = tmp_path / "context"
    (context / "src").mkdir(parents=True)
    (context / "file").write_text("here\n")
    (context / "src" / "main.c").write_text("int main;\n")
    made = Builda(context / "deep" / "store", context / "run")
    made.environ["BUILDA_STORAGE_DRIVER"] = request.param
    return made


def names_in(builda: Builda, image: str) -> set[str]:
    """The paths of all files of an image."""
    top = Path(builda("image", "mount", image))
    found = {str(path.relative_to(top)) for path in top.rglob("*")}
    builda("image", "umount", image)
    return found


def test_a_context_with_the_store_is_built(within: Builda, tmp_path: Path) -> None:
    (tmp_path / "context" / "Containerfile").write_text("FROM scratch\nCOPY . /all/\n")
    first = within.run("bud", "-t", "it", tmp_path / "context")
    assert f"{NOT_COPIED}: deep/store" in first.stderr
    assert f"{NOT_COPIED}: run" in first.stderr
    again = within.run("bud", "-t", "it", tmp_path / "context")
    assert "Using cache" in again.stdout
    names = names_in(within, "it")
    assert {"all/Containerfile", "all/file", "all/src/main.c", "all/deep"} <= names
    assert not any(name.startswith(("all/deep/", "all/run")) for name in names)


def test_a_rule_of_the_ignore_file_leaves_it_out_without_a_word(within: Builda, tmp_path: Path) -> None:
    (tmp_path / "context" / "Containerfile").write_text("FROM scratch\nCOPY . /all/\n")
    (tmp_path / "context" / ".containerignore").write_text("deep\nrun\n")
    assert NOT_COPIED not in within.run("bud", tmp_path / "context").stderr


def test_the_verb_copies_all_but_the_store(within: Builda, tmp_path: Path) -> None:
    container = within("from", "scratch")
    result = within.run("copy", container, tmp_path / "context", "/all/")
    assert f"{NOT_COPIED}: deep/store" in result.stderr
    mount = Path(within("mount", container))
    assert sorted(path.name for path in (mount / "all").iterdir()) == ["deep", "file", "src"]
    assert list((mount / "all" / "deep").iterdir()) == []


def test_the_store_itself_is_refused(within: Builda, tmp_path: Path) -> None:
    container = within("from", "scratch")
    error = within.fails("copy", container, within.root, "/all/")
    assert "a directory of the store cannot be copied" in error


def test_files_of_a_mounted_container_are_copied(within: Builda, tmp_path: Path) -> None:
    container, other = within("from", "scratch"), within("from", "scratch")
    within("add", other, busybox_tree(tmp_path / "tree"), "/")
    mount = within("mount", other)
    within("copy", container, f"{mount}/bin", "/bin/")
    assert (Path(within("mount", container)) / "bin" / "busybox").exists()
