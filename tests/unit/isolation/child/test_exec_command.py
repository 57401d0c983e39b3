"""Where a command starts: always inside its root, whatever its image or Containerfile names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builda.errors import InvalidValue, NotFound
from builda.isolation import isolation_for
from builda.isolation.child import exec_command as execute
from builda.linux.mount import Mount, attach, detach
from builda.linux.trial import attempt

pytestmark = pytest.mark.root
IDENTITY = ((0, 0, 65536),)
MAPPED = ((0, 700000, 65536),)
WAYS: dict[str, dict[str, Any]] = {
    "pivot": {},
    "moved root": {"no_pivot": True},
    "user namespace": {"users": (IDENTITY, IDENTITY, None)},
    "mapped user namespace": {"users": (MAPPED, MAPPED, None)},
    "caller's processes": {"namespaces": {"pid": "host"}},
}
DESCRIPTORS = range(3, 18)  # the child has about twelve of its own


def start(box: Any, cwd: str, **sandbox: Any) -> str | None:
    """What `pwd` says in this directory; None when the command is not started."""
    try:
        box.run("sh", "-c", "pwd -P; ls /proc/self/cwd/..", cwd=cwd, **sandbox)
    except (NotFound, InvalidValue):
        return None
    return str(box.output)


@pytest.mark.parametrize("way", WAYS)
def test_no_command_starts_through_a_link_of_proc(box: Any, way: str) -> None:
    for place in ("/proc/self/cwd", "/proc/1/root", "/proc/self/root/tmp", "/proc/self/task/../fd/3"):
        assert start(box, place, **WAYS[way]) is None, place


@pytest.mark.parametrize("way", ["pivot", "moved root"])
def test_nor_through_a_descriptor(box: Any, way: str) -> None:
    for number in DESCRIPTORS:
        assert start(box, f"/proc/self/fd/{number}", **WAYS[way]) is None, number


def test_nor_through_a_link_of_the_image_to_one(box: Any) -> None:
    (box.rootfs / "tmp/fd").symlink_to("/proc/self/fd")
    for number in DESCRIPTORS:
        (box.rootfs / f"tmp/{number}").symlink_to(f"../dev/fd/{number}")
        assert start(box, f"/tmp/{number}", no_pivot=True) is None
        assert start(box, f"/tmp/fd/{number}", no_pivot=True) is None


@pytest.mark.parametrize("isolation", ["chroot", "tree"])
def test_nor_without_namespaces(new_box: Callable[[str], Any], isolation: str) -> None:
    box = new_box("chroot")
    sandbox: dict[str, Any] = {"network": "host"}
    if isolation == "tree":
        box.isolation = isolation_for(None, state=box.scratch, can_mount=False)
    for place in (*(f"/proc/self/fd/{number}" for number in DESCRIPTORS), "/proc/self/cwd"):
        assert start(box, place, **sandbox) is None, place


@pytest.mark.parametrize("way", WAYS)
def test_ordinary_links_are_followed_inside(box: Any, way: str) -> None:
    (box.rootfs / "tmp/real").mkdir()
    (box.rootfs / "tmp/absolute").symlink_to("/tmp/real")
    (box.rootfs / "tmp/upwards").symlink_to("../../../../tmp/real")
    for name in ("absolute", "upwards", "absolute/../real", "upwards/"):
        output = start(box, f"/tmp/{name}", **WAYS[way])
        assert output is not None
        assert output.startswith("/tmp/real\n")


def test_the_commands_descriptors_are_its_three(box: Any) -> None:
    assert box.shell("ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is the listing's own


def test_the_walk_without_openat2_goes_the_same_ways(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root / "proc", root / "tmp/real", outside):
        directory.mkdir(parents=True)
    (root / "tmp/absolute").symlink_to("/tmp/real")
    (root / "tmp/upwards").symlink_to("../../../../../tmp/real")
    (root / "tmp/loop").symlink_to("loop")
    (root / "tmp/file").write_text("")
    attach((Mount("proc", "proc", "/"),), root / "proc")

    def walk() -> None:
        held = os.open(outside, os.O_PATH)
        os.chroot(root)
        os.chdir("/")
        here = os.open("/", os.O_PATH)
        real = os.stat("/tmp/real").st_ino
        for path in ("/tmp/real", "/tmp/absolute", "/tmp/upwards", "/../tmp/./absolute/../real/"):
            assert os.fstat(execute._walked(here, path)).st_ino == real, path
        for path in (f"/proc/self/fd/{held}", "/tmp/loop", "/tmp/file", "/tmp/none"):
            with pytest.raises(OSError, match=r"link|directory"):
                execute._walked(here, path)

    try:
        assert attempt(walk) is None
    finally:
        detach(root / "proc")


@pytest.mark.parametrize("way", WAYS)
def test_what_a_mount_hides_of_it_is_made(box: Any, way: str) -> None:
    (box.rootfs / "tmp/a/b").mkdir(parents=True)
    tmpfs = Mount(source="tmpfs", target="/tmp", type="tmpfs", options=())
    assert (start(box, "/tmp/a/b", mounts=(tmpfs,), **WAYS[way]) or "").startswith("/tmp/a/b\n")
