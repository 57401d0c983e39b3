"""Puts descriptors into callers; into one that opens many files in a row on one processor.

The caller itself takes the descriptor: the kernel wakes it, and it wakes the supervisor again (seccomp_unotify(2),
SECCOMP_IOCTL_NOTIF_ADDFD), each on an idle processor if there is one. In a virtual machine an idle processor needs
longer to begin than all the rest of the call. So where that is slow, the supervisor stays on its processor during the
row, and the caller is there too until it has taken the descriptor.

The command does not see it: its calls about processors wait for the supervisor, which by then has given the caller its
own ones back, and so has a process that the caller made meanwhile (`made`).
"""

from __future__ import annotations

import os
import time

from builda.linux import cfunctions as ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import Array, c_char

    from builda.isolation.child.notification import Listener
    from builda.isolation.traced.stops import Stops

_ROW = 256  # descriptors for one thread, after which it counts as one that opens many
_SLOW = 25_000  # nanoseconds: it takes 8,000 on one processor, and 60,000 on two if one of them was idle
_MASK = 1024  # bytes of a set of processors: the kernel's largest has 8,192
_now = time.perf_counter_ns
_libc = ctypes.CDLL(None)
_processor = _libc.sched_getcpu
_size = ctypes.c_size_t(_MASK)


class Injecting:
    """Puts descriptors into callers. `is_kept`: this thread, the supervisor, is kept on one processor."""

    def __init__(self, listener: Listener | Stops) -> None:
        self.listener = listener
        self.is_kept = False
        self._last = 0  # the thread that got the last descriptor
        self._row = 0  # how many it got since, with none for another thread in between
        self._is_slow = False
        self._moved = 0  # the last thread that was kept on a processor
        self._own = self._callers = self._one = ctypes.create_string_buffer(_MASK)

    def inject(self, tid: int, identity: int, fd: int, flags: int) -> int | None:
        """As `Listener.inject`, into the thread `tid`."""
        if not self.listener.switches:
            return self.listener.inject(identity, fd, flags)
        if tid != self._last:
            self._end_row()
            self._last = tid
        self._row += 1
        if self._row % _ROW == 0:
            return self._measured(tid, identity, fd, flags)
        if not self._is_slow:
            return self.listener.inject(identity, fd, flags)
        if not self.is_kept:
            self._one = _set_of({_processor()})
            _keep(0, self._one)
            self.is_kept = True
        self._moved = tid
        _keep(tid, self._one)
        try:
            return self.listener.inject(identity, fd, flags)
        finally:
            _keep(tid, self._callers)

    def _measured(self, tid: int, identity: int, fd: int, flags: int) -> int | None:
        """As `inject`, as it is on any processors; find out whether it is slow."""
        self.release()
        try:
            self._own, self._callers = _set_of(os.sched_getaffinity(0)), _set_of(os.sched_getaffinity(tid))
        except OSError:  # the caller was killed
            self._is_slow = False
            return self.listener.inject(identity, fd, flags)
        start = _now()
        number = self.listener.inject(identity, fd, flags)
        self._is_slow = _now() - start > _SLOW
        return number

    def release(self) -> None:
        """Give this thread its processors back."""
        if self.is_kept:
            self.is_kept = False
            _keep(0, self._own)

    def _end_row(self) -> None:
        self.release()
        self._row, self._is_slow = 0, False

    def may_change(self) -> None:
        """A thread may be about to change its processors, or another one's."""
        self._end_row()
        self._moved = 0

    def made(self, tid: int, child: int) -> None:
        """The thread `tid` has made another one, which has not run yet: it gets the processors that `tid` has."""
        if tid == self._moved:
            _keep(child, self._callers)


def _keep(tid: int, processors: Array[c_char]) -> None:
    """Keep a thread on these processors; 0 is this one. It stays where it is if it was killed, or if that is filtered:
    that costs time and nothing else."""
    _libc.sched_setaffinity(tid, _size, processors)


def _set_of(processors: set[int]) -> Array[c_char]:
    mask = sum(1 << number for number in processors)
    return ctypes.create_string_buffer(mask.to_bytes(_MASK, "little"), _MASK)
