"""builda in what the kernel shows of a Kubernetes pod: `tests/podsim/podsim` with our own code bound in."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from tests.support.rootless import REPOSITORY, interpreter

PODSIM = REPOSITORY / "tests/podsim/podsim"
VOLUME = "/vol"
"""Where an empty volume is mounted."""


def in_pod(
    profile: str,
    script: str,
    *options: str,
    given: Path,
    environ: Mapping[str, str] | None = None,
    patience: int = 200,
) -> subprocess.CompletedProcess[str]:
    """Run a bash script in a pod; `builda` is a function of it, `given` is there as /given, a volume at VOLUME.

    The pod is ended after `patience` seconds.
    """
    variables = {"PYTHONPATH": "/app:/packages", "BUILDA_ROOT": f"{VOLUME}/store", **(environ or {})}
    prelude = f'set -e\nbuilda() {{ {interpreter()[0]} -m builda "$@"; }}\n'
    return subprocess.run(
        [
            str(PODSIM),
            profile,
            *("--emptydir", VOLUME, "--bind", f"{given}:/given:ro", "--timeout", str(patience)),
            *("--bind", f"{REPOSITORY}:/app:ro", "--bind", f"{sysconfig.get_path('purelib')}:/packages:ro"),
            *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
            *options,
            *("--", "bash", "-c", prelude + script),
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=patience + 40,
    )


def sampled(names: Iterable[str], sample: Iterable[str]) -> list[ParameterSet]:
    """The pods as parameters of a test; those not in the sample are for `make test-long`."""
    chosen = frozenset(sample)
    return [pytest.param(name, marks=() if name in chosen else pytest.mark.long) for name in names]
