"""What `builda info` tells of a mode's place, each tried by one function in a child that has its own mounts there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builda.linux import detached
from builda.linux import syscalls as sys_

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def overlay_in(place: str, *options: str) -> None:
    """Mount an overlay whose directories are made in `place`, attached nowhere, and make a directory opaque in it."""
    for name in ("lower", "upper", "work", "lower/directory"):
        os.mkdir(f"{place}/{name}")
    settings = (f"upperdir={place}/upper", f"workdir={place}/work", *options)
    mount = detached.clone_overlay((f"{place}/lower",), settings)
    try:
        os.rmdir("directory", dir_fd=mount)
        os.mkdir("directory", dir_fd=mount)  # opaque now, which takes an extended attribute
    finally:
        os.close(mount)


def _overlay(*options: str) -> None:
    sys_.mount("tmpfs", "/proc", "tmpfs", 0)
    overlay_in("/proc", *options)


def _fresh(kind: str, namespace: int) -> None:
    sys_.unshare(namespace)
    pid = os.fork()  # a pid namespace is for children
    if pid == 0:
        try:
            detached.clone_filesystem(kind, kind, ("nosuid", "nodev", "noexec"))
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number:
        raise OSError(number, os.strerror(number))


def _pivot_root() -> None:
    sys_.mount("tmpfs", "/proc", "tmpfs", 0)
    os.chdir("/proc")
    sys_.pivot_root(".", ".")


def _device_node() -> None:
    import stat

    sys_.mount("tmpfs", "/proc", "tmpfs", 0)
    os.mknod("/proc/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.close(os.open("/proc/null", os.O_WRONLY))


def _fuse() -> None:
    fd = os.open("/dev/fuse", os.O_RDWR)
    sys_.mount("probe", "/proc", "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")


def _filter() -> None:
    allow_all = b"\x06\0\0\0\0\0\xff\x7f"
    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    sys_.set_seccomp_filter(allow_all)


ALL: Mapping[str, Callable[[], None]] = {
    "overlay": _overlay,
    "overlay userxattr": lambda: _overlay("userxattr"),
    "fuse": _fuse,
    "pid namespace": lambda: sys_.unshare(sys_.CLONE_NEWPID),
    "network namespace": lambda: sys_.unshare(sys_.CLONE_NEWNET),
    "fresh proc": lambda: _fresh("proc", sys_.CLONE_NEWPID),
    "fresh sysfs": lambda: _fresh("sysfs", sys_.CLONE_NEWNET),
    "pivot_root": _pivot_root,
    "device nodes": _device_node,
    "seccomp filter": _filter,
}
