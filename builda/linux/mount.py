"""Mounts as data, and the kernel calls that perform them.

The store describes mounts; only isolation and the builder perform them. A root file system is mounted *detached*
wherever that serves: the mount exists as a descriptor, needs no mount namespace and dies with the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def mounted(mounts: tuple[Mount, ...]) -> Iterator[int]:
    """A descriptor of the root directory of `mounts`, detached; gone when the block ends."""
    fd = clone_tree(mounts)
    try:
        yield fd
    finally:
        os.close(fd)


def clone_tree(mounts: tuple[Mount, ...]) -> int:
    """A descriptor of a detached mount of the root file system that `mounts` describe (one overlay or bind)."""
    (root,) = mounts
    tree = _overlay(root) if root.type == "overlay" else _bind(root)
    try:  # open_tree and fsmount give O_PATH descriptors, which cannot list directories
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree)
    finally:
        os.close(tree)


def attach(mounts: tuple[Mount, ...], path: str) -> None:
    """Mount the root file system at `path` in this mount namespace, until `detach`."""
    from builda.linux import syscalls

    tree = detached(mounts)
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.move_mount(tree, target)
    finally:
        os.close(target)
        os.close(tree)


def detach(path: str) -> None:
    """Unmount what is mounted at `path`; what still uses it keeps it until it ends. No mount there is no error."""
    from builda.linux import syscalls

    try:
        syscalls.umount(path, syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno not in (2, 22):  # ENOENT, EINVAL: not there, not a mount
            raise


def is_mounted(path: str) -> bool:
    """Whether something is mounted at `path`."""
    try:
        return os.path.ismount(path)
    except OSError:
        return False


def detached(mounts: tuple[Mount, ...]) -> int:
    """An O_PATH descriptor of the detached mount itself, for move_mount(2)."""
    (root,) = mounts
    return _overlay(root) if root.type == "overlay" else _bind(root)


def _overlay(mount: Mount) -> int:
    """An overlay by the new mount API: its layers are not limited by a page of options.

    Kernels before 6.5 know only `lowerdir` as one string; they get it whole.
    """
    from builda.linux import syscalls

    context = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "source", "overlay")
        _set_lower(context, mount.lower)
        for option in mount.options:
            key, equals, value = option.partition("=")
            if key == "ro":
                continue
            command = syscalls.FSCONFIG_SET_STRING if equals else syscalls.FSCONFIG_SET_FLAG
            syscalls.fsconfig(context, command, key, value if equals else None)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, syscalls.MOUNT_ATTR_RDONLY if "ro" in mount.options else 0)
    finally:
        os.close(context)


def _set_lower(context: int, lower: tuple[str, ...]) -> None:
    from builda.linux import syscalls

    try:
        for directory in lower:
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "lowerdir+", directory)
    except OSError as error:
        if error.errno != 22:
            raise
        escaped = (directory.replace("\\", "\\\\").replace(":", "\\:") for directory in lower)
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, "lowerdir", ":".join(escaped))


def _bind(mount: Mount) -> int:
    from builda.linux import syscalls

    flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
    if mount.type == "rbind":
        flags |= syscalls.AT_RECURSIVE
    tree = syscalls.open_tree(-100, mount.source, flags)
    if "ro" in mount.options:
        syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    return tree
