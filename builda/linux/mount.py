"""Mounts as data, and the kernel calls that perform them.

The store describes mounts; only isolation and the builder perform them.
"""

from __future__ import annotations

import errno
import os

from builda.linux import detached
from builda.linux import syscalls as sys_
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Mount(NamedTuple):
    """One mount(2): `type` is overlay, fuse-overlayfs, bind, rbind, tmpfs, proc, sysfs, devpts, mqueue, cgroup2 …

    For overlays `lower` lists the lower directories, topmost first; `options` are the rest, `key` or `key=value`.
    """

    type: str
    source: str
    target: str  # inside what is being mounted; "" or "/" for the root
    options: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()


_OF_UPPER = ("upperdir=", "workdir=", "volatile")


def over_upper(mount: Mount) -> Mount:
    """A read-only overlay of the same tree, with the upper directory as the topmost lower one.

    It may exist beside the writer's mount.
    """
    upper = tuple(word.partition("=")[2] for word in mount.options if word.startswith("upperdir="))
    options = tuple(word for word in mount.options if not word.startswith(_OF_UPPER) and word not in ("ro", "rw"))
    return mount._replace(options=("ro", *options), lower=(*upper, *mount.lower))


def clone_tree(mounts: tuple[Mount, ...]) -> int:
    """A directory descriptor of a detached mount of the tree; the first mount is its root, the others lie in it.

    It is attached nowhere, so no process reaches it by a path. The mount ends when the descriptor is closed or this
    process ends. A tree that is one directory needs no mount, and no right to make one.
    """
    if len(mounts) == 1 and mounts[0].type == "bind":
        return os.open(mounts[0].source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    first, *others = mounts
    fd = detached_tree((_without_devices(first), *others))
    try:  # the mount's own descriptor is an O_PATH one, which cannot list the directory
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    finally:
        os.close(fd)


def _without_devices(mount: Mount) -> Mount:
    """The mount with nodev: a device node may replace a file between builda's look at it and its open."""
    return mount._replace(options=(*mount.options, "nodev"))


def mounted(mounts: tuple[Mount, ...]) -> AbstractContextManager[int]:
    """`clone_tree`, for the time of a `with` block."""
    from contextlib import contextmanager

    @contextmanager
    def opened() -> Iterator[int]:
        if len(mounts) == 1 and mounts[0].type == detached.FUSE:
            from builda.linux.fuse import served

            with served(mounts[0].lower, _without_devices(mounts[0]).options) as mount:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
                try:
                    yield fd
                finally:
                    os.close(fd)
            return
        fd = clone_tree(mounts)
        try:
            yield fd
        finally:
            os.close(fd)

    return opened()


def attach(mounts: tuple[Mount, ...], path: str | os.PathLike[str]) -> None:
    """Mount the tree described at `path`, an existing directory, where it stays until `detach`."""
    fd = detached_tree(mounts)
    try:
        sys_.move_mount(fd, "", sys_.AT_FDCWD, os.fspath(path), sys_.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(fd)


def detach(path: str | os.PathLike[str]) -> None:
    """Unmount `path` lazily (MNT_DETACH): processes that use the mount may finish. No error if nothing is mounted."""
    try:
        sys_.umount2(os.fspath(path), sys_.MNT_DETACH | sys_.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def is_mounted(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a mount point in this process's mount namespace; False if it does not exist."""
    text = os.fspath(path)
    try:
        here = _mount_id(text)
        above = _mount_id(os.path.dirname(os.path.abspath(text)))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return here != above


def detached_tree(mounts: tuple[Mount, ...]) -> int:
    """An O_PATH descriptor of a detached mount of the tree, for move_mount(2)."""
    first, *others = mounts
    if not others:
        try:
            return _clone(first)
        except detached.NoLowerPlus:
            pass
    return _in_private_namespace(lambda: _assemble(first, tuple(others)))


def _clone(mount: Mount) -> int:
    """`detached.clone`, also for mounts that fuse-overlayfs serves for as long as they are used."""
    if mount.type == detached.FUSE:
        from builda.linux.fuse import left_alone

        return left_alone(mount.lower, detached.split_part(mount.options)[1])
    return detached.clone(mount)


def _mount_id(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            return next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def _in_private_namespace(work: Callable[[], int]) -> int:
    """Call `work` in a thread with its own mount namespace and current directory, which end with the thread."""
    from concurrent.futures import ThreadPoolExecutor

    def enter() -> None:
        sys_.unshare(sys_.CLONE_NEWNS)
        sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(enter).result()
        return pool.submit(work).result()


def _assemble(first: Mount, others: tuple[Mount, ...]) -> int:
    """Build the tree at /proc of this (private) namespace and return a detached copy of it."""
    root = _attach_root(first)
    try:
        for mount in others:
            target = sys_.openat2(root, mount.target.lstrip("/") or ".", os.O_PATH)
            try:
                fd = _clone(mount)
                try:
                    flags = sys_.MOVE_MOUNT_F_EMPTY_PATH | sys_.MOVE_MOUNT_T_EMPTY_PATH
                    sys_.move_mount(fd, "", target, "", flags)
                finally:
                    os.close(fd)
            finally:
                os.close(target)
        flags = sys_.OPEN_TREE_CLONE | sys_.AT_RECURSIVE | sys_.AT_EMPTY_PATH
        return sys_.open_tree(root, "", flags)
    finally:
        os.close(root)


def _attach_root(mount: Mount) -> int:
    """Attach the root of the tree at /proc; a descriptor of it. Overlays of old kernels need mount(2)."""
    os.chdir("/proc/self/fd")
    try:
        fd = _clone(mount)
    except detached.NoLowerPlus:
        return mount_overlay_page(mount)
    sys_.move_mount(fd, "", sys_.AT_FDCWD, "/proc", sys_.MOVE_MOUNT_F_EMPTY_PATH)
    return fd


def mount_overlay_page(mount: Mount) -> int:
    """Mount an overlay by mount(2) at /proc of this (private) namespace; an O_PATH descriptor of it."""
    detached.mount_by_page(mount.lower, mount.options, "/proc")
    return os.open("/proc", os.O_PATH | os.O_DIRECTORY)
