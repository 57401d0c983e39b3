"""Explains what keeps builda from a better mode here, with the smallest change that would help.

`examine` looks and tries, changing nothing; `findings` is pure: facts to sentences.
"""

from __future__ import annotations

import errno
import os
import stat

from builda.errors import BuildaError
from builda.host.probe import IN_TREES, NOTIFYING, Abilities, Mode, choose_mode, chroot_change, tracing_change
from builda.linux import caps
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Literal, TypeAlias

    from builda.linux.userns import Maps

Kind: TypeAlias = "Literal['good', 'note', 'lack', 'wrong']"
"""`lack`: something better is possible; `wrong`: commands fail of it."""

Helper: TypeAlias = "Literal['missing', 'plain', 'set-uid', 'file capabilities']"

Lack: TypeAlias = tuple[str, tuple[str, ...]]
"""A cause, and the lines that take it away."""

BRIDGE = "a bridge"
"""What gives commands a network of their own without being asked."""

_MAPPING = ("CAP_SETUID", "CAP_SETGID", "CAP_SETFCAP")
"""What mapping root's ids takes; SETFCAP for id 0 itself, user_namespaces(7)."""
_LITTLE_SPACE, _FEW_INODES = 2 << 30, 100_000


class Facts(NamedTuple):
    """The facts about the machine; None if the kernel or a file system does not tell."""

    mode: Mode
    abilities: Abilities
    uid: int
    effective: int  # capabilities, as bits
    bounding: int
    no_new_privileges: bool
    seccomp: bool
    user_namespace: bool  # whether this is one already
    namespaces_limit: int | None  # user.max_user_namespaces
    apparmor_restricts: bool  # kernel.apparmor_restrict_unprivileged_userns
    unprivileged_allowed: bool  # Debian's kernel.unprivileged_userns_clone
    helpers: Helper  # newuidmap and newgidmap, the worse of both
    ranges: tuple[Lack, ...]  # what is wrong with /etc/subuid and /etc/subgid
    fresh_proc: str | None
    overlay: str | None  # why the store cannot have one
    records: bool  # whether the store can record owners, or needs not
    store: str
    store_problem: str | None  # why the store cannot be written
    file_system: str
    mount_flags: frozenset[str]
    free_bytes: int
    free_inodes: int | None
    private_network: str | None  # what gives a command a network of its own here
    libseccomp: BuildaError | None  # why it cannot be loaded
    tun: str | None  # why /dev/net/tun cannot be opened, which all but a bridge need
    landlock: bool = True
    yama: int = 0  # kernel.yama.ptrace_scope
    notifications: str | None = None  # why no process can answer another's calls

    @property
    def runs(self) -> bool:
        """Whether commands can be run."""
        return self.records and self.abilities.why_none(self.mode) is None


class Finding(NamedTuple):
    """One sentence, its cause in another, and what to change: lines to be copied, and the mode that they give."""

    kind: Kind
    text: str
    cause: str = ""
    change: tuple[str, ...] = ()
    gives: Mode | None = None


def findings(facts: Facts) -> tuple[Finding, ...]:
    """The findings, that about the mode first."""
    return tuple(_iter_findings(facts))


def _iter_findings(facts: Facts) -> Iterator[Finding]:
    yield _mode(facts)
    if facts.mode is not Mode.DIRECT:
        yield from _better(facts)
    if facts.libseccomp is not None and facts.runs:
        change = ("apt-get install libseccomp2", "elsewhere: install the package libseccomp")
        cause = f"libseccomp, which filters their calls, cannot be loaded: {facts.libseccomp.__cause__}"
        yield Finding("wrong", "commands cannot be run", cause, change)
    yield from _isolation(facts)
    yield from _store(facts)
    if facts.runs:
        yield _network_finding(facts)


def _network_finding(facts: Facts) -> Finding:
    relay = facts.private_network
    if relay == BRIDGE:
        return Finding("good", f"commands have a network of their own, by {relay}")
    if relay is not None and facts.tun is None:
        return Finding(
            "good", f"commands share this process's network; --network private gives them their own, by {relay}"
        )
    what = "commands share this process's network"
    if relay is not None:
        cause = f"{relay} would make them one of their own, and cannot open /dev/net/tun: {facts.tun}"
        closed = facts.tun == os.strerror(errno.EACCES)
        return Finding("note", what, cause, ("chmod 0666 /dev/net/tun" if closed else _TUN_PLUGIN,))
    change = ("apt-get install passt",) if facts.mode.unshares else ()
    return Finding("note", what, "nothing here can make them one of their own", change)


