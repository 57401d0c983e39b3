"""The system calls that mode `traced` catches: their numbers by architecture, and two filters as BPF programs.

The first filter hands calls to the supervisor, or refuses them; the second stops calls for the tracer. They are two so
that the command can send the listener of the first while sendmsg(2) is not yet stopped.
"""

from __future__ import annotations

import _struct
import errno
import os

_RULE = _struct.Struct("=HBBI")
_ALLOW, _TRACE, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FF00000, 0x7FC00000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_OF, _LEAVE = 0x20, 0x15, 0x35, 0x45, 0x06
_NAMESPACES = 0x7E020080  # CLONE_NEW…
_UNTRACED = 0x00800000  # CLONE_UNTRACED: no tracer would follow such a process
_O_PATH = os.O_PATH
_PR_SET_DUMPABLE = 4
_F_SETFD = 2
_SOL_SOCKET, _SO_PEERCRED = 1, 17
_AF_NETLINK, _NETLINK_AUDIT = 16, 9
_KILL_ALL = 0xFFFFFFFF
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20  # the first is a bit of MAP_SHARED_VALIDATE too
_FIRST_UNKNOWN = 463  # setxattrat: the first of the calls with paths that this module does not know

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_…

_X86_64 = """
open 2 stat 4 fstat 5 lstat 6 access 21 socket 41 sendto 44 sendmsg 46 connect 42 bind 49 getsockopt 55 clone 56
execve 59 kill 62 uname 63 truncate 76 getcwd 79 chdir 80 rename 82 mkdir 83 rmdir 84 creat 85 link 86 unlink 87
symlink 88 readlink 89 chmod 90 fchmod 91 chown 92 fchown 93 lchown 94 umask 95 ptrace 101 getuid 102 getgid 104
setuid 105 setgid 106 geteuid 107 getegid 108 setreuid 113 setregid 114 getgroups 115 setgroups 116 setresuid 117
getresuid 118 setresgid 119 getresgid 120 setfsuid 122 setfsgid 123 capget 125 capset 126 rt_sigqueueinfo 129
utime 132 mknod 133 uselib 134 statfs 137 fstatfs 138 pivot_root 155 prctl 157 chroot 161 acct 163 mount 165
umount2 166 swapon 167 swapoff 168 quotactl 179 setxattr 188 lsetxattr 189 fsetxattr 190 getxattr 191 lgetxattr 192
fgetxattr 193 listxattr 194 llistxattr 195 flistxattr 196 removexattr 197 lremovexattr 198 fremovexattr 199 tkill 200
tgkill 234 utimes 235 inotify_add_watch 254 openat 257 mkdirat 258 mknodat 259 fchownat 260 futimesat 261
newfstatat 262 unlinkat 263 renameat 264 linkat 265 symlinkat 266 readlinkat 267 fchmodat 268 faccessat 269
unshare 272 utimensat 280 rt_tgsigqueueinfo 297 fanotify_mark 301 prlimit64 302 name_to_handle_at 303
open_by_handle_at 304 sendmmsg 307 setns 308 process_vm_readv 310 process_vm_writev 311 renameat2 316 seccomp 317
fsync 74 fdatasync 75 sync_file_range 277 syncfs 306
execveat 322 userfaultfd 323 statx 332 mmap 9 getsockname 51 getpeername 52 sched_setaffinity 203
sched_getaffinity 204 recvmsg 47 close 3 dup2 33 dup3 292 fcntl 72
"""
_AARCH64 = """
getcwd 17 inotify_add_watch 27 mknodat 33 mkdirat 34 unlinkat 35 symlinkat 36 linkat 37 renameat 38 umount2 39
mount 40 pivot_root 41 statfs 43 fstatfs 44 truncate 45 faccessat 48 chdir 49 chroot 51 fchmod 52 fchmodat 53
fchownat 54 fchown 55 openat 56 quotactl 60 readlinkat 78 newfstatat 79 fstat 80 utimensat 88 rt_tgsigqueueinfo 240
acct 89 capget 90 capset 91 unshare 97 kill 129 tkill 130 tgkill 131 rt_sigqueueinfo 138 setregid 143 setgid 144
setreuid 145 setuid 146 setresuid 147 getresuid 148 setresgid 149 getresgid 150 setfsuid 151 setfsgid 152
getgroups 158 setgroups 159 uname 160 umask 166 prctl 167 getuid 174 geteuid 175 getgid 176 getegid 177 ptrace 117
bind 200 connect 203 sendto 206 getsockopt 209 sendmsg 211 clone 220 execve 221 swapon 224 swapoff 225
fanotify_mark 263 name_to_handle_at 264 open_by_handle_at 265 setns 268 sendmmsg 269 process_vm_readv 270
process_vm_writev 271 renameat2 276 seccomp 277 execveat 281 userfaultfd 282 prlimit64 261 statx 291 socket 198
setxattr 5 lsetxattr 6 fsetxattr 7 getxattr 8 lgetxattr 9 fgetxattr 10 listxattr 11 llistxattr 12 flistxattr 13
removexattr 14 lremovexattr 15 fremovexattr 16 mmap 222 getsockname 204 getpeername 205
sched_setaffinity 122 sched_getaffinity 123 recvmsg 212 close 57 dup3 24 fcntl 25
fsync 82 fdatasync 83 sync_file_range 84 syncfs 267
"""
_YOUNG = """
pidfd_send_signal 424 io_uring_setup 425 io_uring_enter 426 io_uring_register 427 open_tree 428 move_mount 429
fsopen 430 fspick 433 clone3 435 openat2 437 pidfd_getfd 438 faccessat2 439 mount_setattr 442 fchmodat2 452
close_range 436
"""


