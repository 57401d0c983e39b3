"""Whether the kernel killed a process of a command because memory ran out: the command's cgroup counts these kills.

Both hierarchies are read, version 2 (memory.events) and 1 (memory.oom_control). Where neither is mounted there is no
answer: exit status 137 alone does not tell whether the kernel or another process sent SIGKILL.
"""

from __future__ import annotations

import os

from builda.linux import procfs
from builda.values import NamedTuple

_NO_LIMIT = 1 << 60
"""Bytes. cgroup version 1 says "no limit" by the largest number of pages, which lies above."""


class _Cgroup(NamedTuple):
    """A cgroup with memory accounting. `top` is the mount point of its hierarchy, the others are names of its files."""

    path: str
    top: str
    counter: str
    limit: str


class Kills:
    """Counts the kills in a cgroup (None: the caller's own) from now on."""

    def __init__(self, cgroup: str | None) -> None:
        self._cgroup = _own() if cgroup is None else _version_2(cgroup, cgroup)
        self._before = self._count()

    def happened(self) -> bool:
        """Whether the kernel killed a process since this object was made."""
        return self._count() > self._before

    def way_out(self) -> str:
        """The hint for the user. It names the limit of the cgroup if there is one."""
        found = self._limit()
        if found is None:
            return "the machine has too little memory; --jobs and the command's own parallelism need less when lower"
        return f"the limit of its cgroup is {found >> 20} MiB: raise it (--memory, or the limit of the pod)"

    def _count(self) -> int:
        if self._cgroup is None:
            return 0
        for line in procfs.contents(os.path.join(self._cgroup.path, self._cgroup.counter)).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
        return 0

    def _limit(self) -> int | None:
        """The lowest limit of the cgroup and of those above it, in bytes; None if there is none."""
        if self._cgroup is None:
            return None
        found: list[int] = []
        path = self._cgroup.path
        while True:
            text = procfs.contents(os.path.join(path, self._cgroup.limit)).strip()
            found += [int(text)] if text.isdigit() and int(text) < _NO_LIMIT else []
            if path == self._cgroup.top or path == "/":
                return min(found, default=None)
            path = os.path.dirname(path)


def described(status: int) -> str:
    """The error message for a command that ended with `status` after such a kill."""
    if status == 137:
        return "command was killed for lack of memory"
    return f"command failed with exit status {status}, and something it ran was killed for lack of memory"


def _version_2(path: str, top: str) -> _Cgroup:
    return _Cgroup(path, top, "memory.events", "memory.max")


def _own() -> _Cgroup | None:
    """The cgroup of this process; None if its hierarchy is not mounted."""
    own = procfs.cgroups()
    found: _Cgroup | None = None
    for mount in procfs.mounts("cgroup"):
        if mount.kind == "cgroup" and "memory" in mount.options and "memory" in own:
            path = procfs.shown_cgroup(mount, own["memory"])
            return _Cgroup(path, mount.point, "memory.oom_control", "memory.limit_in_bytes")
        if mount.kind == "cgroup2" and procfs.VERSION_2 in own and found is None:
            found = _version_2(procfs.shown_cgroup(mount, own[procfs.VERSION_2]), mount.point)
    return found
