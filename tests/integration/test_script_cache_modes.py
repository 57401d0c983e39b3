"""The step cache of scripts in each mode and with each storage driver: found, changed by mount, shared with builds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, clean_environ
from tests.integration.test_script_cache import cached
from tests.support import needs
from tests.support.ways import Workplace, way, workplace

pytestmark = pytest.mark.root


WAYS = (way("chroot"), way("subid", user=True), way("traced", user=True))
FURTHER = (
    way("direct", driver="fuse-overlayfs"),
    way("direct", driver="plain"),
    way("direct", isolation="oci"),
    way("direct", isolation="chroot"),
    way("userns"),
    way("userns", driver="fuse-overlayfs"),
    way("subid", user=True, driver="plain"),
    way("single", user=True),
    way("single", user=True, driver="plain"),
)
SCRIPT = """
c=$(builda from localhost/busybox)
builda copy "$c" a /srv/ > /dev/null
builda run "$c" -- /bin/sh -c 'cat /srv/a > /b; echo ran >&2'
m=$(builda mount "$c")
mkdir "$m/new"; cat word > "$m/new/file"; ln -s file "$m/new/link"; rm "$m/etc/group"
builda run "$c" -- /bin/sh -c 'cat /new/link > /seen; rm /b; chown 7:8 /seen; mkdir -m 2750 /kept; echo ran >&2'
builda umount "$c" > /dev/null
x=$(builda run "$c" -- /bin/sh -c 'cat /seen; ls -ln /seen | cut -c 1-10; stat -c "%u:%g %a" /seen /kept; echo ran >&2')
echo "$x"
builda config --label built=1 "$c"
builda commit -q --timestamp 0 "$c" made
"""
CONTAINERFILE = """\
FROM localhost/busybox
COPY a /srv/
RUN cat /srv/a > /b; echo ran >&2
"""


def run(work: Workplace) -> subprocess.CompletedProcess[str]:
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        [*work.builda.command, "session", "--explain-cache", "bash", "-euc", SCRIPT],
        capture_output=True,
        text=True,
        env={**clean_environ(), **work.builda.environ, "PATH": path},
        timeout=240,
        cwd=work.place,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture
def work(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Iterator[Workplace]:
    with workplace(request.param, tmp_path, busybox) as made:
        (made.place / "a").write_text("a\n")
        (made.place / "word").write_text("one\n")
        yield made


@needs.program("newuidmap")
@needs.program("fuse-overlayfs")
@pytest.mark.parametrize(
    "work", [*WAYS, *(pytest.param(way, marks=pytest.mark.long) for way in FURTHER)], ids=str, indirect=True
)
def test_a_second_run_does_no_work_and_builds_find_its_steps(work: Workplace) -> None:
    first, second = run(work), run(work)
    assert cached(first) == []
    assert len(cached(second)) == 4, second.stderr
    assert "ran" not in second.stderr.splitlines()
    assert second.stdout == first.stdout
    (work.place / "word").write_text("two\n")
    third = run(work)
    assert third.stdout.splitlines()[0] == "two"
    assert len(cached(third)) == 2, third.stderr
    assert third.stderr.splitlines().count("ran") == 2
    file = work.place.parent / "Containerfile"
    file.write_text(CONTAINERFILE)
    built = work.builda("bud", "-f", file, work.place)
    assert built.count("Using cache") == 2, built
