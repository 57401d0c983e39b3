"""Whether another process can answer a process's system calls (seccomp_unotify(2)): what this kernel lacks for it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from builda.linux import syscalls as sys_

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_GET_ACTION_AVAIL, _RET_USER_NOTIF = 2, 0x7FC00000
_ADDFD = 0x40182103  # SECCOMP_IOCTL_NOTIF_ADDFD, Linux 5.9


def notifications_refused() -> str | None:
    """Why no process can answer another's calls here; None if one can."""
    machine = os.uname().machine
    number = sys_.SYS_SECCOMP.get(machine)
    if number is None:
        return f"builda does not know the system calls of {machine}"
    try:  # Linux 5.5 can also let a call go on, which no other question finds out
        sys_.call("seccomp", number, _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(_RET_USER_NOTIF)))
    except OSError as error:
        return f"the kernel hands no calls over: {error.strerror}"
    if yama() == 3:
        return "kernel.yama.ptrace_scope is 3: no process may read the memory of another"
    return None


def injection_refused(listener: int) -> int | None:
    """The errno of a kernel that can put no descriptor into a process whose call waits; None for one that can."""
    try:
        fcntl.ioctl(listener, _ADDFD, struct.pack("=QIIII", 0, 0, listener, 0, 0))
    except OSError as error:
        return None if error.errno == errno.ENOENT else error.errno  # ENOENT: no call waits
    return None


def yama() -> int:
    """The value of kernel.yama.ptrace_scope; 0 for a kernel without Yama."""
    try:
        with open(_YAMA, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
