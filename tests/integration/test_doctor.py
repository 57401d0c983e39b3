"""doctor in real places: pods, stores on odd file systems; and its advice, taken."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from builda.podmanifest import BEST_FIRST
from tests.conftest import Builda
from tests.support.pods import in_pod, runtime_is_there

EXAMPLES = Path(__file__).parents[2] / "examples/kubernetes"


def diagnosed(profile: str, given: Path, *options: str) -> tuple[dict[str, object], int]:
    done = in_pod(profile, "set +e; builda doctor --json; echo $? >&2", *options, given=given)
    return json.loads(done.stdout), int(done.stderr.split()[-1])


@pytest.mark.parametrize(
    ("profile", "mode", "status"),
    [
        ("privileged-root", "direct", 0),
        ("root-default", "chroot", 0),
        ("root-default-unconfined", "userns", 0),
        ("rootless-setuid", "subid", 0),
        ("rootless-nosetuid", "single", 0),
        ("userns-pod-seccomp", "chroot", 0),
        ("restricted", "traced", 1),
    ],
)
@pytest.mark.root
@pytest.mark.skipif(not runtime_is_there(), reason="neither crun nor runc is installed")
def test_a_pod_is_told_its_mode(profile: str, mode: str, status: int, tmp_path: Path) -> None:
    found, exit_status = diagnosed(profile, tmp_path)
    assert (found["mode"], exit_status) == (mode, status)


@pytest.mark.parametrize(
    ("profile", "change", "taken"),
    [
        # the change that doctor names, the pod that has it, and the mode that it then works in
        ("root-default", "hostUsers: false", ("userns-pod-admin",)),
        ("userns-pod-seccomp", "add: [SYS_ADMIN]", ("userns-pod-seccomp", "--cap-add", "SYS_ADMIN")),
        ("rootless-nosetuid", "allowPrivilegeEscalation: true", ("rootless-setuid",)),
        ("restricted", "add: [SETUID, SETGID]", ("rootless-setuid",)),
    ],
)
@pytest.mark.root
@pytest.mark.skipif(not runtime_is_there(), reason="neither crun nor runc is installed")
def test_advice_that_is_taken_gives_the_mode(profile: str, change: str, taken: tuple[str, ...], tmp_path: Path) -> None:
    found, _ = diagnosed(profile, tmp_path)
    (advice,) = [item for item in found["findings"] if item["kind"] == "lack"]  # type: ignore[attr-defined]
    assert change in "\n".join(advice["change"])
    after, _ = diagnosed(taken[0], tmp_path, *taken[1:])
    assert after["mode"] == advice["gives"]


@pytest.mark.root
@pytest.mark.skipif(not runtime_is_there(), reason="neither crun nor runc is installed")
def test_a_set_uid_newuidmap_is_found_out_in_a_pod(tmp_path: Path) -> None:
    found, status = diagnosed("rootless-setuid", tmp_path, "--idmap-tools", "setuid")
    (advice,) = [item for item in found["findings"] if item["kind"] == "lack"]  # type: ignore[attr-defined]
    assert (found["mode"], status) == ("single", 0)
    assert "set-uid bit needs CAP_SYS_ADMIN in the bounding set" in advice["cause"]
    assert "setcap cap_setuid+ep /usr/bin/newuidmap" in advice["change"]


@pytest.mark.root
def test_the_place_of_the_store_is_looked_at(builda: Builda, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,nosuid,size=64m", "tmpfs", odd], check=True)
    done = subprocess.run(
        [builda.command[0], "--root", odd / "store", "--runroot", builda.runroot, "doctor"],
        capture_output=True,
        text=True,
    )
    assert f"! commands cannot be executed: {odd}/store (tmpfs)" in done.stdout
    assert "set-uid programs have no effect" in done.stdout
    assert "MiB are free" in done.stdout
    assert list(odd.iterdir()) == []


@pytest.mark.parametrize("mode", BEST_FIRST)
def test_the_manifests_of_doctor_are_the_examples(builda: Builda, mode: str) -> None:
    printed = subprocess.run([builda.command[0], "--mode", mode, "doctor", "--pod"], capture_output=True, text=True)
    assert printed.stdout == (EXAMPLES / f"pod-{mode}.yaml").read_text()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_manifests_are_valid(path: Path) -> None:
    """Against the schemas of Kubernetes; a Tekton task is no resource of Kubernetes itself, so only its form counts."""
    for document in yaml.safe_load_all(path.read_text()):
        if document["apiVersion"].startswith("tekton.dev/"):
            assert document["spec"]["steps"]
            continue
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_there_is_no_pod_for_a_mode_that_needs_none(builda: Builda) -> None:
    assert "no pod is made for mode single" in builda.fails("--mode", "single", "doctor", "--pod")
