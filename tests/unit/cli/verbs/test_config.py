"""`config`: options to edits."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import reduce
from typing import Any

import pytest

from builda.cli.verbs.config import changes_of, config
from builda.errors import InvalidValue
from builda.events import Event, Warned
from builda.oci.config import Healthcheck, ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.edits import apply

BEFORE = ImageConfig(
    platform=Platform(os="linux", architecture="amd64"),
    env=(("A", "1"), ("PATH", "/bin")),
    cmd=("bash",),
    labels={"old": "x"},
    exposed_ports=("80",),
    volumes=("/v",),
)


def values_of(*args: str) -> Mapping[str, Any]:
    return config.read([*args, "c"], {}, path="builda config").values(config.rows)


def configured(*args: str, said: list[Event] | None = None) -> ImageConfig:
    emit = (said if said is not None else []).append
    edits = [edit for change in changes_of(values_of(*args), BEFORE, emit) for edit in change.edits]
    return reduce(apply, edits, BEFORE)


def test_nothing_said_changes_nothing() -> None:
    assert configured() == BEFORE


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('["a", "b c"]', ("a", "b c")),
        ("a 'b c'", ("a", "b c")),
        ("", None),
        ("[]", ()),
        ("[ -f x ]", ("[", "-f", "x", "]")),
    ],
)
def test_a_command_is_a_json_array_or_words(written: str, expected: tuple[str, ...] | None) -> None:
    assert configured("--cmd", written).cmd == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('["a", "b"]', ("a", "b")),
        ("a b", ("/bin/sh", "-c", "a b")),
        ("", None),
        ("[ -f x ] && y", ("/bin/sh", "-c", "[ -f x ] && y")),
    ],
)
def test_an_entrypoint_is_a_json_array_or_a_shell_command(written: str, expected: tuple[str, ...] | None) -> None:
    assert configured("--entrypoint", written).entrypoint == expected


@pytest.mark.parametrize("option", ["--entrypoint", "--cmd"])
@pytest.mark.parametrize("written", ['["a", ', '["a" "b"]', "['a']", "[1, 2]"])
def test_a_broken_json_array_is_an_error(option: str, written: str) -> None:
    with pytest.raises(InvalidValue, match=f"{option} is not a"):
        configured(option, written)


def test_an_entrypoint_keeps_the_command_and_says_so() -> None:
    said: list[Event] = []
    assert configured("--entrypoint", '["a"]', said=said).cmd == ("bash",)
    assert [event.message for event in said if isinstance(event, Warned)] == [
        "the command stays and will be passed to the entrypoint as parameters: bash"
    ]
    said.clear()
    configured("--entrypoint", '["a"]', "--cmd", "x", said=said)
    assert said == []


def test_variables_expand_what_the_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTS", "h")
    said: list[Event] = []
    made = configured("-e", "PATH=/x:$PATH", "-e", "B=${A}-${NOPE}", "-e", "HOSTS", "-e", "A-", said=said)
    assert made.environ() == {"PATH": "/x:/bin", "B": "1-NOPE", "HOSTS": "h"}
    assert any(isinstance(event, Warned) and event.message.endswith(": NOPE") for event in said)


def test_a_lone_dash_clears_all() -> None:
    assert configured("--env", "-").env == ()
    assert configured("--label", "-").labels == {}
    assert configured("--port", "-", "--volume", "-").exposed_ports == ()
    assert configured("--env", "-", "--env", "X=$A").environ() == {"X": "A"}


def test_a_trailing_dash_drops_one() -> None:
    made = configured("--label", "old-", "--label", "new=a-b-", "--port", "80-,81/udp", "--volume", "/v-,/w")
    assert made.labels == {"new": "a-b-"}
    assert made.exposed_ports == ("81/udp",)
    assert made.volumes == ("/w",)


def test_a_label_may_have_no_value_and_may_be_unset() -> None:
    assert configured("--label", "flag", "--unsetlabel", "old,x").labels == {"flag": ""}


def test_annotations_are_set_and_dropped() -> None:
    values = values_of("--annotation", "a=b=c", "--annotation", "old-", "--unsetannotation", "base")
    (change,) = changes_of(values, BEFORE, lambda event: None)
    assert (change.set_annotations, change.unset_annotations) == ({"a": "b=c"}, ("base", "old"))
    (change,) = changes_of(values_of("--annotation", "a"), BEFORE, lambda event: None)
    assert change.set_annotations == {"a": ""}
    with pytest.raises(InvalidValue, match="annotation has no name: '=a'"):
        list(changes_of(values_of("--annotation", "=a"), BEFORE, lambda event: None))


def test_texts_replace_what_was_there() -> None:
    made = configured(
        "--user", "1:2", "--workingdir", "/w", "--author", "me", "--stop-signal", "SIGINT", "--shell", "/a b"
    )
    assert (made.user, made.working_dir, made.author, made.stop_signal) == ("1:2", "/w", "me", "SIGINT")
    assert made.shell == ("/a", "b")


def test_the_platform_changes_in_the_parts_that_are_said() -> None:
    made = configured("--arch", "arm64", "--variant", "v8", "--os-feature", "win32k")
    assert made.platform == Platform(os="linux", architecture="arm64", variant="v8", os_features=("win32k",))


@pytest.mark.parametrize(
    ("written", "test"),
    [
        ("CMD curl -f 'a b'", ("CMD", "curl", "-f", "a b")),
        ("CMD-SHELL curl x || exit 1", ("CMD-SHELL", "curl x || exit 1")),
        ("NONE", ("NONE",)),
    ],
)
def test_health_checks_are_written_in_dockers_words(written: str, test: tuple[str, ...]) -> None:
    made = configured("--healthcheck", written, "--healthcheck-interval", "1m30s", "--healthcheck-retries", "5")
    assert made.healthcheck == Healthcheck(test=test, interval=90 * 10**9, retries=5)


def test_an_empty_health_check_removes_it_and_a_bad_one_is_refused() -> None:
    assert configured("--healthcheck", "").healthcheck is None
    with pytest.raises(InvalidValue, match="health check is written"):
        configured("--healthcheck", "curl x")
    with pytest.raises(InvalidValue, match="there is no health check to change"):
        configured("--healthcheck-interval", "5s")


def test_history_names_each_change_in_buildahs_order() -> None:
    values = values_of("--cmd", "x", "--env", "A=2", "--user", "u", "--entrypoint", '["e"]', "--label", "l=1")
    shown = [change.history for change in changes_of(values, BEFORE, lambda event: None)]
    assert shown == ["USER u", "ENV A=2", 'ENTRYPOINT ["e"]', "CMD x", "LABEL l=1"]


def test_history_of_a_health_check_has_its_options() -> None:
    values = values_of(
        "--healthcheck",
        "CMD /foo",
        "--healthcheck-timeout=10s",
        "--healthcheck-interval=90s",
        "--healthcheck-retries=7",
    )
    (change,) = changes_of(values, BEFORE, lambda event: None)
    assert change.history == "HEALTHCHECK --interval=1m30s --retries=7 --timeout=10s CMD /foo"


@pytest.mark.parametrize("option", ["--cmd", "--entrypoint", "--shell"])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, '["a", ' * 50_000, '["\\ud800"]', "[1e999]", "[NaN]", '{"a":' * 20_000]
)
def test_arrays_that_nobody_means_are_words_or_errors(option: str, text: str) -> None:
    with suppress(InvalidValue):
        configured(option, text)
