"""Help pages: what belongs together stands together, and what decides is named."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

import builda
from builda.cli import pages
from builda.cli.group import VERBS, make_group
from builda.cli.main import status_of

INTERNAL = {"BUILDA_COMPLETE", "BUILDA_CALLER_UID"}


def page(name: str) -> str:
    group = make_group()
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command.get_help(click.Context(command, info_name=name, **command.context_settings))


def test_the_options_of_build_stand_under_headings() -> None:
    text = page("build")
    order = [title for title, _ in pages.SECTIONS] + ["Examples", "Exit status", "Environment", "Files"]
    places = [text.index(f"\n{title}:\n") for title in order]
    assert places == sorted(places)
    image = text[text.index("\nImage:\n") : text.index("\nLayers and cache:\n")]
    assert "--tag NAME" in image
    assert "--jobs" not in image


@pytest.mark.parametrize("name", sorted(VERBS))
def test_no_option_is_lost_under_headings(name: str) -> None:
    group = make_group()
    command = group.get_command(click.Context(group), name)
    assert command is not None
    text = page(name)
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert max(param.opts, key=len) in text


def test_a_short_page_has_one_list() -> None:
    assert "\nOptions:\n" in page("tag")
    assert "\nImages and registries:\n" not in page("login")


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
