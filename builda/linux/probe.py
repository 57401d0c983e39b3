"""What this process may do, found by trying it in a forked child; never guessed from the environment.

Only the first rung of the ladder of modes is probed so far: `direct`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from builda.errors import IsolationUnavailable
from builda.linux import syscalls as sys_

if TYPE_CHECKING:
    from collections.abc import Callable

Mode: TypeAlias = Literal["direct"]


class Abilities(NamedTuple):
    """What was tried; None for what worked, else what the kernel said."""

    unshare_mount: str | None
    mount_tmpfs: str | None
    mount_overlay: str | None
    unshare_pid: str | None
    mount_proc: str | None
    unshare_network: str | None


def probe() -> Abilities:
    """Try each ability in a child of its own; nothing changes for this process."""
    return Abilities(
        unshare_mount=_attempt(_private_mounts),
        mount_tmpfs=_attempt(_tmpfs),
        mount_overlay=_attempt(_overlay),
        unshare_pid=_attempt(lambda: sys_.unshare(sys_.CLONE_NEWPID)),
        mount_proc=_attempt(_proc),
        unshare_network=_attempt(lambda: sys_.unshare(sys_.CLONE_NEWNET)),
    )


def probe_mode() -> Mode:
    """The mode that this process can build in; IsolationUnavailable names what is missing."""
    refused = _attempt(_private_mounts) or _attempt(_tmpfs)
    if refused is None:
        return "direct"
    raise IsolationUnavailable(
        f"this process may not make mounts: {refused}",
        hint="run builda as root; in a pod add SYS_ADMIN to capabilities (best with hostUsers: false)",
    )


def _private_mounts() -> None:
    sys_.unshare(sys_.CLONE_NEWNS)
    sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)


def _tmpfs() -> None:
    _private_mounts()
    sys_.mount("tmpfs", "/proc", "tmpfs", 0)


def _overlay() -> None:
    _tmpfs()
    for name in ("lower", "upper", "work"):
        os.mkdir(f"/proc/{name}")
    sys_.mount("overlay", "/proc/lower", "overlay", 0, "lowerdir=/proc/lower,upperdir=/proc/upper,workdir=/proc/work")


def _proc() -> None:
    _private_mounts()
    sys_.mount("proc", "/proc", "proc", 0)


def _attempt(action: Callable[[], None]) -> str | None:
    """None when `action` works in a forked child, else the error's text."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except OSError as error:
            os.write(writer, str(error.strerror).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said or None