_TUN_PLUGIN = "a device plugin that gives pods /dev/net/tun"
_MODES: dict[Mode, str] = {
    Mode.DIRECT: "namespaces and overlays are made as this process is",
    Mode.USERNS: "builds in a user namespace of its own, with every id of this one",
    Mode.SUBID: "builds in a user namespace, with the ids of /etc/subuid",
    Mode.CHROOT: "commands run by chroot in one tree for each container",
    Mode.SINGLE: "builds in a user namespace of this user's id alone; other ids and owners are pretended",
    Mode.TRACED: "commands run in one tree for each container, as far as their calls can be answered by tracing; ids "
    "and owners are pretended",
}


def _mode(facts: Facts) -> Finding:
    kind: Kind = "good" if facts.runs else "wrong"
    if facts.mode.one_id or facts.mode.is_exposed:
        kind = "note"
    refused = facts.abilities.why_none(facts.mode)
    if refused is not None:
        what = f"mode {facts.mode}: builds without RUN work; commands cannot be run"
        cause = f"they cannot be traced: {refused}"
        if facts.yama >= 2:
            cause = f"they cannot be traced: kernel.yama.ptrace_scope is {facts.yama}"
        return Finding("wrong", what, cause, tracing_change(refused, facts.yama))
    return Finding(kind, f"mode {facts.mode}: {_MODES[facts.mode]}")


def _better(facts: Facts) -> Iterator[Finding]:
    """Why the mode is not a better one."""
    found = facts.abilities
    if found.user_namespace is not None:
        yield _no_namespace(facts)
    elif found.identity_map is not None and facts.uid == 0:
        missing = [name.removeprefix("CAP_") for name in caps.missing(facts.effective, *_MAPPING)]
        if missing:
            yield Finding(
                "lack",
                "root's ids cannot be mapped",
                f"these capabilities are missing: {', '.join(missing)}",
                _context("capabilities:", "  add: [SETUID, SETGID, SETFCAP]"),
                Mode.USERNS,
            )
        if found.single_map is not None:
            yield Finding(
                "lack",
                "root may not map its own id either",
                f"the kernel says: {found.single_map}; root needs CAP_SETFCAP for it, other users do not",
                _context("runAsUser: 1000"),
                Mode.SINGLE,
            )
    if facts.mode is Mode.TRACED and found.change_root is not None and (facts.uid == 0 or not facts.runs):
        yield _no_chroot(facts, found.change_root)
    if found.user_namespace is None and (facts.mode.one_id or not facts.mode.mounts) and facts.uid != 0:
        yield _no_range(facts)


def _no_chroot(facts: Facts, refused: str) -> Finding:
    if facts.uid != 0:
        cause = "this process is not root; a pod's root runs them by chroot, without tracing"
        return Finding("lack", "commands cannot be run by chroot", cause, chroot_change(), Mode.CHROOT)
    missing = ", ".join(name.removeprefix("CAP_") for name in caps.missing(facts.effective, *IN_TREES))
    cause = f"these capabilities are missing: {missing}" if missing else f"the kernel says: {refused}"
    change = _context("capabilities:", f"  add: [{missing}]") if missing else ()
    return Finding("lack", "root cannot run commands by chroot", cause, change, Mode.CHROOT)


def _no_namespace(facts: Facts) -> Finding:
    plain = facts.uid != 0
    gives = Mode.SUBID if plain else Mode.USERNS
    if facts.namespaces_limit == 0:
        cause, change = "the limit user.max_user_namespaces is 0", _sysctl("user.max_user_namespaces=15000")
    elif facts.apparmor_restricts and plain:
        cause = "AppArmor keeps them from unprivileged processes"
        unconfined = _context("appArmorProfile:", "  type: Unconfined")
        change = (*_sysctl("kernel.apparmor_restrict_unprivileged_userns=0"), *unconfined)
    elif not facts.unprivileged_allowed and plain:
        cause, change = "kernel.unprivileged_userns_clone is 0", _sysctl("kernel.unprivileged_userns_clone=1")
    else:
        cause, change = _forbidden(facts)
        gives = Mode.SUBID if plain else Mode.DIRECT
    further = _lacking_for_a_range(facts) if plain else ()
    return _one_finding("no user namespace can be made", ((cause, change), *further), gives)


