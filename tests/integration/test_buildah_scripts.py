"""Scripts written for Buildah run unchanged in a session, are found in the cache, and lead to what Buildah makes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import PROGRAM, Builda, add_base, clean_environ
from tests.support import needs
from tests.support.engines import OtherStore, other_store

pytestmark = pytest.mark.root
SCRIPTS = sorted((Path(__file__).parent / "buildah-scripts").glob("*.sh"))
FOUND = {  # steps that a second run finds; those of builds are counted by their own tests
    "containerfiles": 0,
    "from-scratch": 1,
    "hello": 3,
    "lists": 2,
    "onbuild": 0,
    "outputs": 3,
    "rootless": 1,
    "two-containers": 5,
    "web-server": 3,
}
SAMPLE = ("outputs", "two-containers")
"""Those that run on each change; all of them, beside Buildah, in `make test-long`."""
VERSIONS = {"io.buildah.version", "io.builda.version"}
MOUNTPOINTS = {"host", "dev", "proc", "run", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf"}
"""What Buildah leaves in an image of the places where it mounts something for a command."""
IDS = re.compile(r"(sha256:)?\b[0-9a-f]{64}\b")


class Result(NamedTuple):
    """What a script printed, and the image that it made: what that says of itself, and its files."""

    output: list[str]
    config: dict[str, Any]
    files: list[str]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    (made / "site").mkdir(parents=True)
    (made / "message.txt").write_text("a message\n")
    (made / "site/index.html").write_text("<p>\n")
    for path in (made, made / "site", made / "message.txt", made / "site/index.html"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (1600000000, 1600000000))
    subprocess.run(["tar", "-cf", "site.tar", "--owner=0", "--group=0", "-C", "site", "."], cwd=made, check=True)
    return made


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `buildah` is a link to builda."""
    links = tmp_path / "links"
    links.mkdir()
    (links / "buildah").symlink_to(PROGRAM)
    return f"{links}:{Path(PROGRAM).parent}:{os.environ['PATH']}"


def in_session(builda: Builda, script: Path, context: Path, path: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        [*builda.command, "session", script],
        capture_output=True,
        text=True,
        env={**clean_environ(), **builda.environ, "PATH": path},
        timeout=240,
        cwd=context,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    return result


def cached(result: subprocess.CompletedProcess[str]) -> int:
    return sum(line.startswith("--> cached: ") for line in result.stderr.splitlines())


@pytest.mark.parametrize("name", SAMPLE)
def test_a_script_for_buildah_runs_unchanged_and_cached(
    builda: Builda, base: str, context: Path, path: str, name: str
) -> None:
    script = SCRIPTS[0].with_name(f"{name}.sh")
    again = shutil.copytree(context, context.parent / "again")
    first, second = (in_session(builda, script, place, path) for place in (context, again))
    assert (cached(first), cached(second)) == (0, FOUND[name]), second.stderr
    assert IDS.sub("ID", first.stdout) == IDS.sub("ID", second.stdout)
    assert builda("containers", "-q") == ""
    assert builda("images", "-q", "localhost/result") != ""


def test_a_link_to_builda_is_as_quick_as_builda_itself(builda: Builda, path: str, tmp_path: Path) -> None:
    def found(first: str) -> str:
        environ = {**clean_environ(), "PATH": f"{first}:{path}"}
        command = [*builda.command, "session", "sh", "-c", "command -v buildah; buildah --version"]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=True)
        program, version = done.stdout.splitlines()
        return version if Path(program).parent.name == "bin" and str(builda.runroot) in program else program

    assert found("/usr/bin/none").startswith("builda ")
    other = tmp_path / "other"
    other.mkdir()
    (other / "buildah").write_text("#!/bin/sh\necho real\n")
    (other / "buildah").chmod(0o755)
    assert found(str(other)) == str(other / "buildah")


@pytest.fixture
def peer(busybox: Path) -> Iterator[OtherStore]:
    with other_store() as made:
        made.buildah("pull", "--quiet", f"oci-archive:{busybox}:busybox")
        made.buildah("tag", made.buildah("images", "-q").strip(), "localhost/busybox")
        yield made


@needs.program("buildah")
@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_each_script_makes_what_buildah_makes(
    builda: Builda, busybox: Path, peer: OtherStore, context: Path, path: str, script: Path
) -> None:
    add_base(builda, busybox)
    theirs = _by_buildah(peer, script, shutil.copytree(context, context.parent / "theirs"))
    again = shutil.copytree(context, context.parent / "again")
    first, second = (in_session(builda, script, place, path) for place in (context, again))
    assert (cached(first), cached(second)) == (0, FOUND[script.stem]), second.stderr
    for done in (first, second):
        mine = _result(done.stdout, json.loads(builda("inspect", "--type", "image", "localhost/result")), builda)
        assert (mine.output, mine.config) == (theirs.output, theirs.config)
        assert sorted(set(mine.files) ^ set(theirs.files)) == []


def _by_buildah(store: OtherStore, script: Path, context: Path) -> Result:
    link = context.parent / "real"
    link.mkdir()
    (link / "buildah").write_text(f'#!/bin/sh\nexec {shutil.which("buildah")} {" ".join(store.options)} "$@"\n')
    (link / "buildah").chmod(0o755)
    environ = {**clean_environ(), "PATH": f"{link}:{os.environ['PATH']}", "BUILDAH_ISOLATION": "chroot"}
    result = subprocess.run(
        [script], capture_output=True, text=True, env=environ, timeout=240, cwd=context, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stderr
    return _result(result.stdout, json.loads(store.buildah("inspect", "--type", "image", "localhost/result")), store)


def _result(output: str, inspected: dict[str, Any], by: Builda | OtherStore) -> Result:
    config = inspected["OCIv1"]["config"]
    labels = {name: value for name, value in config.get("Labels", {}).items() if name not in VERSIONS}
    config["Labels"] = labels
    said = {**{name: value for name, value in config.items() if value}, "by": inspected["OCIv1"].get("author")}
    said["triggers"] = inspected["Docker"]["config"].get("OnBuild") or None
    run = by if isinstance(by, Builda) else by.buildah
    container = run("from", "localhost/result").strip()
    root = run("mount", container).strip()
    listed = subprocess.run(
        ["find", ".", "-mindepth", "1", "-printf", "%P %y %#m %U:%G %l\n"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    run("rm", container)
    files = [line for line in listed.stdout.splitlines() if line.split()[0] not in MOUNTPOINTS]
    return Result([IDS.sub("ID", line) for line in output.splitlines()], said, sorted(files))
