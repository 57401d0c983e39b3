"""What every isolation keeps: native (by pivot_root and by moving the root), OCI runtimes, chroot, tree, traced."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builda.errors import BuildaError, CommandFailed
from builda.fs.standin import XATTR, owner_of
from builda.isolation import isolation_for
from builda.isolation.spec import Rlimit, User
from builda.linux import caps
from tests.support import needs
from tests.unit.isolation.conftest import new_box as new_box  # the fixture, shared with the unit tests

pytestmark = pytest.mark.root

ISOLATIONS = ("native", "native-moved", "crun", "runc", "chroot", "tree", "traced")
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)}


@pytest.fixture(params=ISOLATIONS)
def box(request: pytest.FixtureRequest, new_box: Callable[..., Any]) -> Any:
    """Runs commands in a busybox root file system, by each isolation."""
    name: str = request.param
    if name in ("crun", "runc"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        return new_box("oci", runtime=name)
    made = new_box("chroot" if name == "chroot" else "native")
    if name == "native-moved":
        made.sandbox = replace(made.sandbox, no_pivot=True)
    if name in ("chroot", "tree"):
        made.sandbox = replace(made.sandbox, network="host")
    if name == "tree":
        made.isolation = isolation_for(None, state=made.scratch, can_mount=False)
        put_nodes(made.rootfs / "dev")
    if name == "traced":
        made.trace()
        put_stand_ins(made.rootfs / "dev")
    return made


def put_nodes(directory: Path) -> None:
    """What the builder puts into a tree where nothing can be mounted."""
    for name, device in NODES.items():
        os.mknod(directory / name, 0o666 | stat.S_IFCHR, os.makedev(*device))
        (directory / name).chmod(0o666)
    put_links(directory)


def put_stand_ins(directory: Path) -> None:
    """As `put_nodes`, where no nodes can be made either."""
    for name in (*NODES, "tty"):
        (directory / name).touch()
    put_links(directory)


def put_links(directory: Path) -> None:
    for name, link in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (directory / name).symlink_to(f"/proc/self/{link}")


def test_the_status_is_the_commands(box: Any) -> None:
    assert box.run("true") == 0
    assert box.run("sh", "-c", "exit 42") == 42


def test_a_signal_is_128_and_its_number(box: Any) -> None:
    if box.isolation.kind.name == "oci":
        needs.not_here("the kernel gives process 1, which the command is here, no signal that it sends itself")
    assert box.run("sh", "-c", "kill -TERM $$") == 128 + signal.SIGTERM


@pytest.mark.parametrize(("command", "status"), [("frobnicate", 127), ("/etc/passwd", 126), ("/etc", 126)])
def test_what_cannot_be_executed_is_named(box: Any, command: str, status: int) -> None:
    with pytest.raises(CommandFailed, match=command) as caught:
        box.run(command)
    assert caught.value.status == status


def test_the_environment_is_what_was_given(box: Any) -> None:
    box.process = replace(box.process, env=(("PATH", "/bin"), ("A", "b=c"), ("EMPTY", "")))
    names = {line for line in box.shell("env").splitlines() if not line.startswith(("PWD=", "SHLVL=", "HOME=", "_="))}
    assert names == {"PATH=/bin", "A=b=c", "EMPTY="}


def test_the_working_directory_is_what_was_given(box: Any) -> None:
    assert box.shell("pwd", cwd="/tmp") == "/tmp\n"


def test_a_working_directory_outside_the_root_is_refused(box: Any) -> None:
    for number in range(3, 20):
        with suppress(BuildaError):
            box.run("sh", "-c", "pwd", cwd=f"/proc/self/fd/{number}")
        assert not box.output.startswith("(unreachable)")


def test_the_input_is_what_was_given(box: Any) -> None:
    assert box.shell("cat", stdin=b"some\nlines\n") == "some\nlines\n"
    assert box.shell("cat") == ""


def test_output_is_complete_and_in_order(box: Any) -> None:
    assert box.shell("i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done").split() == list(map(str, range(3000)))


def test_the_user_has_its_ids_and_groups(box: Any) -> None:
    output = box.shell("id -u; id -g; id -G", user=User(uid=1000, gid=1000, additional_gids=(10,)))
    assert output.split("\n")[:3] == ["1000", "1000", "1000 10"]


def test_capabilities_are_the_ones_given(box: Any) -> None:
    mask = box.shell("grep CapBnd /proc/self/status", capabilities=("CAP_CHOWN", "CAP_FOWNER")).split()[1]
    assert int(mask, 16) == 1 << caps.NUMBERS["CAP_CHOWN"] | 1 << caps.NUMBERS["CAP_FOWNER"]


def test_another_user_has_no_capabilities(box: Any) -> None:
    user = User(uid=1000, gid=1000)
    assert int(box.shell("grep CapEff /proc/self/status", user=user).split()[1], 16) == 0


def test_commands_are_filtered(box: Any) -> None:
    assert "Seccomp:\t2" in box.shell("grep Seccomp: /proc/self/status")
    assert box.run("sh", "-c", "mount -t tmpfs none /tmp 2>/dev/null") != 0
    assert box.run("sh", "-c", "unshare -m true 2>/dev/null") != 0


def test_limits_are_set(box: Any) -> None:
    limit = Rlimit(type="RLIMIT_NOFILE", soft=77, hard=88)
    assert box.shell("ulimit -S -n; ulimit -H -n", rlimits=(limit,)).split() == ["77", "88"]


def test_the_umask_is_what_was_given(box: Any) -> None:
    assert box.shell("umask", umask=0o027) == "0027\n"


def test_devices_work(box: Any) -> None:
    script = "head -c 3 /dev/zero | wc -c; echo x >/dev/null; head -c 5 /dev/urandom | wc -c; ls -l /dev/fd | wc -l"
    assert box.shell(script).split()[:2] == ["3", "5"]
    assert box.run("sh", "-c", "(echo x > /dev/full) 2>/dev/null") != 0


def test_no_descriptor_of_the_caller_is_inherited(box: Any, tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        found = box.shell("for f in /proc/self/fd/*; do readlink $f || true; done")
    finally:
        os.close(fd)
    assert str(tmp_path) not in found.replace(str(box.rootfs), "")


def test_what_is_written_is_in_the_root_file_system(box: Any) -> None:
    box.shell("mkdir -p /made && echo x > /made/file && chmod 640 /made/file && chown 5:6 /made/file")
    made = box.rootfs / "made/file"
    info = made.stat()
    owner = info.st_uid, info.st_gid
    if box.isolation.kind.traces:  # the owner is kept aside
        owner = owner_of({XATTR: os.getxattr(made, XATTR)}) or owner
    assert (stat.S_IMODE(info.st_mode), *owner) == (0o640, 5, 6)


def test_files_outside_the_root_are_out_of_reach(box: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (box.rootfs / "link").symlink_to(tmp_path / "secret")
    script = f"cat /link {tmp_path}/secret ../../../../../..{tmp_path}/secret 2>/dev/null || true"
    assert "secret" not in box.shell(script)


def test_nothing_survives_the_command(box: Any) -> None:
    box.shell("(setsid sleep 4731 >/dev/null 2>&1 &); true")
    assert subprocess.run(["pgrep", "-f", "^sleep 4731"], check=False, stdout=subprocess.DEVNULL).returncode == 1


def test_the_caller_keeps_its_mounts_and_descriptors(box: Any) -> None:
    box.shell("true")
    before = Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))
    box.shell("true")
    assert (Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))) == before


def test_devices_of_the_machine_keep_their_looks(box: Any) -> None:
    before = [os.stat(f"/dev/{name}") for name in NODES]
    box.run("sh", "-c", "touch -d '2001-02-03 04:05' /dev/full /dev/zero 2>/dev/null")
    after = [os.stat(f"/dev/{name}") for name in NODES]
    looks = [[(info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns) for info in row] for row in (before, after)]
    assert looks[0] == looks[1]
