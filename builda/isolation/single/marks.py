"""Which credentials each process has."""

from __future__ import annotations

import resource

from builda.isolation.emulated.credentials import Credentials
from builda.isolation.single.finding import file_of

_MARK = resource.RLIMIT_RTTIME
_FIRST_MARK = 1 << 62


class Marks:
    """The credentials of processes, told apart by a mark that the kernel hands down at fork(2) and keeps at execve(2).

    The mark is the hard limit RLIMIT_RTTIME, which means nothing to processes without real-time scheduling. A process
    may not raise it, so each change of credentials takes a lower one.
    """

    def __init__(self, first: Credentials) -> None:
        self.first = first
        self.next = _FIRST_MARK
        self.meanings: dict[int, tuple[Credentials, Credentials, tuple[int, int] | None]] = {}
        self.known: dict[tuple[Credentials, Credentials, tuple[int, int] | None], list[int]] = {}

    def of(self, pid: int) -> Credentials:
        """The credentials of a process."""
        if not self.meanings:
            return self.first
        found = self.meanings.get(_mark(pid))
        if found is None:
            return self.first
        new, old, program = found
        if program is None or program == file_of(b"%d/exe" % pid):
            return new
        return old  # execve(2) failed

    def set(self, pid: int, new: Credentials, old: Credentials, program: tuple[int, int] | None = None) -> None:
        """Give a process credentials; if `program` is given, they count once it executes that file (device, inode)."""
        now = _mark(pid)
        meaning = (new, old if program is not None else new, program)
        marks = self.known.setdefault(meaning, [])
        mark = next((mark for mark in marks if mark <= now), None)
        if mark is None:
            mark = self.next = min(self.next, now) - 1
            marks.append(mark)
            self.meanings[mark] = meaning
        resource.prlimit(pid, _MARK, (mark, mark))

    def are_doubtful(self, pid: int) -> bool:
        """Whether the credentials of a process depend on the file that it executes."""
        if not self.meanings:
            return False
        found = self.meanings.get(_mark(pid))
        return found is not None and found[2] is not None


def _mark(pid: int) -> int:
    _, hard = resource.prlimit(pid, _MARK)
    return _FIRST_MARK if hard == resource.RLIM_INFINITY else min(hard, _FIRST_MARK)
