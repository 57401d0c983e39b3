"""The look-up options of one step of a script, and the reasons why a command cannot be looked up at all."""

from __future__ import annotations

import os
import stat

from builda.plan import Context, NamedContext
from builda.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from builda.builder.run.command import Surroundings
    from builda.plan import Run, RunOptions

Stream: TypeAlias = "tuple[int, int]"
"""Device and inode of what a descriptor is open for."""

OUTPUT_LIMIT = 64 << 10
"""So many bytes of output are remembered with a step; a step with more is performed again where output is taken."""
_NULL = os.makedev(1, 3)
_SECRET = frozenset({"secret", "ssh"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """The cache options of one call; the container has others."""

    looks: bool = True  # False: perform the step, and remember nothing of it but what it changes
    extra: str | None = None  # a further part of the key
    max_age: float | None = None  # seconds; older results count as forgotten
    logs: frozenset[Stream] = frozenset()  # where the script's own output goes: what is written there is for people


PLAIN = Caching()


def why_not_looked_up(step: Run, options: RunOptions, around: Surroundings, *, takes_output: bool) -> str | None:
    """Why the result of a command cannot be remembered; None if it can. `options`: the container's and the step's."""
    if options.terminal:
        return "it has a terminal (--terminal)"
    if options.volumes:
        return "--volume shows files of the host whose content is not in the key; --mount type=bind,source=… is"
    for mount in step.mounts:
        if mount.type == "bind" and mount.read_only is False and isinstance(mount.from_, Context | NamedContext):
            return f"it may write to the host through the mount at {mount.target}"
    if takes_output and any(mount.type in _SECRET for mount in step.mounts):
        return "its output may hold a secret"
    if step.stdin is None and not around.terminal and (kind := _input()) is not None:
        return f"its standard input is a {kind}; </dev/null says that it reads none"
    return None


def takes_output(around: Surroundings, logs: frozenset[Stream]) -> bool:
    """Whether standard output goes to a pipe or file that the script reads, and not to people or their log."""
    if around.capture:
        return False
    try:
        info = os.fstat(1)
    except OSError:  # it is closed
        return False
    if not (stat.S_ISFIFO(info.st_mode) or stat.S_ISREG(info.st_mode) or stat.S_ISSOCK(info.st_mode)):
        return False
    return (info.st_dev, info.st_ino) not in logs


def _input() -> str | None:
    """The kind of standard input if bytes may come from it; None for /dev/null, a terminal, and anything at its end."""
    try:
        info = os.fstat(0)
    except OSError:  # it is closed
        return None
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFCHR and (os.isatty(0) or info.st_rdev == _NULL):
        return None  # a command whose output is taken gets an empty input in place of the terminal
    if kind == stat.S_IFREG:
        return None if os.lseek(0, 0, os.SEEK_CUR) >= info.st_size else "file"
    if kind in (stat.S_IFIFO, stat.S_IFSOCK):
        return None if _is_at_end() else "pipe"
    return "device"


def _is_at_end() -> bool:
    """Whether the pipe is empty and no process has its writing end."""
    import select

    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLRDHUP)
    happened = dict(poll.poll(0)).get(0, 0)
    return bool(happened & (select.POLLHUP | select.POLLRDHUP)) and not happened & select.POLLIN
