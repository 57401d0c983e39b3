"""Which mode builda works in here, and entering it.

The mode is decided once, by the first verb that needs it, and remembered in the volatile run root for as long as this
process's rights, the machine's boot, its limits for user namespaces and builda's version are the same.
"""

from __future__ import annotations

import errno
import os

from builda.errors import BuildaError, InvalidValue, IsolationUnavailable, Unsupported
from builda.host.probe import MODES, UNTRIED, Abilities, Mode, choose_mode, decisive, subordinate
from builda.linux.userns import mapping_refused
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.linux.userns import IdMap, Maps

__all__ = [
    "Mode",
    "Place",
    "abilities",
    "decide",
    "enter",
    "fuse_refused",
    "move",
    "overlay_refused",
    "parse_mode",
    "report",
]

_SETTINGS = (
    "user/max_user_namespaces",
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
)
"""What an administrator may change while the machine runs."""
_MOST_REMEMBERED = 4
"""Processes of so many kinds find what was remembered of them."""
_LEAST_MEMORY = 512 << 20
"""Bytes of memory below which trees are not kept in it."""
_ASIDE = "aside"
"""The view of ids of trees whose owners and modes are kept aside, by a process that can give no file away."""


def parse_mode(text: str | None) -> Mode | None:
    """The mode of `--mode` or BUILDA_MODE; None for `auto` and nothing."""
    if text in (None, "", "auto"):
        return None
    try:
        return Mode(text)
    except ValueError:
        raise InvalidValue(f"no such mode: {text}", hint=f"it is auto, {', '.join(MODES)}") from None


def abilities(runroot: str, *, again: bool = False) -> Abilities:
    """The abilities that the mode depends on, remembered in `runroot` if that can be written.

    With `again` they are tried now, even if some are remembered.
    """
    key = _credentials()
    path = f"{runroot}/abilities-{os.geteuid()}"
    remembered = None if again else _remembered(path, key)
    if remembered is not None:
        return remembered
    found = decisive()
    _remember(path, (key, found))
    return found


def move(runroot: str, own_mounts: Callable[[], None]) -> None:
    """Enter a mount namespace that is a copy of this one; what is remembered of this process holds there, too."""
    path = f"{runroot}/abilities-{os.geteuid()}"
    key = _credentials()
    found = _remembered(path, key)
    own_mounts()
    if found is not None:
        _remember(path, (_credentials(), found), (key, found))


def decide(asked: Mode | None, runroot: str) -> Mode:
    """The mode to work in: `asked`, else the best one that works."""
    return asked or choose_mode(abilities(runroot))


class Place(NamedTuple):
    """An entered mode, and how ids look in it.

    `ids` are the id maps that a store may have been made with, first that of a new store; "" means unmapped.
    """

    mode: Mode
    ids: tuple[str, ...]
    no_run: BuildaError | None = None  # why no command can be run and nothing mounted
    no_others: BuildaError | None = None  # why there is one id only
    not_shown: str | None = None  # why no calls are answered, where commands need it: for other ids, or for /proc


def enter(asked: Mode | None, runroot: str, *, composing: bool = False) -> Place:
    """Enter the namespaces of the mode: those of its own for `userns`, `subid` and `single`.

    Must be called while this process has one thread. IsolationUnavailable or Unsupported if no mode works. With
    `composing`, which takes no rights, there is always one, and the place says what it lacks.
    """
    mode = decide(asked, runroot)
    if mode is Mode.TRACED and (refused := _why_untraced(asked, runroot)) is not None:
        lacking = _nothing_runs(abilities(runroot), refused)
        if composing:
            return Place(mode, _views(mode, None), lacking)
        raise lacking
    if mode is Mode.DIRECT and asked is not None:
        _check_direct(runroot)
    maps = mode.maps()
    no_others = _no_range(abilities(runroot)) if mode.one_id else None
    if maps is not None:
        from builda.linux.userns import enter as enter_namespace

        enter_namespace(maps)
    if mode == "chroot":
        from builda.linux.caps import lower

        lower("CAP_MKNOD")  # nodes of images are files that stand in for them: a command could open the nodes
    if mode is Mode.TRACED:
        from builda.linux.syscalls import capset

        capset(0, 0, 0)  # owners and modes are kept aside in any case, by one rule
    return Place(mode, _views(mode, maps), no_others=no_others, not_shown=_not_shown(mode))


def _not_shown(mode: Mode) -> str | None:
    if not mode.one_id and mode is not Mode.CHROOT:
        return None
    from builda.linux.notifications import notifications_refused

    return notifications_refused()


def _views(mode: Mode, maps: Maps | None) -> tuple[str, ...]:
    """The views of ids that a store may have. A process without a new namespace may be in one of `unshare`."""
    from builda.linux.userns import id_map

    if mode is Mode.TRACED:
        return (_ASIDE,)
    if mode is not Mode.USERNS and maps is not None:
        return (_as_text(maps.uids),)
    return ("", _as_text(id_map())) if maps is None else ("",)


