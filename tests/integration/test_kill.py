"""SIGKILL at any moment: every verb works, nothing stays mounted or running, and prune takes all that was left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Builda, clean_environ
from tests.support.registry import Registry, registry

pytestmark = [pytest.mark.root, pytest.mark.network]

INSECURE = "--tls-verify=false"
MARKER = f"builda-kill-{os.getpid()}"


@pytest.fixture
def server() -> Iterator[Registry]:
    with registry() as running:
        yield running


def test_killed_commands_leave_nothing(builda: Builda, base: str, server: Registry, tmp_path: Path) -> None:
    Victims(builda, base, server, tmp_path).survive(40)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_killed_commands_leave_nothing_200_times(builda: Builda, base: str, server: Registry, tmp_path: Path) -> None:
    Victims(builda, base, server, tmp_path).survive(200)


@dataclass(frozen=True)
class Victims:
    """Commands that are killed on one store, which also has an image and a container that must not suffer."""

    builda: Builda
    base: str
    server: Registry
    directory: Path

    @property
    def remote(self) -> str:
        """An image with a layer that only the registry has."""
        return self.server.name("remote:1")

    def survive(self, count: int) -> None:
        """Kill `count` commands, then find the store as it was before."""
        self.prepare()
        before = files_of(self.builda.root)
        chance = random.Random(1)
        for number in range(count):
            self.kill_one(number, chance.uniform(0.01, 0.2))
            self.others_work()
        wait_for_the_end_of(MARKER)
        assert processes_that_see(self.builda.root) == []
        self.every_verb_works()
        self.remove_what_succeeded()
        assert files_of(self.builda.root) == before
        assert self.builda("fsck") == ""

    def prepare(self) -> None:
        """The image in the registry, files to copy, and what must survive."""
        builda = self.builda
        container = builda("from", self.base)
        builda("run", container, "--", "sh", "-c", "head -c 12000000 /dev/urandom > /big")
        builda("commit", container, "remote")
        builda("push", INSECURE, "remote", f"docker://{self.remote}")
        builda("rm", container)
        builda("rmi", "remote")
        (self.directory / "work").mkdir()
        for number in range(300):
            (self.directory / f"work/f{number}").write_bytes(os.urandom(2000))
        builda("from", "--name", "kept", self.base)
        builda("run", "kept", "--", "sh", "-c", "echo kept > /kept")
        builda("commit", "kept", "kept-image")
        builda("prune")

    def commands(self, number: int) -> Mapping[str, list[str]]:
        """What is killed, by verb. The container extra… is there for it, and has something to commit."""
        extra = f"extra{number}"
        return {
            "from": ["from", INSECURE, "--name", f"victim{number}", self.remote],
            "run": ["run", extra, "--", "sh", "-c", f": {MARKER}; dd if=/dev/zero of=/z bs=1M count=4; sleep 5"],
            "copy": ["copy", extra, str(self.directory / "work"), "/work"],
            "commit": ["commit", extra, f"victim-image{number}"],
            "pull": ["pull", INSECURE, self.remote],
            "push": ["push", INSECURE, "kept-image", f"docker://{self.server.name(f'pushed{number}:1')}"],
            "rm": ["rm", extra],
        }

    def kill_one(self, number: int, delay: float) -> None:
        """The next verb in turn, killed after `delay` seconds if it still runs."""
        self.builda.run("rmi", "--force", self.remote, check=False)  # so that from and pull have something to do
        extra = self.builda("from", "--name", f"extra{number}", self.base)
        self.builda("run", extra, "--", "sh", "-c", "head -c 2000000 /dev/urandom > /new")
        commands = self.commands(number)
        process = subprocess.Popen(
            [*self.builda.command, *commands[list(commands)[number % len(commands)]]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            env=clean_environ(),
        )
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def others_work(self) -> None:
        """Nobody else notices."""
        self.builda("images")
        self.builda("containers")
        assert self.builda("run", "kept", "--", "cat", "/kept") == "kept"

    def every_verb_works(self) -> None:
        """Also those that were killed, on what they were killed on."""
        builda = self.builda
        container = builda("from", INSECURE, "--name", "victim-after", self.remote)
        builda("pull", INSECURE, self.remote)
        builda("run", container, "--", "sh", "-c", "test -s /big && echo x > /x")
        builda("copy", container, self.directory / "work", "/work")
        builda("add", container, self.directory / "work/f0", "/added")
        builda("config", "--env", "A=b", container)
        mount = builda("mount", container)
        assert len(os.listdir(f"{mount}/work")) == 300
        builda("umount", container)
        builda("commit", container, "victim-image")
        builda("push", INSECURE, "victim-image", f"docker://{self.server.name('after:1')}")
        builda("tag", "victim-image", "victim-tag")
        builda("rename", container, "victim-renamed")
        builda("inspect", "victim-renamed")
        builda("rmi", "victim-tag")
        for entry in builda("containers", "--format", "{{.ContainerName}}").split():
            if entry.startswith("extra"):
                builda("rm", entry)

    def remove_what_succeeded(self) -> None:
        """Undo what victims managed to finish, then prune what they did not."""
        for name in self.builda("containers", "--format", "{{.ContainerName}}").split():
            if name != "kept":
                self.builda("rm", name)
        for name in self.builda("images", "--format", "{{.Name}}:{{.Tag}}").split():
            if "victim" in name or name == self.remote:
                self.builda("rmi", name)
        self.builda("prune")


def files_of(root: Path) -> set[str]:
    """What the store holds, without what is only about locking."""
    found = {str(path.relative_to(root)) for path in root.rglob("*")}
    return {name for name in found if not name.startswith(("locks", "leases")) and not name.endswith("lock")}


def wait_for_the_end_of(text: str) -> None:
    """The kernel ends what a killed command had started; that takes a moment."""
    deadline = time.monotonic() + 5
    while any(text in read(process / "cmdline") for process in processes()):
        assert time.monotonic() < deadline, f"still running: {text}"
        time.sleep(0.05)


def processes_that_see(root: Path) -> list[str]:
    """Processes in whose mount namespace something of the store is mounted."""
    return [process.name for process in processes() if f"{root}/" in read(process / "mountinfo")]


def processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def read(path: Path) -> str:
    """The text of a file that may vanish any time."""
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
