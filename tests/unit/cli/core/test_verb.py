"""Command lines are read by pflag's rules: what Buildah's scripts write must mean the same here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builda.cli.core import commands
from builda.cli.core.line import Given, Odd
from builda.cli.core.options import Argument, Option, argument, listed, many, number, refused, switch, text
from builda.cli.core.verb import GLOBAL_OPTIONS, HELP, Verb, verb
from builda.cli.verbs import ALIASES, OWN, every_verb, verb_named
from builda.errors import InvalidValue, Unsupported

OPTIONS = (
    argument("container"),
    argument("rest", nargs=-1),
    switch("--quiet", "-q"),
    switch("--tls-verify", default=None),
    text("--name", "-n"),
    text("--pull", default="missing", bare="true"),
    text("--network", "--net"),
    many("--env", "-e"),
    listed("--cap-add"),
    number("--retry", default=3),
    refused("--decryption-key", reason="there is no cipher"),
    refused("--sign", reason="there is no pen", takes_value=False),
)


@pytest.mark.parametrize("name", [None, *every_verb()])
def test_no_two_parameters_share_a_name(name: str | None) -> None:
    rows = (*GLOBAL_OPTIONS, *OWN) if name is None else (*verb_named(name).rows, HELP)
    flags = [flag for row in rows if isinstance(row, Option) for flag in row.flags]
    assert sorted(set(flags)) == sorted(flags)
    assert len({row.name for row in rows}) == len(rows)


@pytest.fixture
def parse() -> Callable[..., dict[str, Any]]:
    """What a verb with OPTIONS is given for a line, with `click` what click makes of it."""

    def parsed(*args: str, click: bool = False, **attributes: Any) -> dict[str, Any]:
        command = verb(*OPTIONS, example="x", name="t", **attributes)(lambda session, **values: None)
        everywhere: Given = {}
        line = command.read(args, everywhere, path="builda t")
        return {**(commands.values(command, "t", line) if click else line.values(command.rows)), "given": everywhere}

    return parsed


def test_options_end_at_the_first_argument(parse: Callable[..., dict[str, Any]]) -> None:
    values = parse("-q", "c", "ls", "-l", "--name", "x", checks_order=False)
    assert values["quiet"] is True
    assert values["name"] is None
    assert values["rest"] == ("ls", "-l", "--name", "x")


def test_an_option_after_the_container_is_told_apart_from_an_argument(parse: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(InvalidValue, match=r"no options \(--name\) can be specified after the image or container name"):
        parse("c", "--name", "x")


def test_an_interspersed_verb_takes_options_anywhere(parse: Callable[..., dict[str, Any]]) -> None:
    values = parse("c", "--name", "x", "d", "-q", interspersed=True)
    assert (values["name"], values["quiet"], values["rest"]) == ("x", True, ("d",))


def test_two_dashes_end_options(parse: Callable[..., dict[str, Any]]) -> None:
    values = parse("-q", "--", "--name", "x", checks_order=False)
    assert values["container"] == "--name"
    assert values["rest"] == ("x",)


def test_two_dashes_after_the_container_stay_for_run_to_see(parse: Callable[..., dict[str, Any]]) -> None:
    assert parse("c", "--", "ls", checks_order=False)["rest"] == ("--", "ls")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (["--quiet"], True),
        (["--quiet=true"], True),
        (["--quiet=false"], False),
        (["-q=false"], False),
        (["-q"], True),
        (["--quiet", "--quiet=0"], False),
        ([], False),
    ],
)
def test_a_switch_takes_a_value_only_after_an_equals_sign(
    parse: Callable[..., dict[str, Any]], written: list[str], value: bool
) -> None:
    values = parse(*written, "c", "false")
    assert values["quiet"] is value
    assert values["container"] == "c"


def test_a_switch_that_was_not_said_can_be_told_apart(parse: Callable[..., dict[str, Any]]) -> None:
    assert parse("c")["tls_verify"] is None
    assert parse("--tls-verify", "c")["tls_verify"] is True
    assert parse("--tls-verify=false", "c")["tls_verify"] is False


def test_an_option_with_a_bare_value_takes_another_only_after_an_equals_sign(
    parse: Callable[..., dict[str, Any]],
) -> None:
    assert parse("c")["pull"] == "missing"
    assert parse("--pull", "c")["pull"] == "true"
    assert parse("--pull=never", "c")["pull"] == "never"


@pytest.mark.parametrize(
    "written", [["-n", "x"], ["-nx"], ["-n=x"], ["--name", "x"], ["--name=x"], ["-qn", "x"], ["-qnx"]]
)
def test_values_may_be_written_in_every_way_of_pflag(parse: Callable[..., dict[str, Any]], written: list[str]) -> None:
    assert parse(*written, "c")["name"] == "x"


def test_a_value_may_begin_with_a_dash_or_be_empty(parse: Callable[..., dict[str, Any]]) -> None:
    assert parse("--name", "-", "c")["name"] == "-"
    assert parse("--name", "--quiet", "c")["name"] == "--quiet"
    assert parse("--name=", "c")["name"] == ""
    assert parse("--name", "", "c")["name"] == ""


def test_an_array_keeps_commas_and_a_list_splits_at_them(parse: Callable[..., dict[str, Any]]) -> None:
    values = parse("-e", "A=1,2", "--env", "B", "--cap-add", "a,b", "--cap-add", 'c,"d,e"', "c")
    assert values["env"] == ("A=1,2", "B")
    assert values["cap_add"] == ("a", "b", "c", "d,e")


def test_an_alias_is_the_same_option(parse: Callable[..., dict[str, Any]]) -> None:
    assert parse("--net", "host", "--network=none", "c")["network"] == "none"


@pytest.mark.parametrize("written", [["--decryption-key", "k"], ["--decryption-key=k"], ["--sign"], ["--sign=true"]])
def test_a_refused_option_says_why(parse: Callable[..., dict[str, Any]], written: list[str]) -> None:
    name = written[0].partition("=")[0]
    with pytest.raises(Unsupported, match=f"{name} is not supported: there is no"):
        parse(*written, "c")


def test_a_refused_switch_may_be_switched_off(parse: Callable[..., dict[str, Any]]) -> None:
    assert parse("--sign=false", "c")["container"] == "c"


def test_global_options_may_follow_the_verb(parse: Callable[..., dict[str, Any]]) -> None:
    values = parse("--root", "/a", "--storage-driver=plain", "c")
    assert values["given"] == {"root": ("/a",), "storage_driver": ("plain",)}


def test_an_unknown_option_comes_with_the_nearest(parse: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(InvalidValue, match=r"^unknown flag: --nam$") as caught:
        parse("--nam", "x", "c")
    assert caught.value.hint == "did you mean --name?"


def test_a_missing_value_and_a_wrong_one_name_the_option(parse: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(InvalidValue, match="flag needs an argument: --name"):
        parse("--name")
    with pytest.raises(InvalidValue, match=r"^invalid value for --retry: 'many' is not a valid integer$"):
        parse("--retry", "many", "c", click=True)


def test_a_missing_argument_is_named(parse: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(InvalidValue, match=r"^missing argument: CONTAINER$"):
        parse(click=True)


@pytest.mark.parametrize("written", [["--retry", "many", "c"], ["--quiet=maybe", "c"], [], ["--help"], ["c", "-h"]])
def test_what_is_wrong_or_asks_for_help_is_left_to_click(
    parse: Callable[..., dict[str, Any]], written: list[str]
) -> None:
    with pytest.raises(Odd):
        parse(*written, interspersed=True)


ALL = sorted({*every_verb(), *ALIASES})


@pytest.mark.parametrize("name", ALL)
def test_every_verb_is_there_with_help_and_an_example(name: str) -> None:
    found = verb_named(name)
    assert found.name == ALIASES.get(name, name)
    assert found.example.startswith(("builda", "c=", "m=", "eval"))
    assert "Example" in commands.page(name)


@pytest.mark.parametrize("name", sorted(every_verb()))
def test_every_option_says_what_it_is(name: str) -> None:
    for row in verb_named(name).rows:
        if isinstance(row, Option) and row.refusal is None:
            assert row.help, row.name


def test_global_options_all_say_what_they_are() -> None:
    for row in GLOBAL_OPTIONS:
        assert isinstance(row, Option)
        assert row.help or row.hidden
        assert row.kind == "switch" or row.bare is None


def test_an_unknown_verb_comes_with_the_nearest() -> None:
    with pytest.raises(InvalidValue, match="unknown command: comit") as caught:
        verb_named("comit")
    assert caught.value.hint == "did you mean commit?"


SAMPLES: Mapping[str, Sequence[str]] = {
    "switch": ["true", "false", "1", "0", "T", "F", "Yes", "no", "on", "OFF", " true ", "y", "n"],
    "text": ["x", "", "-", "a,b", 'a"b', "a=b", " ", "--x"],
    "number": ["0", "5", "-1", " 7 ", "1_000", "+3"],
    "size": ["0", "64m", "1G", "10 kb"],
    "duration": ["0", "1h30m", "2.5s", "+300ms", " 1s "],
    "many": ["x", "", "a,b", "-"],
    "list": ["x", "", "a,b", ",a,,b", '"a,b",c'],
}
"""Texts that each kind of option takes."""
WRONG: Mapping[str, Sequence[str]] = {
    "switch": ["maybe", "2"],
    "number": ["", "x", "1.5", "0x10"],
    "size": ["", "x", "1q"],
    "duration": ["", "x", "5"],
    "list": ['"a', '"a"b'],
}
"""Texts that it does not take."""


def options_of(found: Verb) -> Iterator[tuple[Option, list[str]]]:
    """Every option that builda has, with the arguments that the verb needs besides."""
    required = [row.name for row in found.rows if isinstance(row, Argument) and row.required]
    for row in found.rows:
        if isinstance(row, Option) and row.refusal is None:
            yield row, required


@pytest.mark.parametrize("name", sorted(every_verb()))
def test_click_reads_every_option_as_we_do(name: str) -> None:
    """Our reader and click make the same of a line, so that help and complaints tell of what happens.

    A line has a text for each of the verb's options: click looks through all of them for each line.
    """
    found = verb_named(name)
    command = commands.Command(found)
    rows = [row for row, _ in options_of(found)]
    required = [row.name for row in found.rows if isinstance(row, Argument) and row.required]
    for texts in zip_longest(*(written(row) for row in rows), fillvalue=[]):
        words = [word for text in texts for word in text]
        line = found.read([*words, *required], {}, path="builda t")
        ours, theirs = line.values(found.rows), command.make_context("t", line.words()).params
        assert ours == theirs, words
        for row in rows:
            assert type(ours[row.name]) is type(theirs[row.name]), words


def written(row: Option) -> list[list[str]]:
    """Every way to write an option, with every text that it takes."""
    texts = SAMPLES[row.kind]
    ways = [[f"{flag}={one}"] for flag in row.flags for one in texts]
    ways += [[f"{row.long}={one}", f"{row.long}={other}"] for one, other in pairwise(texts)]
    return ways + [[flag] if row.bare is not None else [flag, texts[0]] for flag in row.flags]


@pytest.mark.parametrize("name", sorted(every_verb()))
def test_click_says_what_is_wrong_with_a_text_that_we_do_not_take(name: str) -> None:
    found = verb_named(name)
    for row, required in options_of(found):
        for wrong in WRONG.get(row.kind, ()):
            line = found.read([f"{row.long}={wrong}", *required], {}, path="builda t")
            with pytest.raises(Odd):
                line.values(found.rows)
            with pytest.raises(InvalidValue):
                commands.values(found, "t", line)


@pytest.mark.parametrize("name", sorted(every_verb()))
@given(words=st.lists(st.sampled_from(["a", "b", "", "-", "bash", "--", "zsh"]), max_size=4))
@settings(max_examples=25, deadline=None)
def test_click_gives_arguments_their_places_as_we_do(name: str, words: list[str]) -> None:
    found = verb_named(name)
    try:
        line = found.read(words, {}, path="builda t")
    except InvalidValue:
        return  # what looks like an option
    try:
        ours = line.values(found.rows)
    except Odd:
        with pytest.raises(InvalidValue):
            commands.values(found, "t", line)
    else:
        assert ours == commands.values(found, "t", line)
