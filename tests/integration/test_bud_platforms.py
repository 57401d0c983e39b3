"""Builds for several platforms: one list of them, pushed whole, and a clear word where commands cannot run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.linux import binfmt
from tests.conftest import Builda
from tests.support import needs
from tests.support.registry import registry

pytestmark = pytest.mark.root
BOTH = "linux/amd64,linux/s390x"
NO_EMULATOR = needs.machine(
    "a kernel that runs no s390x programs" if os.uname().machine != "x86_64" or binfmt.runs("s390x", "amd64") else None
)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "given").write_text("text\n")
    (made / "Containerfile").write_text("FROM scratch\nARG TARGETARCH\nCOPY given /of-$TARGETARCH\nENV A=$TARGETARCH\n")
    return made


def test_each_platform_is_built_and_one_list_pushed(builda: Builda, context: Path, tmp_path: Path) -> None:
    done = builda("bud", "--platform", BOTH, "-t", "app", context).splitlines()
    assert done[0] == "[linux/amd64] STEP 1/4: FROM scratch"
    assert "[linux/s390x] COMMIT app" in done
    assert done[-2] == "Successfully tagged localhost/app:latest"
    with registry() as server:
        name = server.name("app:1")
        builda("push", "--tls-verify=false", "--all", "app", name)
        other = Builda(tmp_path / "other", tmp_path / "other-run")
        for architecture in ("amd64", "s390x"):
            image = other("pull", "-q", "--tls-verify=false", "--platform", f"linux/{architecture}", name)
            container = other("from", image)
            root = other("mount", container)
            assert os.listdir(root) == [f"of-{architecture}"]
            other("umount", container)


def test_a_manifest_list_gets_all_of_them_and_a_second_build_replaces_them(builda: Builda, context: Path) -> None:
    for _ in range(2):
        builda("bud", "-q", "--platform", BOTH, "--manifest", "localhost/list", context)
        assert len(builda("images", "-q", "localhost/list").split()) == 1
    assert builda("fsck") == ""


def test_all_platforms_are_those_of_the_base(builda: Builda, context: Path) -> None:
    builda("bud", "-q", "--platform", BOTH, "-t", "base", context)
    (context / "Containerfile").write_text("FROM localhost/base\nCOPY given /more\n")
    done = builda("bud", "--all-platforms", "-t", "app", context)
    assert "[linux/amd64] COMMIT app" in done
    assert "[linux/s390x] COMMIT app" in done


@NO_EMULATOR
@pytest.mark.parametrize("platform", ["linux/s390x", "linux/amd64,linux/s390x"])
def test_commands_of_another_processor_are_refused_before_anything_runs(
    builda: Builda, base: str, context: Path, platform: str
) -> None:
    (context / "Containerfile").write_text("FROM scratch\nCOPY given /\nRUN true\n")
    error = builda.fails("bud", "--platform", platform, "-t", "app", context)
    assert "commands for linux/s390x cannot run on this machine" in error
    assert "Containerfile:3" in error
    assert "STEP" not in builda.run("bud", "--platform", platform, "-t", "app", context, check=False).stdout
    assert builda("containers", "-q") == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-t", "x", "--iidfile", "f"), "--iidfile is for one platform"),
        (("-t", "x", "--metadata-file", "f"), "--metadata-file is for one platform"),
        (("-t", "x", "-o", "d"), "--output is for one platform"),
        (("-t", "x", "--all-platforms"), "--all-platforms cannot be used"),
        (("--print-plan",), "--print-plan is for one platform"),
        (("--arch", "arm64"), "cannot be used with"),
    ],
)
def test_what_stands_for_one_image_is_refused(
    builda: Builda, context: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in builda.fails("bud", "--platform", BOTH, *arguments, context)
