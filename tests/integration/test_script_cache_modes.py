"""The step cache of scripts in each mode and with each storage driver: found, changed by mount, shared with builds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from builda.linux import fuse
from tests.conftest import PROGRAM, Builda, add_base, clean_environ
from tests.integration.test_script_cache import cached
from tests.support import needs
from tests.support.rootless import Rootless, rootless

pytestmark = pytest.mark.root


class Way(NamedTuple):
    """Who runs the script, in which mode, with which storage driver."""

    user: bool
    mode: str
    driver: str

    def __str__(self) -> str:
        return f"{'user' if self.user else 'root'}-{self.mode}-{self.driver}"


WAYS = (
    Way(user=False, mode="chroot", driver="plain"),
    Way(user=True, mode="subid", driver="overlay"),
    Way(user=True, mode="traced", driver="plain"),
)
FURTHER = (
    Way(user=False, mode="direct", driver="fuse-overlayfs"),
    Way(user=False, mode="direct", driver="plain"),
    Way(user=False, mode="userns", driver="overlay"),
    Way(user=False, mode="userns", driver="fuse-overlayfs"),
    Way(user=True, mode="subid", driver="plain"),
    Way(user=True, mode="single", driver="overlay"),
    Way(user=True, mode="single", driver="plain"),
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


class Script(NamedTuple):
    """builda in one mode with one driver, and a directory with the script's files."""

    builda: Builda
    place: Path

    def run(self, text: str = SCRIPT) -> subprocess.CompletedProcess[str]:
        path = f"{self.place.parent}/bin:{Path(PROGRAM).parent}:{os.environ['PATH']}"
        result = subprocess.run(
            [*self.builda.command, "session", "--explain-cache", "bash", "-euc", text],
            capture_output=True,
            text=True,
            env={**clean_environ(), **self.builda.environ, "PATH": path},
            timeout=240,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == 0, result.stderr
        return result


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Iterator[Script]:
    way: Way = request.param
    if way.driver == "fuse-overlayfs" and (lacking := fuse.lacking()):
        needs.not_here(lacking)
    chosen = {"BUILDA_MODE": way.mode, "BUILDA_STORAGE_DRIVER": way.driver}
    if not way.user:
        yield _script(Builda(tmp_path / "store", tmp_path / "run", chosen), tmp_path / "context", busybox)
        return
    with rootless() as user:
        made = Rootless(user.root, user.runroot, {**user.environ, **chosen}, user.user, user.home)
        archive = user.home / "busybox.tar"
        archive.write_bytes(busybox.read_bytes())
        yield _script(made, user.home / "context", archive)


def _script(builda: Builda, place: Path, image: Path) -> Script:
    place.mkdir()
    (place / "a").write_text("a\n")
    (place / "word").write_text("one\n")
    add_base(builda, image)
    return Script(builda, place)


@needs.program("newuidmap")
@needs.program("fuse-overlayfs")
@pytest.mark.parametrize(
    "script", [*WAYS, *(pytest.param(way, marks=pytest.mark.long) for way in FURTHER)], ids=str, indirect=True
)
def test_a_second_run_does_no_work_and_builds_find_its_steps(script: Script) -> None:
    first, second = script.run(), script.run()
    assert cached(first) == []
    assert len(cached(second)) == 4, second.stderr
    assert "ran" not in second.stderr.splitlines()
    assert second.stdout == first.stdout
    (script.place / "word").write_text("two\n")
    third = script.run()
    assert third.stdout.splitlines()[0] == "two"
    assert len(cached(third)) == 2, third.stderr
    assert third.stderr.splitlines().count("ran") == 2
    file = script.place.parent / "Containerfile"
    file.write_text(CONTAINERFILE)
    built = script.builda("bud", "-f", file, script.place)
    assert built.count("Using cache") == 2, built
