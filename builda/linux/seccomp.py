"""System call filters: builda's default one, filters in the runtime-spec's JSON form, and both as BPF programs.

The default follows what container engines agree on: unknown calls fail as if the kernel lacked them (ENOSYS, so that a
C library falls back), dangerous ones fail with EPERM, and each capability allows its own calls.
"""

from __future__ import annotations

import errno
import os

from builda.errors import InvalidValue, IsolationUnavailable
from builda.inputfile import read_input
from builda.linux import private
from builda.linux.caps import to_bits
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any


class Argument(NamedTuple):
    """A condition on one argument: `op` is NE, LT, LE, EQ, GE, GT or MASKED_EQ (then `value` is the mask)."""

    position: int
    op: str
    value: int
    other: int = 0


class Rule(NamedTuple):
    """`action` (allow, errno, kill, kill_process, trap, trace, log) for these calls when all `arguments` hold."""

    action: str
    names: tuple[str, ...]
    arguments: tuple[Argument, ...] = ()
    error: int = errno.EPERM


class Filter(NamedTuple):
    """The action for each system call: that of the first matching rule, else `default`."""

    default: str
    rules: tuple[Rule, ...]
    default_error: int = errno.EPERM
    architectures: tuple[str, ...] = ()  # besides the native one, as libseccomp names them


# Increase it when the tables below change: the names of cached filters hold it.
REVISION = 1

_FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
    fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr
    link linkat listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat
    mknod mknodat name_to_handle_at newfstatat oldfstat oldlstat oldstat open openat openat2 pipe pipe2 pread64
    preadv preadv2 pwrite64 pwritev pwritev2 read readahead readdir readlink readlinkat readv removexattr
    removexattrat rename renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs
    statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate truncate64 umask
    unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev memfd_create memfd_secret
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch fanotify_mark landlock_add_rule
    landlock_create_ruleset landlock_restrict_self file_getattr file_setattr
"""
_MEMORY = """
    brk madvise membarrier mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap msync munlock munlockall munmap
    pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease remap_file_pages map_shadow_stack mseal
    cachestat
"""
_PROCESSES = """
    arch_prctl capget capset execve execveat exit exit_group fork vfork getpgid getpgrp getpid getppid getpriority
    getrandom getrlimit getrusage getsid gettid get_robust_list get_thread_area nice pause pidfd_open
    pidfd_send_signal prctl prlimit64 rseq sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp setpgid setpriority
    setrlimit setsid set_robust_list set_thread_area set_tid_address sysinfo ugetrlimit uname uretprobe wait4 waitid
    waitpid modify_ldt getcpu ioprio_get ioprio_set futex futex_time64 futex_waitv futex_wait futex_wake
    futex_requeue restart_syscall times socketcall ipc
"""
_SIGNALS = """
    alarm kill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask
    sigreturn sigsuspend tgkill tkill
"""
_IDENTITY = """
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid
    getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32
"""
_EVENTS_AND_TIME = """
    clock_adjtime clock_adjtime64 adjtimex clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
    epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 getitimer gettimeofday nanosleep _newselect poll ppoll
    ppoll_time64 pselect6 pselect6_time64 select setitimer time timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit
