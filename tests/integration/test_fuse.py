"""The driver fuse-overlayfs: the layers that the kernel's overlay has, in pods too, and nothing left of its program."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builda.linux import fuse
from tests.conftest import Builda, clean_environ
from tests.support import needs

LACKING = fuse.lacking()
pytestmark = [pytest.mark.root, needs.machine(LACKING)]
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
CONTAINERFILE = """\
FROM localhost/busybox AS first
RUN mkdir -p /d/sub/deep /gone /kept && echo 1 > /d/f && echo 2 > /d/sub/g && echo 3 > /d/sub/deep/h && echo > /gone/x
RUN mkdir -p /mail/deep && chown 0:8 /mail && chmod 2775 /mail && chmod 3777 /mail/deep
RUN echo a > /one && ln /one /two && ln -s one /link && mkfifo /fifo && echo long > /l{name}
COPY --chown=7:8 --chmod=711 file /d/copied
RUN rm /d/f && rm -rf /gone && rm -r /d/sub && mkdir /d/sub && echo new > /d/sub/n
RUN touch /mail/deep/box
RUN mv /kept /moved && mv /d/copied /d/named && rm /one && echo more >> /two && rm /l{name}
RUN chown 5:6 /etc/group && chmod 600 /etc/passwd && chmod 750 /d && touch -h -d '2001-01-01 00:00' /link
RUN echo back > /d/f && rm /d/named && mkdir /d/named && rm -r /d/named && echo file > /d/named
RUN rmdir /d/sub 2> /dev/null || rm -rf /d/sub && ln -s / /d/sub
FROM localhost/busybox
RUN --mount=type=bind,from=first,source=/d,target=/m,rw ls /m > /seen && rm /m/f && echo y > /m/new && ls -A /m >> /seen
COPY --from=first /d /copy/
COPY --from=first /moved /two /all/
RUN --mount=type=bind,from=first,source=/d,target=/m ls -A /m > /listed && rm -r /all && mkdir /all
RUN --mount=type=bind,from=first,target=/m test -e /m/two && test ! -e /m/one && cat /m/d/f >> /listed
""".replace("{name}", "o" * 240)
LISTING = "find / -xdev | sort | grep -v /dev | xargs stat -c '%n %F %a %u:%g %s' | sed '/ directory /s/ [0-9]*$//'"
"""Every file with its looks; the size of a directory is its file system's."""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "Containerfile").write_text(CONTAINERFILE)
    (path / "file").write_text("file\n")
    os.setxattr(path / "file", "user.kept", b"value")
    return path


@pytest.fixture
def by(tmp_path: Path, busybox: Path) -> Iterator[dict[str, Builda]]:
    """builda on a store of each driver, with a base image."""
    made = {
        driver: Builda(tmp_path / driver, tmp_path / f"run-{driver}", {"BUILDA_STORAGE_DRIVER": driver})
        for driver in ("overlay", "fuse-overlayfs")
    }
    for builda in made.values():
        builda("pull", "-q", f"oci-archive:{busybox}:busybox")
        builda("tag", builda("images", "-q"), "localhost/busybox:latest")
    yield made
    assert programs(tmp_path) == []


def programs(place: Path) -> list[int]:
    """The processes, zombies among them, that serve mounts of stores below `place`, or were left by this process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if words.split(b"\0")[0].endswith(b"/fuse-overlayfs") and os.fsencode(place) in words:
            found.append(int(entry.name))
    return found


def layers(builda: Builda, image: str) -> list[list[tuple[object, ...]]]:
    """Each layer's entries, without times."""
    manifest = json.loads((builda.root / "blobs/sha256" / digest(builda, image)).read_text())
    found = []
    for layer in manifest["layers"]:
        with tarfile.open(builda.root / "blobs/sha256" / layer["digest"].partition(":")[2]) as archive:
            found.append(
                [(m.name, m.type, m.mode, m.uid, m.gid, m.size, m.linkname, *sorted(xattrs(m))) for m in archive]
            )
    return found


