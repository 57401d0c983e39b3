"""What `builda info` reports of a mode: each ability is tried by one function, in a child with mounts of its own."""

from __future__ import annotations

import errno
import os

from builda.linux import detached, fork, procfs
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
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

    def child() -> int:
        try:
            detached.clone_filesystem(kind, kind, ("nosuid", "nodev", "noexec"))
        except OSError as error:
            return error.errno or 1
        return 0

    pid = fork.start(child)  # a pid namespace is for children
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


_ALLOW_ALL = b"\x06\0\0\0\0\0\xff\x7f"


def _filter() -> None:
    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    sys_.set_seccomp_filter(_ALLOW_ALL)


def _listener() -> None:
    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    os.close(sys_.seccomp_listener(_ALLOW_ALL))


def _landlock() -> None:
    from builda.linux.landlock import confine_writes

    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    if not confine_writes(os.open("/", os.O_PATH)):
        raise OSError(errno.ENOSYS, "this kernel has none, or its first version")


def _ptrace() -> None:
    traceme = 0
    sys_.call("ptrace", sys_.SYS_PTRACE[os.uname().machine], traceme, 0, 0, 0)


def _cgroup() -> None:
    mine = procfs.cgroups().get(procfs.VERSION_2)
    if mine is None or not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        raise OSError(errno.ENOSYS, "there is no cgroup of version 2")
    made = f"/sys/fs/cgroup{mine.rstrip('/')}/builda-probe-{os.getpid()}"
    os.mkdir(made)
    os.rmdir(made)


def reflink(place: str) -> None:
    """Copy a file in `place` by sharing its blocks."""
    import tempfile

    from builda.linux.reflink import clone

    with tempfile.TemporaryFile(dir=place) as source, tempfile.TemporaryFile(dir=place) as copy:
        source.write(bytes(4096))
        source.flush()
        clone(source.fileno(), copy.fileno())


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
}

ANYWHERE: Mapping[str, Callable[[], None]] = {
    "seccomp filter": _filter,
    "seccomp listener": _listener,
    "landlock": _landlock,
    "ptrace": _ptrace,
    "cgroups": _cgroup,
}
"""What needs no mount."""
