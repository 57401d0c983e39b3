"""Limits of memory and processor time for a run: each run with limits gets a cgroup (version 2) of its own.

The cgroup's name holds the identity of the builda process that made it. If that process is killed, the next run with
limits sees that it is gone and removes the cgroup.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager, suppress

from builda.errors import InvalidValue, IsolationUnavailable
from builda.linux import procfs
from builda.linux.process import is_alive, process_identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PREFIX = "builda-"
_HINT = "limits need a cgroup v2 hierarchy that this process may write; leave out the --memory and --cpu options here"


@contextmanager
def limited(resources: Mapping[str, int | str], parent: str | None) -> Iterator[str]:
    """The directory of a new cgroup with these limits, below `parent` (a path in the hierarchy) if given.

    IsolationUnavailable if a limit cannot be enforced: no limit is ever ignored. The cgroup is removed after the block.
    """
    files = cgroup_files(resources)
    mount = next(procfs.mounts("cgroup2"), None)
    if mount is None:
        raise IsolationUnavailable("no cgroup v2 hierarchy is mounted", hint=_HINT)
    needed = frozenset(name.split(".")[0] for name, _ in files)
    base = _base(mount.point, needed, parent)
    _sweep(base)
    pid, start = process_identity()
    path = os.path.join(base, f"{_PREFIX}{pid}-{start}-{os.urandom(4).hex()}")
    try:
        os.mkdir(path)
    except OSError as error:
        raise IsolationUnavailable(f"cannot make a cgroup: {path}: {error.strerror}", hint=_HINT) from error
    try:
        for name, value in files:
            _write_limit(path, name, value)
        yield path
    finally:
        with suppress(OSError):  # EBUSY while the kernel ends the last process: the next sweep removes it
            os.rmdir(path)


def cgroup_files(resources: Mapping[str, int | str]) -> tuple[tuple[str, str], ...]:
    """Pairs of a file of the cgroup and the text to write to it, for limits named as in `RunOptions`.

    cgroup version 2 has other numbers than Docker: shares (2 to 262144) become a weight (1 to 10000), and the limit on
    memory and swap together becomes one on swap alone. InvalidValue for limits that contradict each other.
    """
    known = {"memory", "memory_swap", "cpu_period", "cpu_quota", "cpu_shares", "cpuset_cpus", "cpuset_mems"}
    if unknown := sorted(set(resources) - known):
        raise InvalidValue(f"no such resource: {unknown[0]}")
    files = []
    memory = _number(resources, "memory")
    if memory:
        files.append(("memory.max", _limit(memory)))
    if swap := _number(resources, "memory_swap"):
        if swap > 0 and (memory or 0) <= 0:
            raise InvalidValue(f"a limit on memory and swap needs one on memory: {swap}")
        if 0 < swap < (memory or 0):
            raise InvalidValue(f"the limit on memory and swap is below that on memory: {swap}")
        files.append(("memory.swap.max", _limit(swap) if swap < 0 else str(swap - (memory or 0))))
    quota, period = _number(resources, "cpu_quota"), _number(resources, "cpu_period")
    if quota or period:
        files.append(("cpu.max", f"{_limit(quota or -1)} {period or 100_000}"))
    if shares := _number(resources, "cpu_shares"):
        files.append(("cpu.weight", str(1 + (max(2, min(shares, 262_144)) - 2) * 9_999 // 262_142)))
    for key, name in (("cpuset_cpus", "cpuset.cpus"), ("cpuset_mems", "cpuset.mems")):
        if value := str(resources.get(key) or ""):
            files.append((name, value))
    return tuple(files)


def _number(resources: Mapping[str, int | str], key: str) -> int:
    return int(resources.get(key) or 0)


def _limit(value: int) -> str:
    return "max" if value < 0 else str(value)


def _base(mount_point: str, needed: frozenset[str], parent: str | None) -> str:
    """The directory for the new cgroup: `parent` if given, else the nearest of this process's cgroup and those above
    it that can give its children the controllers `needed`."""
    if parent is not None:
        candidates = [os.path.join(mount_point, parent.strip("/"))]
        with suppress(OSError):
            os.makedirs(candidates[0], exist_ok=True)
    else:
        own = procfs.cgroups().get(procfs.VERSION_2, "/")
        candidates = [os.path.normpath(mount_point + own)]
        while candidates[-1] != mount_point:
            candidates.append(os.path.dirname(candidates[-1]))
    for path in candidates:
        if os.access(path, os.W_OK) and _enable(path, needed):
            return path
    missing = ", ".join(sorted(needed)) or "a writable cgroup"
    raise IsolationUnavailable(f"limits cannot be applied, cgroup v2 lacks: {missing}", hint=_HINT)


def _enable(path: str, needed: frozenset[str]) -> bool:
    """Give children of this cgroup the controllers; False if the kernel refuses."""
    control = os.path.join(path, "cgroup.subtree_control")
    try:
        with open(control, encoding="ascii") as file:
            missing = needed - set(file.read().split())
        if missing:
            with open(control, "w", encoding="ascii") as file:
                file.write(" ".join(f"+{name}" for name in sorted(missing)))
    except OSError:  # EBUSY: it has processes of its own; ENOENT, EINVAL: no such controller here
        return False
    return True


def _write_limit(path: str, name: str, value: str) -> None:
    try:
        with open(os.path.join(path, name), "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        raise IsolationUnavailable(f"cannot set {name} to {value}: {error.strerror}", hint=_HINT) from error


def _sweep(base: str) -> None:
    """Remove the cgroups of builda processes that have ended."""
    for name in os.listdir(base):
        owner = re.fullmatch(_PREFIX + r"(\d+)-(\d+)-[0-9a-f]+", name)
        if owner and not is_alive(int(owner[1]), int(owner[2])):
            with suppress(OSError):  # another builda removed it first
                os.rmdir(os.path.join(base, name))
