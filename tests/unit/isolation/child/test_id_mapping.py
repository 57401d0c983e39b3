"""Id-mapped mounts, made here and used in a user namespace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from builda.isolation.child.id_mapping import Mapping, in_other_namespace
from builda.linux import detached
from builda.linux import syscalls as sys_
from builda.linux.trial import attempt

pytestmark = pytest.mark.root
ROWS = ((0, 700000, 65536),)


def overlay(place: Path) -> detached.Description:
    """An overlay of two layers, the upper one of which has a file that belongs to 5:60."""
    for name in ("low", "high", "snapshot/fs", "snapshot/work"):
        (place / name).mkdir(parents=True)
    (place / "high/file").write_text("")
    os.chown(place / "high/file", 5, 60)
    options = (f"upperdir={place}/snapshot/fs", f"workdir={place}/snapshot/work", "index=off", "nodev")
    return "overlay", "overlay", "/", options, (f"{place}/high", f"{place}/low")


def detached_layers(mapping: Mapping, mount: detached.Description) -> int:
    return mapping.clone(mount)


def attached_layers(mapping: Mapping, mount: detached.Description) -> int:
    """As kernels before Linux 6.15 need it."""
    held = sys_.capget()
    sys_.set_file_ids(*mapping.host_ids(0, 0))
    sys_.capset(*held)
    try:
        return in_other_namespace(lambda: detached.attached_overlay(mount[4], mount[3], mapping.fd))
    finally:
        sys_.set_file_ids(0, 0)
        sys_.capset(*held)


@pytest.mark.parametrize("clone", [detached_layers, attached_layers])
def test_what_is_written_has_on_the_disk_the_ids_of_the_namespace(
    tmp_path: Path, clone: Callable[[Mapping, detached.Description], int]
) -> None:
    before = os.getcwd(), os.readlink("/proc/self/ns/mnt")
    mapping = Mapping(ROWS, ROWS, None)
    tree = clone(mapping, overlay(tmp_path))
    assert os.readlink("/proc/self/ns/mnt") == before[1]
    assert os.stat("file", dir_fd=tree).st_uid == 700005
    pid = os.fork()
    if pid == 0:
        try:
            mapping.enter(keep_groups=False)
            sys_.unshare(sys_.CLONE_NEWNS)
            sys_.move_mount(tree, "", sys_.AT_FDCWD, "/dev", sys_.MOVE_MOUNT_F_EMPTY_PATH)
            os.mkdir("/dev/made")
            os.chown("/dev/file", 7, 8)
            os._exit(os.stat("/dev/made").st_uid)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (tmp_path / "snapshot/fs").iterdir()}
    assert owners == {"made": (0, 0), "file": (7, 8)}
    os.chdir(before[0])
    for fd in (tree, mapping.fd):
        os.close(fd)


def test_the_same_ids_need_no_mapped_mounts(tmp_path: Path) -> None:
    mapping = Mapping(((0, 0, 1000),), ((0, 0, 1000),), None)
    tree = mapping.clone(overlay(tmp_path))
    assert os.stat("file", dir_fd=tree).st_uid == 5
    os.close(tree)
    os.close(mapping.fd)


def test_a_namespace_that_a_limit_forbids_is_an_error_that_names_the_limit() -> None:
    def refused() -> None:
        sys_.unshare(sys_.CLONE_NEWUSER)
        Path("/proc/self/uid_map").write_text("0 0 1")
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        Mapping(ROWS, ROWS, None)

    said = attempt(refused)
    assert said is not None
    assert "cannot make a user namespace: unshare: the limit user.max_user_namespaces is reached" in said
