"""`builda image mount` and `umount`: where an image's files are, for how long, and what keeps them there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.support import needs

pytestmark = pytest.mark.root
DRIVERS = ("overlay", "plain", "fuse-overlayfs", "composed")


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_image_is_read_only_at_its_path_with_every_driver(builda: Builda, base: str, driver: str) -> None:
    if driver == "fuse-overlayfs":
        needs.program("fuse-overlayfs")
    shutil.rmtree(builda.root / "snapshots")
    os.mkdir(builda.root / "snapshots")
    place = Path(builda("--storage-driver", driver, "image", "mount", base).strip())
    assert (place / "bin/busybox").is_file()
    with pytest.raises(OSError, match="Read-only"):
        (place / "new").write_text("x")
    builda("--storage-driver", driver, "prune", "--all", "--force")
    assert (place / "bin/busybox").read_bytes()[:4] == b"\x7fELF"
    image = builda("--storage-driver", driver, "image", "umount", base).strip()
    assert not place.exists()
    assert builda("images", "--quiet", "--no-trunc").strip().endswith(image)
    builda("--storage-driver", driver, "prune", "--all")
    assert os.listdir(builda.root / "snapshots") == []


def test_mounts_are_counted_and_listed(builda: Builda, base: str) -> None:
    place = builda("image", "mount", base).strip()
    assert builda("image", "mount", base).strip() == place
    assert builda("image", "mount").endswith(f" {place}")
    (shown,) = json.loads(builda("image", "mount", "--format", "json"))
    assert base in shown["names"]
    assert shown["mountpoint"] == place
    assert builda("image", "umount", base).strip() == shown["id"]
    assert os.listdir(place)
    builda("image", "mount", "--all")
    assert builda("image", "unmount", "--all", "--force").strip() == shown["id"]
    assert builda("image", "mount", "--json") == "[]"
    assert builda("image", "umount", base) == ""


def test_a_mounted_image_is_not_removed_unless_forced(builda: Builda, base: str) -> None:
    place = builda("image", "mount", base).strip()
    image = builda("inspect", "--type", "image", "--format", "{{.FromImageID}}", base).strip()
    assert f"image is mounted at {place}" in builda.fails("rmi", "--all")
    assert builda("prune", "--all", "--force") == ""
    assert os.listdir(place)
    builda("rmi", "--force", image)
    assert not os.path.exists(place)
    assert os.listdir(builda.root / "mounts") == []


def test_a_mount_that_is_gone_keeps_nothing(builda: Builda, base: str) -> None:
    """As after a reboot: the record is of another boot, or nothing is mounted there any more."""
    place = builda("image", "mount", base).strip()
    subprocess.run(["umount", place], check=True)
    assert builda("image", "mount", "--json") == "[]"
    assert builda("image", "mount", base).strip() == place
    (record,) = (builda.root / "mounts").iterdir()
    said = json.loads(record.read_text())
    subprocess.run(["umount", place], check=True)
    record.write_text(json.dumps({**said, "boot": "another"}))
    builda("prune", "--all")
    assert (list((builda.root / "mounts").iterdir()), os.path.exists(place)) == ([], False)
    assert builda("images", "--quiet") == ""


def test_a_mount_of_another_namespace_is_kept_as_long_as_a_process_is_in_it(builda: Builda, base: str) -> None:
    command = (
        sys.executable, "-m", "builda", "--root", str(builda.root), "--runroot", str(builda.runroot),
        "image", "mount", base,
    )  # fmt: skip
    script = '"$@" || exit; read line'
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        place = other.stdout.readline().decode().strip()
        assert place
        assert "image is mounted at" in builda.fails("rmi", "--all")
        builda("prune", "--all")
        assert len(os.listdir(builda.root / "mounts")) == 1
        assert builda("image", "mount", "--json") == "[]"
        assert os.path.exists(f"/proc/{other.pid}/root{place}/bin/busybox")
        other.communicate(b"\n")
    builda("prune", "--all")
    assert os.listdir(builda.root / "mounts") == []
    assert not os.path.exists(place)


def test_of_a_list_the_image_for_the_machine_is_mounted(builda: Builda, base: str) -> None:
    builda("manifest", "create", "list", base)
    place = Path(builda("image", "mount", "list").strip())
    assert (place / "bin/busybox").exists()
    assert builda("image", "umount", "list")
    assert not place.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("mount", "none"), "image not known: none"),
        (("mount", "--all", "x"), "--all cannot be used with names"),
        (("mount", "--format", "{{.ID}}", "x"), "unknown format"),
        (("umount",), "no image to be unmounted was named"),
        (("umount", "--all", "x"), "--all cannot be used with names"),
    ],
)
def test_what_cannot_be_mounted_is_said(builda: Builda, line: tuple[str, ...], message: str) -> None:
    assert message in builda.fails("image", *line)


def test_a_damaged_record_keeps_every_tree_until_fsck_removes_it(builda: Builda, base: str) -> None:
    place = builda("image", "mount", base).strip()
    (record,) = (builda.root / "mounts").iterdir()
    record.write_text('{"image": 3}')
    builda("prune", "--all", "--force")
    assert os.listdir(f"{place}/bin")
    assert "record cannot be read" in builda.run("fsck", check=False).stdout
    builda("fsck", "--repair")
    builda("prune")
    assert not record.exists()


def test_where_nothing_can_be_mounted_it_is_a_copy(builda: Builda, base: str) -> None:
    mode = ("--mode", "chroot")
    place = Path(builda(*mode, "image", "mount", base).strip())
    assert builda(*mode, "image", "mount", base).strip() == str(place)
    (place / "new").write_text("x")
    builda(*mode, "prune", "--all")
    assert (place / "new").exists()
    builda(*mode, "image", "umount", "--force", base)
    assert not place.exists()
    container = builda(*mode, "from", base)
    assert builda(*mode, "run", container, "ls", "/").split().count("new") == 0
