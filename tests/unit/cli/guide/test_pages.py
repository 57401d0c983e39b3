"""Help pages: what belongs together stands together, and what decides is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import builda
from builda.cli.core.commands import page
from builda.cli.core.options import Option
from builda.cli.guide import pages
from builda.cli.main import status_of
from builda.cli.verbs import ALIASES, GROUPS, VERBS, every_verb, verb_named

INTERNAL = {"BUILDA_COMPLETE", "BUILDA_CALLER", "BUILDA_CALLER_UID", "BUILDA_SESSION_PUSH"}


def test_the_options_of_build_stand_under_headings() -> None:
    text = page("build")
    order = ["Common options", *(title for title, _ in pages.SECTIONS), "Other options", "Examples"]
    places = [text.index(f"\n{title}:\n") for title in order]
    assert places == sorted(places)
    image = text[text.index("\nImage:\n") : text.index("\nLayers and cache:\n")]
    assert "--label NAME" in image
    assert "--jobs" not in image
    common = text[text.index("\nCommon options:\n") :]
    assert re.findall(r"^  -., (--\w+)", common, re.MULTILINE)[:2] == ["--tag", "--file"]


@pytest.mark.parametrize("name", sorted(every_verb()))
def test_no_option_is_lost_under_headings(name: str) -> None:
    text = page(name)
    for row in verb_named(name).rows:
        if isinstance(row, Option) and not row.hidden:
            assert max(row.flags, key=len) in text


def test_a_short_page_has_one_list() -> None:
    assert "\nOptions:\n" in page("tag")
    assert "\nImages and registries:\n" not in page("login")


@pytest.mark.parametrize("name", ["build", "commit", "run", "from"])
def test_no_line_is_broken_at_a_hyphen(name: str) -> None:
    assert not re.search(r"\w-\n", page(name))


def test_switches_that_are_on_show_how_they_are_turned_off() -> None:
    for name in ("--layers", "--tls-verify", "--http-proxy", "--created-annotation", "--identity-label"):
        assert f"{name}[=false]" in page("build")
    assert "--no-cache[=false]" not in page("build")
    assert "[=false] marks" in page("build")
    assert "--pull[=POLICY]" in page("build")
    assert "--print-plan[=FORMAT]" in page("build")
    assert "[=false]" not in page("tag")


def test_the_page_of_builda_has_all_names_of_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "build (bud)" in shown
    assert "containers (list, ls, ps)" in shown
    for name in {*VERBS, *GROUPS, *ALIASES} - {"build-using-dockerfile"}:
        assert re.search(rf"[ (]{name}[ ,)]", shown), name
    assert "..." not in shown[shown.index("Commands:") :]


@pytest.mark.parametrize("name", ["status", "environment", "files", "Containerfile.in"])
def test_topics_of_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["help", name]) == 0
    shown = capsys.readouterr().out
    title, rows = pages.TOPICS[name]
    assert shown.startswith(f"{title}:\n")
    for row in rows:
        assert row in shown


def test_headings_name_no_option_twice() -> None:
    names = [name for _, names in pages.SECTIONS for name in names.split()]
    assert len(names) == len(set(names))


def test_every_variable_that_builda_reads_is_named() -> None:
    source = "".join(path.read_text() for path in Path(builda.__file__).parent.rglob("*.py") if path.stem != "pages")
    read = set(re.findall(r"\"(BUILDAH?_[A-Z_]+[A-Z])\"", source)) - INTERNAL
    assert read - {"BUILDA_ROOT"} != set()
    named = {name for names in pages.ENVIRONMENT for name in names.split(", ")}
    assert read <= named


@pytest.mark.parametrize(("args", "same"), [(["help"], ["--help"]), (["help", "bud"], ["bud", "--help"])])
def test_help_is_the_page_of_a_verb(args: list[str], same: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(args) == 0
    shown = capsys.readouterr().out
    assert status_of(same) == 0
    assert shown == capsys.readouterr().out
    assert shown.startswith("Usage: builda ")


def test_help_of_what_is_no_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(["help", "bild"]) == 125
    assert capsys.readouterr().err == "Error: unknown command: bild\nhint: did you mean build?\n"
