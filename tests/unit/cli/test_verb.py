"""Command lines are read by pflag's rules: what Buildah's scripts write must mean the same here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import pytest

from builda.cli.group import ALIASES, VERBS, in_our_words, make_group
from builda.cli.options import Option, Switch, argument, listed, many, number, refused, switch, text
from builda.cli.verb import GIVEN, GLOBAL_OPTIONS, Verb, verb
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


@pytest.mark.parametrize("name", [None, *VERBS])
def test_no_two_parameters_share_a_name(name: str | None) -> None:
    group = make_group()
    command = group if name is None else group.get_command(click.Context(group), name)
    assert command is not None
    params = command.get_params(click.Context(command))
    written = [option for param in params for option in (*param.opts, *param.secondary_opts)]
    assert sorted(set(written)) == sorted(written)


@pytest.fixture
def parse() -> Callable[..., dict[str, Any]]:
    def parsed(*args: str, **attributes: Any) -> dict[str, Any]:
        command = verb(*OPTIONS, example="x", name="t", **attributes)(lambda session, **values: None)
        ctx = command.make_context("t", list(args))
        return {**ctx.params, "given": ctx.meta[GIVEN]}

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
    with pytest.raises(click.NoSuchOption) as caught:
        parse("--nam", "x", "c")
    error = in_our_words(caught.value)
    assert str(error) == "unknown flag: --nam"
    assert error.hint == "did you mean --name?"


def test_a_missing_value_and_a_wrong_one_name_the_option(parse: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(InvalidValue, match="flag needs an argument: --name"):
        parse("--name")
    with pytest.raises(click.BadParameter) as caught:
        parse("--retry", "many", "c")
    assert str(in_our_words(caught.value)) == "invalid value for --retry: 'many' is not a valid integer"


def test_a_missing_argument_is_named(parse: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(click.MissingParameter) as caught:
        parse()
    assert str(in_our_words(caught.value)) == "missing argument: CONTAINER"


ALL = sorted({*VERBS, *ALIASES})


@pytest.fixture(scope="module")
def group() -> click.Group:
    return make_group()


@pytest.mark.parametrize("name", ALL)
def test_every_verb_is_there_with_help_and_an_example(group: click.Group, name: str) -> None:
    with click.Context(group) as ctx:
        command = group.get_command(ctx, name)
        assert isinstance(command, Verb)
        assert command.name == ALIASES.get(name, name)
        assert command.epilog
        assert command.epilog.startswith(("builda", "c=", "m=", "eval"))
        text_ = command.get_help(click.Context(command, parent=ctx, **command.context_settings))
    assert "Example" in text_


@pytest.mark.parametrize("name", sorted(VERBS))
def test_no_option_of_a_verb_is_declared_twice_or_without_words(group: click.Group, name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    names = [one for param in command.params if isinstance(param, Option) for one in param.opts]
    assert len(names) == len(set(names))
    for param in command.params:
        if isinstance(param, Option) and param.refusal is None:
            assert param.help, param.name


def test_global_options_all_say_what_they_are() -> None:
    for option in GLOBAL_OPTIONS:
        assert isinstance(option, Option)
        assert option.help or option.hidden
        assert isinstance(option, Switch) or option.bare is None


def test_an_unknown_verb_comes_with_the_nearest(group: click.Group) -> None:
    with pytest.raises(InvalidValue, match="unknown command: comit") as caught:
        group.resolve_command(click.Context(group), ["comit"])
    assert caught.value.hint == "did you mean commit?"
