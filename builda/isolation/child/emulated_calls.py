"""The system calls that a supervisor of a command with one id answers: their numbers, and when they are handed over."""

from __future__ import annotations

import errno

from builda.isolation.child.bpf import HANDING_OVER, Catch, Condition, program
from builda.isolation.emulated.idcalls import CALLS, PRCTL

_O_CREAT, _O_TMPFILE = 0o100, 0o20000000
_SET_ID = 0o6000
_SOL_SOCKET, _SO_PEERCRED = 1, 17

_X86_64 = {
    "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
    "setuid": 105, "setgid": 106, "setreuid": 113, "setregid": 114, "getgroups": 115, "setgroups": 116,
    "setresuid": 117, "getresuid": 118, "setresgid": 119, "getresgid": 120, "setfsuid": 122, "setfsgid": 123,
    "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "capget": 125, "capset": 126, "prctl": 157,
    "mknod": 133, "mknodat": 259, "mkdir": 83, "mkdirat": 258, "symlink": 88, "symlinkat": 266,
    "open": 2, "openat": 257, "openat2": 437, "creat": 85, "rename": 82, "renameat": 264, "renameat2": 316,
    "stat": 4, "fstat": 5, "lstat": 6, "newfstatat": 262, "statx": 332,
    "access": 21, "faccessat": 269, "faccessat2": 439, "execve": 59, "execveat": 322, "chroot": 161,
    "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "getxattr": 191, "lgetxattr": 192,
    "fgetxattr": 193, "listxattr": 194, "llistxattr": 195, "flistxattr": 196,
    "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "link": 86, "linkat": 265, "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452,
    "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466,
    "bind": 49, "getsockopt": 55, "sendmsg": 46, "sendmmsg": 307, "io_uring_setup": 425,
}  # fmt: skip
_AARCH64 = {
    "fchown": 55, "fchownat": 54,
    "setuid": 146, "setgid": 144, "setreuid": 145, "setregid": 143, "getgroups": 158, "setgroups": 159,
    "setresuid": 147, "getresuid": 148, "setresgid": 149, "getresgid": 150, "setfsuid": 151, "setfsgid": 152,
    "getuid": 174, "getgid": 176, "geteuid": 175, "getegid": 177, "capget": 90, "capset": 91, "prctl": 167,
    "mknodat": 33, "mkdirat": 34, "symlinkat": 36, "openat": 56, "openat2": 437, "renameat": 38, "renameat2": 276,
    "fstat": 80, "newfstatat": 79, "statx": 291,
    "faccessat": 48, "faccessat2": 439, "execve": 221, "execveat": 281, "chroot": 51,
    "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "getxattr": 8, "lgetxattr": 9,
    "fgetxattr": 10, "listxattr": 11, "llistxattr": 12, "flistxattr": 13,
    "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
    "linkat": 37, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452,
    "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466,
    "bind": 200, "getsockopt": 209, "sendmsg": 211, "sendmmsg": 269, "io_uring_setup": 425,
}  # fmt: skip
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_… by machine."""
NUMBERS = {"x86_64": _X86_64, "aarch64": _AARCH64}
"""The numbers of the calls by machine."""

_CONDITIONS = {
    "open": (Condition(1, "any", (_O_CREAT | _O_TMPFILE,)),),
    "openat": (Condition(2, "any", (_O_CREAT | _O_TMPFILE,)),),
    "chmod": (Condition(1, "any", (_SET_ID,)),),
    "fchmod": (Condition(1, "any", (_SET_ID,)),),
    "fchmodat": (Condition(2, "any", (_SET_ID,)),),
    "fchmodat2": (Condition(2, "any", (_SET_ID,)),),
    "prctl": (Condition(0, "in", tuple(PRCTL)),),
    "sendmsg": (Condition(2, "masked", (0,), HANDING_OVER),),
    "getsockopt": (Condition(1, "in", (_SOL_SOCKET,)), Condition(2, "in", (_SO_PEERCRED,))),
}
# The operations of io_uring pass no filter; the others would show and change what is kept aside (Linux 6.13).
_ERRORS = dict.fromkeys(
    ("io_uring_setup", "setxattrat", "getxattrat", "listxattrat", "removexattrat"),
    errno.ENOSYS,
)


def filter_program(machine: str) -> bytes:
    """The filter that hands over what `emulator` answers. KeyError for a machine whose numbers are not known."""
    rows = NUMBERS[machine].items()
    catches = tuple(Catch(number, _CONDITIONS.get(name, ()), _ERRORS.get(name, 0)) for name, number in rows)
    return program(ARCHITECTURES[machine], catches)


IDENTITY = frozenset(CALLS)
"""The calls that `emulated.idcalls` answers."""