def _as_text(rows: IdMap) -> str:
    return ",".join(":".join(map(str, row)) for row in rows)


def _why_untraced(asked: Mode | None, runroot: str) -> str | None:
    """Why commands cannot be traced here; None if they can."""
    found = abilities(runroot).trace
    if found != UNTRIED or asked is None:
        return found
    from builda.host.probe import try_trace  # a better mode works, and this one was asked for

    return try_trace()


def _nothing_runs(found: Abilities, refused: str) -> BuildaError:
    """The error that says why neither mode `traced` nor another one can run commands here."""
    why = f"commands cannot be traced here: {refused}"
    if choose_mode(found) is not Mode.TRACED:
        return Unsupported(why, hint=f"mode {choose_mode(found)} works here")
    from builda.host.probe import chroot_change, tracing_change
    from builda.linux.notifications import yama

    ways = [_in_a_line(tracing_change(refused, yama())), f"in a pod {_in_a_line(chroot_change())}"]
    if found.user_namespace is not None:
        why = f"this process may make no user namespace: {found.user_namespace}; {why}"
        ways.append("hostUsers: false with SYS_ADMIN among the capabilities")
    return IsolationUnavailable(why, hint="; or ".join(ways))


def _in_a_line(change: tuple[str, ...]) -> str:
    """Lines of a manifest as words: `runAsUser: 0, capabilities: add: […]`."""
    return " ".join(line.strip() for line in change).removeprefix("securityContext: ")


def _no_range(found: Abilities) -> BuildaError:
    """The error that says why this process can map no id but its own."""
    if os.geteuid() == 0 and found.identity_map is not None:
        refused = mapping_refused(found.identity_map, by_tools=False)
        if found.single_map is not None:
            refused.hint = f"{refused.hint}; a user that is not root (in a pod, runAsUser: 1000) needs none"
        return refused
    try:
        subordinate()
    except IsolationUnavailable as error:
        return error
    return mapping_refused(found.subordinate_map or "", by_tools=True)


def _check_direct(runroot: str) -> None:
    refused = abilities(runroot).private_mounts
    if refused is not None:
        raise IsolationUnavailable(
            f"this process may not make mounts: {refused}",
            hint="run builda as root; in a pod add SYS_ADMIN to capabilities (best with hostUsers: false)",
        )