def _forbidden(facts: Facts) -> Lack:
    cause = f"the kernel says: {facts.abilities.user_namespace}"
    if facts.seccomp:
        cause = "the container runtime's seccomp profile allows unshare and mount with CAP_SYS_ADMIN only"
    if facts.uid != 0:
        return cause, _rootless_pod()
    host_users = () if facts.user_namespace else ("spec:", "  hostUsers: false")
    return cause, (*host_users, *_context("capabilities:", "  add: [SYS_ADMIN]"))


def _sysctl(setting: str) -> tuple[str, ...]:
    return (f"on the node: sysctl -w {setting}",)


def _no_range(facts: Facts) -> Finding:
    """The finding for a plain user whose user namespace has one id."""
    text = "only one id can be mapped"
    lacking = tuple(_lacking_for_a_range(facts))
    if lacking:
        return _one_finding(text, lacking, Mode.SUBID)
    return Finding("lack", text, str(facts.abilities.subordinate_map))


def _one_finding(text: str, lacking: tuple[Lack, ...], gives: Mode) -> Finding:
    """One finding for several causes, all of which must be removed; equal changes are listed once."""
    changes = dict.fromkeys(change for _, change in lacking)
    lines = tuple(line for change in changes for line in change)
    return Finding("lack", text, "; ".join(cause for cause, _ in lacking), lines, gives)


def _lacking_for_a_range(facts: Facts) -> Iterator[Lack]:
    admin = not caps.missing(facts.bounding, "CAP_SYS_ADMIN")
    if facts.helpers == "missing":
        change = ("apt-get install uidmap",) if admin else ("apt-get install uidmap libcap2-bin", *_FILE_CAPABILITIES)
        yield "newuidmap and newgidmap are not installed", change
    elif facts.helpers == "plain":
        cause = "newuidmap and newgidmap have neither a set-uid bit nor file capabilities: a copied image may lose them"
        yield cause, _FILE_CAPABILITIES
    elif facts.helpers == "set-uid" and not admin:
        cause = "newuidmap with the set-uid bit needs CAP_SYS_ADMIN in the bounding set, which pods do not have"
        yield cause, _FILE_CAPABILITIES
    yield from facts.ranges
    if facts.no_new_privileges:
        yield "no_new_privs is set: newuidmap and newgidmap get no rights from their files", _rootless_pod()
    elif caps.missing(facts.bounding, "CAP_SETUID", "CAP_SETGID"):
        cause = "SETUID and SETGID are not in the bounding set: newuidmap and newgidmap cannot have them"
        yield cause, _rootless_pod()


_FILE_CAPABILITIES = (
    "chmod 755 /usr/bin/newuidmap /usr/bin/newgidmap",
    "setcap cap_setuid+ep /usr/bin/newuidmap",
    "setcap cap_setgid+ep /usr/bin/newgidmap",
)


def _rootless_pod() -> tuple[str, ...]:
    return _context(
        "allowPrivilegeEscalation: true",
        "capabilities:",
        "  drop: [ALL]",
        "  add: [SETUID, SETGID]",
        "seccompProfile:",
        "  type: Unconfined",
    )


def _context(*lines: str) -> tuple[str, ...]:
    return ("securityContext:", *(f"  {line}" for line in lines))


