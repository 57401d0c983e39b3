"""A session whose processes are killed at random moments leaves nothing, and no part of a change of names."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Builda
from tests.integration.test_session import environ_of, left, names

pytestmark = pytest.mark.root

SCRIPT = """
set -e
c=$(builda from localhost/busybox)
m=$(builda mount $c)
echo hello > $m/file
builda run $c sh -c 'sleep 0.05; echo more > /more' &
d=$(builda from scratch)
builda config --label made=$1 $d
builda commit -q $d app:1 > /dev/null
wait
builda umount $c > /dev/null
builda commit -q --rm $c app:2 > /dev/null
builda tag app:2 app:3
"""


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        with suppress(OSError):
            found += [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return found


def killed_once(builda: Builda, chance: random.Random, number: int) -> int | None:
    """Run the script, and kill one of its processes at some moment; the status, None if the session was killed."""
    command = [*builda.command, "session", "bash", "-c", SCRIPT, "script", str(number)]
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environ_of(builda), stdin=null, stdout=null, stderr=null)
    time.sleep(chance.uniform(0, 1.5))
    with suppress(ProcessLookupError):
        victim = chance.choice(family(process.pid))
        os.kill(victim, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    status = process.wait(60)
    return None if status < 0 else status


def check(builda: Builda, times: int, seed: int) -> None:
    chance = random.Random(seed)
    base = names(builda).split()
    whole = sorted([*base, "localhost/app:1", "localhost/app:2", "localhost/app:3"])
    for number in range(times):
        before = sorted(names(builda).split())
        status = killed_once(builda, chance, number)
        builda("containers")
        found = left(builda)
        assert found == [], (seed, number, status, found)
        after = sorted(name for name in names(builda).split() if name != "<none>:<none>")
        assert after in (whole, [name for name in before if name != "<none>:<none>"]), (seed, number, status)
        if status == 0:
            assert after == whole
        if after == whole:  # names that a later round took away would leave images without one
            builda("rmi", "app:1", "app:2", "app:3")
        places = [str(builda.runroot).encode()]
        assert not [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if _belongs(pid, places)]


def _belongs(pid: str, places: list[bytes]) -> bool:
    with suppress(OSError):
        return any(b"BUILDA_SESSION=" + place in Path(f"/proc/{pid}/environ").read_bytes() for place in places)
    return False


def test_a_killed_session_leaves_nothing(builda: Builda, base: str) -> None:
    check(builda, 4, random.randrange(1 << 32))


@pytest.mark.long
def test_200_killed_sessions_leave_nothing(builda: Builda, base: str) -> None:
    check(builda, 200, random.randrange(1 << 32))
