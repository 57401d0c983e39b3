"""`copy --contextdir`: where sources start, and what its ignore file leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Builda


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A directory with a file that is copied, one that is ignored, and a link to itself beside it."""
    top = tmp_path / "context"
    (top / "d").mkdir(parents=True)
    for name in ("kept", "left.log", "d/kept", "d/left.log"):
        (top / name).write_text(name)
    (tmp_path / "link").symlink_to("context")
    return top


def listed(builda: Builda, container: str) -> list[str]:
    """The files below /x."""
    mounted = Path(builda("mount", container), "x")
    return sorted(str(path.relative_to(mounted)) for path in mounted.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", [".containerignore", ".dockerignore"])
def test_the_ignore_file_of_the_directory_counts(builda: Builda, context: Path, name: str) -> None:
    (context / name).write_text(f"**/*.log\n{name}\n")
    container = builda("from", "scratch")
    builda("copy", "-q", "--contextdir", context, container, ".", "/x/")
    assert listed(builda, container) == ["d/kept", "kept"]


def test_an_ignore_file_that_is_named_counts_instead(builda: Builda, context: Path) -> None:
    (context / ".dockerignore").write_text("kept\n")
    (context / "other").write_text("d\nother\n.dockerignore\n")
    container = builda("from", "scratch")
    builda("copy", "-q", "--contextdir", context, "--ignorefile", context / "other", container, ".", "/x/")
    assert listed(builda, container) == ["kept", "left.log"]


@pytest.mark.parametrize(
    "source", ["{top}", "{top}/", "{top}/d", "{top}/d/kept", "{top}/*", "{link}/d", "/d/kept", "d"]
)
def test_absolute_sources_may_lead_into_the_directory(builda: Builda, context: Path, source: str) -> None:
    container = builda("from", "scratch")
    written = source.format(top=context, link=context.with_name("link"))
    top = context.with_name("link") if "{link}" in source else context
    builda("copy", "-q", "--contextdir", top, container, written, "/x/")
    assert "kept" in listed(builda, container)


def test_other_absolute_sources_start_at_its_top(builda: Builda, context: Path) -> None:
    container = builda("from", "scratch")
    said = builda.fails("copy", "--contextdir", context, container, "/etc/passwd", "/x/")
    assert "no such file or directory in the context: /etc/passwd" in said
