"""doctor in real places: pods, stores on odd file systems; and its advice, taken."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import cast

import pytest
import yaml

from builda.host.podmanifest import BEST_FIRST
from tests.conftest import Builda
from tests.support import needs
from tests.support.pods import in_pod
from tests.support.rootless import rootless
from tests.support.schemas import NEWEST, check_kubernetes

EXAMPLES = Path(__file__).parents[2] / "examples/kubernetes"

needs_runtime = needs.program("crun", "runc")


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
        ("restricted", "traced", 0),
    ],
)
@pytest.mark.root
@needs_runtime
def test_a_pod_is_told_its_mode(profile: str, mode: str, status: int, tmp_path: Path) -> None:
    found, exit_status = diagnosed(profile, tmp_path)
    assert (found["mode"], exit_status) == (mode, status)


def with_change(profile: str, change: list[str]) -> tuple[str, ...]:
    """The pod whose manifest has these lines besides what it had, as podsim is told it."""
    lines = yaml.safe_load("\n".join(change))
    context = lines.get("securityContext", {})
    as_user = () if profile.startswith(("root-", "userns-")) else ("--user", "1000:1000")
    if as_user:
        assert context["allowPrivilegeEscalation"] is True
    of_others = profile.startswith("userns-") or lines.get("spec") == {"hostUsers": False}
    capabilities = context.get("capabilities", {})
    return (
        "userns-pod-seccomp" if of_others else "root-default",
        *as_user,
        *(("--cap-drop-all",) if "drop" in capabilities else ()),
        *(word for name in capabilities.get("add", ()) for word in ("--cap-add", name)),
        *(("--seccomp", "unconfined") if context.get("seccompProfile") == {"type": "Unconfined"} else ()),
        *(("--proc-mount", "unmasked") if context.get("procMount") == "Unmasked" else ()),
    )


def advice_in(found: dict[str, object], kind: str = "lack", text: str = "") -> dict[str, object]:
    (advice,) = [item for item in found["findings"] if item["kind"] == kind and text in item["text"]]  # type: ignore[attr-defined]
    return advice  # type: ignore[no-any-return]


@pytest.mark.parametrize("profile", ["root-default", "userns-pod-seccomp", "rootless-nosetuid", "restricted"])
@pytest.mark.root
@needs_runtime
def test_lines_that_are_put_into_the_manifest_give_the_mode(profile: str, tmp_path: Path) -> None:
    found, _ = diagnosed(profile, tmp_path)
    advice = advice_in(found)
    better = with_change(profile, advice["change"])  # type: ignore[arg-type]
    after, status = diagnosed(better[0], tmp_path, *better[1:])
    assert (after["mode"], status) == (advice["gives"], 0)
    assert after["mode"] in ("direct", "subid")


@pytest.mark.root
@needs_runtime
def test_capabilities_that_root_lacks_give_the_mode(tmp_path: Path) -> None:
    without = ("--cap-drop-all", "--seccomp", "unconfined")
    found, _ = diagnosed("root-default", tmp_path, *without)
    advice = advice_in(found, text="ids cannot be mapped")
    _, *options = with_change("root-default", advice["change"])  # type: ignore[arg-type]
    after, _ = diagnosed("root-default", tmp_path, *without, *options)
    assert (found["mode"], after["mode"], advice["gives"]) == ("traced", "userns", "userns")


@pytest.mark.root
@needs_runtime
def test_an_unmasked_proc_hides_the_processes_of_the_pod(tmp_path: Path) -> None:
    found, _ = diagnosed("root-default-unconfined", tmp_path)
    advice = advice_in(found, "note", "commands see the processes of this pod")
    _, *options = with_change("userns-pod-seccomp", advice["change"])  # type: ignore[arg-type]
    after, _ = diagnosed("userns-pod-seccomp", tmp_path, "--seccomp", "unconfined", *options)
    assert "processes of this pod" not in json.dumps(after)


@pytest.mark.parametrize("lost", ["the set-uid bit for capabilities", "every bit", "the programs"])
@pytest.mark.root
@needs_runtime
def test_commands_that_repair_the_programs_give_the_mode(lost: str, tmp_path: Path) -> None:
    """The commands are carried out on copies of the programs, which the pod has instead of its own."""
    tools = [tmp_path / name for name in ("newuidmap", "newgidmap")]
    binds = [word for tool in tools for word in ("--bind", f"{tool}:/usr/bin/{tool.name}:ro")]
    for tool in tools:
        shutil.copyfile(f"/usr/bin/{tool.name}", tool)
        tool.chmod({"the set-uid bit for capabilities": 0o4755, "every bit": 0o755, "the programs": 0o644}[lost])
    found, status = diagnosed("rootless-setuid", tmp_path, *binds)
    advice = advice_in(found)
    assert (found["mode"], status, advice["gives"]) == ("single", 0, "subid")
    commands = [line for line in advice["change"] if not line.startswith("apt-get install ")]  # type: ignore[attr-defined]
    for command in commands:
        subprocess.run(command.replace("/usr/bin", str(tmp_path)), shell=True, check=True)
    after, _ = diagnosed("rootless-setuid", tmp_path, *binds)
    assert after["mode"] == "subid"


@pytest.mark.root
@needs_runtime
def test_lines_for_subuid_and_subgid_give_the_mode(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("subuid", "subgid")]
    for file in files:
        file.write_text("somebody:100000:65536\n")
    binds = [word for file in files for word in ("--bind", f"{file}:/etc/{file.name}:ro")]
    found, _ = diagnosed("rootless-setuid", tmp_path, *binds)
    advice = advice_in(found)
    assert (found["mode"], advice["gives"]) == ("single", "subid")
    for file, change in zip(files, advice["change"], strict=True):  # type: ignore[call-overload]
        assert "somebody" in file.read_text()
        line, place = re.fullmatch(r"a line such as (\S+) in (\S+), or: .*", change).groups()  # type: ignore[union-attr]
        assert place == f"/etc/{file.name}"
        assert line.endswith(":165536:65536")
        file.write_text(f"{line}\n")
    after, _ = diagnosed("rootless-setuid", tmp_path, *binds)
    assert after["mode"] == "subid"


@pytest.mark.parametrize(("profile", "first"), [("rootless-setuid", "100000"), ("userns-rootless", "1001")])
@pytest.mark.root
@needs_runtime
def test_the_rows_of_the_example_image_work_in_both_kinds_of_pod(profile: str, first: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.write_text("\n".join(re.findall(r"echo (build:\d+:\d+);", (EXAMPLES / "Containerfile").read_text())) + "\n")
    binds = [word for name in ("subuid", "subgid") for word in ("--bind", f"{rows}:/etc/{name}:ro")]
    script = "builda info | grep mode; builda unshare cat /proc/self/uid_map"
    done = in_pod(profile, script, *binds, given=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"mode": "subid"' in done.stdout
    assert done.stdout.split()[-2] == first


@pytest.mark.root
@needs_runtime
def test_a_range_that_a_pod_does_not_have_is_the_cause(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.write_text("build:100000:65536\n")
    binds = [word for name in ("subuid", "subgid") for word in ("--bind", f"{rows}:/etc/{name}:ro")]
    found, _ = diagnosed("userns-rootless", tmp_path, *binds)
    advice = advice_in(found, text="one id")
    assert found["mode"] == "single"
    assert "this user namespace has 0-65535" in str(advice["cause"])
    line = str(advice["change"][0]).split()[4]  # type: ignore[index]
    rows.write_text(f"{line}\n")
    after, _ = diagnosed("userns-rootless", tmp_path, *binds)
    assert after["mode"] == "subid"


@pytest.mark.root
@needs_runtime
def test_a_volume_gives_overlays(tmp_path: Path) -> None:
    inside = ("--env", "BUILDA_ROOT=/home/build/store")
    found, _ = diagnosed("rootless-setuid", tmp_path, *inside)
    lines = yaml.safe_load("\n".join(advice_in(found, text="trees in memory")["change"]))  # type: ignore[arg-type]
    (mount,) = lines["volumeMounts"]
    assert [mount["name"]] == [volume["name"] for volume in lines["volumes"]]
    there = ("--emptydir", mount["mountPath"], "--env", f"BUILDA_ROOT={mount['mountPath']}/store")
    after, _ = diagnosed("rootless-setuid", tmp_path, *there)
    assert "layers are overlays" in str(advice_in(after, "good", "overlays")["text"])


@pytest.mark.root
def test_a_limit_that_is_raised_gives_the_mode(builda: Builda) -> None:
    """The limit is that of a namespace that has every id of the machine, whose own is left alone."""
    with rootless() as user:
        environ = [f"{name}={value}" for name, value in {**user.environ, "PATH": os.environ["PATH"]}.items()]
        places = ["--root", f"{user.home}/store", "--runroot", f"{user.home}/run"]
        of_user = shlex.join(["env", "-i", *environ, *user.command, *places])

        def node(*commands: str) -> str:
            script = "\n".join(("sysctl -w user.max_user_namespaces=0 >&2", *commands))
            return builda.run("--mode", "userns", "unshare", "sh", "-c", script, check=False).stdout

        advice = advice_in(json.loads(node(f"{of_user} doctor --json")), text="no user namespace")
        assert "the limit user.max_user_namespaces is 0" in str(advice["cause"])
        (change,) = cast(list[str], advice["change"])
        mode = f"{of_user} info --format '{{{{.host.mode}}}}'; echo"
        modes = node(mode, f"{change.removeprefix('on the node: ')} >&2", mode).split()
        assert (modes, advice["gives"]) == (["traced", "subid"], "subid")


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
        check_kubernetes(document, NEWEST)


def test_there_is_no_pod_for_a_mode_that_needs_none(builda: Builda) -> None:
    assert "no pod is made for mode single" in builda.fails("--mode", "single", "doctor", "--pod")
