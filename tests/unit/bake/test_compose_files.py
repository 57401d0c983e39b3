"""Compose files as targets: both forms of `build`, variables, secrets, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from builda.bake.dotenv import variables
from builda.bake.reading import declared_in
from builda.bake.resolving import choose
from builda.errors import BuildaError, InvalidValue


def targets(tmp_path: Path, text: str, **environ: str) -> dict[str, Any]:
    (tmp_path / "compose.yaml").write_text(text)
    found = choose(declared_in([f"{tmp_path}/compose.yaml"], environ), (), (), environ)
    return {target.name: dict(target.said) for target in found.targets}


def test_services_are_targets(tmp_path: Path) -> None:
    found = targets(
        tmp_path,
        """
x-args: &args {A: 1.10, B: "${B:-two}"}
services:
  short: {build: ./web, image: "r/web:${TAG:-1}"}
  long.name:
    profiles: [extra]
    environment: [C=three]
    build:
      context: .
      dockerfile: x.Dockerfile
      args: {<<: *args, C: }
      target: final
      labels: [l=1]
      additional_contexts: {base: "service:short", other: ./other}
      cache_from: [r/cache]
      platforms: [linux/amd64]
      secrets: [s, {source: e, target: named}]
      ssh: [default]
      extra_hosts: ["h:10.0.0.1"]
      ulimits: {nofile: {soft: 1, hard: 2}}
      shm_size: 1g
      network: none
      no_cache: true
      pull: "yes"
      x-bake: {tags: [r/long], output: "type=registry"}
  none: {image: nginx}
secrets:
  s: {file: ./s.txt}
  e: {environment: TOKEN}
""",
    )
    assert found == {
        "short": {"context": f"{tmp_path}/web", "tags": ["r/web:1"]},
        "long_name": {
            "context": str(tmp_path),
            "dockerfile": "x.Dockerfile",
            "args": {"A": "1.10", "B": "two", "C": "three"},
            "target": "final",
            "labels": {"l": "1"},
            "contexts": {"base": "target:short", "other": f"{tmp_path}/other"},
            "cache-from": ["r/cache"],
            "platforms": ["linux/amd64"],
            "secret": [f"id=s,src={tmp_path}/s.txt", "id=named,env=TOKEN"],
            "ssh": ["default"],
            "extra-hosts": {"h": "10.0.0.1"},
            "ulimits": ["nofile=1:2"],
            "shm-size": "1g",
            "network": "none",
            "no-cache": True,
            "pull": True,
            "tags": ["r/long"],
            "output": ["type=registry"],
        },
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A-${A}-$$A", "one-one-$A"),
        ("${E:-d}${E-d}${N-d}", "dd"),
        ("${A:+x}${E:+x}${E+y}", "xy"),
        ("${N:-${A}-${M:-deep}}", "one-deep"),
        ("${N}", ""),
    ],
)
def test_variables_have_the_forms_of_a_shell(tmp_path: Path, text: str, value: str) -> None:
    found = targets(tmp_path, f"services: {{a: {{build: {{context: ., args: {{R: '{text}'}}}}}}}}", A="one", E="")
    assert found["a"]["args"] == {"R": value}


def test_the_file_beside_it_gives_variables_and_the_environment_counts_more(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# words\nTAG=1\nexport REPO='r/a'\n")
    text = "services: {a: {build: ., image: '${REPO}:${TAG}'}}"
    assert targets(tmp_path, text, TAG="2")["a"]["tags"] == ["r/a:2"]


DOTENV = """# comment
export A=a # comment
B="b \\"q\\" \\n$A ${NONE:-d} \\$A" # comment
C='c $A "x" it\\'s'
D: d#no comment
E=
F='two
lines'

