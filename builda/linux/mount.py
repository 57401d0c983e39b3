"""Mounts as data, and the kernel calls that perform them.

The store describes mounts; only isolation and the builder perform them.
"""

from __future__ import annotations

from typing import NamedTuple


class Mount(NamedTuple):
    """One mount(2): `type` is overlay, bind, rbind, tmpfs, proc, sysfs, devpts, mqueue, cgroup2 …

    For an overlay `lower` lists the lower directories, topmost first; `options` are the rest, `key` or `key=value`.
    """

    type: str
    source: str
    target: str  # inside what is being mounted; "" or "/" for the root
    options: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
