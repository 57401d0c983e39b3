"""SIGKILL at any moment: every verb works, nothing stays mounted or running, and prune takes all that was left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ

pytestmark = pytest.mark.root


def files_of(root: Path) -> set[str]:
    """What the store holds, without what is only about locking."""
    ignored = ("locks", "leases")
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}
    return {name for name in found if not name.startswith(ignored) and not name.endswith((".lock", "/lock"))}


def kill_during(builda: Builda, arguments: list[str], delay: float) -> None:
    """Start a verb in a process group of its own and kill the group after `delay` seconds."""
    process = subprocess.Popen(
        [*builda.command, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env=clean_environ(),
        start_new_session=True,
    )
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def mounts_below(path: Path) -> list[str]:
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(path) in line]


def processes_with(text: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in command:
                found.append(command)
    return found


def rounds(builda: Builda, base: str, busybox: Path, tmp_path: Path, count: int) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for number in range(300):
        (work / f"f{number}").write_bytes(os.urandom(2000))
    kept = builda("from", "--name", "kept", base)
    builda("run", kept, "--", "sh", "-c", "head -c 3000000 /dev/urandom > /big")
    builda("commit", kept, "kept-image")
    builda("prune")
    before = files_of(builda.root)
    marker = f"builda-kill-{os.getpid()}"
    chance = random.Random(1)
    for number in range(count):
        name = f"victim{number}"
        extra = builda("from", "--name", f"extra{number}", base)
        verbs = {
            "from": ["from", "--name", name, base],
            "run": ["run", extra, "--", "sh", "-c", f": {marker}; dd if=/dev/zero of=/z bs=1M count=4; sleep 5"],
            "copy": ["copy", extra, str(work), "/work"],
            "commit": ["commit", "kept", f"victim-image{number}"],
            "pull": ["pull", f"oci-archive:{busybox}:busybox"],
            "push": ["push", "kept-image", f"oci:{tmp_path / 'pushed'}:{name}"],
            "rm": ["rm", extra],
        }
        verb = list(verbs)[number % len(verbs)]
        kill_during(builda, verbs[verb], chance.uniform(0.02, 0.16))
        builda("images")
        builda("containers")
        builda("run", "kept", "--", "true")
    deadline = time.monotonic() + 5
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(marker) == []
    assert mounts_below(builda.root) == []
    restore(builda, base, busybox)
    after = files_of(builda.root)
    assert {name for name in after - before if not name.startswith("refs")} == set()
    assert before <= after
    assert builda("fsck") == ""


def restore(builda: Builda, base: str, busybox: Path) -> None:
    """Undo what victims managed to finish, then prune what they did not."""
    for line in builda("containers", "--format", "{{.ContainerName}}").splitlines():
        if line.strip() != "kept":
            builda("rm", line.strip())
    for line in builda("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
        if "victim" in line:
            builda("rmi", line.strip())
    builda("prune")


def test_killed_commands_leave_nothing(builda: Builda, base: str, busybox: Path, tmp_path: Path) -> None:
    rounds(builda, base, busybox, tmp_path, 40)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_commands_leave_nothing_200_times(builda: Builda, base: str, busybox: Path, tmp_path: Path) -> None:
    rounds(builda, base, busybox, tmp_path, 200)
