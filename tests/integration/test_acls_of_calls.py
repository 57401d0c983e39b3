"""What calls make in directories with ACLs: in the modes `single` and `traced` what they make in a chroot."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, in_chroot, in_single, in_traced
from tests.unit.isolation.conftest import answered as answered  # the fixtures, shared with the unit tests
from tests.unit.isolation.conftest import new_box as new_box

pytestmark = pytest.mark.root

WORDS = [
    ("each",),
    tuple(map(str, range(1, 41))),
    pytest.param(tuple(map(str, range(41, 600))), marks=pytest.mark.long),
]
_SET_IDS = re.compile(r"(?<= 10)[0-7](?=[0-7]{3} \d+:)")
_NO_DIRECTORY = re.compile(r"(set default \S+ 1[0-9] = )(?:EACCES|EINVAL)")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("acls", tmp_path_factory.mktemp("acls"))


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("words", WORDS)
def test_acls_in_traced(words: tuple[str, ...], program: Path, tmp_path: Path, new_box: Callable[..., Any]) -> None:
    wanted = in_chroot(program, tmp_path / "chroot", *words)
    assert _first_difference(wanted.splitlines(), in_traced(program, new_box, *words).splitlines()) is None


@pytest.mark.parametrize("words", WORDS)
def test_acls_in_single(words: tuple[str, ...], program: Path, tmp_path: Path) -> None:
    wanted, found = in_chroot(program, tmp_path / "chroot", *words), in_single(program, tmp_path, *words)
    assert _first_difference(*([_of_single(line) for line in text.splitlines()] for text in (wanted, found))) is None


def _of_single(line: str) -> str:
    """A line without what may differ: set-id bits of files that root writes to, and which fault of two is reported."""
    return _NO_DIRECTORY.sub(r"\1E", _SET_IDS.sub("", line))


def _first_difference(wanted: list[str], found: list[str]) -> str | None:
    assert len(wanted) > 1000
    for at, line in enumerate(wanted):
        other = found[at] if at < len(found) else "(end)"
        if line != other:
            return "\n".join((*wanted[max(0, at - 6) : at], f"wanted {line}", f"found  {other}"))
    return None
