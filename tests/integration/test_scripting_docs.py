"""docs/scripting.md: the scripts of its tutorial do what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, REPOSITORY, Builda
from tests.integration.test_session import environ_of, left

pytestmark = pytest.mark.root
APP = "#!/bin/sh\ncase $1 in --setup) echo ready;; --version) echo app 1;; esac\n"


def scripts() -> list[str]:
    """The scripts of the tutorial: the one for Buildah, and that of a session."""
    text = (REPOSITORY / "docs/scripting.md").read_text()
    return [
        block.replace("docker.io/library/alpine", "localhost/busybox")
        for block in re.findall(r"```bash\n(.*?)```", text, re.S)
    ]


def done(builda: Builda, place: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {**environ_of(builda), "BUILDA_ROOT": str(builda.root), "BUILDA_RUNROOT": str(builda.runroot)}
    environ["PATH"] = f"{place}/bin:{environ['PATH']}"
    return subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def place(base: str, tmp_path: Path) -> Path:
    """A directory with the program that the scripts copy, and with builda under the name of Buildah."""
    work = tmp_path / "work"
    (work / "bin").mkdir(parents=True)
    (work / "bin/buildah").symlink_to(PROGRAM)
    (work / "app").write_text(APP)
    (work / "app").chmod(0o755)
    return work


def script(place: Path, text: str) -> Path:
    (place / "build.sh").write_text(text)
    (place / "build.sh").chmod(0o755)
    return place / "build.sh"


def state(builda: Builda, image: str) -> str:
    return builda(
        "run", builda("from", image), "--", "sh", "-c", "cat /srv/state; stat -c %a /srv/state; echo $APP_MODE"
    )


def test_the_script_for_buildah_runs_as_it_is(builda: Builda, place: Path) -> None:
    path = script(place, scripts()[0])
    result = done(builda, place, path)
    assert result.returncode == 0, result.stderr
    assert left(builda) == []
    assert state(builda, "app:1").split() == ["ready", "600", "prod"]


def test_the_linter_finds_what_the_tutorial_says(builda: Builda, place: Path) -> None:
    path = script(place, scripts()[0].replace("buildah", "builda"))
    result = done(builda, place, "builda", "script", "lint", "--shellcheck=false", path.name)
    said = re.findall(r"^build\.sh:.*$", (REPOSITORY / "docs/scripting.md").read_text(), re.M)
    assert len(said) == 2
    assert set(said) <= set(result.stdout.splitlines())


def test_the_script_of_a_session_has_no_fault_and_is_cached(builda: Builda, place: Path) -> None:
    path = script(place, scripts()[1])
    assert done(builda, place, "builda", "script", "lint", path).stdout == ""
    first = done(builda, place, path)
    assert first.returncode == 0, first.stderr
    assert left(builda) == []
    second = done(builda, place, path)
    assert second.returncode == 0, second.stderr
    assert state(builda, "app:1") == state(builda, "app:latest")
    assert state(builda, "app:1").split() == ["ready", "600", "prod"]
    assert second.stderr.count("--> cached: ") >= 2