def xattrs(member: tarfile.TarInfo) -> Iterator[str]:
    return (f"{key}={value}" for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr"))


def digest(builda: Builda, image: str) -> str:
    found: str = json.loads(builda("inspect", "--type", "image", image))["FromImageDigest"]
    return found.partition(":")[2]


def files(builda: Builda, image: str) -> str:
    """What a container of the image sees."""
    container = builda("from", image)
    found = builda("run", container, "sh", "-c", f"{LISTING}; cat /listed")
    builda("rm", container)
    return found


@pytest.mark.parametrize("squash", [(), ("--squash",)])
def test_a_build_has_the_layers_that_overlay_makes(
    by: dict[str, Builda], context: Path, squash: tuple[str, ...]
) -> None:
    for builda in by.values():
        builda("bud", "-q", "--layers", *squash, "-t", "built", context, **EPOCH)
        builda("bud", "-q", "--layers", "--target", "first", "-t", "first", context, **EPOCH)
    overlay, other = by.values()
    assert layers(other, "first") == layers(overlay, "first")
    assert layers(other, "built") == layers(overlay, "built")
    assert files(other, "built") == files(overlay, "built")


def test_a_deletion_is_the_file_that_an_archive_has_for_it(by: dict[str, Builda]) -> None:
    builda = by["fuse-overlayfs"]
    container = builda("from", "localhost/busybox")
    builda("run", container, "sh", "-c", "rm /etc/group && mkdir -p /a/b && touch /a/b/c && chown 3:4 /etc/passwd")
    builda("commit", "-q", container, "first")
    second = builda("from", "first")
    builda("run", second, "sh", "-c", "rm -r /a && mkdir /a && test ! -e /etc/group")
    builda("commit", "-q", "--rm", second, "second")
    names = [[entry[0] for entry in layer] for layer in layers(builda, "second")]
    assert names[1] == ["a", "a/b", "a/b/c", "etc", "etc/.wh.group", "etc/passwd"]
    assert names[2] == ["a", "a/.wh.b"]
    manifest = json.loads((builda.root / "blobs/sha256" / digest(builda, "second")).read_text())
    with tarfile.open(builda.root / "blobs/sha256" / manifest["layers"][2]["digest"].partition(":")[2]) as archive:
        assert archive.getnames() == ["a", "a/.wh.b"]


def test_layers_of_others_are_seen_as_they_are_meant(by: dict[str, Builda], context: Path, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    by["overlay"]("bud", "-q", "--layers", "--target", "first", "-t", "first", context, **EPOCH)
    by["overlay"]("push", "-q", "first", f"oci-archive:{archive}:first")
    seen = []
    for builda in by.values():
        builda("pull", "-q", f"oci-archive:{archive}:first")
        container = builda("from", builda("images", "-q").splitlines()[0])
        seen.append(builda("run", container, "sh", "-c", LISTING))
        builda("run", container, "sh", "-c", "rm -rf /d /two && mkdir /d")
        builda("commit", "-q", "--squash", container, "squashed")
        assert builda.run("run", container, "test", "-e", "/d/f", check=False).returncode == 1
    assert seen[0] == seen[1]
    assert layers(by["overlay"], "squashed") == layers(by["fuse-overlayfs"], "squashed")


def test_a_mount_stays_until_it_is_unmounted(by: dict[str, Builda], tmp_path: Path) -> None:
    builda = by["fuse-overlayfs"]
    container = builda("from", "localhost/busybox")
    place = Path(builda("mount", container))
    try:
        assert len(programs(tmp_path)) == 1
        (place / "seen").write_text("before")
        assert builda("run", container, "sh", "-c", "cat /seen; echo after > /seen") == "before"
        assert (place / "seen").read_text() == "after\n"
    finally:
        builda("umount", container)
    assert ended(tmp_path)
    assert builda("run", container, "cat", "/seen") == "after"


def test_nobody_waits_for_what_the_program_holds(by: dict[str, Builda], tmp_path: Path) -> None:
    builda = by["fuse-overlayfs"]
    container = builda("from", "localhost/busybox")
    done = subprocess.run(
        ["bash", "-c", 'exec 7>&1; "$@" | cat', "-", *builda.command, "mount", container],
        capture_output=True,
        text=True,
        env={**clean_environ(), **builda.environ},
        timeout=60,
        check=True,
    )
    assert len(programs(tmp_path)) == 1
    subprocess.run(["umount", done.stdout.strip()], check=True)
    assert ended(tmp_path)


@contextmanager
def started(builda: Builda, container: str, script: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a container that has said that it is ready, in a process group of its own."""
    with subprocess.Popen(
        [*builda.command, "run", container, "sh", "-ec", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean_environ(), **builda.environ},
        process_group=0,
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("victim", ["builda", "fuse-overlayfs"])
def test_a_kill_leaves_nothing(by: dict[str, Builda], tmp_path: Path, victim: str) -> None:
    builda = by["fuse-overlayfs"]
    container = builda("from", "localhost/busybox")
    builda("run", container, "true")
    before = files_of(builda.root)
    for number in range(3):
        script = f"touch /made-{number}; echo ready; while true; do echo x > /y; rm /y; done"
        with started(builda, container, script) as running:
            (server,) = programs(tmp_path)
            os.kill(running.pid if victim == "builda" else server, signal.SIGKILL)
            _, said = running.communicate(timeout=60)
        if victim == "builda":
            assert running.returncode == -signal.SIGKILL
        else:
            assert running.returncode == 125
            assert "fuse-overlayfs, which serves the files of the container, was ended by signal 9" in said
        found = builda("run", container, "sh", "-c", "ls -d /made*; touch /after; rm /after")
        assert found.split() == [f"/made-{each}" for each in range(number + 1)]
    assert ended(tmp_path)
    builda("run", container, "sh", "-c", "rm -f /made* /y")
    builda("prune")
    assert files_of(builda.root) == before


def test_a_keyboard_interrupt_ends_the_command_and_not_the_program(by: dict[str, Builda]) -> None:
    builda = by["fuse-overlayfs"]
    container = builda("from", "localhost/busybox")
    script = "trap 'echo kept > /kept; exit 3' INT; echo ready; while true; do sleep 0.1; done"
    with started(builda, container, script) as running:
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 3
    assert builda("run", container, "cat", "/kept") == "kept"


@needs.program("crun", "runc")
def test_an_oci_runtime_gets_such_mounts(by: dict[str, Builda], context: Path) -> None:
    found = []
    for builda in by.values():
        builda("bud", "-q", "--isolation", "oci", "-t", "built", context, **EPOCH)
        found.append(files(builda, "built"))
    assert found[0] == found[1]


def test_containers_of_several_drivers_lie_in_one_store(by: dict[str, Builda]) -> None:
    builda = by["overlay"]
    drivers = ("overlay", "fuse-overlayfs", "plain")
    made = {driver: builda("from", "localhost/busybox", BUILDA_STORAGE_DRIVER=driver) for driver in drivers}
    for container in made.values():
        script = "rm /etc/passwd && rm -rf /root && mkdir /root && echo x > /root/x"
        builda("run", container, "sh", "-ec", script, BUILDA_STORAGE_DRIVER="")
        builda("commit", "-q", "--rm", container, f"of-{container}", BUILDA_STORAGE_DRIVER="overlay")
        listed = builda(
            "run", builda("from", f"of-{container}"), "sh", "-c", "ls /root; test -e /etc/passwd || echo gone"
        )
        assert listed.split() == ["x", "gone"]
    builda("rm", "-a")
    builda("prune", "-af")
    assert not list((builda.root / "snapshots").iterdir())


def ended(place: Path) -> bool:
    """Whether no program is left, a moment after the last mount went."""
    for _ in range(500):
        if not programs(place):
            return True
        time.sleep(0.01)
    return False


def files_of(root: Path) -> set[str]:
    """What is in a store, without locks, leases and the names of snapshots."""
    found = subprocess.run(["find", ".", "-type", "f"], cwd=root, capture_output=True, text=True, check=True).stdout
    return {path for path in found.split() if not path.startswith(("./locks/", "./leases/", "./digests/"))}
