"""Ignore files: of the context, of named contexts, and of --contextdir of the verbs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Builda

pytestmark = pytest.mark.root
DRIVERS = pytest.mark.parametrize("driver", ["composed", "overlay"])


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Two directories of files, each with a secret that its ignore file leaves out."""
    for name, ignore in (("main", ".dockerignore"), ("other", ".containerignore")):
        (tmp_path / name / "sub").mkdir(parents=True)
        for file in ("a", "x.env", "sub/y.env"):
            (tmp_path / name / file).write_text(f"{name}/{file}")
        (tmp_path / name / ignore).write_text("**/*.env\n")
    return tmp_path / "main"


def files(path: Path) -> set[str]:
    found = {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}
    return {name for name in found if not os.path.basename(name).startswith(".")}


def build(builda: Builda, context: Path, driver: str, text: str, *options: str) -> set[str]:
    (context / "Containerfile").write_text(f"FROM scratch\n{text}")
    words = ("bud", "-q", "-o", str(context.parent / "out"), "--build-context", "p=other", *options, "main")
    shutil.rmtree(context.parent / "out", ignore_errors=True)
    builda("--storage-driver", driver, *words, cwd=context.parent)
    return files(context.parent / "out")


@DRIVERS
def test_the_ignore_file_of_a_named_context_counts(builda: Builda, context: Path, driver: str) -> None:
    assert build(builda, context, driver, "COPY . /m/\nCOPY --from=p . /o/\n") == {"m/Containerfile", "m/a", "o/a"}
    (context / "Containerfile").write_text("FROM scratch\nCOPY --from=p x.env /o/\n")
    said = builda.fails("bud", "-q", "--build-context", "p=other", "main", cwd=context.parent)
    assert "no such file or directory in the build context: x.env" in said
    assert "hint: it exists, but other/.containerignore:1 leaves it out: **/*.env" in said


def test_a_changed_ignore_file_of_a_named_context_is_a_changed_step(builda: Builda, context: Path) -> None:
    text = "COPY --from=p . /o/\n"
    assert build(builda, context, "composed", text) == {"o/a"}
    (context.parent / "other/.containerignore").write_text("sub\n")
    assert build(builda, context, "composed", text) == {"o/a", "o/x.env"}


def test_the_ignore_file_of_a_named_context_is_a_file_in_it(builda: Builda, context: Path) -> None:
    ignore = context.parent / "other/.containerignore"
    ignore.unlink()
    os.mkfifo(ignore)
    (context / "Containerfile").write_text("FROM scratch\nCOPY --from=p a /o/\n")
    words = ("bud", "-q", "--build-context", "p=other", "main")
    said = builda.fails(*words, cwd=context.parent)
    assert "ignore file of a build context: not a regular file: other/.containerignore" in said
    ignore.unlink()
    ignore.symlink_to("/etc/hostname")  # which the context does not have
    builda(*words, cwd=context.parent)


@DRIVERS
def test_a_file_that_a_later_rule_leaves_out_is_not_copied(builda: Builda, context: Path, driver: str) -> None:
    (context / "test1.txt").touch()
    (context / ".dockerignore").write_text("*\n!test*\ntest1.txt\n")
    (context / "Containerfile").write_text("FROM scratch\nCOPY test1.txt /d/\n")
    said = builda.fails("--storage-driver", driver, "bud", "-q", ".", cwd=context)
    assert "no such file or directory in the context: test1.txt" in said
    assert "hint: it exists, but .dockerignore:3 leaves it out: test1.txt" in said
    checked = builda.run("bud", "--check", ".", cwd=context, check=False)
    assert "CopyIgnoredFile: an ignore file excludes this source: test1.txt" in checked.stdout


@DRIVERS
def test_the_ignore_file_of_contextdir_counts(builda: Builda, context: Path, driver: str) -> None:
    name = builda("--storage-driver", driver, "from", "scratch")
    for verb, where, source in (("copy", ".", "/"), ("add", str(context), str(context)), ("copy", ".", f"{context}/")):
        builda(verb, "-q", "--contextdir", where, name, source, f"/{verb}", cwd=context)
    builda("copy", "-q", "--contextdir", str(context), name, f"{context}/a", "sub", "./abs/", cwd="/")
    builda("copy", "-q", "--contextdir", ".", "--ignorefile", "/dev/null", name, f"{context}/sub", "/all", cwd=context)
    assert files(Path(builda("mount", name))) == {"copy/a", "add/a", "abs/a", "all/y.env"}
    said = builda.fails("copy", "--contextdir", ".", name, f"{context}/x.env", "/", cwd=context)
    assert "it exists, but" in said
