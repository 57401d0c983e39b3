"""Names of sockets in buffers of every size, and messages with paths and credentials: as in a chroot in both modes."""

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
    return compiled("sockets", tmp_path_factory.mktemp("sockets"))


@pytest.fixture(scope="module")
def kernels(program: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return in_chroot(program, tmp_path_factory.mktemp("chroot")).splitlines()


@pytest.mark.usefixtures("answered")
def test_sockets_in_traced(program: Path, kernels: list[str], new_box: Callable[..., Any]) -> None:
    assert _differences(kernels, in_traced(program, new_box).splitlines()) == []


def test_sockets_in_single(program: Path, kernels: list[str], tmp_path: Path) -> None:
    assert _differences(kernels, in_single(program, tmp_path).splitlines()) == []


def _differences(wanted: list[str], found: list[str]) -> list[str]:
    assert len(found) == len(wanted) > 2000
    return [f"{line}, not {other}" for line, other in zip(wanted, found, strict=True) if line != other]
