"""The manual pages: all that --help shows is in them, and roff has no complaint."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from builda.cli.core.commands import make_group
from builda.cli.core.options import Option
from builda.cli.guide import pages
from builda.cli.guide.manual import escaped, manual
from builda.cli.verbs import ALIASES, GROUPS, every_verb, verb_named

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages, as the wheel gets them."""
    made = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "tools/manpages.py", made], check=True)
    return made


def shown(page: Path) -> str:
    """What man shows, without its typography, on one line."""
    done = subprocess.run(
        ["groff", "-k", "-ww", "-man", "-Tutf8", "-P-cbou", page], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return " ".join(done.stdout.replace("\N{HYPHEN}", "-").replace("\N{MINUS SIGN}", "-").split())


def test_every_verb_and_alias_has_a_page(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    verbs = {f"builda-{name}.1" for name in (*every_verb(), *GROUPS, *ALIASES)}
    assert names == verbs | {"builda.1", "Containerfile.in.5"}
    for alias, name in ALIASES.items():
        assert (directory / f"builda-{alias}.1").read_text() == f".so man1/builda-{name}.1\n"


@pytest.mark.parametrize("name", sorted(every_verb()))
def test_a_page_has_every_option_with_its_help(directory: Path, name: str) -> None:
    text = shown(directory / f"builda-{name}.1")
    for row in verb_named(name).rows:
        if isinstance(row, Option) and row.refusal:
            assert row.flags[0] in text
        elif isinstance(row, Option) and not row.hidden:
            assert all(flag in text for flag in row.flags)
            assert " ".join((row.help or "").split()) in text


def test_the_page_of_builda_has_what_decides_besides_options(directory: Path) -> None:
    text = shown(directory / "builda.1")
    for _, rows in pages.TOPICS.values():
        assert all(row in text for row in rows)
    assert "build, bud, build-using-dockerfile" in text


def test_the_page_of_a_group_has_its_verbs(directory: Path) -> None:
    text = shown(directory / "builda-manifest.1")
    assert "create Make a list of images" in text
    assert "builda-manifest-create(1)" in text
    assert "builda manifest create [OPTIONS] NAME" in shown(directory / "builda-manifest-create.1")


def test_the_format_of_in_files_is_that_of_the_document(directory: Path) -> None:
    text = shown(directory / "Containerfile.in.5")
    assert "#include <file>" in text
    assert "BUILDAH_CPPFLAGS" in text
    assert "](" not in text
    assert (ROOT / "examples/Containerfile.in").read_text().split("\n")[0] in text


def test_text_that_roff_would_take_for_a_request_is_text() -> None:
    assert escaped(".in a\\b -x\n'y") == "\\&.in a\\eb \\-x\n\\&'y"


def test_no_page_begins_a_line_with_an_unknown_request() -> None:
    known = {"TH", "SH", "SS", "PP", "TP", "RS", "RE", "nf", "fi", "nh", "ad", "so"}
    for name, text in manual(make_group()).items():
        requests = set(re.findall(r"^\.(\w*)", text, re.MULTILINE))
        assert requests <= known, name
