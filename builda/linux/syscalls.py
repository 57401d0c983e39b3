"""System calls that Python 3.11 does not offer, each a function that calls, checks and raises OSError.

Standard library only: the child of a run imports this too. Numbers are those of the generic table, which x86_64 shares
from 424 on; the older calls differ by architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_STRICTATIME = 1 << 24
MNT_DETACH = 2

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

PR_SET_PDEATHSIG = 1
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_CHILD_SUBREAPER = 36

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_OPENAT2, _MOUNT_SETATTR = 437, 442
_PIVOT_ROOT, _CAPSET, _CAPGET, _SECCOMP, _KEYCTL = {
    "x86_64": (155, 126, 125, 317, 250),
    "aarch64": (41, 91, 90, 277, 219),
}.get(os.uname().machine, (41, 91, 90, 277, 219))

libc = ctypes.CDLL(None, use_errno=True)


def raise_errno(call: str, *what: Any) -> None:
    """Raise the OSError of a failed call, its text naming the call and its subject."""
    number = ctypes.get_errno()
    name = " ".join([call, *(os.fsdecode(item) if isinstance(item, bytes | str) else repr(item) for item in what)])
    raise OSError(number, f"{name}: {os.strerror(number)}")


def _bytes(path: str | bytes | None) -> bytes | None:
    return None if path is None else os.fsencode(path)


def _syscall(number: int, *args: Any) -> int:
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return int(libc.syscall(ctypes.c_long(number), *wide))


def unshare(flags: int) -> None:
    """unshare(2)."""
    if libc.unshare(flags) < 0:
        raise_errno("unshare", hex(flags))


def setns(fd: int, kind: int = 0) -> None:
    """setns(2)."""
    if libc.setns(fd, kind) < 0:
        raise_errno("setns", fd)


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    if libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data)) < 0:
        raise_errno("mount", kind or "bind", target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if libc.umount2(_bytes(target), flags) < 0:
        raise_errno("umount", target)


def pivot_root(new: str, put_old: str) -> None:
    """pivot_root(2)."""
    if _syscall(_PIVOT_ROOT, _bytes(new), _bytes(put_old)) < 0:
        raise_errno("pivot_root", new)


def openat2(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): a descriptor, close-on-exec."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd = _syscall(_OPENAT2, dir_fd, _bytes(path), how, len(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() != 11:  # EAGAIN: a rename raced with the resolution of ".."
            raise_errno("openat2", path)


def open_tree(dir_fd: int, path: str | bytes, flags: int) -> int:
    """open_tree(2)."""
    fd = _syscall(_OPEN_TREE, dir_fd, _bytes(path), flags)
    if fd < 0:
        raise_errno("open_tree", path)
    return fd


def move_mount(from_fd: int, to_fd: int, to_path: str | bytes = "") -> None:
    """move_mount(2) of the mount `from_fd` to `to_path` below `to_fd`, or onto `to_fd` itself."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    if _syscall(_MOVE_MOUNT, from_fd, b"", to_fd, _bytes(to_path), flags) < 0:
        raise_errno("move_mount", to_path or f"to descriptor {to_fd}")


def fsopen(kind: str) -> int:
    """fsopen(2)."""
    fd = _syscall(_FSOPEN, _bytes(kind), FSOPEN_CLOEXEC)
    if fd < 0:
        raise_errno("fsopen", kind)
    return fd


def fsconfig(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """fsconfig(2); the kernel's own message, if it left one, is in the error."""
    if _syscall(_FSCONFIG, fd, command, _bytes(key), _bytes(value), 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"fsconfig {key or 'create'}: {_message(fd) or os.strerror(number)}")


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2): a descriptor of a detached mount."""
    tree = _syscall(_FSMOUNT, fd, FSMOUNT_CLOEXEC, attributes)
    if tree < 0:
        raise_errno("fsmount", fd)
    return tree


def mount_setattr(
    fd: int, *, attr_set: int = 0, attr_clear: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """mount_setattr(2) of the mount that `fd` names."""
    attributes = struct.pack("=QQQQ", attr_set, attr_clear, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _syscall(_MOUNT_SETATTR, fd, b"", flags, attributes, len(attributes)) < 0:
        raise_errno("mount_setattr", fd)


def prctl(option: int, *args: int) -> int:
    """prctl(2)."""
    result = libc.prctl(option, *(ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4]))
    if result < 0:
        raise_errno("prctl", option)
    return int(result)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this thread, all 64 capabilities as bit masks."""
    header = struct.pack("=Ii", 0x20080522, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "=IIIIII",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    if _syscall(_CAPSET, header, data) < 0:
        raise_errno("capset")


def seccomp_filter(program: bytes) -> None:
    """Install a BPF program (struct sock_filter entries) for this thread; seccomp(2), SECCOMP_SET_MODE_FILTER."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    if _syscall(_SECCOMP, 1, 0, fprog) < 0:
        raise_errno("seccomp")


def join_session_keyring() -> None:
    """A new anonymous session keyring (keyctl(2), KEYCTL_JOIN_SESSION_KEYRING)."""
    if _syscall(_KEYCTL, 1, None) < 0:
        raise_errno("keyctl")


def _message(fd: int) -> str:
    """What the kernel says of a failed fsconfig, "e overlay: …" without its level."""
    try:
        return os.read(fd, 4096).decode(errors="replace").strip().removeprefix("e ")
    except OSError:  # ENODATA: it said nothing
        return ""
