"""Whether another process can answer a process's system calls (seccomp_unotify(2)): what this kernel lacks for it."""

from __future__ import annotations

import ctypes
import os

from builda.linux import syscalls as sys_

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_GET_ACTION_AVAIL, _RET_USER_NOTIF = 2, 0x7FC00000


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
    if _yama() == "3":
        return "kernel.yama.ptrace_scope is 3: no process may read the memory of another"
    return None


def _yama() -> str:
    try:
        with open(_YAMA, encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # a kernel without Yama
        return "0"