def _isolation(facts: Facts) -> Iterator[Finding]:
    if facts.mode.is_exposed and facts.runs:
        can = "see the processes of this place and use its network"
        if facts.mode.chroots:
            can = "read the files of this place, see its processes and use its network"
        kept = "; they write to their own tree only" if facts.landlock else ""
        yield Finding("note", f"commands can {can}{kept}")
    if facts.mode.is_exposed and not facts.landlock:
        yield Finding(
            "note",
            "a command may write to what else builda may write to in this place",
            "the kernel has no Landlock, or one before Linux 5.19; the parameter lsm= of the node must list landlock",
        )
    if facts.mode is Mode.CHROOT and facts.notifications is not None:
        yield Finding("note", "commands have no /proc", facts.notifications, (NOTIFYING,))
    if facts.mode is Mode.TRACED and facts.runs and facts.notifications is not None:
        text = "commands take several times as long: each call that is answered stops its thread (ptrace)"
        yield Finding("note", text, facts.notifications, (NOTIFYING,))
    if facts.mode.one_id and facts.notifications is not None:
        text = "commands can become no other user and give files to nobody"
        yield Finding("note", text, facts.notifications, (NOTIFYING,))
    if facts.mode.unshares and facts.fresh_proc is not None:
        yield Finding(
            "note",
            "commands see the processes of this pod in /proc",
            "parts of /proc are masked, and then the kernel gives no new one",
            (*(() if facts.user_namespace else ("spec:", "  hostUsers: false")), *_context("procMount: Unmasked")),
        )


def _store(facts: Facts) -> Iterator[Finding]:
    where = f"{facts.store} ({facts.file_system})"
    if facts.store_problem is not None:
        change = ("builda --root DIRECTORY, or BUILDA_ROOT", *_VOLUME)
        yield Finding("wrong", f"the store cannot be written: {where}", facts.store_problem, change)
        return
    if not facts.records:
        from builda.linux.userattributes import WHERE, WHY_NONE

        what = f"no trees can be made in the store, only builds without RUN work: {where}"
        yield Finding("wrong", what, f"{WHY_NONE}; {WHERE}", _VOLUME)
    elif facts.mode.mounts:
        yield _overlay(facts, where)
    for flag in ("noexec", "nosuid", "nodev"):
        if flag in facts.mount_flags and flag != "nodev":
            cause = f"its file system is mounted {flag}"
            what = "commands cannot be executed" if flag == "noexec" else "set-uid programs have no effect in commands"
            yield Finding("wrong" if flag == "noexec" else "note", f"{what}: {where}", cause, _VOLUME)
    if facts.free_bytes < _LITTLE_SPACE:
        yield Finding("note", f"{facts.free_bytes >> 20} MiB are free: {where}", "an image is unpacked there")
    if facts.free_inodes is not None and facts.free_inodes < _FEW_INODES:
        yield Finding("note", f"{facts.free_inodes} inodes are free: {where}", "each file of an image takes one")


def _overlay(facts: Facts, where: str) -> Finding:
    if facts.overlay is None:
        return Finding("good", f"layers are overlays: {where}")
    cause = facts.overlay
    if facts.file_system == "overlay":
        cause = "an overlay cannot be written on another overlay, the container's own file system"
    what = "builds keep their trees in memory as far as it lasts, and scripts copy them, which is slower"
    return Finding("lack", f"{what}: {where}", cause, _VOLUME)


_VOLUME = (
    "volumeMounts:",
    "- {name: store, mountPath: /var/lib/builda}",
    "volumes:",
    "- {name: store, emptyDir: {}}",
)


def examine(mode: Mode | None, root: str, runroot: str) -> Facts:
    """Look at this process, its machine and the place of the store; `mode` is one that was asked for."""
    from builda.host import modes
    from builda.linux import syscalls as sys_
    from builda.linux.directories import nearest
    from builda.linux.notifications import notifications_refused, yama
    from builda.linux.userattributes import keeps_attributes
    from builda.linux.userns import in_user_namespace

    found = modes.abilities(runroot, again=True)
    chosen = mode or choose_mode(found)
    status = _status()
    there = nearest(root)
    room = os.statvfs(there)
    effective = sys_.capget()[0]
    return Facts(
        mode=chosen,
        abilities=found,
        uid=os.geteuid(),
        effective=effective,
        bounding=int(status.get("CapBnd", "0"), 16),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        seccomp=status.get("Seccomp", "0") != "0",
        user_namespace=in_user_namespace(),
        namespaces_limit=_number("/proc/sys/user/max_user_namespaces"),
        apparmor_restricts=_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1,
        unprivileged_allowed=_number("/proc/sys/kernel/unprivileged_userns_clone") != 0,
        helpers=_helpers(),
        ranges=tuple(_ranges()),
        fresh_proc=_inside(chosen, "fresh proc"),
        overlay=_overlay_in(chosen, there),
        records=not chosen.records_owners or keeps_attributes(there),
        store=root,
        store_problem=_unwritable(there),
        file_system=_mounted(there)[0],
        mount_flags=_mounted(there)[1],
        free_bytes=room.f_bavail * room.f_frsize,
        free_inodes=room.f_favail if room.f_files else None,
        private_network=_network(chosen, effective),
        libseccomp=_libseccomp_missing(),
        tun=_tun_refused(),
        landlock=_has_landlock(),
        yama=yama(),
        notifications=notifications_refused(),
    )


