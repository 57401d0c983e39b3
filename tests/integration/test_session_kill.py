"""A session whose processes are killed at random moments leaves nothing, and no part of a change of names or a push."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Builda, add_base
from tests.integration.test_session import environ_of, left, names, until
from tests.support import needs
from tests.support.registry import registry
from tests.support.rootless import Rootless, rootless

pytestmark = pytest.mark.root

SCRIPT = """
set -e
c=$(builda from localhost/busybox)
m=$(builda mount $c)
echo hello > $m/file
builda image mount localhost/busybox > /dev/null
builda run $c sh -c 'sleep 0.05; echo more > /more' &
d=$(builda from scratch)
builda config --label made=$1 $d
builda commit -q $d app:1 > /dev/null
wait
builda umount $c > /dev/null
builda commit -q --rm $c app:2 > /dev/null
builda tag app:2 app:3
"""
PUSH = "builda push -q --tls-verify=false app:2 $REGISTRY/app:$1\n"
WHOLE = ["localhost/app:1", "localhost/app:2", "localhost/app:3"]


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            found += [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return found


@dataclass
class Fault:
    """Runs the script in sessions, kills one process of each, and looks at what is left."""

    builda: Builda
    chance: random.Random
    registry: str = ""
    seconds: float = 0
    """How long a session takes that is left alone."""

    def start(self, number: int) -> subprocess.Popen[bytes]:
        script = SCRIPT + (PUSH if self.registry else "")
        command = [*self.builda.command, "session", "bash", "-c", script, "script", str(number)]
        environ = {**environ_of(self.builda), "REGISTRY": self.registry}
        null = subprocess.DEVNULL
        return subprocess.Popen(command, env=environ, stdin=null, stdout=null, stderr=null)

    def undisturbed(self) -> None:
        """Measure a session that succeeds."""
        began = time.monotonic()
        assert self.start(0).wait(120) == 0
        self.seconds = time.monotonic() - began
        assert self.names() == WHOLE
        self.builda("rmi", "app:1", "app:2", "app:3")

    def killed_once(self, number: int) -> int:
        """Kill a process of a session at some moment; the session's status, below 0 if a signal ended it."""
        process = self.start(number)
        time.sleep(self.chance.uniform(0, self.seconds))
        with suppress(ProcessLookupError):
            victim = self.chance.choice(family(process.pid))
            os.kill(victim, self.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        return process.wait(120)

    def names(self) -> list[str]:
        return sorted(name for name in names(self.builda).split() if name.startswith("localhost/app:"))

    def check(self, number: int) -> None:
        """One round: nothing is left after the next command, and all of the names are there or none."""
        status = self.killed_once(number)
        self.builda("containers")
        case = (number, status)
        assert left(self.builda) == [], case
        found = self.names()
        assert found == WHOLE or (found == [] and status != 0), case
        if found:
            self.builda("rmi", "app:1", "app:2", "app:3")
        until(lambda: not belonging_to(self.builda), f"processes are left: {case}")
        if self.registry:
            assert is_pushed(self.registry, f"{number}") or found == [], case


def belonging_to(builda: Builda) -> list[str]:
    """The processes that have the variable of a session in this run root."""
    return [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if _belongs(pid, str(builda.runroot).encode())]


def _belongs(pid: str, place: bytes) -> bool:
    with suppress(OSError):
        return b"BUILDA_SESSION=" + place in Path(f"/proc/{pid}/environ").read_bytes()
    return False


def is_pushed(server: str, tag: str) -> bool:
    """Whether the tag is in the registry; then its blobs must be, too."""
    base = f"http://{server}/v2/app"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{base}/manifests/{tag}", headers=accept)) as answer:
            manifest = json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return False
    for blob in (manifest["config"], *manifest["layers"]):
        request = urllib.request.Request(f"{base}/blobs/{blob['digest']}", method="HEAD")
        with urllib.request.urlopen(request) as answer:
            assert int(answer.headers["Content-Length"]) == blob["size"]
    return True


class _Placed(Rootless):
    """A user's builda on a store of this test."""

    @property
    def command(self) -> list[str]:
        return [*super().command, "--root", str(self.root), "--runroot", str(self.runroot)]


@pytest.fixture
def subject(request: pytest.FixtureRequest, builda: Builda, busybox: Path) -> Iterator[Builda]:
    """builda as root or as a user, in one of the modes, on a store that has busybox."""
    user, mode = request.param
    if not user:
        made = Builda(builda.root, builda.runroot, {"BUILDA_MODE": mode})
        add_base(made, busybox)
        yield made
        return
    with rootless() as found:
        environ = {**found.environ, "BUILDA_MODE": mode}
        made = _Placed(found.home / "store", found.home / "run" / "builda", environ, found.user, found.home)
        archive = found.home / "busybox.tar"
        archive.write_bytes(busybox.read_bytes())
        add_base(made, archive)
        yield made


def _seeded() -> random.Random:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # shown when the test fails
    return random.Random(seed)


def test_a_killed_session_leaves_nothing(builda: Builda, base: str) -> None:
    fault = Fault(builda, _seeded())
    fault.undisturbed()
    for number in range(1, 4):
        fault.check(number)


@pytest.mark.long
@needs.program("newuidmap")
@pytest.mark.parametrize(
    ("subject", "times"),
    [((False, "auto"), 200), ((False, "chroot"), 50), ((True, "auto"), 50), ((True, "single"), 50)],
    ids=["root", "root-chroot", "user", "user-single"],
    indirect=["subject"],
)
@pytest.mark.timeout(3600)
def test_200_killed_sessions_leave_nothing(subject: Builda, times: int) -> None:
    with registry() as server:
        fault = Fault(subject, _seeded(), server.address)
        fault.undisturbed()
        for number in range(1, times + 1):
            fault.check(number)