"""
_SOCKETS_AND_IPC = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
    recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd
    semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""
_ORDINARY = tuple(
    name
    for group in (_FILES, _MEMORY, _PROCESSES, _SIGNALS, _IDENTITY, _EVENTS_AND_TIME, _SOCKETS_AND_IPC)
    for name in group.split()
)

# The calls that each capability allows; without it they fail with EPERM.
_BY_CAPABILITY = {
    "CAP_SYS_ADMIN": (
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules "
        "lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl "
        "quotactl_fd setdomainname sethostname setns statmount listmount umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot kexec_load kexec_file_load",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module query_module create_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
# No capability allows these: they bypass the container, or expose far more of the kernel than a build needs.
_DENIED = (
    "add_key request_key keyctl io_uring_enter io_uring_register io_uring_setup nfsservctl pivot_root swapon swapoff "
    "sysfs _sysctl uselib userfaultfd ustat vm86 vm86old afs_syscall getpmsg putpmsg security tuxcall vserver "
    "get_kernel_syms bdflush rtas spu_create spu_run s390_runtime_instr subpage_prot switch_endian"
)
# Harmless since Linux 4.8, where the filter sees a call after the tracer changed it; debuggers in builds need them.
_OWN_PROCESSES = ("ptrace", "process_vm_readv", "process_vm_writev")

# CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET; the bit of CLONE_NEWTIME is part of the exit signal here.
_NAMESPACE_FLAGS = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # LINUX, LINUX32, UNAME26, both, "only tell me"
_AF_NETLINK, _AF_VSOCK, _NETLINK_AUDIT = 16, 40, 9


def default_filter(capabilities: Iterable[str], machine: str) -> Filter:
    """builda's own filter for a process with these capabilities on this kind of machine (`uname -m`)."""
    held = frozenset(capabilities)
    rules = [Rule("allow", _ORDINARY), *_personality_rules(), *_socket_rules(held)]
    opened = {name for capability in held for name in _BY_CAPABILITY.get(capability, "").split()}
    opened.update(_OWN_PROCESSES)
    closed = {name for names in _BY_CAPABILITY.values() for name in names.split()} - opened
    rules.append(Rule("allow", tuple(sorted(opened))))
    rules.extend(_clone_rules("CAP_SYS_ADMIN" in held, machine))
    rules.append(Rule("errno", tuple(sorted(closed - {"clone3"}))))
    rules.append(Rule("errno", tuple(_DENIED.split())))
    return Filter("errno", tuple(rules), errno.ENOSYS, _COMPATIBLE.get(machine, ()))


def _clone_rules(admin: bool, machine: str) -> tuple[Rule, ...]:
    if admin:
        return (Rule("allow", ("clone",)),)
    index = 1 if machine.startswith("s390") else 0
    return (
        Rule("allow", ("clone",), (Argument(index, "MASKED_EQ", sum(_NAMESPACE_FLAGS), 0),)),
        *(Rule("errno", ("clone",), (Argument(index, "MASKED_EQ", flag, flag),)) for flag in _NAMESPACE_FLAGS),
        # clone3 passes its flags by memory, which a filter cannot read: ENOSYS makes C libraries use clone.
        Rule("errno", ("clone3",), (), errno.ENOSYS),
    )


def _personality_rules() -> tuple[Rule, ...]:
    return tuple(Rule("allow", ("personality",), (Argument(0, "EQ", value),)) for value in _PERSONALITIES)


def _socket_rules(held: frozenset[str]) -> tuple[Rule, ...]:
    """Allow all sockets except vsock, which reaches a hypervisor's host. Audit netlink needs CAP_AUDIT_WRITE."""
    rules = [
        Rule("allow", ("socket",), (Argument(0, "GT", _AF_VSOCK),)),
        Rule("errno", ("socket",), (Argument(0, "EQ", _AF_VSOCK),), errno.EAFNOSUPPORT),
    ]
    if "CAP_AUDIT_WRITE" in held:
        return (Rule("allow", ("socket",), (Argument(0, "LT", _AF_VSOCK),)), *rules)
    netlink, audit = Argument(0, "EQ", _AF_NETLINK), _NETLINK_AUDIT
    between = tuple(Rule("allow", ("socket",), (Argument(0, "EQ", n),)) for n in range(_AF_NETLINK + 1, _AF_VSOCK))
    return (
        Rule("allow", ("socket",), (Argument(0, "LT", _AF_NETLINK),)),
        Rule("allow", ("socket",), (netlink, Argument(2, "NE", audit))),
        # The error of a kernel without audit: sudo and PAM go on after it, and would stop after EPERM.
        Rule("errno", ("socket",), (netlink, Argument(2, "EQ", audit)), errno.EINVAL),
        *between,
        *rules,
    )


_COMPATIBLE = {"x86_64": ("x86", "x32"), "aarch64": ("arm",)}
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
_SPEC_ACTIONS = {
    "SCMP_ACT_ALLOW": "allow",
    "SCMP_ACT_ERRNO": "errno",
    "SCMP_ACT_KILL": "kill",
    "SCMP_ACT_KILL_THREAD": "kill",
    "SCMP_ACT_KILL_PROCESS": "kill_process",
    "SCMP_ACT_TRAP": "trap",
    "SCMP_ACT_TRACE": "trace",
    "SCMP_ACT_LOG": "log",
}
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")


