"""What those who know other tools are told, and which names are near enough to be guessed."""

from __future__ import annotations

import pytest

from builda.cli.core import hints
from builda.cli.core.line import by_flag
from builda.cli.main import status_of
from builda.cli.verbs import ALIASES, GROUPS, VERBS, verb_named


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("bild", "build"),
        ("imags", "images"),
        ("comit", "commit"),
        ("inspct", "inspect"),
        ("pul", "pull"),
        ("fom", "from"),
    ],
)
def test_a_mistyped_verb_is_guessed(written: str, meant: str) -> None:
    assert hints.of_verb(written, [*VERBS, *ALIASES]) == f"did you mean {meant}?"


@pytest.mark.parametrize("written", ["shell", "foo", "x", "--", "e"])
def test_what_is_far_from_all_is_not_guessed(written: str) -> None:
    assert hints.of_verb(written, [*VERBS, *ALIASES]) == "builda --help lists the commands"


def test_verbs_of_others_say_what_to_do() -> None:
    assert "builda image save" in hints.of_verb("save", VERBS)
    assert "builda image load" in hints.of_verb("load", VERBS)
    assert "builda image history" in hints.of_verb("history", VERBS)
    assert "builda copy" in hints.of_verb("cp", VERBS)


def test_tables_of_hints_hold_no_names_that_builda_has() -> None:
    assert not hints.VERBS.keys() & {*VERBS, *GROUPS, *ALIASES}
    for name, flags in hints.FLAGS.items():
        assert not flags.keys() & by_flag(verb_named(name).rows).keys(), name


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (["build", "--taag", "x"], "did you mean --tag?"),
        (["build", "--file-", "x"], "did you mean --file?"),
        (["build", "--foo"], "see builda build --help"),
        (["build", "--uts2000"], "see builda build --help"),
        (["run", "-d", "c", "true"], "builda builds images"),
        (["run", "--rm", "c", "true"], "builda rm CONTAINER removes it"),
        (["images", "--tree"], "builda image tree IMAGE"),
        (["commit", "-m", "x"], "--history-comment"),
    ],
)
def test_an_unknown_flag_has_a_way_out(args: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(args) == 125
    assert hint in capsys.readouterr().err
