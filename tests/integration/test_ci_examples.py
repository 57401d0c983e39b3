"""examples/ci: the files are what their services read, their scripts have no faults, and they build and push."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PROGRAM, REPOSITORY, Builda
from tests.integration.test_python_session import pushed
from tests.integration.test_session import environ_of, left
from tests.support.registry import Registry

pytestmark = pytest.mark.root
CI = REPOSITORY / "examples/ci"
WORKS = "RUN mkdir -p /usr/bin && printf '#!/bin/sh\\necho app works\\n' > /usr/bin/app && chmod 755 /usr/bin/app"


@pytest.fixture
def work(builda: Builda, base: str, server: Registry, tmp_path: Path) -> Path:
    """A directory with a Containerfile and build.sh, in which the registry of the tests needs no TLS."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "Containerfile").write_text(f"FROM {base}\n{WORKS}\n")
    (place / "build.sh").symlink_to(CI / "build.sh")
    (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation = "{server.address}"\ninsecure = true\n')
    return place


def done(builda: Builda, work: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the directory `work`."""
    environ = {
        **environ_of(builda),
        "BUILDA_ROOT": str(builda.root),
        "BUILDA_RUNROOT": str(builda.runroot),
        "BUILDA_REGISTRIES_CONF": str(work.parent / "registries.conf"),
        "REGISTRY_AUTH_FILE": str(work.parent / "auth.json"),
        **variables,
    }
    return subprocess.run(command, cwd=work, env=environ, capture_output=True, text=True, timeout=120)


def lint(script: str) -> str:
    """What `builda script lint` finds in a part of a job, which runs in one shell that ends with the job."""
    command = [PROGRAM, "script", "lint", "-"]
    first = "#!/usr/bin/env -S builda session bash\n"
    return subprocess.run(command, input=first + script, capture_output=True, text=True, timeout=60).stdout


def read(name: str) -> dict[Any, Any]:
    found: dict[Any, Any] = yaml.safe_load((CI / name).read_text())
    return found


def steps() -> dict[str, str]:
    """The scripts of the job for GitHub, by the names of its steps."""
    job = read("github-workflow.yml")["jobs"]["image"]
    return {step["name"]: step["run"] for step in job["steps"] if "run" in step}


def check_pushed(builda: Builda, server: Registry, repository: str, tag: str) -> None:
    assert repository in pushed(server)
    digests = {
        builda("image", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{server.name(name)}")
        for name in (f"{repository}:{tag}", f"{repository}:latest")
    }
    assert len(digests) == 1
    assert f"{repository}/cache" in pushed(server)
    assert left(builda) == []


def test_the_files_say_what_their_services_want() -> None:
    workflow = read("github-workflow.yml")
    assert {"name", "jobs", "permissions"} <= {*workflow}
    assert workflow[True] == "push"  # YAML 1.1 reads `on` as a boolean, which GitHub knows
    assert all({"run", "uses"} & {*step} for step in workflow["jobs"]["image"]["steps"])
    job = read("gitlab-ci.yml")["build-image"]
    assert {*job} == {"image", "variables", "before_script", "script", "artifacts"}
    assert all(isinstance(line, str) for line in (*job["before_script"], *job["script"]))


def test_no_script_has_a_fault(work: Path) -> None:
    job = read("gitlab-ci.yml")["build-image"]
    parts = [*steps().values(), "\n".join((*job["before_script"], *job["script"])), (CI / "build.sh").read_text()]
    for target in ("image", "push"):
        done = subprocess.run(
            ["make", "-n", "-f", str(CI / "Makefile"), target], capture_output=True, text=True, cwd=work, check=True
        )
        parts.append(done.stdout)
    assert [lint(part) for part in parts] == [""] * len(parts)


def test_the_workflow_of_github(builda: Builda, work: Path, server: Registry) -> None:
    variables = {
        "REGISTRY": server.address,
        "TOKEN": "token",
        "GITHUB_ACTOR": "me",
        "GITHUB_REPOSITORY": "Owner/App",
        "GITHUB_SHA": "4f2a",
    }
    login, build = (
        done(builda, work, "bash", "-e", "-c", steps()[name], **variables) for name in ("Log in", "Build, try and push")
    )
    assert (login.returncode, build.returncode) == (0, 0), build.stderr
    assert "app works" in build.stdout
    assert "succeeded" in (work / "report.html").read_text()
    check_pushed(builda, server, "owner/app", "4f2a")


def test_the_job_of_gitlab(builda: Builda, work: Path, server: Registry) -> None:
    job = read("gitlab-ci.yml")["build-image"]
    variables = {
        "CI_PROJECT_DIR": str(work.parent),
        "CI_REGISTRY": server.address,
        "CI_REGISTRY_USER": "me",
        "CI_REGISTRY_PASSWORD": "token",
        "CI_REGISTRY_IMAGE": server.name("group/app"),
        "CI_COMMIT_SHORT_SHA": "5a3b",
    }
    script = "\n".join((*job["before_script"], *job["script"]))
    result = done(builda, work, "bash", "-e", "-c", script, **variables)
    assert result.returncode == 0, result.stderr
    check_pushed(builda, server, "group/app", "5a3b")


def test_a_job_whose_image_does_not_work_pushes_nothing(builda: Builda, work: Path, server: Registry) -> None:
    (work / "Containerfile").write_text((work / "Containerfile").read_text().replace("echo app works", "exit 4"))
    result = done(builda, work, "./build.sh", server.name("broken"), "1")
    assert result.returncode == 4, result.stderr
    assert "broken" not in pushed(server)
    assert left(builda) == []


def test_the_next_job_takes_the_steps_from_the_registry(builda: Builda, work: Path, server: Registry) -> None:
    assert done(builda, work, "./build.sh", server.name("again"), "1").returncode == 0
    other = Builda(builda.root.with_name("other"), builda.runroot.with_name("other-run"))
    archive = work.parent / "base.tar"
    builda("push", "localhost/busybox", f"oci-archive:{archive}:localhost/busybox:latest")
    other("pull", f"oci-archive:{archive}")
    result = done(other, work, "./build.sh", server.name("again"), "2")
    assert result.returncode == 0, result.stderr
    assert "Using cache" in result.stdout


def test_the_makefile(builda: Builda, work: Path, server: Registry) -> None:
    make = ("make", "-f", str(CI / "Makefile"))
    result = done(builda, work, *make, "report")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("app works\n")
    assert "succeeded" in (work / "report.html").read_text()
    assert builda("images", "-q", "localhost/app:dev") != ""
    assert done(builda, work, *make, "push", f"IMAGE={server.name('made')}", "TAG=1").returncode == 0
    check_pushed(builda, server, "made", "1")
    (work / "Containerfile").write_text("FROM localhost/busybox\nRUN rm -f /usr/bin/app\n")
    result = done(builda, work, *make, "image", "TAG=2")
    assert result.returncode == 2
    assert builda("images", "-q", "localhost/app") == builda("images", "-q", "localhost/app:dev")
    assert left(builda) == []


def test_build_sh_can_be_executed() -> None:
    assert os.access(CI / "build.sh", os.X_OK)
