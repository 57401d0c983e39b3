"""Isolation by an OCI runtime and by chroot, and the choice of one by name."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.errors import CommandFailed, InvalidValue, IsolationUnavailable, Unsupported
from builda.isolation import isolation_for
from builda.isolation.made_mountpoints import remove_made
from builda.isolation.oci_runtime import sweep_cgroups
from builda.isolation.spec import Device, Rlimit, User
from builda.linux.mount import Mount
from builda.values import replace
from tests.support import needs


@pytest.fixture(params=["crun", "runc"])
def oci(request: pytest.FixtureRequest, new_box: Callable[..., Any]) -> Any:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return new_box("oci", runtime=request.param)


@pytest.mark.parametrize(
    ("asked", "name"), [("native", "native"), ("rootless", "native"), ("default", "native"), ("chroot", "chroot")]
)
def test_buildahs_names_are_known(asked: str, name: str, tmp_path: Path) -> None:
    assert isolation_for(asked, state=tmp_path).kind.name == name


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="firecracker"):
        isolation_for("firecracker", state=tmp_path)


def test_a_missing_runtime_is_named_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(IsolationUnavailable, match="youki") as caught:
        isolation_for("oci", runtime="youki", state=tmp_path)
    assert "--isolation native" in str(caught.value.hint)


@pytest.mark.root
def test_a_runtime_runs_the_command_as_described(oci: Any, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    output = oci.shell(
        "id -u; id -G; hostname; pwd; cat /etc/hosts; ls /sys/class/net; ulimit -n; echo x > /data/file; "
        "grep -E 'CapBnd|CapEff|Seccomp:' /proc/self/status; ls /dev/mine; exit 0",
        user=User(uid=1000, gid=1000, additional_gids=(10,)),
        cwd="/tmp",
        files={"/etc/hosts": b"hosts\n"},
        mounts=(Mount("bind", str(tmp_path / "volume"), "/data"),) if _open(tmp_path / "volume") else (),
        rlimits=(Rlimit(type="RLIMIT_NOFILE", soft=77, hard=88),),
        devices=(Device(source="/dev/zero", target="/dev/mine"),),
    )
    assert output.splitlines() == [
        *("1000", "1000 10", "box", "/tmp", "hosts", "lo", "77"),
        *("CapEff:\t0000000000000000", "CapBnd:\t00000000a80425fb", "Seccomp:\t2", "/dev/mine"),
    ]


def _open(path: Path) -> bool:
    path.chmod(0o777)
    return True


@pytest.mark.root
def test_a_runtimes_status_and_failures_are_ours(oci: Any) -> None:
    assert oci.run("sh", "-c", "exit 9") == 9
    for command, status in (("frobnicate", 127), ("/etc/passwd", 126)):
        with pytest.raises(CommandFailed, match=command) as caught:
            oci.run(command)
        assert caught.value.status == status


@pytest.mark.root
def test_a_runtime_leaves_nothing(oci: Any) -> None:
    before = Path("/proc/self/mountinfo").read_text(), sorted(Path("/sys/fs/cgroup").glob("**/builda*"))
    (oci.rootfs / "proc").rmdir()
    oci.shell("sleep 4720 & true", files={"/etc/resolv.conf": b""})
    assert (Path("/proc/self/mountinfo").read_text(), sorted(Path("/sys/fs/cgroup").glob("**/builda*"))) == before
    root = os.open(oci.rootfs, os.O_RDONLY)
    assert set(remove_made(root, oci.stubs)) == {"proc", "etc/resolv.conf"}
    os.close(root)
    assert subprocess.run(["pgrep", "-f", "^sleep 4720"], check=False, stdout=subprocess.DEVNULL).returncode == 1


@pytest.mark.root
def test_a_device_is_for_reading_only_or_refused(oci: Any) -> None:
    # Not one of those that runtimes always allow, and to open it does nothing.
    source = next((path for path in ("/dev/fuse", "/dev/net/tun", "/dev/loop-control") if os.path.exists(path)), None)
    if source is None:
        needs.not_here("there is no device that a runtime does not give anyway")
    devices = (Device(source=source, target="/dev/mine", permissions="r"),)
    if not oci.isolation.kind.restricts_devices:
        with pytest.raises(Unsupported, match="/dev/mine:r"):
            oci.run("true", devices=devices)
        return
    assert oci.run("sh", "-c", ": </dev/mine", devices=devices) == 0
    assert oci.run("sh", "-c", ": >/dev/mine", devices=devices) != 0
    assert oci.run("sh", "-c", ": >/dev/mine", devices=(replace(devices[0], permissions="rw"),)) == 0


@pytest.mark.root
def test_killing_the_caller_takes_runtime_and_container_along(oci: Any, tmp_path: Path) -> None:
    from tests.unit.isolation.test_native import children_running, runner, until

    before = Path("/proc/self/mountinfo").read_text()
    seconds = 10_000_000 + os.getpid()  # which names the process
    with runner(oci, tmp_path, "sh", "-c", f"echo up; sleep {seconds}") as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        caller.kill()
    until(lambda: not children_running(tmp_path))
    until(lambda: subprocess.run(["pgrep", "-f", f"sleep {seconds}$"], stdout=subprocess.DEVNULL).returncode == 1)
    assert Path("/proc/self/mountinfo").read_text() == before
    sweep_cgroups()
    assert not list(Path("/sys/fs/cgroup").glob("*/builda-*"))


@pytest.mark.root
def test_chroot_has_its_own_files_and_the_callers_processes(new_box: Callable[..., Any]) -> None:
    box = new_box("chroot")
    output = box.shell(
        f"test -e /proc/{os.getpid()}; cat /etc/hosts; hostname; ls /", files={"/etc/hosts": b"h\n"}, network="host"
    )
    assert output.split()[:2] == ["h", "box"]
    assert os.uname().nodename != "box"
    assert "usr" not in output.split()


@pytest.mark.root
def test_nothing_survives_a_chroot_run(new_box: Callable[..., Any]) -> None:
    new_box("chroot").shell("(setsid sleep 4721 >/dev/null 2>&1 &); true", network="host")
    assert subprocess.run(["pgrep", "-f", "^sleep 4721"], check=False, stdout=subprocess.DEVNULL).returncode == 1


@pytest.mark.root
@pytest.mark.parametrize("changes", [{"network": "none"}, {"network": "host", "resources": {"memory": 1}}])
def test_what_chroot_cannot_do_is_refused(new_box: Callable[..., Any], changes: dict[str, Any]) -> None:
    with pytest.raises(IsolationUnavailable, match="chroot"):
        new_box("chroot").run("true", **changes)
