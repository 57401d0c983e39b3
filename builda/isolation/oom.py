"""Whether the kernel killed something of a command for lack of memory: its cgroup counts that.

Both hierarchies are read, version 2 (memory.events) and 1 (memory.oom_control). Where neither is in sight nothing is
said: a signal alone does not tell who sent it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from builda.linux import procfs

_NO_LIMIT = 1 << 60
"""Version 1 writes the largest number of pages where there is no limit."""


class _Cgroup(NamedTuple):
    """A cgroup with memory accounting; `top` is where its hierarchy is mounted."""

    path: str
    top: str
    counter: str
    limit: str


class Kills:
    """The count of kills in a cgroup (None: the caller's own) from now on."""

    def __init__(self, cgroup: str | None) -> None:
        self._cgroup = _own() if cgroup is None else _version_2(cgroup, cgroup)
        self._before = self._count()

    def happened(self) -> bool:
        """Whether there was one since this was made."""
        return self._count() > self._before

    def way_out(self) -> str:
        """What to do about it, with the limit if one is set."""
        found = self._limit()
        if found is None:
            return "the machine has too little memory; --jobs and the command's own parallelism need less when lower"
        return f"the limit of its cgroup is {found >> 20} MiB: raise it (--memory, or the limit of the pod)"

    def _count(self) -> int:
        if self._cgroup is None:
            return 0
        for line in _read(os.path.join(self._cgroup.path, self._cgroup.counter)).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0

    def _limit(self) -> int | None:
        """The lowest limit of the cgroup and those above it."""
        if self._cgroup is None:
            return None
        found: list[int] = []
        path = self._cgroup.path
        while True:
            text = _read(os.path.join(path, self._cgroup.limit)).strip()
            found += [int(text)] if text.isdigit() and int(text) < _NO_LIMIT else []
            if path == self._cgroup.top or path == "/":
                return min(found, default=None)
            path = os.path.dirname(path)


def described(status: int) -> str:
    """How a command ended of which something was killed."""
    if status == 137:
        return "command was killed for lack of memory"
    return f"command failed with exit status {status}, and something it ran was killed for lack of memory"


def _version_2(path: str, top: str) -> _Cgroup:
    return _Cgroup(path, top, "memory.events", "memory.max")


def _own() -> _Cgroup | None:
    """The cgroup of this process, as far as it is mounted."""
    own = procfs.cgroups()
    found: _Cgroup | None = None
    for mount in procfs.mounts("cgroup"):
        if mount.kind == "cgroup" and "memory" in mount.options and "memory" in own:
            path = procfs.shown_cgroup(mount, own["memory"])
            return _Cgroup(path, mount.point, "memory.oom_control", "memory.limit_in_bytes")
        if mount.kind == "cgroup2" and procfs.VERSION_2 in own and found is None:
            found = _version_2(procfs.shown_cgroup(mount, own[procfs.VERSION_2]), mount.point)
    return found


def _read(path: str) -> str:
    with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
    return ""