def _numbers(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


NUMBERS = {"x86_64": _numbers(_X86_64 + _YOUNG), "aarch64": _numbers(_AARCH64 + _YOUNG)}
"""The numbers of calls by machine (`uname -m`)."""

_IDS = """
getuid geteuid getgid getegid setuid setgid setreuid setregid setresuid setresgid getresuid getresgid setfsuid setfsgid
getgroups setgroups capget capset
""".split()
ANSWERED = (
    """
open creat openat openat2 stat lstat fstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd
mkdir mkdirat mknod mknodat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat chmod fchmod
fchmodat fchmodat2 chown lchown fchown fchownat truncate utime utimes futimesat utimensat statfs umask chroot
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr uname mmap sched_setaffinity sched_getaffinity
""".split()
    + _IDS
)
"""The calls that the supervisor answers."""
SYNCS = ("fsync", "fdatasync", "syncfs", "sync_file_range")
"""Those that it answers if files of the tree can be synced."""
STOPPED = "execve execveat chdir bind connect sendmsg sendmmsg inotify_add_watch getsockname getpeername".split()
"""The calls that get other arguments; also sendto with an address, and open and openat with O_PATH.

getsockname, getpeername, and getsockopt with SO_PEERCRED get other results.
"""
PRCTL_OPTIONS = (7, 8, 23, 24, 27, 28, 38, 39, 47)
"""Of prctl(2): the options about ids and capabilities, which the supervisor answers."""
_MISSING = (
    "pidfd_send_signal io_uring_setup io_uring_enter io_uring_register clone3 fsopen fspick userfaultfd uselib"
).split()
_FORBIDDEN = (
    "ptrace process_vm_readv process_vm_writev pidfd_getfd mount umount2 pivot_root swapon swapoff acct quotactl "
    "open_tree move_mount mount_setattr fanotify_mark setns open_by_handle_at"
).split()

Row = tuple[int, int, int, int]


def supervisor_filter(
    machine: str, protected: tuple[int, ...], channel: int | None = None, *, syncs: bool = False
) -> bytes:
    """The filter that hands calls to a supervisor, or with `channel` stops them for a tracer; also SYNCS with `syncs`.

    Processes of `protected` get no signal and no limit by their number. The descriptor `channel` can neither be closed
    nor replaced.
    """
    at = NUMBERS[machine]
    rows = _beginning(machine)
    if channel is not None:
        rows += _keeping(at, channel)
    rows += [(_AT_LEAST, 0, 1, _FIRST_UNKNOWN), (_LEAVE, 0, 0, _ERRNO | errno.ENOSYS)]
    for name in _MISSING:
        rows += _when(at, name, [_leave(_ERRNO | errno.ENOSYS)])
    for name in _FORBIDDEN:
        rows += _when(at, name, [_leave(_ERRNO | errno.EPERM)])
    rows += _when(at, "name_to_handle_at", [_leave(_ERRNO | errno.EOPNOTSUPP)])
    for name in ("clone", "unshare"):
        rows += _when(at, name, _if_any(0, _NAMESPACES | _UNTRACED, _ERRNO | errno.EPERM, _ALLOW))
    for name in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "prlimit64"):
        rows += _when(at, name, _unless_one_of(0, (*protected, _KILL_ALL), _ERRNO | errno.EPERM))
    # The kernel's audit asks for rights that root is only pretended to have; programs know kernels without it.
    audit = _if_both((0, _AF_NETLINK), (2, _NETLINK_AUDIT), _ERRNO | errno.EPROTONOSUPPORT, _ALLOW)
    rows += _when(at, "socket", audit)
    rows += _when(at, "prctl", _of_prctl())
    rows += _when(at, "mmap", _if_shared_file())
    rows += _when(at, "utimensat", _if_null(1, _ALLOW, _NOTIFY))
    rows += _when(at, "open", _if_any(1, _O_PATH, _ALLOW, _NOTIFY))
    rows += _when(at, "openat", _if_any(2, _O_PATH, _ALLOW, _NOTIFY))
    for name in (*ANSWERED, *(SYNCS if syncs else ())):
        if name not in ("mmap", "open", "openat", "utimensat"):
            rows += _when(at, name, [_leave(_NOTIFY)])
    if channel is not None:
        rows = [_leave(_TRACE) if row == _leave(_NOTIFY) else row for row in rows]
    return _packed([*rows, _leave(_ALLOW)])


