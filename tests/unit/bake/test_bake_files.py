"""Bake files in JSON: what they declare, what the command line changes, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builda.bake.documents import VALUE_LIMIT
from builda.bake.reading import declared_in
from builda.bake.resolving import Chosen, choose
from builda.errors import BuildaError, InvalidValue, NotFound, Unsupported


def chosen(
    tmp_path: Path, value: Any, *names: str, sets: tuple[str, ...] = (), environ: dict[str, str] | None = None
) -> Chosen:
    file = tmp_path / "docker-bake.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return choose(declared_in([str(file)], environ or {}), names, sets, environ or {})


def said(found: Chosen, name: str) -> dict[str, Any]:
    return dict(next(target for target in found.targets if target.name == name).said)


def test_a_target_has_what_it_inherits_and_what_it_says_itself(tmp_path: Path) -> None:
    value = {
        "target": {
            "a": {"args": {"X": "1", "Y": "1"}, "tags": ["a"], "cache-from": ["r/a"]},
            "b": {
                "inherits": ["a"],
                "args": {"Y": 2},
                "tags": ["b"],
                "cache-from": [{"type": "registry", "ref": "r/b"}],
            },
        }
    }
    assert said(chosen(tmp_path, value, "b"), "b") == {
        "args": {"X": "1", "Y": "2"},
        "tags": ["b"],
        "cache-from": ["r/a", "type=registry,ref=r/b"],
    }


def test_variables_have_their_default_or_what_the_environment_says(tmp_path: Path) -> None:
    value = {
        "variable": {"TAG": {"default": "1"}, "REPO": {"default": "r/${TAG}"}, "FAST": {"default": False}},
        "target": {"default": {"tags": ["${REPO}:x-${TAG}"], "no-cache": "${FAST}", "labels": {"a": "$${TAG}"}}},
    }
    assert said(chosen(tmp_path, value), "default")["tags"] == ["r/1:x-1"]
    found = said(chosen(tmp_path, value, environ={"TAG": "2", "FAST": "true"}), "default")
    assert (found["tags"], found["no-cache"], found["labels"]) == (["r/2:x-2"], True, {"a": "${TAG}"})


def of_variable(tmp_path: Path, block: dict[str, Any], environ: dict[str, str], text: str) -> str:
    """What a text with the variable V comes to."""
    file = {"variable": {"V": block}, "target": {"default": {"args": {"R": text}}}}
    args: dict[str, str] = said(chosen(tmp_path, file, environ=environ), "default")["args"]
    return args["R"]


@pytest.mark.parametrize(
    ("kind", "environ", "text", "value"),
    [
        ("number", {"V": "2"}, "${V + 1}", "3"),
        ("bool", {"V": "yes"}, '${V ? "a" : "b"}', "a"),
        ("list(string)", {"V": "a,b"}, '${join("+", V)}', "a+b"),
        ("list(string)", {"V_JSON": '["a,b"]'}, '${join("+", V)}', "a,b"),
        ("map(string)", {"V_JSON": '{"k": "v"}', "V": "x"}, "${V.k}", "v"),
    ],
)
def test_a_variable_has_the_kind_that_its_type_says(
    tmp_path: Path, kind: str, environ: dict[str, str], text: str, value: str
) -> None:
    assert of_variable(tmp_path, {"type": kind}, environ, text) == value


@pytest.mark.parametrize(
    ("block", "environ", "words"),
    [
        ({"type": "bool"}, {"V": "maybe"}, "variable V is a boolean, and its value from outside is not: maybe"),
        ({"type": "number", "default": "x"}, {}, "variable V is a number, and its default is a text"),
        ({"type": "list(string)"}, {"V_JSON": '{"a": 1}'}, "variable V is a list, and V_JSON is a mapping"),
        ({"default": "x"}, {"V_JSON": "x"}, "V_JSON, which is for variable V, is no JSON: x"),
        ({"type": "any"}, {}, "variable V has a type that is not supported: any"),
    ],
)
def test_a_variable_of_another_kind_is_refused(
    tmp_path: Path, block: dict[str, Any], environ: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidValue) as failure:
        of_variable(tmp_path, block, environ, "${V}")
    assert words in str(failure.value)


def test_the_platform_of_this_machine_is_a_variable(tmp_path: Path) -> None:
    file = {"target": {"default": {"platforms": ["${BAKE_LOCAL_PLATFORM}"]}}}
    assert said(chosen(tmp_path, file), "default")["platforms"][0].startswith("linux/")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${upper(A)}-${length(L)}", "ONE-2"),
        ('${A == "one" ? "yes" : "no"}', "yes"),
        ('${join(",", concat(L, ["c"]))}', "a,b,c"),
        ('${L[1]}${M.k}${M["k"]}', "bvv"),
        ("${1 + 2 * 3}", "7"),
        ('${notequal("", A) && !false ? "${A}!" : ""}', "one!"),
        ('${replace("a.b", ".", "-")}', "a-b"),
    ],
)
def test_expressions_have_the_values_that_they_have_in_hcl(tmp_path: Path, text: str, value: str) -> None:
    variables = {"A": {"default": "one"}, "L": {"default": ["a", "b"]}, "M": {"default": {"k": "v"}}}
    found = chosen(tmp_path, {"variable": variables, "target": {"default": {"args": {"R": text}}}})
    assert said(found, "default")["args"] == {"R": value}


def test_a_matrix_makes_a_target_for_each_combination_and_a_group_of_them(tmp_path: Path) -> None:
    app = {
        "matrix": {"v": ["1.0", "2"], "os": [{"name": "deb", "base": "b"}, {"name": "alp", "base": "a"}]},
        "name": 'app-${replace(v, ".", "_")}-${os.name}',
        "args": {"BASE": "${os.base}", "V": "${v}"},
    }
    found = chosen(tmp_path, {"target": {"app": app}}, "app")
    assert [target.name for target in found.targets] == ["app-1_0-deb", "app-1_0-alp", "app-2-deb", "app-2-alp"]
    assert said(found, "app-2-alp")["args"] == {"BASE": "a", "V": "2"}


def test_set_changes_targets_by_pattern(tmp_path: Path) -> None:
    value = {"target": {"a1": {"tags": ["x"], "args": {"K": "0"}}, "a2": {}, "b": {"platforms": ["linux/amd64"]}}}
    sets = (
        "a*.args.K=1",
        "a1.tags+=y",
        "*.platform=linux/arm64",
        "*.platform=linux/s390x",
        "b.args.HERE",
        "b.pull=true",
    )
    found = chosen(tmp_path, value, "a1", "a2", "b", sets=sets, environ={"HERE": "h"})
    assert said(found, "a1") == {"tags": ["x", "y"], "args": {"K": "1"}, "platforms": ["linux/arm64", "linux/s390x"]}
    assert said(found, "a2")["args"] == {"K": "1"}
    assert said(found, "b") == {"platforms": ["linux/arm64", "linux/s390x"], "args": {"HERE": "h"}, "pull": True}


def test_targets_come_behind_those_that_they_build_on(tmp_path: Path) -> None:
    value = {
        "target": {"app": {"contexts": {"base": "target:base"}}, "base": {"contexts": {"r": "target:root"}}, "root": {}}
    }
    found = chosen(tmp_path, value, "app")
    assert [target.name for target in found.targets] == ["root", "base", "app"]
    assert found.linked == {"root", "base"}


def test_a_later_file_counts_more(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(
        '{"variable": {"V": {"default": "1"}}, "target": {"default": {"tags": ["a:${V}"]}}}'
    )
    (tmp_path / "2.json").write_text(
        '{"variable": {"V": {"default": "2"}}, "target": {"default": {"args": {"A": "b"}}}}'
    )
    declared = declared_in([f"{tmp_path}/1.json", f"{tmp_path}/2.json"], {})
    assert declared.targets["default"].said == {"tags": ["a:2"], "args": {"A": "b"}}


BAD = {
    "cycle of groups": (
        '{"group": {"a": {"targets": ["b"]},\n"b": {"targets": ["a"]}}}',
        ["a"],
        ":2: groups contain each other: a -> b -> a",
    ),
    "loop of inheritance": (
        '{"target": {"a": {"inherits": ["b"]},\n"b": {"inherits": ["a"]}}}',
        ["a"],
        ":2: target inherits from itself: a -> b -> a",
    ),
    "own base": (
        '{"target": {"a": {"contexts": {"x": "target:a"}}}}',
        ["a"],
        ":1: targets build on each other: a -> a",
    ),
    "cycle of targets": (
        '{"target": {"a": {"contexts": {"x": "target:b"}},\n"b": {"contexts": {"x": "target:a"}}}}',
        ["a"],
        ":2: targets build on each other: a -> b -> a",
    ),
    "unknown target": (
        '{"target": {"app": {}}}',
        ["ap"],
        "no such target or group: ap",
    ),
    "unknown member": (
        '{"group": {"default": {"targets": ["x"]}}}',
        [],
        ":1: group default names no target: x",
    ),
    "unknown base": (
        '{"target": {"a": {"inherits": ["x"]}}}',
        ["a"],
        ":1: target a inherits from a target that is not there: x",
    ),
    "unknown link": (
        '{"target": {"a": {"contexts": {"x": "target:y"}}}}',
        ["a"],
        ":1: target a builds on a target: no such target: y",
    ),
    "wrong type": (
        '{"target": {"a": {\n"tags": "x"}}}',
        ["a"],
        ":2: target a: tags is a list of texts, not a text",
    ),
    "wrong type of value": (
        '{"target": {"a": {\n"args": {"A": [1]}}}}',
        ["a"],
        ":2: target a: args is a mapping of names to texts, and A is a text, not a list",
    ),
    "target that is a list": (
        '{"target": {"a": 3}}',
        ["a"],
        ":1: target a is a mapping, not a number",
    ),
    "unknown attribute": (
        '{"target": {"a": {\n"tag": []}}}',
        ["a"],
        ":2: target a has no attribute tag",
    ),
    "refused attribute": (
        '{"target": {"a": {"call": "check"}}}',
        ["a"],
        ":1: target a: call is not supported",
    ),
    "same tag": (
        '{"target": {"a": {"tags": ["x"]},\n"b": {"tags": ["x:latest"]}}}',
        ["a", "b"],
        ":2: targets a and b have the same tag: x:latest",
    ),
    "unknown variable": (
        '{"target": {"a": {"tags": [\n"${X}"]}}}',
        ["a"],
        ":2: there is no variable X: ${X}",
    ),
    "variables in a circle": (
        '{"variable": {"A": {"default": "${B}"},\n"B": {"default": "${A}"}}}',
        [],
        ":1: variables need each other: A -> B -> A",
    ),
    "unknown function": (
        '{"target": {"a": {"tags": ["${timestamp()}"]}}}',
        ["a"],
        ":1: there is no function timestamp here: ${timestamp()}",
    ),
    "unfinished expression": (
        '{"target": {"a": {"tags": ["${x"]}}}',
        ["a"],
        ":1: ",
    ),
    "matrix without a name": (
        '{"target": {"a": {"matrix": {"v": ["1"]}}}}',
        ["a"],
        ":1: target a: a matrix needs a name",
    ),
    "matrix with one name": (
        '{"target": {"a": {"matrix": {"v": ["1", "2"]}, "name": "b"}}}',
        ["a"],
        ":1: target a: two combinations are called b",
    ),
    "bad name": (
        '{"target": {"a b": {}}}',
        [],
        ":1: name of a target has letters, digits, _ and - only: 'a b'",
    ),
    "no JSON": (
        '{"target": {\n"a": }}',
        [],
        ":2: file is no JSON: unexpected '}'",
    ),
    "two members": (
        '{"target": {"a": {},\n"a": {}}}',
        [],
        ":2: file is no JSON: two members are called 'a'",
    ),
    "cut off": (
        '{"target": {',
        [],
        ":1: file is no JSON: ",
    ),
    "no object": (
        "[]",
        [],
        "neither a bake file in JSON nor a compose file",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, case: str) -> None:
    text, names, words = BAD[case]
    file = tmp_path / ("docker-bake.json" if text[0] == "{" else "bakefile")
    file.write_text(text)
    with pytest.raises(BuildaError) as raised:
        choose(declared_in([str(file)], {}), names, (), {})
    message = str(raised.value)
    assert words in message
    if words.startswith(":"):
        assert message.startswith(str(file))


def test_bombs_end_at_a_limit(tmp_path: Path) -> None:
    doubling = {f"V{n}": {"default": f"${{V{n - 1}}}${{V{n - 1}}}"} for n in range(1, 60)}
    with pytest.raises(InvalidValue, match="longer than the limit"):
        chosen(tmp_path, {"variable": {"V0": {"default": "x"}, **doubling}, "target": {"default": {}}})
    with pytest.raises(InvalidValue, match="nested deeper"):
        chosen(tmp_path, '{"a":' + "[" * 5000 + "]" * 5000 + "}")
    with pytest.raises(InvalidValue, match="nested deeper"):
        chosen(tmp_path, {"target": {"default": {"tags": ["${" + "(" * 5000 + ")" * 5000 + "}"]}}})
    with pytest.raises(InvalidValue, match="more values than the limit"):
        chosen(tmp_path, '{"a":[' + "0," * (VALUE_LIMIT + 1) + "0]}")
    axes = {f"a{n}": [str(value) for value in range(100)] for n in range(5)}
    with pytest.raises(InvalidValue, match="10000000000 combinations"):
        chosen(tmp_path, {"target": {"a": {"matrix": axes, "name": "x"}}})
    (tmp_path / "large.json").write_text(" " * (1 << 21))
    with pytest.raises(InvalidValue, match="more bytes than the limit"):
        declared_in([f"{tmp_path}/large.json"], {})


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or directory for the bake file"):
        declared_in([f"{tmp_path}/none.json"], {})
    with pytest.raises(Unsupported, match="bake file in HCL cannot be read"):
        declared_in([f"{tmp_path}/docker-bake.hcl"], {})


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("a", "--set names no attribute"),
        ("a.b=c", "--set names no attribute"),
        ("a.args=x", "args needs a name behind it"),
        ("a.tags.x=y", "tags has no parts"),
        ("a.target+=x", "is for lists"),
        ("x.tags=y", "--set matches no target: x"),
        ("a.pull=perhaps", "pull is true or false"),
        ("a.tags", "--set gives no value"),
    ],
)
def test_a_wrong_set_is_refused(tmp_path: Path, setting: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        chosen(tmp_path, {"target": {"a": {}}}, "a", sets=(setting,))
