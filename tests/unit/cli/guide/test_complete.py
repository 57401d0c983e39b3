"""What can stand at the end of a command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builda.builder.imageoptions import parse_policy
from builda.cli.core import settings
from builda.cli.core.line import by_flag
from builda.cli.core.verb import GLOBAL_OPTIONS
from builda.cli.format import filters
from builda.cli.guide.completing import CHOICES, OF_VERB, answered, reply
from builda.cli.guide.pages import TOPICS
from builda.cli.progress import buildview
from builda.cli.verbs import ALIASES, GROUPS, VERBS, every_verb, inspect, verb_named
from builda.host import probe
from builda.isolation import kinds
from builda.store import drivers


def offered(line: str) -> list[str]:
    """The words for the end of `line`."""
    *words, incomplete = line.split(" ")
    return [word.value for word in answered(words, incomplete).words]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("comm", ["commit"]),
        ("baz", []),
        ("--mode dir", ["direct"]),
        ("--mode=dir", ["--mode=direct"]),
        ("images --mode dir", ["direct"]),
        ("bud --pull a", []),  # a value of --pull stands behind = only
        ("bud --pull=a", ["--pull=always"]),
        ("bud --quiet=", ["--quiet=true", "--quiet=false"]),
        ("bud --platform linux/amd64,linux/s", ["linux/amd64,linux/s390x"]),
        ("bud --isolation=c", ["--isolation=chroot"]),
        ("bud -f x --progress p", ["plain"]),
        ("bud -qf x --progress p", ["plain"]),
        ("bud -fx --progress p", ["plain"]),
        ("run -t c --iso", []),  # an argument has ended the options
        ("run -t -- --iso", []),
        ("completion bash --he", ["--help"]),  # and here it has not
        ("commit --encr", []),  # refused
        ("inspect --type c", ["container"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("bud --debug --no-c", ["--no-cache"]),
        ("nosuchverb --", []),
        ("nosuchverb co", []),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert offered(line) == words


def test_verbs_are_completed_by_all_their_names() -> None:
    assert offered("") == sorted([*VERBS, *GROUPS, *ALIASES])
    assert offered("help ") == sorted([*VERBS, *GROUPS, *ALIASES, *TOPICS])


def test_verbs_of_a_group_are_completed_behind_it() -> None:
    assert offered("manifest ") == sorted(GROUPS["manifest"].verbs)
    assert offered("help manifest cr") == ["create"]
    assert offered("manifest create --am") == ["--amend"]
    assert offered("--log-level debug manifest r") == ["remove", "rm"]
    assert offered("manifest push --format ") == ["oci", "v2s2"]


@pytest.mark.parametrize("line", ["bud > x", "bud 2>> x", "images < x", "bud -f x", "bud --iidfile=x", "copy c x"])
def test_files_are_left_to_the_shell(line: str) -> None:
    *words, incomplete = line.split(" ")
    words_, kind = answered(words, incomplete)
    assert not words_
    assert kind == "files"


def test_directories_where_only_they_are_meant() -> None:
    assert answered(["--root"], "x").kind == "dirs"
    assert answered(["bud"], "--cert-dir=x").kind == "dirs"


def test_bash_replaces_only_what_follows_a_break() -> None:
    assert reply("bash", ["builda bud --pull=al", "al"]) == "words\nalways"
    assert reply("bash", ["builda bud --pul", "--pul"]) == "words\n--pull"
    assert reply("bash", ["builda images --filter dang", "dang"]) == "nospace\ndangling="
    assert reply("bash", ["builda 'unfinished wo", "wo"]) == "files"
    assert reply("bash", ["", ""]).startswith("words\n")


def test_stages_of_the_containerfile_that_is_built(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a AS one\n")
    (tmp_path / "other").write_text("FROM a AS two\n  from b as tests\nFROM c AS t$(id)\nFROM d\n# FROM x AS tno\n")
    assert offered(f"bud --target= {tmp_path}") == []
    assert offered(f"bud -f {tmp_path}/other --target t") == ["two", "tests", "t$(id)"]
    words = reply("fish", ["bud", "-f", f"{tmp_path}/other", "--target", "t"])
    assert words == "words\ntwo\t\ntests\t"
    assert offered(f"bud -f {tmp_path} --target t") == []


def test_every_option_with_choices_exists() -> None:
    options = {name: set(by_flag(verb_named(name).rows)) for name in every_verb()}
    options[""] = set(by_flag(GLOBAL_OPTIONS))
    everywhere = set().union(*options.values())
    assert set(CHOICES) <= everywhere
    missing = [(verb, name) for verb, name in OF_VERB if name not in options[verb]]
    assert missing in ([], [("prune", "--filter")])


def test_the_choices_are_those_that_are_taken() -> None:
    """Each list stands where it is checked, too, behind imports that completion does without."""
    taken = {
        "--progress": set(buildview.PROGRESS),
        "--isolation": {name for kind in kinds.KINDS for name in (kind.name, *kind.aliases)} - {"default"},
        "--log-level": set(settings.LEVELS) - {"warning"},
        "--mode": {"auto", *probe.MODES},
        "--storage-driver": set(drivers.NAMES),
    }
    assert {name: set(CHOICES[name].split()) for name in taken} == taken
    said = by_flag(GLOBAL_OPTIONS)["--storage-driver"].help or ""
    assert all(re.search(rf"\b{name}\b", said) for name in drivers.NAMES)
    said = by_flag(verb_named("run").rows)["--isolation"].help or ""
    assert all(re.search(rf"\b{name}\b", said) for name in taken["--isolation"])
    assert set(OF_VERB["images", "--filter"].split()) == {f"{key}=" for key in filters._MAKERS}
    assert set(OF_VERB["inspect", "--type"].split()) == set(inspect._KINDS)
    for policy in CHOICES["--pull"].split():
        assert parse_policy(policy) == policy