FROM_CALLER
\tG=${H:-g} \r
"""


def test_files_of_variables_have_the_syntax_of_compose() -> None:
    unset: set[str] = set()
    assert variables(DOTENV + "I=$NOWHERE.", ".env", {"A": "of caller", "FROM_CALLER": "x"}, unset) == {
        "A": "a",
        "B": 'b "q" \nof caller d $A',
        "C": 'c $A "x" it\'s',
        "D": "d#no comment",
        "E": "",
        "F": "two\nlines",
        "FROM_CALLER": "x",
        "G": "g",
        "I": ".",
    }
    assert unset == {"NOWHERE"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nno name=2\n", ".env:2: line is no NAME=VALUE"),
        ("\n\nA='x\n", ".env:3: quote is not closed"),
        ('A="x" y\n', ".env:1: there is text behind a value in quotes"),
        ("A=${B\n", ".env:1: variable is not closed: '${B'"),
        ("A=${B:?words}\n", ".env:1: variable B is needed: words"),
    ],
)
def test_files_of_variables_that_cannot_be_read_are_named_with_the_line(text: str, words: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        variables(text, ".env", {}, set())
    assert str(raised.value) == words


def test_an_env_file_gives_build_arguments_that_have_no_value(tmp_path: Path) -> None:
    """As docker buildx bake does; `environment` counts more than the file, and both more than the caller's."""
    (tmp_path / "one.env").write_text("A=of file\nB=$BASE-b\nC=of file\n")
    (tmp_path / "raw.env").write_text("# no\nD='$BASE'\n")
    text = """
services:
  a:
    env_file: [one.env, {path: raw.env, format: raw}, {path: none.env, required: false}]
    environment: {C: of service}
    build: {context: ., args: [A, B, C, D, E, F=1]}
  b: {env_file: none.env, build: {context: ., args: {A: 1}}}
"""
    found = targets(tmp_path, text, BASE="base", A="of caller", E="of caller")
    expected = {"A": "of file", "B": "base-b", "C": "of service", "D": "'$BASE'", "E": "of caller", "F": "1"}
    assert found["a"]["args"] == expected
    assert found["b"]["args"] == {"A": "1"}  # no value is asked of the file


@pytest.mark.parametrize(
    ("env_file", "words"),
    [
        ("none.env", "service a: no such file or directory for env_file: {top}/none.env"),
        ("{format: raw}", "service a: env_file is a path, or has a path and format: raw"),
        ("[{path: x, format: yaml}]", "service a: env_file is a path, or has a path and format: raw"),
        ("[[x]]", "service a: env_file is a path, or has a path and format: raw"),
    ],
)
def test_an_env_file_that_cannot_be_had_is_named(tmp_path: Path, env_file: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(words.replace("{top}", str(tmp_path)))):
        targets(tmp_path, f"services: {{a: {{env_file: {env_file}, build: {{context: ., args: [A]}}}}}}")


def test_what_is_not_followed_is_said(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services: {a: {profiles: [p], build: {context: '$NONE.', isolation: default, secrets: [{source: s, uid: 7}]}}"
        "}\n"
        "secrets: {s: {file: f}}\n"
    )
    warnings = declared_in([f"{tmp_path}/compose.yaml"], {}).warnings
    assert warnings == [
        "variables of the compose file have no value and stand for nothing: NONE",
        "profiles are ignored, their services are built too: a",
        "uid, gid and mode of secrets are ignored, RUN --mount=type=secret says them: service a: s",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services:\n  a:\n    build: [x]\n", ":3: service a: build is a mapping, not a list"),
        ("services:\n  a: {build: {contxt: .}}\n", ":2: service a: build has no contxt"),
        ("services:\n  a: {build: {tags: x}}\n", ":2: service a: tags is a list of texts, not a text"),
        ("services:\n  a: {build: {secrets: [s]}}\n", ":2: service a: there is no secret s"),
        ("services:\n  a: {build: '${X:?say it}'}\n", ":2: variable X is needed: say it"),
        ("services:\n  a: {build: '${X'}\n", ":2: variable is not closed"),
        ("services:\n  a: {extends: b}\n", ":2: service a: extends is not supported"),
        ("include: [x]\nservices: {}\n", ":1: include of other files is not supported"),
        ("services: 3\n", ":1: services is a mapping, not a text"),
        ("services:\n  a: {build: .}\n  a: {build: .}\n", ":3: two keys are 'a'"),
        ("services:\n  a: &a {build: *a}\n", ":2: "),
        ("services:\n  a: [\n", ":3: file is no YAML: "),
        ("a: b\n", ":1: compose file has no services"),
        ("axes: {A: [b]}\n", ":1: file is a matrix"),
        ("services:\n  a: {build: {isolation: hyperv}}\n", ":2: service a: isolation is of Windows: hyperv"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BuildaError) as raised:
        targets(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path}/compose.yaml{words}")


def test_aliases_make_no_bomb(tmp_path: Path) -> None:
    rows = ["x0: &x0 [lol]"] + [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(InvalidValue, match="more values than the limit"):
        targets(tmp_path, "\n".join(rows) + "\nservices: {a: {build: {context: ., args: {A: *x11}}}}\n")
