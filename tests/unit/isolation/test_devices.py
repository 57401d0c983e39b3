"""Device nodes: the command's own where they can be made, else the machine's, which it cannot change.

Nothing here would change a node of the machine if builda were wrong: its nodes are only looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.errors import InvalidValue
from builda.isolation.spec import Device
from builda.linux.mount import Mount, attach, detach
from tests.conftest import Builda

pytestmark = pytest.mark.root
NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
IDENTITY = ((0, 0, 65536),)
STAT = "stat -c '%n %d:%i %t:%T %a %u:%g' " + " ".join(f"/dev/{name}" for name in NODES)


def seen(output: str) -> dict[str, tuple[str, ...]]:
    """Each node's inode, numbers, mode and owner."""
    return {words[0].removeprefix("/dev/"): tuple(words[1:]) for words in map(str.split, output.splitlines())}


@pytest.mark.parametrize("isolation", ["native", "chroot"])
def test_root_has_nodes_of_its_own(new_box: Callable[[str], Any], isolation: str) -> None:
    box = new_box(isolation)
    nodes = seen(box.shell(STAT, network="host"))
    for name, numbers in NODES.items():
        inode, device, mode, owner = nodes[name]
        machines = os.stat(f"/dev/{name}")
        assert inode != f"{machines.st_dev}:{machines.st_ino}"
        assert device == "{:x}:{:x}".format(*numbers)
        assert (mode, owner) == ("666", "0:0")
    box.shell("chmod 600 /dev/null; chown 5:6 /dev/zero; touch -d '2001-02-03 04:05:06' /dev/full", network="host")
    assert {seen(box.shell(STAT, network="host"))[name][2:] for name in NODES} == {("666", "0:0")}


def test_its_nodes_work_and_one_that_it_makes_opens_nothing(box: Any) -> None:
    box.shell("echo x > /dev/null; head -c 2 /dev/zero | od -An -tx1; head -c 9 /dev/urandom | wc -c; cat < /dev/null")
    assert box.output.split() == ["00", "00", "9"]
    assert box.run("sh", "-c", "echo x > /dev/full") != 0
    assert box.run("sh", "-c", "mknod /dev/again c 1 5 && ls /dev/again && head -c 1 /dev/again") != 0
    assert "again: Permission denied" in box.output


@pytest.mark.parametrize("runtime", ["native", "chroot", "crun"])
def test_no_node_that_an_image_or_a_command_brings_opens_its_device(
    new_box: Callable[..., Any], tmp_path: Path, runtime: str
) -> None:
    """No device cgroup guards crun where there is cgroup v1; runc's guards the machine's devices, and not this one."""
    if runtime == "crun" and shutil.which("crun") is None:
        pytest.skip("crun is not installed")
    box = new_box("oci", runtime="crun") if runtime == "crun" else new_box(runtime)
    (tmp_path / "volume/below").mkdir(parents=True)
    attach((Mount("tmpfs", "tmpfs", "/", ()),), tmp_path / "volume/below")
    for place in (box.rootfs / "bin/node", tmp_path / "volume/below/node"):
        os.mknod(place, 0o020666, os.makedev(1, 5))
    places = ("/bin/node", "/volume/below/node", "/made", "/dev/made", "/dev/shm/made", "/volume/made")
    script = "; ".join(
        f"test -e {place} || mknod {place} c 1 5; head -c 1 {place} 2>/dev/null | wc -c" for place in places
    )
    volume = (Mount("rbind", str(tmp_path / "volume"), "/volume"),)
    try:
        assert box.shell(script, mounts=volume, network="host").split() == ["0"] * len(places)
        opening = (Mount("rbind", str(tmp_path / "volume"), "/volume", ("dev",)),)
        output = box.shell(
            "head -c 1 /volume/made | wc -c; head -c 1 /dev/zero | wc -c", mounts=opening, network="host"
        )
        assert output.split() == ["1", "1"]
        (tmp_path / "volume/made").unlink()
    finally:
        detach(tmp_path / "volume/below")


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_a_runtime_gives_devices_as_asked(new_box: Callable[..., Any], tmp_path: Path, runtime: str) -> None:
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    box = new_box("oci", runtime=runtime)
    given = tuple(Device(source="/dev/zero", target=target) for target in ("/dev/mine", "/opt/mine"))
    output = box.shell("head -c 1 /dev/mine | wc -c; head -c 1 /opt/mine | wc -c; echo > /dev/null", devices=given)
    assert output.split() == ["1", "1"]
    assert "/dev/pts/0" in box.shell("tty; : > /dev/tty", terminal=True, stdin=None)


def test_where_none_can_be_made_the_machines_are_read_only(box: Any) -> None:
    users = (IDENTITY, IDENTITY, None)
    nodes = seen(box.shell(STAT, users=users))
    machines = os.stat("/dev/null")
    assert nodes["null"][0] == f"{machines.st_dev}:{machines.st_ino}"
    output = box.shell("grep -E ' /dev/(null|full|tty) ' /proc/self/mountinfo", users=users)
    assert [line.split()[5].split(",")[0] for line in output.splitlines()] == ["ro"] * 3
    box.shell("echo x > /dev/null; : > /dev/zero; head -c 1 /dev/zero | od -An -tx1; exec 3<>/dev/null", users=users)
    assert box.output.split() == ["00"]
    assert box.run("mount", "-o", "remount,bind,rw", "/dev/null", users=users) != 0


def test_a_device_that_is_given_is_a_node_of_its_own(box: Any, tmp_path: Path) -> None:
    node = tmp_path / "node"
    os.mknod(node, 0o020640, os.makedev(1, 5))
    os.chown(node, 7, 8)
    for target in ("/dev/mine", "/opt/mine"):
        given = (Device(source=str(node), target=target),)
        script = (
            f"stat -c '%a %u:%g %t:%T' {target}; head -c 1 {target} | od -An -tx1; chmod 777 {target}; chown 1 {target}"
        )
        assert box.shell(script, devices=given).splitlines() == ["640 7:8 1:5", " 00"]
        assert (node.stat().st_mode, node.stat().st_uid) == (0o020640, 7)
    users = (IDENTITY, IDENTITY, None)
    assert box.run("chmod", "777", "/dev/mine", devices=(Device(source=str(node), target="/dev/mine"),), users=users)
    assert "Read-only" in box.output


def test_a_file_is_no_device(box: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidValue, match="not a device"):
        box.run("true", devices=(Device(source=str(tmp_path / "file"), target="/dev/mine"),))


def test_streams_that_are_null_are_its_own(builda: Builda, base: str) -> None:
    """Through a descriptor of the machine's /dev/null its mode could be changed for all."""
    container = builda("from", base)
    script = "exec 3>&1; stat -L -c %d:%i /proc/self/fd/0 /proc/self/fd/3 /dev/null >&2"
    command = [*builda.command, "run", container, "sh", "-c", script]
    told = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True
    )
    first, second, own = told.stderr.split()
    assert first == second == own
    assert own != "{0.st_dev}:{0.st_ino}".format(os.stat("/dev/null"))
