"""System calls that Python lacks, one thin function each: call, check, raise OSError.

Each run imports this twice (parent and child), so it imports next to nothing. Paths are str or bytes.
Descriptors are plain ints that the caller closes; all are close-on-exec.
"""

from __future__ import annotations

import _struct
import errno
import os
import sys

from builda.linux import cfunctions as ctypes

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_LIMITED = {
    CLONE_NEWUSER: "user",
    CLONE_NEWNS: "mnt",
    CLONE_NEWCGROUP: "cgroup",
    CLONE_NEWUTS: "uts",
    CLONE_NEWIPC: "ipc",
    CLONE_NEWPID: "pid",
    CLONE_NEWNET: "net",
}  # the names of the limits in /proc/sys/user

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

RESOLVE_NO_XDEV = 0x1
RESOLVE_NO_MAGICLINKS = 0x2
RESOLVE_NO_SYMLINKS = 0x4
RESOLVE_BENEATH = 0x8
RESOLVE_IN_ROOT = 0x10
RESOLVE_INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS  # magic links of /proc lead anywhere: openat2(2) advises both

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_UNLIMITED = 2**64 - 1
_MADV_POPULATE_WRITE = 23
SECCOMP_MODE_FILTER = 2
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32
LINUX_CAPABILITY_VERSION_3 = 0x20080522

# Calls younger than the asm-generic table have one number on every architecture that builda runs on.
_UTIME_NOW, _UTIME_OMIT = 0x3FFFFFFF, 0x3FFFFFFE
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_PIDFD_OPEN = 434
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_PIDFD_GETFD = 438
SYS_MOUNT_SETATTR = 442
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_GETCWD = {"x86_64": 79, "aarch64": 17}
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
SYS_PTRACE = {"x86_64": 101, "aarch64": 117}
SYS_SIGNALFD4 = {"x86_64": 289, "aarch64": 74}
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SYS_STATX = {"x86_64": 332, "aarch64": 291}
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446

_STATX = _struct.Struct("=I76xqI164x")  # struct statx: mask, time of birth
_STATX_BTIME = 0x800
_OPEN_HOW = _struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_SIGNAL_SET = 128  # bytes of sigset_t
_SIG_BLOCK, _SIG_SETMASK = 0, 2