def tracer_filter(machine: str) -> bytes:
    """The filter that stops calls for a tracer."""
    at = NUMBERS[machine]
    rows = _beginning(machine)
    for name in STOPPED:
        rows += _when(at, name, [_leave(_TRACE)])
    rows += _when(at, "sendto", _if_null(4, _ALLOW, _TRACE))
    rows += _when(at, "getsockopt", _if_both((1, _SOL_SOCKET), (2, _SO_PEERCRED), _TRACE, _ALLOW))
    rows += _when(at, "open", _if_any(1, _O_PATH, _TRACE, _ALLOW))
    rows += _when(at, "openat", _if_any(2, _O_PATH, _TRACE, _ALLOW))
    return _packed([*rows, _leave(_ALLOW)])


def _beginning(machine: str) -> list[Row]:
    """Refuse calls of another architecture (32-bit programs, x32), then load the number."""
    return [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        _leave(_ERRNO | errno.ENOSYS),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),
        _leave(_ERRNO | errno.ENOSYS),
    ]


def _when(at: dict[str, int], name: str, then: list[Row]) -> list[Row]:
    """`then`, which must end the program, for one call; nothing for a call that the architecture lacks."""
    return [(_EQUAL, 0, len(then), at[name]), *then] if name in at else []


def _leave(action: int) -> Row:
    return (_LEAVE, 0, 0, action)


def _load(argument: int, *, high: bool = False) -> Row:
    return (_LOAD, 0, 0, 16 + 8 * argument + (4 if high else 0))


def _if_any(argument: int, bits: int, then: int, otherwise: int) -> list[Row]:
    return [_load(argument), (_ANY_OF, 0, 1, bits), _leave(then), _leave(otherwise)]


def _if_null(argument: int, then: int, otherwise: int) -> list[Row]:
    high = [_load(argument, high=True), (_EQUAL, 0, 1, 0), _leave(then)]
    return [_load(argument), (_EQUAL, 0, 3, 0), *high, _leave(otherwise)]


def _if_both(one: tuple[int, int], other: tuple[int, int], then: int, otherwise: int) -> list[Row]:
    """Of two arguments and the values that they must have."""
    first = [_load(one[0]), (_EQUAL, 0, 3, one[1])]
    return [*first, _load(other[0]), (_EQUAL, 0, 1, other[1]), _leave(then), _leave(otherwise)]


def _unless_one_of(argument: int, values: tuple[int, ...], refused: int) -> list[Row]:
    rows = [_load(argument)]
    for value in values:
        rows += [(_EQUAL, 0, 1, value), _leave(refused)]
    return [*rows, _leave(_ALLOW)]


def _keeping(at: dict[str, int], channel: int) -> list[Row]:
    """Let programs that close all descriptors believe that they closed this one."""
    rows = _when(at, "close_range", [_leave(_TRACE)])
    rows += _when(at, "close", _unless_one_of(0, (channel,), _ERRNO))
    for name in ("dup2", "dup3"):
        rows += _when(at, name, _unless_one_of(1, (channel,), _ERRNO | errno.EBADF))
    return rows + _when(at, "fcntl", _if_both((0, channel), (1, _F_SETFD), _ERRNO, _ALLOW))


def _of_prctl() -> list[Row]:
    """PR_SET_DUMPABLE succeeds and does nothing: the memory of such a process could not be read."""
    rows = [_load(0), (_EQUAL, 0, 1, _PR_SET_DUMPABLE), _leave(_ERRNO)]
    for option in PRCTL_OPTIONS:
        rows += [(_EQUAL, 0, 1, option), _leave(_NOTIFY)]
    return [*rows, _leave(_ALLOW)]


def _if_shared_file() -> list[Row]:
    """Of mmap(2): hand over mappings whose changes are changes of a file."""
    anonymous = [(_ANY_OF, 0, 1, _MAP_ANONYMOUS), _leave(_ALLOW), _leave(_NOTIFY)]
    return [_load(3), (_ANY_OF, 1, 0, _MAP_SHARED), _leave(_ALLOW), *anonymous]


def _packed(rows: list[Row]) -> bytes:
    return b"".join(_RULE.pack(code, true, false, operand) for code, true, false, operand in rows)
