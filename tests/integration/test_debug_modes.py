"""`builda debug` in every mode that runs commands: kept steps, steps to stop before, and states taken elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_debug import HAD, SEEN, debugged, failing, made_context
from tests.support import needs
from tests.support.ways import Workplace, way, workplace

pytestmark = pytest.mark.root
WAYS = (way("traced", user=True), way("direct", isolation="oci"))
FURTHER = (
    way("direct"),
    way("direct", isolation="chroot"),
    way("single", user=True),
    way("subid", user=True, isolation="oci"),
    way("userns"),
    way("chroot"),
    way("subid", user=True),
    way("subid", user=True, isolation="chroot"),
    way("direct", driver="fuse-overlayfs"),
    way("single", user=True, driver="plain"),
)


@pytest.fixture
def work(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Iterator[Workplace]:
    with workplace(request.param, tmp_path, busybox) as made:
        yield made


@needs.program("newuidmap")
@needs.program("crun", "runc")
@pytest.mark.parametrize(
    "work", [*WAYS, *(pytest.param(way, marks=pytest.mark.long) for way in FURTHER)], ids=str, indirect=True
)
def test_a_failed_step_can_be_looked_into(work: Workplace) -> None:
    builda, place = work
    context = made_context(place)
    subprocess.run(["chmod", "-R", "a+rX", place], check=True)
    failing(builda, context)
    assert debugged(builda, SEEN)[: len(HAD)] == HAD
    state = place.parent / "state.tar"
    builda("debug", "--export", state)
    builda("debug", "--rm", "--all")
    assert debugged(builda, "pwd; id -u; echo $A; cat /tmp/left", state) == ["/here", "7", "b", "x"]
    file = place / "Stops"
    file.write_text("FROM localhost/busybox\nRUN echo one > /one\nENV A=1\nRUN echo two > /two\n")
    seen = "cat /one; echo $A; test ! -e /two"
    assert debugged(builda, seen, "--step", "4", "-f", file, context) == ["one", "1"]
    assert builda("containers", "-q") == ""
