"""Resident memory stays under 100 MB, whatever the size of a layer: measured on whole commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.measure import measured
from tests.support.registry import Registry, registry

pytestmark = [pytest.mark.root, pytest.mark.network]

LIMIT_MIB = 100


@pytest.fixture
def server() -> Iterator[Registry]:
    with registry() as running:
        yield running


def within_limit(builda: Builda, *arguments: str) -> str:
    """The output of a verb, which succeeds and stays within the limit."""
    result = measured([*builda.command, *arguments], environ=clean_environ())
    assert result.status == 0, result.stderr
    assert result.peak_mib < LIMIT_MIB, f"{arguments[0]} needed {result.peak_mib:.0f} MiB"
    return result.stdout.strip()


def remove_all(builda: Builda) -> None:
    """Gigabytes: not to be kept with the test's directory."""
    builda("rm", "--all")
    builda("rmi", "--all")
    builda("prune")
    left = sum(path.lstat().st_blocks for path in builda.root.rglob("*")) * 512
    assert left < 1 << 20


@pytest.mark.parametrize("size", [1 << 30, pytest.param(4 << 30, marks=pytest.mark.long)])
def test_a_sparse_file(builda: Builda, size: int) -> None:
    container = builda("from", "scratch")
    disk = Path(builda("mount", container)) / "disk"
    disk.touch()
    os.truncate(disk, size)
    builda("umount", container)
    within_limit(builda, "commit", "--rm", container, "localhost/sparse")
    again = within_limit(builda, "from", "localhost/sparse")
    there = os.stat(f"{builda('mount', again)}/disk")
    assert there.st_size == size
    assert there.st_blocks * 512 < 1 << 20
    remove_all(builda)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mebibytes", [256, pytest.param(1024, marks=pytest.mark.long)])
def test_a_random_file(builda: Builda, server: Registry, tmp_path: Path, mebibytes: int) -> None:
    with open("/dev/urandom", "rb") as source, (tmp_path / "random").open("wb") as file:
        for _ in range(mebibytes):
            file.write(source.read(1 << 20))
    container = builda("from", "scratch")
    within_limit(builda, "copy", "--quiet", container, str(tmp_path / "random"), "/random")
    (tmp_path / "random").unlink()
    name = server.name("random:1")
    image = within_limit(builda, "commit", "--quiet", "--rm", container, name)
    within_limit(builda, "push", "--quiet", "--tls-verify=false", name)
    builda("rmi", name)
    builda("prune")
    assert within_limit(builda, "pull", "--quiet", "--tls-verify=false", name) == image
    within_limit(builda, "from", name)
    remove_all(builda)
