"""Which mode builda works in here, and entering it.

The mode is decided once, by the first verb that needs it, and remembered in the volatile run root for as long as this
process's rights, the machine's boot and builda's version are the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builda.errors import InvalidValue, IsolationUnavailable, Unsupported
from builda.linux.probe import MODES, Abilities, Mode, choose_mode, decisive, subordinate

if TYPE_CHECKING:
    from builda.linux.userns import Maps

__all__ = ["Mode", "abilities", "decide", "enter", "maps_of", "missing", "parse_mode"]

_NOT_BUILT = {
    "single": "mode single, one id in a user namespace, is not built yet",
    "traced": "mode traced, without any namespace, is not built yet",
}


def parse_mode(text: str | None) -> Mode | None:
    """The mode of `--mode` or BUILDA_MODE; None for `auto` and nothing."""
    if text in (None, "", "auto"):
        return None
    for mode in MODES:
        if mode == text:
            return mode
    raise InvalidValue(f"no such mode: {text}", hint=f"it is auto, {', '.join(MODES)}")


def abilities(runroot: str) -> Abilities:
    """What this process may do, as far as the mode depends on it; remembered in `runroot` where that can be written."""
    key = _credentials()
    path = f"{runroot}/abilities-{os.geteuid()}"
    remembered = _remembered(path, key)
    if remembered is not None:
        return remembered
    found = decisive()
    _remember(path, key, found)
    return found


def decide(asked: Mode | None, runroot: str) -> Mode:
    """The mode to work in; `asked` is taken at its word."""
    return asked or choose_mode(abilities(runroot))


def maps_of(mode: Mode) -> Maps | None:
    """The user namespace that a mode works in; None for those that have none."""
    from builda.linux import userns

    if mode == "userns":
        return userns.identity()
    return subordinate() if mode == "subid" else None


def enter(asked: Mode | None, runroot: str) -> Mode:
    """This process is where its mode works: in namespaces of its own for `userns` and `subid`. The mode.

    Must be called while this process has one thread. IsolationUnavailable or Unsupported when there is no way.
    """
    mode = decide(asked, runroot)
    if mode in _NOT_BUILT:
        raise Unsupported(_NOT_BUILT[mode], hint=missing(abilities(runroot)))
    if mode == "direct" and asked is not None:
        _check_direct(runroot)
    maps = maps_of(mode)
    if maps is not None:
        from builda.linux.userns import enter as enter_namespace

        enter_namespace(maps)
    return mode


def missing(found: Abilities) -> str:
    """What would give a mode that works, in one line."""
    if found.user_namespace is None:
        return f"builda needs a range of ids: {found.subordinate_map}"
    return f"user namespaces are refused ({found.user_namespace}): in a pod, set seccompProfile to Unconfined"


def _check_direct(runroot: str) -> None:
    refused = abilities(runroot).private_mounts
    if refused is not None:
        raise IsolationUnavailable(
            f"this process may not make mounts: {refused}",
            hint="run builda as root; in a pod add SYS_ADMIN to capabilities (best with hostUsers: false)",
        )


def _credentials() -> str:
    """All that the answer depends on and that can be had without trying, as one line."""
    from builda import __version__

    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        words = ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")
        rows = [line.split() for line in file if line.startswith(words)]
    places = [os.readlink(f"/proc/self/ns/{name}") for name in ("user", "mnt")]
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    times = [_changed(path) for path in ("/etc/subuid", "/etc/subgid", "/usr/bin/newuidmap", "/usr/bin/newgidmap")]
    return " ".join([__version__, boot, *places, *(word for row in rows for word in row), *times])


def _changed(path: str) -> str:
    try:
        return str(os.stat(path).st_ctime_ns)
    except OSError:
        return "-"


def _remembered(path: str, key: str) -> Abilities | None:
    try:
        with open(path, encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError):  # it is not there, or not for us: then we look ourselves
        return None
    if lines[0] != key or len(lines) != len(Abilities._fields) + 1:
        return None
    return Abilities(*(None if line == "yes" else line for line in lines[1:]))


def _remember(path: str, key: str, found: Abilities) -> None:
    lines = [key, *("yes" if answer is None else " ".join(answer.split()) for answer in found)]
    temporary = f"{path}-{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(temporary, "x", encoding="utf-8") as file:
            file.write("\n".join(lines))
        os.rename(temporary, path)
    except OSError:
        return  # a run root that cannot be written costs the next command the same 10 ms
