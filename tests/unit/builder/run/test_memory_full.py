"""Trees in memory that runs out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.errors import CommandFailed, StoreUnavailable
from builda.linux import syscalls as sys_
from builda.plan import Copy
from builda.store.store import Image
from tests.unit.builder.conftest import Bench

pytestmark = pytest.mark.root
SIZE = 8 << 20


@pytest.fixture
def small(bench: Bench, box: Image) -> Iterator[Bench]:
    """A builder whose trees have a few megabytes of memory."""
    place = Path(bench.store.layout.path("memory"))
    place.mkdir()
    sys_.mount("tmpfs", str(place), "tmpfs", 0, f"size={SIZE},mode=0700")
    bench.store.snapshots.keep_in_memory(str(place), SIZE)
    yield bench
    sys_.umount2(str(place), sys_.MNT_DETACH)


def test_a_command_that_fills_it_is_told_so(small: Bench) -> None:
    container = small.builder.from_image("box")
    small.shell(container, "head -c 100000 /dev/zero > /little")
    with pytest.raises(CommandFailed) as raised:
        small.shell(container, f"head -c {SIZE} /dev/zero > /much")
    assert "memory for the build's trees is full: 8 MiB" in str(raised.value.hint)
    assert "--storage-driver plain" in str(raised.value.hint)


def test_a_copy_that_does_not_fit_is_told_so(small: Bench, tmp_path: Path) -> None:
    (tmp_path / "much").write_bytes(bytes(range(256)) * (SIZE // 128))
    container = small.builder.from_image("box")
    with pytest.raises(StoreUnavailable, match="memory for the build's trees is full: 8 MiB"):
        small.builder.copy(container, Copy(sources=(str(tmp_path / "much"),), destination="/much"))


def test_what_is_kept_is_a_tree_of_this_process_only(small: Bench) -> None:
    container = small.builder.from_image("box")
    small.shell(container, "echo x > /made")
    container = small.store.container(container.id)
    assert small.store.snapshots.kind_of(container.snapshot).driver.name == "memory"
    assert small.upper(container) == ["made"]
    small.builder.remove(container)
    assert list(Path(small.store.layout.path("memory")).iterdir()) == []
