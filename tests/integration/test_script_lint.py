"""`builda script lint`: what it prints, its status, and shellcheck's findings beside its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support import needs

FOR_BUILDAH = "written-for-buildah.sh"  # has the faults that such scripts have
EXAMPLES = sorted(
    path for path in (Path(__file__).parents[2] / "examples/bash").glob("*.sh") if path.name != FOR_BUILDAH
)
FAULTY = "#!/bin/bash\nc=$(builda from $1)\nbuilda run $c true\n"
needs_shellcheck = needs.machine(None if shutil.which("shellcheck") else "shellcheck is not installed")


def test_the_examples_have_no_faults(builda: Builda) -> None:
    assert len(EXAMPLES) > 4
    assert builda("script", "lint", *EXAMPLES) == ""


def test_a_finding_is_a_line_whatever_the_script_is_called(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "a\nb c.sh").write_text(FAULTY)
    done = builda.run("script", "lint", "--shellcheck=false", "a\nb c.sh", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert all(line.startswith("a\\nb c.sh:") for line in done.stdout.splitlines())


def test_findings_are_lines_and_the_status_is_one(builda: Builda, tmp_path: Path) -> None:
    (tmp_path / "b.sh").write_text(FAULTY)
    done = builda.run("script", "lint", "--shellcheck=false", "b.sh", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert [line.split(": ")[:2] for line in done.stdout.splitlines()] == [
        ["b.sh:2:5", "ContainerIsLeft"],
        ["b.sh:3:12", "UnquotedVariable"],
    ]


def test_standard_input_and_json(builda: Builda) -> None:
    done = builda.run("script-lint", "--json", "--shellcheck=false", "-", given=FAULTY, check=False)
    found = json.loads(done.stdout)
    assert [(one["file"], one["line"], one["name"]) for one in found] == [
        ("-", 2, "ContainerIsLeft"),
        ("-", 3, "UnquotedVariable"),
    ]


@needs_shellcheck
def test_shellcheck_adds_what_it_finds_and_repeats_nothing(builda: Builda) -> None:
    done = builda.run("script", "lint", "-", given=FAULTY, check=False)
    assert [line.split(": ")[1] for line in done.stdout.splitlines()] == [
        "ContainerIsLeft",
        "SC2086",  # $1, which no rule of ours is about
        "UnquotedVariable",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("/no/such.sh",), "no such file or directory: /no/such.sh"),
        (("/dev/zero",), "script has more bytes than the limit"),
        ((), "missing argument: FILES"),
    ],
)
def test_what_cannot_be_read_is_named(builda: Builda, words: tuple[str, ...], said: str) -> None:
    assert said in builda.fails("script", "lint", *words)
