"""What users without rights make and may do: in mode `single` what they make and may do in a chroot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pathcalls import compiled, in_chroot, in_single

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("users", tmp_path_factory.mktemp("users"))


@pytest.mark.parametrize(("section", "least"), [("rules", 3000)])
def test_users_in_single(section: str, least: int, program: Path, tmp_path: Path) -> None:
    wanted = in_chroot(program, tmp_path / "chroot", section).splitlines()
    found = in_single(program, tmp_path, section).splitlines()
    assert len(found) == len(wanted) > least
    assert [f"{line}, not {other}" for line, other in zip(wanted, found, strict=True) if line != other] == []
