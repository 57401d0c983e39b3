"""Cgroups and mounts as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.linux import procfs
from builda.linux.procfs import MountLine

MOUNTINFO = """\
25 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
31 25 0:26 /pod /sys/fs/cgroup ro,nosuid shared:9 master:3 - cgroup2 cgroup2 rw,nsdelegate
33 25 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 25 0:40 /a\\040b /mnt/tab\\011back\\134slash rw - tmpfs tmp\\040fs rw
"""
CGROUP = "4:cpu,cpuacct:/x\n3:memory:/pod/y\n1:name=systemd:/s\n0::/pod/one:two\n"


@pytest.fixture
def proc(tmp_path: Path) -> str:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(MOUNTINFO)
    (tmp_path / "self/cgroup").write_text(CGROUP)
    return str(tmp_path)


def test_mounts_are_read_whatever_optional_fields_they_have(proc: str) -> None:
    first, *_ = found = list(procfs.mounts(proc=proc))
    assert first == MountLine("254:1", "/", "/", ("rw", "relatime"), "ext4", ("rw", "errors=remount-ro"))
    assert [mount.kind for mount in found] == ["ext4", "cgroup2", "cgroup", "tmpfs"]


def test_paths_are_decoded(proc: str) -> None:
    *_, last = procfs.mounts(proc=proc)
    assert (last.root, last.point) == ("/a b", "/mnt/tab\tback\\slash")


def test_mounts_are_chosen_by_how_their_type_begins(proc: str) -> None:
    assert [mount.kind for mount in procfs.mounts("cgroup", proc)] == ["cgroup2", "cgroup"]
    (memory,) = (mount for mount in procfs.mounts("cgroup", proc) if "memory" in mount.options)
    assert memory.point == "/sys/fs/cgroup/memory"


def test_cgroups_are_found_by_controller_and_version(proc: str) -> None:
    found = procfs.cgroups(proc)
    assert (found["cpuacct"], found["memory"], found[procfs.VERSION_2]) == ("/x", "/pod/y", "/pod/one:two")


def test_a_cgroup_lies_below_the_part_that_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "y").mkdir()
    mount = MountLine("0:26", "/pod", str(tmp_path), (), "cgroup2", ())
    assert procfs.shown_cgroup(mount, "/pod/y") == str(tmp_path / "y")
    assert procfs.shown_cgroup(mount, "/elsewhere") == str(tmp_path)
    assert procfs.shown_cgroup(mount._replace(root="/"), "/y") == str(tmp_path / "y")


def test_without_proc_there_is_nothing(tmp_path: Path) -> None:
    assert list(procfs.mounts(proc=str(tmp_path))) == []
    assert procfs.cgroups(str(tmp_path)) == {}


def test_this_process_has_mounts() -> None:
    assert "/" in {mount.point for mount in procfs.mounts()}
