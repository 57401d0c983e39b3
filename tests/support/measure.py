"""How long a command takes and how much memory it needs, seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# execve(2) keeps the peak of the process that called it. So the command is started by a small process, not by a whole
# test run, which also keeps the cost of forking the latter out of the time.
LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - start
os.write({descriptor}, json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss]).encode())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a command did. The peak is the largest resident size of it and of what it started, each for itself."""

    status: int
    seconds: float
    peak_mib: float
    stdout: str
    stderr: str


def measured(
    command: Sequence[str | Path], *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Measured:
    """Run a command without input to its end."""
    reader, writer = os.pipe()
    try:
        result = subprocess.run(
            [sys.executable, "-IS", "-c", LAUNCHER.format(descriptor=writer), *map(str, command)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environ,
            cwd=cwd,
            pass_fds=[writer],
            check=True,
        )
        status, seconds, peak = json.loads(os.read(reader, 1000))
    finally:
        os.close(reader)
        os.close(writer)
    return Measured(status=status, seconds=seconds, peak_mib=peak / 1024, stdout=result.stdout, stderr=result.stderr)
