"""Every example is run, and its image is what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY, Builda, clean_environ
from tests.integration.test_python_session import pushed
from tests.support.base_images import SLIM, mmdebstrap_arguments
from tests.support.registry import Registry

pytestmark = pytest.mark.root

EXAMPLES = REPOSITORY / "examples"
FOR_BUILDAH = {"written-for-buildah.sh"}  # not a session by itself, and with the faults that such scripts have


def with_broken_shell(builda: Builda, base: str) -> str:
    """The name of an image in which a program called server cannot be run."""
    container = builda("from", base)
    builda("run", container, "--", "mkdir", "/bin/server")
    builda("commit", "--rm", "-q", container, "localhost/broken")
    return "localhost/broken"


def example(builda: Builda, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of examples/bash on the store of `builda`."""
    environ = {
        **clean_environ(),
        "PATH": f"{Path(builda.command[0]).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "BUILDA_ROOT": str(builda.root),
        "BUILDA_RUNROOT": str(builda.runroot),
        **variables,
    }
    script = EXAMPLES / "bash" / name
    return subprocess.run([script, *arguments], env=environ, capture_output=True, text=True, timeout=240)


def config_of(builda: Builda, name: str) -> dict[str, Any]:
    image: dict[str, Any] = json.loads(builda("inspect", "--type", "image", name))["OCIv1"]["config"]
    return image


def output_of(builda: Builda, image: str, *command: str) -> str:
    container = builda("from", image)
    return builda("run", container, "--", *command)


def test_scratch_busybox(builda: Builda) -> None:
    result = example(builda, "scratch-busybox.sh", "localhost/bb:1")
    assert result.returncode == 0, result.stderr
    assert config_of(builda, "bb:1")["Labels"]["org.example.from"] == "scratch"
    assert output_of(builda, "bb:1", "cat", "/etc/passwd") == "root:x:0:0:root:/root:/bin/sh"


@pytest.mark.parametrize(
    "packages",
    [("--variant=extract", "--include=base-files,coreutils,libc6"), pytest.param((), marks=pytest.mark.long)],
)
def test_debian_mmdebstrap(builda: Builda, packages: tuple[str, ...]) -> None:
    options = [*mmdebstrap_arguments(), *SLIM, *packages]
    result = example(builda, "debian-mmdebstrap.sh", "localhost/debian:x", "bookworm", *options)
    assert result.returncode == 0, result.stderr[-2000:]
    assert output_of(builda, "debian:x", "cat", "/etc/debian_version").startswith("12")


def test_install_by_mount(builda: Builda, base: str) -> None:
    result = example(builda, "install-by-mount.sh", base)
    assert result.returncode == 0, result.stderr
    assert output_of(builda, "installed", "cat", "/usr/share/hello/greeting") == "hello from a package"


def test_multi_container(builda: Builda, base: str) -> None:
    result = example(builda, "multi-container.sh", base)
    assert result.returncode == 0, result.stderr
    assert output_of(builda, "app", "/usr/bin/app") == "built"
    assert "/out" not in output_of(builda, "app", "ls", "-d", "/usr")


def test_config_only(builda: Builda, base: str) -> None:
    result = example(builda, "config-only.sh", base)
    assert result.returncode == 0, result.stderr
    config = config_of(builda, "configured")
    assert (config["User"], config["WorkingDir"], config["Entrypoint"]) == ("1000", "/srv", ["sh", "-c"])
    assert "MODE=prod" in config["Env"]
    assert list(config["ExposedPorts"]) == ["8080"]


def test_written_for_buildah(builda: Builda, base: str) -> None:
    result = example(builda, "written-for-buildah.sh", base)
    assert result.returncode == 0, result.stderr
    assert output_of(builda, "written-for-buildah", "cat", "/srv/copy") == "HELLO FROM THE HOST"


@pytest.mark.parametrize(("command", "status"), [("exit 3", 3), ("true", 0)])
def test_leave_nothing(builda: Builda, base: str, command: str, status: int) -> None:
    before = builda("images", "-q").splitlines()
    result = example(builda, "leave-nothing.sh", base, command)
    assert result.returncode == status, result.stderr
    assert builda("containers", "-q") == ""
    assert len(builda("images", "-q").splitlines()) == len(before) + (status == 0)


@pytest.mark.parametrize("program", ["true", "false"])
def test_all_or_nothing(builda: Builda, base: str, server: Registry, tmp_path: Path, program: str) -> None:
    if program == "false":
        base = with_broken_shell(builda, base)
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{server.address}"\ninsecure = true\n')
    environ = {"BUILDA_REGISTRIES_CONF": str(conf)}
    result = example(builda, "all-or-nothing.sh", base, server.name(f"parts-{program}"), "1", **environ)
    is_good = program == "true"
    assert (result.returncode == 0) == is_good, result.stderr
    found = [name for name in pushed(server) if name.startswith(f"parts-{program}")]
    assert found == ([f"parts-{program}/client", f"parts-{program}/server"] if is_good else [])
    assert ("parts" in builda("images", "--format", "{{.Name}}")) == is_good
    assert builda("containers", "-q") == ""


@pytest.mark.parametrize("name", sorted({path.name for path in (EXAMPLES / "bash").glob("*.sh")} - FOR_BUILDAH))
def test_each_is_a_session_without_faults(builda: Builda, name: str) -> None:
    path = EXAMPLES / "bash" / name
    assert path.read_text().startswith("#!/usr/bin/env -S builda session bash\n")
    assert builda("script", "lint", path) == ""


def test_python_example_runs(builda: Builda, base: str) -> None:
    environ = {**clean_environ(), "BUILDA_ROOT": str(builda.root), "BUILDA_RUNROOT": str(builda.runroot)}
    command: list[str | Path] = [sys.executable, EXAMPLES / "python/build_app.py", base, "localhost/from-python"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert builda("images", "-q", "localhost/from-python") != ""


def test_python_session(builda: Builda, base: str) -> None:
    environ = {**clean_environ(), "BUILDA_ROOT": str(builda.root), "BUILDA_RUNROOT": str(builda.runroot)}
    command: list[str | Path] = [sys.executable, EXAMPLES / "python/session.py", base, "localhost/from-session"]
    result = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "built\n" in result.stdout
    assert builda("containers", "-q") == ""
    assert config_of(builda, "from-session")["Entrypoint"] == ["/usr/bin/app"]