def parse_filter(data: bytes, capabilities: Iterable[str], machine: str, name: str = "seccomp profile") -> Filter:
    """A filter in the runtime-spec's JSON form, or in the container engines' form of it with includes and excludes.

    InvalidValue, with `name`, for a profile that is malformed.
    """
    import json

    try:
        document = json.loads(data)
        rules = [
            _parse_rule(entry) for entry in document.get("syscalls") or () if _applies(entry, capabilities, machine)
        ]
        default = _SPEC_ACTIONS[document["defaultAction"]]
        default_error = int(document.get("defaultErrnoRet") or errno.EPERM)
        return Filter(default, tuple(rules), default_error, _architectures(document, machine))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidValue(f"invalid seccomp profile: {name}: {error}") from error


def _parse_rule(entry: dict[str, Any]) -> Rule:
    names = tuple(entry.get("names") or (entry["name"],))
    arguments = []
    for argument in entry.get("args") or ():
        op = str(argument["op"]).removeprefix("SCMP_CMP_")
        if op not in _OPERATORS:
            raise ValueError(f"no such operator: {argument['op']}")
        arguments.append(
            Argument(int(argument["index"]), op, int(argument["value"]), int(argument.get("valueTwo") or 0))
        )
    error = entry.get("errnoRet")
    return Rule(_SPEC_ACTIONS[entry["action"]], names, tuple(arguments), errno.EPERM if error is None else int(error))


def _applies(entry: dict[str, Any], capabilities: Iterable[str], machine: str) -> bool:
    held = set(capabilities)
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    architectures = {machine, _GO_ARCHITECTURES.get(machine, machine)}
    if not set(includes.get("caps") or ()) <= held or set(excludes.get("caps") or ()) & held:
        return False
    if includes.get("arches") and not architectures & set(includes["arches"]):
        return False
    if architectures & set(excludes.get("arches") or ()):
        return False
    return _kernel() >= _version(includes.get("minKernel") or "0")


def _architectures(document: dict[str, Any], machine: str) -> tuple[str, ...]:
    listed = [str(name) for name in document.get("architectures") or ()]
    for row in document.get("archMap") or ():
        if str(row["architecture"]).removeprefix("SCMP_ARCH_").lower() == machine:
            listed.extend(row.get("subArchitectures") or ())
    names = (name.removeprefix("SCMP_ARCH_").lower() for name in listed)
    return tuple(name for name in dict.fromkeys(names) if name != machine and name in _COMPATIBLE.get(machine, ()))


def _kernel() -> tuple[int, ...]:
    return _version(os.uname().release)


def _version(text: str) -> tuple[int, ...]:
    import re

    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def library() -> Any:
    """pyseccomp with libseccomp loaded; IsolationUnavailable naming the package if it is missing or broken."""
    try:
        import pyseccomp
    except (RuntimeError, OSError, ImportError, AttributeError) as error:  # not found, not loadable, too old
        raise IsolationUnavailable(
            f"commands cannot be run without libseccomp: {error}",
            hint="install the package libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora, SUSE, Arch, Alpine, where "
            "Python needs binutils too); --security-opt seccomp=unconfined runs commands without a filter",
        ) from error
    return pyseccomp


def compile_filter(filter_: Filter) -> bytes:
    """The BPF program (an array of sock_filter) that libseccomp makes of it; IsolationUnavailable without it."""
    pyseccomp = library()
    compiled = pyseccomp.SyscallFilter(_action(pyseccomp, filter_.default, filter_.default_error))
    compiled.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    if pyseccomp.get_api() >= 4:
        compiled.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, 2)  # a tree of calls, not a chain of 400 comparisons
    for name in filter_.architectures:
        compiled.add_arch(getattr(pyseccomp.Arch, name.upper()))
    for rule in filter_.rules:
        _add_rule(pyseccomp, compiled, filter_, rule)
    with open(os.memfd_create("seccomp"), "w+b") as file:
        compiled.export_bpf(file)
        file.seek(0)
        return file.read()


def _add_rule(pyseccomp: Any, compiled: Any, filter_: Filter, rule: Rule) -> None:
    action = _action(pyseccomp, rule.action, rule.error)
    if action == _action(pyseccomp, filter_.default, filter_.default_error):
        return  # libseccomp refuses a rule whose action is the default one
    arguments = [
        pyseccomp.Arg(argument.position, getattr(pyseccomp, argument.op), argument.value, argument.other)
        for argument in rule.arguments
    ]
    for name in rule.names:
        if _number(pyseccomp, name) is not None:
            compiled.add_rule(action, name, *arguments)