_STATFS_SIZE = 120
_IN_MEMORY = (0x01021994, 0x858458F6)  # TMPFS_MAGIC, RAMFS_MAGIC
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.process_vm_readv.restype = ctypes.c_ssize_t


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` (CLONE_NEW…) for new ones."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        raise _unshare_failure(ctypes.get_errno(), flags)


def setns(fd: int, kind: int = 0) -> None:
    """Enter the namespace that `fd` refers to; `kind` (CLONE_NEW…) refuses any other sort."""
    if _libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)) < 0:
        raise _failure("setns")


def mount(
    source: str | bytes | None, target: str | bytes, kind: str | None, flags: int, data: str | None = None
) -> None:
    """mount(2)."""
    result = _libc.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data))
    if result < 0:
        raise _failure("mount", target)


def umount2(target: str | bytes, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(_text(target), ctypes.c_int(flags)) < 0:
        raise _failure("umount", target)


def pivot_root(new_root: str | bytes, put_old: str | bytes) -> None:
    """Make `new_root` the root mount of this namespace and hang the old one at `put_old`."""
    call("pivot_root", SYS_PIVOT_ROOT[os.uname().machine], _text(new_root), _text(put_old))


def open_tree(dir_fd: int, path: str | bytes, flags: int) -> int:
    """A descriptor of a mount; with OPEN_TREE_CLONE of a detached copy of it."""
    return call("open_tree", SYS_OPEN_TREE, dir_fd, _text(path), flags | os.O_CLOEXEC, path=path)


def move_mount(from_fd: int, from_path: str | bytes, to_fd: int, to_path: str | bytes, flags: int) -> None:
    """Attach (or move) the mount `from` at `to`; empty paths need the MOVE_MOUNT_…_EMPTY_PATH flags."""
    call("move_mount", SYS_MOVE_MOUNT, from_fd, _text(from_path), to_fd, _text(to_path), flags, path=to_path or None)


def fsopen(kind: str) -> int:
    """A descriptor on which a new file system of this kind is configured."""
    return call("fsopen", SYS_FSOPEN, _text(kind), 1, path=kind)


def fsconfig(fd: int, command: int, key: str | None = None, value: str | bytes | None = None) -> None:
    """One step of configuring a file system after `fsopen`. The OSError holds the kernel's message of the failure."""
    try:
        call("fsconfig", SYS_FSCONFIG, fd, command, _text(key), _text(value), 0)
    except OSError as error:
        said = _kernel_message(fd)
        what = f"{key}={os.fsdecode(value)}" if key and value is not None else key
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}{said}", what) from None


def fsmount(fd: int, attributes: int = 0) -> int:
    """A descriptor of the detached mount of what was configured; `attributes` are MOUNT_ATTR_…."""
    return call("fsmount", SYS_FSMOUNT, fd, 1, attributes)


def mount_setattr(
    dir_fd: int,
    path: str | bytes,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns: int = 0,
) -> None:
    """Change attributes of a mount, with AT_RECURSIVE of all mounts below it (Linux 5.12).

    `userns` is a descriptor of the user namespace for MOUNT_ATTR_IDMAP.
    """
    attributes = _MountAttr(attr_set, attr_clr, propagation, userns)
    size = ctypes.sizeof(attributes)
    call(
        "mount_setattr",
        SYS_MOUNT_SETATTR,
        dir_fd,
        _text(path),
        flags,
        ctypes.byref(attributes),
        size,
        path=path or None,
    )


def openat2(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = RESOLVE_INSIDE) -> int:
    """Open `path` below `dir_fd` under the RESOLVE_… rules."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    attempts = 32  # EAGAIN: a rename somewhere made the kernel unsure whether `..` left the root
    while True:
        try:
            return call("openat2", SYS_OPENAT2, dir_fd, _text(path), how, len(how), path=path)
        except BlockingIOError:
            attempts -= 1
            if not attempts:
                raise


def prctl(option: int, *arguments: int) -> int:
    """prctl(2) with integer arguments; its result."""
    words = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _libc.prctl(ctypes.c_int(option), *words)
    if result < 0:
        raise _failure("prctl")
    return result


def set_process_name(name: str) -> None:
    """Set the name that `ps` shows for this thread, at most 15 bytes."""
    if _libc.prctl(PR_SET_NAME, ctypes.c_char_p(os.fsencode(name)), 0, 0, 0) < 0:
        raise _failure("prctl(PR_SET_NAME)")


def set_seccomp_filter(program: bytes) -> None:
    """Install a BPF program (an array of sock_filter) on this thread; needs CAP_SYS_ADMIN or no_new_privs."""
    fprog = _FilterProgram(len(program) // 8, program)
    if _libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(fprog), 0, 0) < 0:
        raise _failure("prctl(PR_SET_SECCOMP)")


def seccomp_listener(program: bytes) -> int:
    """Install a BPF program on this thread; the descriptor that receives the calls it hands over (seccomp_unotify(2)).

    Needs the same as `set_seccomp_filter`. From Linux 5.19 on, a waiting call is not interrupted by signals that its
    process survives.
    """
    fprog = _FilterProgram(len(program) // 8, program)
    waiting = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    number = SYS_SECCOMP[os.uname().machine]
    try:
        return call("seccomp", number, SECCOMP_SET_MODE_FILTER, waiting, ctypes.byref(fprog))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return call("seccomp", number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, ctypes.byref(fprog))


_vector = _struct.Struct("=QQ").pack  # struct iovec
_ADDRESS = 0xFFFFFFFFFFFFFFFF
_TEXT = 256  # bytes that are read at first where a string begins


class PeerMemory:
    """Copies to and from the memory of other processes by process_vm_readv(2), at most `size` bytes at once.

    Takes half of the time of /proc/PID/mem and no descriptor, and keeps to the protection of pages, as calls do.
    """

    def __init__(self, size: int) -> None:
        self._buffer = ctypes.create_string_buffer(size)
        self._bytes = memoryview(self._buffer).cast("B")
        self._here = ctypes.addressof(self._buffer)
        self._start = ctypes.create_string_buffer(_TEXT)
        self._start_here = _vector(ctypes.addressof(self._start), _TEXT)
        self._one, self._none = ctypes.c_ulong(1), ctypes.c_ulong(0)

    def text(self, pid: int, address: int) -> bytes | None:
        """The string at an address, without its NUL; None if it is longer than 255 bytes, or cannot be read so."""
        there = _vector(address, _TEXT)
        found = _libc.process_vm_readv(pid, self._start_here, self._one, there, self._one, self._none)
        text: bytes = self._start.value  # up to the first NUL, which may be what an earlier call left behind
        return text if len(text) < found else None

    def read(self, pid: int, address: int, size: int) -> bytes | None:
        """The bytes at an address, fewer if the memory ends before; None if the kernel refuses."""
        here, there = _vector(self._here, size), _vector(address & _ADDRESS, size)
        found = _libc.process_vm_readv(pid, here, self._one, there, self._one, self._none)
        return bytes(self._bytes[:found]) if found >= 0 else _nothing_at_address()

    def write(self, pid: int, address: int, data: bytes | bytearray) -> int | None:
        """Write to an address; the number of bytes, fewer if the memory ends before, or None as `read`."""
        size = len(data)
        self._bytes[:size] = data
        here, there = _vector(self._here, size), _vector(address & _ADDRESS, size)
        written: int = _libc.process_vm_writev(pid, here, self._one, there, self._one, self._none)
        return written if written >= 0 else (None if _nothing_at_address() is None else 0)


def _nothing_at_address() -> bytes | None:
    """After process_vm_readv(2) failed: no bytes if the address is bad, None if the call itself is refused."""
    return b"" if ctypes.get_errno() == errno.EFAULT else None


class PathOpener:
    """Opens paths by openat2(2) under one set of RESOLVE_… rules, quicker than `openat2`: as handles (O_PATH), or with
    other flags."""

    def __init__(self, resolve: int, flags: int = os.O_PATH) -> None:
        flags |= os.O_CLOEXEC
        self._size = ctypes.c_long(_OPEN_HOW.size)
        self._number = ctypes.c_long(SYS_OPENAT2)
        self._call = _libc.syscall
        self._hows = _OPEN_HOW.pack(flags | os.O_NOFOLLOW, 0, resolve), _OPEN_HOW.pack(flags, 0, resolve)

    def open(self, directory: int, path: bytes, *, follow: bool) -> int:
        """A descriptor of `path` below an open directory."""
        attempts = 32  # EAGAIN: see `openat2`
        while True:
            fd: int = self._call(self._number, directory, path, self._hows[follow], self._size)
            if fd >= 0:
                return fd
            number = ctypes.get_errno()
            attempts -= 1
            if number != errno.EAGAIN or not attempts:
                raise OSError(number, "openat2")


def attribute_size(path: bytes, name: bytes, *, follow: bool) -> int:
    """The size of the value of an attribute; a negative errno without it, in half of the time of an OSError."""
    look = _libc.getxattr if follow else _libc.lgetxattr
    size: int = look(path, name, None, None)
    return size if size >= 0 else -ctypes.get_errno()


def set_file_ids(uid: int, gid: int) -> None:
    """Open files as this user and group from now on, in this thread (setfsuid(2)); OSError when the kernel refuses.

    A user other than root also loses root's rights on files. Both calls return the id before and no error, so each
    is asked again with -1, which changes nothing.
    """
    for name, number, change in (("setfsgid", gid, _libc.setfsgid), ("setfsuid", uid, _libc.setfsuid)):
        change(ctypes.c_uint(number))
        if number != 0xFFFFFFFF & change(ctypes.c_uint(0xFFFFFFFF)):
            raise OSError(errno.EPERM, f"{name}: {os.strerror(errno.EPERM)}", str(number))


def getcwd() -> bytes:
    """The working directory by getcwd(2). It begins with `(unreachable)` if it is not below the root.

    The function of libc would search the tree for such a directory.
    """
    buffer = ctypes.create_string_buffer(4096)
    call("getcwd", SYS_GETCWD[os.uname().machine], buffer, len(buffer))
    return buffer.value


def file_status(
    number: int, directory: int, path: bytes, before: tuple[int, ...], after: tuple[int, ...], size: int
) -> bytes:
    """The `size` bytes that a call of the stat family writes. `number` is the call's; `before` and `after` are its
    arguments between the path and the buffer, and after the buffer."""
    buffer = ctypes.create_string_buffer(size)
    if _libc.syscall(number, directory, path, *before, buffer, *after) < 0:
        raise _failure("stat")
    return buffer.raw


def birth_time_ns(fd: int) -> int | None:
    """When an open file was made, in nanoseconds since 1970; None if its file system does not say."""
    data = file_status(SYS_STATX[os.uname().machine], fd, b"", (AT_EMPTY_PATH, _STATX_BTIME), (), _STATX.size)
    mask, seconds, nanoseconds = _STATX.unpack(data)
    return seconds * 10**9 + nanoseconds if mask & _STATX_BTIME else None


def is_in_memory(fd: int) -> bool:
    """Whether an open file is in a tmpfs or ramfs, so that no sync of it does anything."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(fd, buffer):
        raise _failure("fstatfs")
    return int.from_bytes(buffer.raw[:4], sys.byteorder) in _IN_MEMORY  # the first field of struct statfs


def renew_access_time(path: bytes) -> None:
    """Give a file the access time of now, and with it a new ctime; its mtime stays."""
    times = (ctypes.c_long * 4)(0, _UTIME_NOW, 0, _UTIME_OMIT)
    if _libc.utimensat(AT_FDCWD, path, times, 0) < 0:
        raise _failure("utimensat", path)


def capget() -> tuple[int, int, int]:
    """This thread's effective, permitted and inheritable capabilities as bit sets."""
    data = (_CapData * 2)()
    if _libc.capget(ctypes.byref(_CapHeader(LINUX_CAPABILITY_VERSION_3, 0)), data) < 0:
        raise _failure("capget")
    low, high = data
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capabilities, bit sets all."""
    word = 0xFFFFFFFF
    data = (_CapData * 2)(
        _CapData(effective & word, permitted & word, inheritable & word),
        _CapData(effective >> 32, permitted >> 32, inheritable >> 32),
    )
    if _libc.capset(ctypes.byref(_CapHeader(LINUX_CAPABILITY_VERSION_3, 0)), data) < 0:
        raise _failure("capset")


def setrlimit(resource: int, soft: int, hard: int) -> None:
    """Limit a resource (RLIMIT_… as a number) of this process; -1 is no limit."""
    words = (ctypes.c_ulong * 2)(soft & _UNLIMITED, hard & _UNLIMITED)
    if _libc.setrlimit(ctypes.c_int(resource), words) < 0:
        raise _failure("setrlimit")


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    encoded = os.fsencode(name)
    if _libc.sethostname(encoded, ctypes.c_size_t(len(encoded))) < 0:
        raise _failure("sethostname", name)


class SignalsOfThread:
    """Blocks all signals of one thread for a moment, in a third of the time of signal.pthread_sigmask."""

    def __init__(self) -> None:
        everything = ctypes.create_string_buffer(b"\xff" * _SIGNAL_SET, _SIGNAL_SET)
        self._before = ctypes.create_string_buffer(_SIGNAL_SET)
        self._everything_at, self._before_at = ctypes.byref(everything), ctypes.byref(self._before)
        self._change = _libc.pthread_sigmask

    def hold(self) -> None:
        """Block all signals."""
        self._change(_SIG_BLOCK, self._everything_at, self._before_at)

    def let_go(self) -> None:
        """Block those that were blocked before `hold`, and no others."""
        self._change(_SIG_SETMASK, self._before_at, None)


def signal_descriptor(numbers: tuple[int, ...]) -> int:
    """A descriptor that is readable while one of these signals, which the caller blocks, is pending (signalfd(2)).

    A read returns records of 128 bytes; the first four are the signal's number.
    """
    mask = ctypes.c_uint64(sum(1 << number - 1 for number in numbers))
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    return call("signalfd4", SYS_SIGNALFD4[os.uname().machine], -1, ctypes.byref(mask), ctypes.sizeof(mask), flags)


def pidfd_open(pid: int) -> int:
    """A descriptor of a process; readable once it ended."""
    return call("pidfd_open", SYS_PIDFD_OPEN, pid, 0)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A duplicate of another process's descriptor; needs the right to trace it."""
    return call("pidfd_getfd", SYS_PIDFD_GETFD, pidfd, number, 0)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close all descriptors from `first` to `last`."""
    call("close_range", SYS_CLOSE_RANGE, first, last, flags)


def populate(address: int, length: int) -> None:
    """Have pages of this process's own where it may write, as writing to all of them would make (Linux 5.14)."""
    if _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), ctypes.c_int(_MADV_POPULATE_WRITE)) < 0:
        raise _failure("madvise")


def join_session_keyring() -> bool:
    """Replace the caller's session keyring by a new, empty one; False if keyctl(2) is filtered or missing."""
    join = 1
    return bool(_libc.syscall(ctypes.c_long(SYS_KEYCTL[os.uname().machine]), ctypes.c_long(join), None) >= 0)


def ioctl(fd: int, request: int, argument: bytes | int = 0) -> tuple[int, bytes]:
    """ioctl(2): its result and, for a bytes argument, the bytes that the kernel wrote there."""
    if isinstance(argument, int):
        result, buffer = _libc.ioctl(fd, ctypes.c_ulong(request), ctypes.c_ulong(argument)), None
    else:
        buffer = ctypes.create_string_buffer(argument, len(argument))
        result = _libc.ioctl(fd, ctypes.c_ulong(request), buffer)
    if result < 0:
        raise _failure("ioctl")
    return result, buffer.raw if buffer is not None else b""


def raise_interface(name: str) -> None:
    """Set a network interface of this namespace up (SIOCSIFFLAGS), as `ip link set NAME up` does for lo."""
    family, datagram, set_flags, up_and_running = 2, 2, 0x8914, 0x41
    fd = _libc.socket(family, datagram | os.O_CLOEXEC, 0)
    if fd < 0:
        raise _failure("socket")
    request = os.fsencode(name).ljust(16, b"\0") + up_and_running.to_bytes(2, "little") + bytes(22)
    try:
        ioctl(fd, set_flags, request)
    finally:
        os.close(fd)


def call(name: str, number: int, *arguments: object, path: str | bytes | None = None) -> int:
    """A system call by number. OSError, with its name, for a negative result."""
    # libc.syscall() is variadic: an int that is not widened leaves the upper half of its register undefined.
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise _failure(name, path)
    return result


def _text(value: str | bytes | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _failure(name: str, path: str | bytes | None = None) -> OSError:
    number = ctypes.get_errno()
    if path is None:
        return OSError(number, f"{name}: {os.strerror(number)}")
    return OSError(number, f"{name}: {os.strerror(number)}", os.fsdecode(path))


def _unshare_failure(number: int, flags: int) -> OSError:
    """The error of `unshare(flags)` with this errno. ENOSPC and EUSERS mean a limit, not a full disk: unshare(2)."""
    if number not in (errno.ENOSPC, errno.EUSERS):
        return OSError(number, f"unshare: {os.strerror(number)}")
    limits = " or ".join(f"user.max_{name}_namespaces" for flag, name in _LIMITED.items() if flags & flag)
    depth = ", or as many are nested as may be" if flags & (CLONE_NEWUSER | CLONE_NEWPID) else ""
    return OSError(number, f"unshare: the limit {limits} is reached{depth}")


def _kernel_message(fd: int) -> str:
    """The messages of the file system about a failure: lines `e overlay: …`, read from the fsopen descriptor."""
    lines: list[str] = []
    while True:
        try:
            lines.append(os.read(fd, 4096).decode(errors="replace").strip()[2:])
        except OSError:  # ENODATA: the queue is empty
            break
    return "".join(f" ({line})" for line in lines)
