"""Pages of memory that served commands write to: those that one wrote to are copied ahead for the next.

A forked process shares its pages with its parent, and the kernel copies each at the first write, which takes three
microseconds; a command writes to a thousand. Forks of one process have the same things at the same addresses, so one
command tells which pages the next is going to write to. What is noted may be wrong: a page is then copied in vain, or
at the first write.
"""

from __future__ import annotations

import mmap
import os
import resource
from array import array
from contextlib import suppress

from builda.linux import syscalls as sys_

PAGE = mmap.PAGESIZE
COMMANDS = 16
"""How many commands note their pages: later ones would hardly add any."""
FEW = 100
"""Pages that a command may be given while it runs without that it is worth to note them."""
_GAP = 1
"""Pages that are copied with those around them, as that takes no longer than a further system call."""
_SIZE = 64 << 10
_STATE = 1 << 63 | 1 << 61 | 1 << 56
_OWN = 1 << 63 | 1 << 56  # in memory, not of a file, and mapped by this process alone


class Pages:
    """The ranges of pages that commands wrote to, in memory that all forks of this process share."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, _SIZE)  # how many commands noted theirs, how many runs there are, the runs

    def note(self, before: int) -> None:
        """Add the pages that this process has to itself, if it was given many since `before`, a value of `faults`.

        Two processes at once may lose what one of them adds. With one processor nothing is done: commands would wait
        for copies that they may not need.
        """
        count, runs = self._noted()
        if count >= COMMANDS or faults() < before + FEW or len(os.sched_getaffinity(0)) == 1:
            return
        with suppress(OSError):  # there is no /proc/self/pagemap
            runs = joined([*runs, *own_pages()])[: _SIZE // 16 - 1]
            words = array("Q", [count + 1, len(runs)])
            for run in runs:
                words.extend(run)
            self._shared[: len(words) * 8] = words.tobytes()

    def copy(self) -> bool:
        """Have copies of the pages that were noted; False if none were, or the kernel cannot (before Linux 5.14)."""
        copied = False
        for first, length in self._noted()[1]:
            with suppress(OSError):  # a part is not mapped here
                sys_.populate(first * PAGE, length * PAGE)
                copied = True
        return copied

    def _noted(self) -> tuple[int, list[tuple[int, int]]]:
        words = array("Q", self._shared[:])
        count, length = words[:2]
        return count, list(zip(words[2 : 2 + 2 * length : 2], words[3 : 3 + 2 * length : 2], strict=True))


def faults() -> int:
    """The number of page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def own_pages() -> list[tuple[int, int]]:
    """The pages of writable memory that this process shares with none: the number of the first, and how many."""
    found: list[tuple[int, int]] = []
    entries = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, end in _writable():
            states = array("Q", os.pread(entries, (end - first) * 8, first * 8))
            found += joined([(number, 1) for number, state in enumerate(states, first) if state & _STATE == _OWN], _GAP)
    finally:
        os.close(entries)
    return found


def _writable() -> list[tuple[int, int]]:
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        places = [line.split(maxsplit=2)[:2] for line in maps]
    spans = [place.split("-") for place, rights in places if rights == "rw-p"]
    return [(int(first, 16) // PAGE, int(end, 16) // PAGE) for first, end in spans]


def joined(runs: list[tuple[int, int]], gap: int = 0) -> list[tuple[int, int]]:
    """The same pages, and those between runs that are at most `gap` pages apart, in as few runs as possible."""
    found: list[tuple[int, int]] = []
    for first, length in sorted(runs):
        start, before = found[-1] if found else (first, 0)
        if found and first <= start + before + gap:
            found[-1] = (start, max(before, first + length - start))
        else:
            found.append((first, length))
    return found
