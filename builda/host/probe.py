"""What this process may do, found by trying it in forked children; never guessed from the environment.

`decisive` tries what the mode depends on and stops at the first mode that works; `details` tries the rest, for people.
"""

from __future__ import annotations

import errno
import os
from enum import StrEnum

from builda.errors import IsolationUnavailable
from builda.linux import caps
from builda.linux.trial import attempt
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.linux.userns import Maps


class Mode(StrEnum):
    """A way to work, best first, and what can be done in it. Nothing outside this package compares modes by name."""

    DIRECT = "direct"
    USERNS = "userns"
    SUBID = "subid"
    SINGLE = "single"
    CHROOT = "chroot"
    TRACED = "traced"

    @property
    def mounts(self) -> bool:
        """Whether file systems can be mounted, so that trees may be overlays."""
        return self in (Mode.DIRECT, Mode.USERNS, Mode.SUBID, Mode.SINGLE)

    @property
    def unshares(self) -> bool:
        """Whether builda makes a user namespace to enter this mode."""
        return self.mounts and self is not Mode.DIRECT

    @property
    def one_id(self) -> bool:
        """Whether commands have one id only. builda then emulates others, if the kernel lets it answer their calls."""
        return self is Mode.SINGLE

    @property
    def records_owners(self) -> bool:
        """Whether builda records owners in attributes of files, since no file can be given to another user."""
        return self in (Mode.SINGLE, Mode.TRACED)

    @property
    def mounts_stay(self) -> bool:
        """Whether what is mounted is seen by other processes, and after this one has ended."""
        return self is Mode.DIRECT

    @property
    def is_exposed(self) -> bool:
        """Whether nothing keeps a command from the other files and processes that builda itself reaches."""
        return self in (Mode.CHROOT, Mode.TRACED)

    @property
    def chroots(self) -> bool:
        """Whether the kernel gives commands a root directory of their own."""
        return self is not Mode.TRACED

    def maps(self) -> Maps | None:
        """The id maps of its user namespace; None without one. IsolationUnavailable if there can be none."""
        from builda.linux import userns

        match self:
            case Mode.USERNS:
                return userns.identity()
            case Mode.SUBID:
                return subordinate()
            case Mode.SINGLE:
                return userns.only()
            case _:
                return None


MODES = tuple(Mode)
UNTRIED = "not tried"

IN_TREES = ("CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID")
"""The capabilities without which mode `chroot` can neither make the trees of images nor run in them."""


NOTIFYING = "a node with Linux 5.9 or newer; gVisor (runtimeClassName) hands no calls over"
"""What it takes that a process can answer another's calls."""


class Abilities(NamedTuple):
    """The results of the trials, in the order of the modes; None for success, else the error in words."""

    private_mounts: str | None = UNTRIED  # mount namespace and a mount in it, as this process is
    user_namespace: str | None = UNTRIED
    identity_map: str | None = UNTRIED  # written by this process's own rights
    subordinate_map: str | None = UNTRIED  # by newuidmap and newgidmap
    single_map: str | None = UNTRIED  # this process's own id alone; root needs CAP_SETFCAP for it
    change_root: str | None = UNTRIED
    trace: str | None = UNTRIED  # ptrace(2), and stopping or answering calls of other processes (seccomp(2))

    def why_none(self, mode: Mode) -> str | None:
        """Why no command can run in the mode; None if one can."""
        return self.trace if mode is Mode.TRACED else None


def decisive() -> Abilities:
    """Try what decides the mode, best mode first, until one is found; nothing changes for this process."""
    from builda.linux import syscalls as sys_
    from builda.linux.userns import only

    effective = sys_.capget()[0]
    mounts = "CAP_SYS_ADMIN is missing" if caps.missing(effective, "CAP_SYS_ADMIN") else attempt(_tmpfs)
    if mounts is None:
        return Abilities(private_mounts=None)
    namespace = attempt(lambda: sys_.unshare(sys_.CLONE_NEWUSER))
    by_hand: str | None = "no user namespace"
    by_tools: str | None = by_hand
    alone: str | None = by_hand
    if namespace is None:
        by_hand = _identity_map(effective)
        by_tools = attempt(lambda: _enter(subordinate())) if by_hand is not None else UNTRIED
        alone = attempt(lambda: _enter(only())) if by_hand is not None and by_tools is not None else UNTRIED
    root = _change_root(effective)
    found = Abilities(mounts, namespace, by_hand, by_tools, alone, root)
    return found._replace(trace=attempt(_trace)) if choose_mode(found) is Mode.TRACED else found


def choose_mode(abilities: Abilities) -> Mode:
    """The best mode that these abilities allow; `traced` if nothing else works."""
    if abilities.private_mounts is None:
        return Mode.DIRECT
    if abilities.user_namespace is None:
        if abilities.identity_map is None:
            return Mode.USERNS
        if abilities.subordinate_map is None:
            return Mode.SUBID
        if abilities.single_map is None:
            return Mode.SINGLE
    return Mode.CHROOT if abilities.change_root is None else Mode.TRACED


