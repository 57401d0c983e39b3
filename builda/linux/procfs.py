"""What /proc says of this process's cgroups and mounts (proc(5), cgroups(7)): the one parser of each file.

Missing files are empty ones: a kernel without cgroups has no /proc/self/cgroup, and a pod may hide /proc.
"""

from __future__ import annotations

import os
from contextlib import suppress

from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION_2 = ""
"""The key of the version 2 hierarchy in `cgroups`, which names no controllers in /proc/self/cgroup."""


class MountLine(NamedTuple):
    """One line of mountinfo; paths are decoded."""

    device: str  # MAJOR:MINOR of the file system
    root: str  # the directory of the file system that is mounted
    point: str  # where it is mounted
    flags: tuple[str, ...]  # of the mount: ro, nosuid …
    kind: str  # type of the file system
    options: tuple[str, ...]  # of the file system; for cgroup version 1 its controllers


def mounts(kind: str = "", proc: str = "/proc") -> Iterator[MountLine]:
    """The mounts that this process sees, those of types that begin with `kind`, in the order they were made."""
    for line in contents(f"{proc}/self/mountinfo").splitlines():
        before, dash, after = line.partition(f" - {kind}")
        if dash:
            _, _, device, root, point, flags, *_ = before.split(" ")
            name, _, options = (kind + after).split(" ")[:3]
            yield MountLine(device, _decoded(root), _decoded(point), _words(flags), name, _words(options))


def cgroups(proc: str = "/proc") -> dict[str, str]:
    """The path of this process's cgroup in each hierarchy, by controller of version 1, and VERSION_2."""
    rows = (line.split(":", 2) for line in contents(f"{proc}/self/cgroup").splitlines())
    return {name: path for _, names, path in rows for name in names.split(",")}


def shown_cgroup(mount: MountLine, path: str) -> str:
    """The directory of the cgroup `path` below a mount of its hierarchy.

    The mount point itself if the cgroup lies outside what the mount shows, as in containers without a cgroup namespace.
    """
    below = path.removeprefix(mount.root) if mount.root != "/" else path
    full = os.path.normpath(f"{mount.point}/{below}")
    return full if os.path.isdir(full) else mount.point


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _decoded(text: str) -> str:
    """A path of mountinfo: space, tab, newline and backslash are written in octal there."""
    for code in ("\\040", "\\011", "\\012", "\\134") if "\\" in text else ():
        text = text.replace(code, chr(int(code[1:], 8)))
    return text


def contents(path: str) -> str:
    """The text of a file of the kernel's; empty if it is missing or cannot be read."""
    with suppress(OSError), open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
    return ""
