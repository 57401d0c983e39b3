"""Which pseudo-terminals of a pod are a command's own: others belong to shells that someone has opened in the pod."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORY = b"/dev/pts/"
MASTER = b"/dev/ptmx"


def is_own(path: bytes, caller: int, processes: Iterable[int]) -> bool:
    """Whether a command may open /dev/pts/N: the caller's streams are this terminal, or a process has its master open.

    `processes` are those of the command.
    """
    number = path[len(DIRECTORY) :]
    if number == b"ptmx":
        return True
    if any(_link(b"/proc/%d/fd/%d" % (caller, stream)) == path for stream in range(3)):
        return True
    return any(_has_master(process, number) for process in (caller, *processes))


def _has_master(process: int, number: bytes) -> bool:
    try:
        descriptors = os.listdir(b"/proc/%d/fd" % process)
    except OSError:  # it has ended, or is another user's
        return False
    for name in descriptors:
        if _link(b"/proc/%d/fd/%b" % (process, name)).endswith(b"/ptmx"):
            try:
                with open(b"/proc/%d/fdinfo/%b" % (process, name), "rb", buffering=0) as file:
                    text = file.read(1024)
            except OSError:
                continue
            if b"tty-index:\t%b\n" % number in text:
                return True
    return False


def _link(path: bytes) -> bytes:
    try:
        return os.readlink(path)
    except OSError:
        return b""