def _number(pyseccomp: Any, name: str) -> int | None:
    """The call's number; None if libseccomp does not know the name, as older ones do not know the newest calls."""
    try:
        number: int = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    except ValueError:
        return None
    return None if number == -1 else number


def _action(pyseccomp: Any, action: str, error: int) -> int:
    if action in ("errno", "trace"):
        number: int = getattr(pyseccomp, action.upper())(error)
        return number
    value: int = getattr(pyseccomp, action.upper())
    return value


def filter_program(profile: str | None, capabilities: tuple[str, ...], cache: Path | None) -> bytes | None:
    """The program for a run: builda's own filter (None), that of a file, or None for "unconfined".

    The default one is compiled once for each set of capabilities and kept in `cache`: libseccomp takes 20 ms for it.
    InvalidValue for an unusable profile.
    """
    if profile == "unconfined":
        return None
    machine = os.uname().machine
    if profile is None:
        return _cached(capabilities, machine, cache)
    return compile_filter(load_filter(profile, capabilities, machine))


def load_filter(profile: str | None, capabilities: tuple[str, ...], machine: str) -> Filter:
    """builda's own filter (None) or that of a file; InvalidValue for an unusable file."""
    if profile is None:
        return default_filter(capabilities, machine)
    try:
        data = read_input(profile, "seccomp profile")
    except OSError as error:
        raise InvalidValue(f"cannot read seccomp profile: {profile}: {error.strerror}") from error
    return parse_filter(data, capabilities, machine, profile)


def to_runtime_spec(filter_: Filter, machine: str) -> dict[str, Any]:
    """The filter as `linux.seccomp` of a runtime-spec configuration."""
    actions = {ours: spec for spec, ours in reversed(_SPEC_ACTIONS.items())}
    return {
        "defaultAction": actions[filter_.default],
        "defaultErrnoRet": filter_.default_error,
        "architectures": [f"SCMP_ARCH_{name.upper()}" for name in (machine, *filter_.architectures)],
        "syscalls": [_spec_rule(actions, rule) for rule in filter_.rules if rule.names],
    }


def _spec_rule(actions: dict[str, str], rule: Rule) -> dict[str, Any]:
    entry: dict[str, Any] = {"names": list(rule.names), "action": actions[rule.action]}
    if rule.action == "errno":
        entry["errnoRet"] = rule.error
    if rule.arguments:
        entry["args"] = [
            {"index": each.position, "value": each.value, "valueTwo": each.other, "op": f"SCMP_CMP_{each.op}"}
            for each in rule.arguments
        ]
    return entry


def _cached(capabilities: tuple[str, ...], machine: str, cache: Path | None) -> bytes:
    """The default filter's program, from `cache` if it is there, undamaged, and made by the installed libseccomp."""
    if cache is None:
        return compile_filter(default_filter(capabilities, machine))
    path = cache / f"seccomp-{REVISION}-{machine}-{to_bits(capabilities):x}.bpf"
    program = _read_cached(path)
    if program is None:
        program = compile_filter(default_filter(capabilities, machine))
        _write_cached(path, program)
    return program


def _read_cached(path: Path) -> bytes | None:
    """The program of a cache file: one line `library size mtime crc`, then the program. None if it does not fit."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None  # another user could have written a filter that allows everything
            header, _, program = file.read().partition(b"\n")
    except OSError:
        return None
    library = header.split(b"\0")[0].decode(errors="surrogateescape")
    return program if program and header == _header(library, program) else None


def _write_cached(path: Path, program: bytes) -> None:
    """Keep the program. A failure (read-only, full) is ignored: the next run compiles the filter again."""
    try:
        private.make(str(path.parent))
        temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        with open(temporary, "wb", opener=private.opener) as file:
            file.write(_header(_loaded_library(), program) + b"\n" + program)
        temporary.replace(path)
    except OSError:
        return


def _header(library: str, program: bytes) -> bytes:
    from binascii import crc32

    try:
        found = os.stat(library)
    except OSError:
        return b""
    words = (os.fsencode(library), found.st_size, found.st_mtime_ns, crc32(program))
    return b"\0".join(word if isinstance(word, bytes) else b"%d" % word for word in words)


def _loaded_library() -> str:
    """The path of the loaded libseccomp: an upgrade may compile the same names to other programs."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            if "/libseccomp." in line:
                return line.split(maxsplit=5)[5].rstrip("\n")
    return ""
