"""What users without rights make and may do: in the modes `single` and `traced` the same as in a chroot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pathcalls import compiled, in_chroot, in_single, in_traced
from tests.unit.isolation.conftest import answered as answered  # the fixtures, shared with the unit tests
from tests.unit.isolation.conftest import new_box as new_box

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("users", tmp_path_factory.mktemp("users"))


@pytest.mark.parametrize("section", ["rules", "capabilities", "acls", "making", "executions", "attributes"])
def test_users_in_single(section: str, program: Path, tmp_path: Path) -> None:
    wanted = in_chroot(program, tmp_path / "chroot", section).splitlines()
    assert _differences(wanted, in_single(program, tmp_path, section).splitlines()) == []


@pytest.mark.usefixtures("answered")
@pytest.mark.parametrize("section", ["capabilities", "acls", "making", "attributes"])
def test_users_in_traced(section: str, program: Path, tmp_path: Path, new_box: Callable[..., Any]) -> None:
    wanted = in_chroot(program, tmp_path / "chroot", section).splitlines()
    assert _differences(wanted, in_traced(program, new_box, section).splitlines()) == []


def _differences(wanted: list[str], found: list[str]) -> list[str]:
    assert len(found) == len(wanted) > 5
    return [f"{line}, not {other}" for line, other in zip(wanted, found, strict=True) if line != other]