def _credentials() -> str:
    """One line of everything readable that the abilities depend on: the key under which they are remembered."""
    from builda import __version__

    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        words = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")
        rows = [line.split() for line in file if line.startswith(words)]
    places = [os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt")]
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot = file.read().strip()
    limits = [_setting(name) for name in _SETTINGS]
    times = [_changed(path) for path in ("/etc/subuid", "/etc/subgid", "/usr/bin/newuidmap", "/usr/bin/newgidmap")]
    return " ".join([__version__, boot, *places, *(word for row in rows for word in row), *limits, *times])


def _setting(name: str) -> str:
    try:
        with open(f"/proc/sys/{name}", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "-"


def _changed(path: str) -> str:
    try:
        return str(os.stat(path).st_ctime_ns)
    except OSError:
        return "-"


def _remembered(path: str, key: str) -> Abilities | None:
    return next((found for known, found in _all_remembered(path) if known == key), None)


def _all_remembered(path: str) -> list[tuple[str, Abilities]]:
    """The remembered abilities in the file with their keys, newest first."""
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return []
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError):  # missing or not readable for this user: then it is tried again
        return []
    size = len(Abilities._fields) + 1
    if len(lines) % size:
        return []
    blocks = [lines[at : at + size] for at in range(0, len(lines), size)]
    return [(key, Abilities(*(None if line == "yes" else line for line in rest))) for key, *rest in blocks]


def _remember(path: str, *found: tuple[str, Abilities]) -> None:
    """Remember what was found, and what was before that, as commands of a session alternate with others."""
    from builda.linux import private

    known = {key for key, _ in found}
    blocks = [*found, *((key, older) for key, older in _all_remembered(path) if key not in known)][:_MOST_REMEMBERED]
    lines = [
        line for key, one in blocks for line in (key, *("yes" if no is None else " ".join(no.split()) for no in one))
    ]
    temporary = f"{path}-{os.getpid()}"
    try:
        private.make(os.path.dirname(path))
        with open(temporary, "x", encoding="utf-8", opener=private.opener) as file:
            file.write("\n".join(lines))
        os.rename(temporary, path)
    except OSError:
        return  # a run root that cannot be written costs the next command the same 10 ms


def report(mode: Mode, runroot: str) -> dict[str, str]:
    """The abilities of this process by name ("yes", "not tried", or the reason), and paths of helper programs."""
    from builda.host.probe import details, everywhere
    from builda.linux.notifications import notifications_refused
    from builda.linux.process import find_program

    names = {
        "private_mounts": "mount namespace",
        "user_namespace": "user namespace",
        "identity_map": "identity map",
        "subordinate_map": "subordinate ids",
        "single_map": "one id",
        "change_root": "chroot",
        "trace": "tracing",
    }
    found: dict[str, str | None] = {names[key]: answer for key, answer in abilities(runroot)._asdict().items()}
    if mode.mounts:
        found |= details(mode.maps())
    found |= everywhere()
    found["seccomp notifications"] = notifications_refused()
    answers = {name: "yes" if answer is None else answer for name, answer in found.items()}
    tools = ("newuidmap", "newgidmap", "pasta", "slirp4netns", "fuse-overlayfs", "crun", "runc")
    return answers | {name: find_program(name) or "not installed" for name in tools}


def room(place: str, mode: Mode) -> dict[str, int | str]:
    """Free space and inodes of the file system at `place`, a directory for temporary files, and its abilities."""
    from builda.host.mount_trials import reflink
    from builda.linux.process import process_identity
    from builda.linux.trial import attempt

    left = os.statvfs(place)
    found: dict[str, int | str] = {
        "free bytes": left.f_bavail * left.f_frsize,
        "free inodes": left.f_favail,
        "reflink": attempt(lambda: reflink(place)) or "yes",
    }
    if not mode.mounts:
        return found
    pid, start = process_identity()
    for name, options in (("overlay", ()), ("overlay userxattr", ("userxattr",))):
        found[name] = overlay_at(place, f"tmp-{pid}-{start}-", mode.maps(), options) or "yes"
    return found


def overlay_at(place: str, prefix: str, maps: Maps | None, options: tuple[str, ...] | None = None) -> str | None:
    """Why no overlay can be written in a directory below `place`, which is removed again; None if one can.

    `options` are by default those that overlays have in the namespaces of `maps`.
    """
    from builda.linux.trial import attempt

    return attempt(lambda: _overlay_at(place, prefix, maps, options))


def _overlay_at(place: str, prefix: str, maps: Maps | None, options: tuple[str, ...] | None) -> None:
    import shutil
    import tempfile

    from builda.host.mount_trials import overlay_in
    from builda.linux.userns import enter as enter_namespace
    from builda.linux.userns import in_user_namespace

    if maps is not None:
        enter_namespace(maps)
    if options is None:
        options = ("userxattr",) if in_user_namespace() else ()
    directory = tempfile.mkdtemp(prefix=prefix, dir=place)
    try:
        overlay_in(directory, *options)
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # noqa: TID251  # what this function made, a few levels deep


def hold_memory(place: str) -> int | None:
    """Mount a tmpfs at `place` that only this process and its children see; returns how many bytes it takes.

    None, and nothing is mounted, if less memory is left than a build is likely to need, or if no overlay can be written
    in such a tmpfs, or no owner recorded where that is needed. Must be called while this process has one thread.
    """
    from builda.linux import syscalls as sys_
    from builda.linux.free_memory import available

    size = available() // 2  # the other half is for what commands do
    if size < _LEAST_MEMORY:
        return None
    sys_.unshare(sys_.CLONE_NEWNS)
    sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)
    sys_.mount("tmpfs", place, "tmpfs", 0, f"size={size},mode=0700")
    probe = f"{place}/probe"
    os.mkdir(probe, 0o700)
    if overlay_refused(probe) is not None or not _can_record(probe):
        sys_.umount2(place, sys_.MNT_DETACH)
        return None
    import shutil

    shutil.rmtree(probe)  # noqa: TID251  # what this function made, a few levels deep
    return size


def _can_record(place: str) -> bool:
    """Whether owners can be recorded at `place`, or need not be, as this process has more than one id."""
    from builda.linux.userattributes import keeps_attributes
    from builda.linux.userns import id_map

    return sum(size for _, _, size in id_map()) > 1 or keeps_attributes(place)


def overlay_refused(place: str) -> str | None:
    """Why no overlay can be written in the empty directory `place`; None when one can. Leaves it filled."""
    from builda.host.mount_trials import overlay_in
    from builda.linux.userns import in_user_namespace

    try:
        overlay_in(place, *(("userxattr",) if in_user_namespace() else ()))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise  # of the place as it is now, not of what it can ever hold
        return str(error.strerror)
    return None


def fuse_refused(mode: Mode) -> str | None:
    """Why fuse-overlayfs cannot be had in a mode at all; None when it may be."""
    from builda.linux.fuse import lacking
    from builda.linux.userns import id_map

    if not mode.mounts:
        return f"mode {mode} mounts nothing"
    if mode.one_id or sum(size for _, _, size in id_map()) == 1:  # `unshare` may have led here
        return "with one id owners are kept in an attribute that fuse-overlayfs takes from nobody"
    return lacking()
