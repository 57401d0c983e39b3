"""The free memory: of the machine, and within the limits of this process's cgroups."""

from __future__ import annotations

import os

from builda.linux import procfs

_UNLIMITED = 1 << 60
"""Bytes. cgroup version 1 says "no limit" by a number above this one."""


def available(proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> int:
    """Bytes that this process can still use: the least that the machine and its cgroups (version 1 or 2) leave."""
    with open(f"{proc}/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    own = procfs.cgroups(proc)
    if procfs.VERSION_2 in own:
        free = min(free, _left(cgroups, own[procfs.VERSION_2], "memory.max", "memory.current"))
    if "memory" in own:
        names = "memory.limit_in_bytes", "memory.usage_in_bytes"
        free = min(free, _left(f"{cgroups}/memory", own["memory"], *names))
    return free


def _left(top: str, path: str, limit: str, usage: str) -> int:
    """Bytes that the cgroup and the visible ones above it leave. Inactive page cache counts as free."""
    left = _UNLIMITED
    while True:
        directory = f"{top}{path.rstrip('/')}"
        most, used = _number(f"{directory}/{limit}"), _number(f"{directory}/{usage}")
        if most is not None and used is not None and most < _UNLIMITED:
            left = min(left, max(0, most - used + _inactive(f"{directory}/memory.stat")))
        if path in ("", "/"):
            return left
        path = os.path.dirname(path)


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
    except OSError:  # no memory controller
        return None
    return None if text == "max" else int(text)


def _inactive(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            rows = dict(line.split() for line in file)
    except OSError:
        return 0
    return int(rows.get("total_inactive_file", rows.get("inactive_file", "0")))