def subordinate(etc: str = "/etc") -> Maps:
    """The maps of mode `subid`; IsolationUnavailable says what is missing."""
    from builda.linux.process import find_program
    from builda.linux.subids import subordinate_map
    from builda.linux.userns import Maps

    tools = find_program("newuidmap"), find_program("newgidmap")
    if tools[0] is None or tools[1] is None:
        raise IsolationUnavailable(
            f"no such program: {'newgidmap' if tools[0] else 'newuidmap'}",
            hint="Debian has them in the package uidmap, Fedora in shadow-utils",
        )
    user = os.geteuid()
    uids = subordinate_map("uid", user, user, etc=etc)
    return Maps(uids, subordinate_map("gid", os.getegid(), user, etc=etc), (tools[0], tools[1]))


def details(maps: Maps | None) -> dict[str, str | None]:
    """Trials in the namespaces of a mode (`maps` None: in those of this process), by name; None means success."""
    from builda.host import mount_trials

    def inside(action: Callable[[], None]) -> str | None:
        return attempt(lambda: _entered(maps, action))

    return {name: inside(action) for name, action in mount_trials.ALL.items()}


def everywhere() -> dict[str, str | None]:
    """Trials that do not depend on the mode, by name; None means success."""
    from builda.host import mount_trials

    return {name: attempt(action) for name, action in mount_trials.ANYWHERE.items()}


def _change_root(effective: int) -> str | None:
    if missing := caps.missing(effective, *IN_TREES):
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    return attempt(lambda: os.chroot("/"))


def try_trace() -> str | None:
    """Why no command can run in mode `traced`; None if one can."""
    return attempt(_trace)


def tracing_change(refused: str, yama: int) -> tuple[str, ...]:
    """Lines that would let commands be traced where the kernel said `refused`; `yama` is its ptrace_scope."""
    if yama >= 2:
        return ("on the node: sysctl -w kernel.yama.ptrace_scope=1",)
    if refused.endswith(tuple(os.strerror(number) for number in (errno.EINVAL, errno.ENOSYS))):
        return ("a node with Linux 5.9 or newer, or with a gVisor that has openat2 (September 2026)",)
    return ("securityContext:", "  seccompProfile:", "    type: RuntimeDefault")


def chroot_change() -> tuple[str, ...]:
    """Lines for a pod of mode `chroot`, which needs no tracing."""
    added = ", ".join(name.removeprefix("CAP_") for name in IN_TREES)
    return ("securityContext:", "  runAsUser: 0", "  capabilities:", f"    add: [{added}]")


def _trace() -> None:
    """Trace a process, read its memory, and receive calls of this one or have them stopped."""
    import ctypes
    import signal

    from builda.linux import fork, ptrace
    from builda.linux import syscalls as sys_
    from builda.linux.notifications import injection_refused

    sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
    os.close(sys_.openat2(sys_.AT_FDCWD, "/", os.O_PATH))
    word = ctypes.create_string_buffer(b"word")

    def wait() -> int:
        signal.pause()
        return 0

    pid = fork.start(wait)
    try:
        ptrace.seize(pid, ptrace.TRACE_SECCOMP | ptrace.EXIT_KILL)
        ptrace.Memory().read(pid, ctypes.addressof(word), len(word))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    allow = b"\x06\0\0\0\0\0\xff\x7f"  # a filter of one instruction: SECCOMP_RET_ALLOW
    try:
        listener = sys_.seccomp_listener(allow)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EBUSY):
            raise
        sys_.set_seccomp_filter(allow)  # calls are answered where their threads stop for the tracer
        return
    if (refused := injection_refused(listener)) is not None:
        raise OSError(refused, f"a descriptor for another process: {os.strerror(refused)}")
    os.close(listener)


def _identity_map(effective: int) -> str | None:
    if caps.missing(effective, "CAP_SETUID", "CAP_SETGID"):
        return "CAP_SETUID or CAP_SETGID is missing"
    from builda.linux.userns import identity

    return attempt(lambda: _enter(identity()))


def _enter(maps: Maps) -> None:
    from builda.linux.userns import enter

    enter(maps)


def _entered(maps: Maps | None, action: Callable[[], None]) -> None:
    from builda.linux import syscalls as sys_

    if maps is None:
        sys_.unshare(sys_.CLONE_NEWNS)
        sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)
    else:
        _enter(maps)
    action()


def _tmpfs() -> None:
    from builda.linux import syscalls as sys_

    sys_.unshare(sys_.CLONE_NEWNS)
    sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)
    sys_.mount("tmpfs", "/proc", "tmpfs", 0)