def _has_landlock() -> bool:
    from builda.linux import landlock

    return landlock.version_here() >= landlock.LEAST


def _libseccomp_missing() -> BuildaError | None:
    from builda.linux.seccomp import library

    try:
        library()
    except BuildaError as error:
        return error
    return None


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return dict(line.rstrip("\n").replace("\t", "").split(":", 1) for line in file if ":" in line)


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def _unwritable(path: str) -> str | None:
    if os.access(path, os.W_OK | os.X_OK):
        return None
    return "it is on a read-only file system" if "ro" in _mounted(path)[1] else f"{path} belongs to another user"


def _mounted(path: str) -> tuple[str, frozenset[str]]:
    """The type and flags of the file system that `path` is on."""
    from builda.linux import procfs

    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    fitting = [mount for mount in procfs.mounts() if mount.device == number and _is_below(path, mount.point)]
    if not fitting:
        return "unknown", frozenset()
    found = max(fitting, key=lambda mount: len(mount.point))
    return found.kind, frozenset(found.flags)


def _is_below(path: str, mount: str) -> bool:
    return mount == "/" or path == mount or path.startswith(f"{mount}/")


def _ranges() -> Iterator[Lack]:
    from builda.linux.subids import subordinate_map

    user = os.geteuid()
    owners: tuple[tuple[Literal["uid", "gid"], int], ...] = (("uid", user), ("gid", os.getegid()))
    for kind, own in owners:
        try:
            subordinate_map(kind, own, user)
        except BuildaError as error:
            yield str(error), (error.hint,) if error.hint else ()


_WORST: tuple[Helper, ...] = ("missing", "plain", "set-uid", "file capabilities")


def _helpers() -> Helper:
    from builda.linux.process import find_program

    return min((_helper(find_program(name)) for name in ("newuidmap", "newgidmap")), key=_WORST.index)


def _helper(path: str | None) -> Helper:
    if path is None:
        return "missing"
    try:
        os.getxattr(path, "security.capability")
    except OSError:  # it has none, or they cannot be had here
        return "set-uid" if os.stat(path).st_mode & (stat.S_ISUID | stat.S_ISGID) else "plain"
    return "file capabilities"


def _inside(mode: Mode, name: str) -> str | None:
    """The result of the trial of this name (see `modes.report`) in the mode's namespaces."""
    from builda.host.probe import details

    return _in_namespace(mode, lambda maps: details(maps)[name])


def _overlay_in(mode: Mode, place: str) -> str | None:
    """Why no overlay can be written in `place`, tried in a directory that is removed again; None if it can."""
    if not os.access(place, os.W_OK):
        return "it cannot be written"
    from builda.host.modes import overlay_at

    return _in_namespace(mode, lambda maps: overlay_at(place, ".builda-doctor-", maps))


def _in_namespace(mode: Mode, ask: Callable[[Maps | None], str | None]) -> str | None:
    if not mode.mounts:
        return "this mode has none"
    try:
        return ask(mode.maps())
    except BuildaError as error:
        return str(error)


def _network(mode: Mode, effective: int) -> str | None:
    from builda.linux.process import find_program
    from builda.linux.userns import in_user_namespace

    if mode is Mode.DIRECT and not in_user_namespace():
        return None if caps.missing(effective, "CAP_NET_ADMIN") else BRIDGE
    if not mode.mounts:
        return None
    return next((name for name in ("pasta", "slirp4netns") if find_program(name)), None)


def _tun_refused() -> str | None:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.strerror
    return None
