"""Matrices of `build --matrix`: their combinations, names and tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.bake.axes import Combination, read_matrix
from builda.errors import BuildaError


def read(tmp_path: Path, text: str, *tags: str) -> tuple[Combination, ...]:
    (tmp_path / "matrix.yaml").write_text(text)
    return read_matrix(f"{tmp_path}/matrix.yaml", tags)


def test_combinations_are_all_but_those_left_out(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
axes: {V: [3.10, 3.11], OS: [a, b]}
exclude: [{V: 3.10, OS: b}]
include: [{V: 3.12, OS: c}]
tags: "r/app:${V}-${OS}"
""",
    )
    assert [(one.name, one.args["V"], one.tags) for one in found] == [
        ("3.10-a", "3.10", ("r/app:3.10-a",)),
        ("3.11-a", "3.11", ("r/app:3.11-a",)),
        ("3.11-b", "3.11", ("r/app:3.11-b",)),
        ("3.12-c", "3.12", ("r/app:3.12-c",)),
    ]


@pytest.mark.parametrize(
    ("text", "tag", "words"),
    [
        ("axes: {A: [x, y]}\ntags: app\n", "", ":2: combinations x and y have the same tag: app"),
        ("axes: {A: [x]}\ntags: 'app:${B}'\n", "", ":2: tag names no axis of the matrix, B: app:${B}"),
        ("axes:\n  A: x\n", "", ":2: axis A is a list of texts, not a text"),
        ("axes:\n  A: [x, x]\n", "", ":2: axis A has a value twice"),
        ("axes: {A: [x]}\nmore: 1\n", "", ":2: a matrix has no more"),
        ("tags: [a]\n", "", ":1: a matrix has axes"),
        ("axes: {A: [x]}\ninclude:\n- {B: y}\n", "", ":3: there is no axis B"),
        ("axes: {A: [x], B: [y]}\ninclude:\n- {B: y}\n", "", ":3: combination has no A"),
        ("axes: {A: [x]}\nexclude: [{A: x}]\n", "", ":1: matrix has no combination"),
        ("target: {}\n", "", ":1: file has targets and is no matrix"),
        ("axes: {a b: [x]}\n", "", ":1: axis is no name of a build argument: 'a b'"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(tmp_path: Path, text: str, tag: str, words: str) -> None:
    with pytest.raises(BuildaError) as raised:
        read(tmp_path, text, *filter(None, [tag]))
    assert str(raised.value).startswith(f"{tmp_path}/matrix.yaml{words}")


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("app", "--tag: combinations x and y have the same tag: app"),
        ("app:${B}", "--tag: tag names no axis of the matrix, B: app:${B}"),
    ],
)
def test_what_is_wrong_with_a_tag_of_the_command_line_names_the_option(tmp_path: Path, tag: str, words: str) -> None:
    with pytest.raises(BuildaError) as raised:
        read(tmp_path, "axes: {A: [x, y]}\n", tag)
    assert str(raised.value) == words
