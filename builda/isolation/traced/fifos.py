"""FIFOs of a command: an open waits for the other end on a thread, as the caller would, and signals interrupt it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half: signal itself imports enum
import _thread
import ctypes
import errno
import os
import stat
import time

from builda.isolation.traced.calling import call
from builda.isolation.traced.caught_calls import NUMBERS
from builda.isolation.traced.stops import ERESTARTSYS
from builda.isolation.traced.tree import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.isolation.child.notification import Listener
    from builda.isolation.traced.stops import Later, Stops

_PATH = os.O_PATH | os.O_CLOEXEC
_MOST_WAITING = 256
_CANCEL = _signal.SIGRTMAX
_PAUSE = 0.02  # seconds between two looks at the signals of callers that wait
_SOON = 0.001  # seconds after which a thread is interrupted again, if it was just about to open its FIFO
_IGNORED = sum(1 << number - 1 for number in (_signal.SIGCHLD, _signal.SIGCONT, _signal.SIGURG, _signal.SIGWINCH))


class Fifos:
    """Opens FIFOs for callers that wait. `met`: a FIFO was opened, so another process may wait at one.

    Made by the main thread, which blocks all signals.
    """

    def __init__(self, listener: Listener | Stops) -> None:
        self.listener = listener
        self.met = False
        self._openat = NUMBERS[os.uname().machine]["openat"]
        self._lock = _thread.allocate_lock()
        self._waiting: list[_Waiting] = []
        self._is_watched = False
        _signal.signal(_CANCEL, _nothing)  # a signal without a handler would interrupt no open

    def waits(self, opener: Callable[[int], int], flags: int) -> bool:
        """Whether `opener` would open a FIFO, whose other end must be waited for.

        It is not tried: an open that does not wait, and is closed again, lets a process through that waits at the
        other end, which then has nobody to talk to.
        """
        if not self.met or flags & os.O_DIRECTORY:
            return False
        waits = not flags & os.O_NONBLOCK and flags & 3 != os.O_RDWR
        if not waits and not self._waiting:
            return False
        fd = opener(_PATH | flags & os.O_NOFOLLOW)
        is_fifo = stat.S_ISFIFO(os.fstat(fd).st_mode)
        os.close(fd)
        if is_fifo:
            self.let_go()
        return is_fifo and waits

    def let_go(self) -> None:
        """End the opens of callers that were killed: they are no ends of a FIFO that is opened next.

        Only the supervisor's thread calls this.
        """
        for waiting in tuple(self._waiting):
            if not self.listener.still_waits(waiting.identity):
                self._end(waiting)
        self.listener.drop_late()

    def look(self, fd: int) -> bool:
        """Whether the file that was opened is a FIFO."""
        found = stat.S_ISFIFO(os.fstat(fd).st_mode)
        self.met = self.met or found
        return found

    def open(self, identity: int, tid: int, held: int, flags: int) -> None:
        """Open a FIFO on a thread, and answer the call then. `held` is a descriptor of it (O_PATH), closed here."""
        if len(self._waiting) >= _MOST_WAITING:
            os.close(held)
            raise OSError(errno.EAGAIN, "too many processes wait for the other end of a FIFO")
        self.let_go()
        self.met = True
        waiting = _Waiting(identity, tid, self.listener.elsewhere(identity))
        with self._lock:
            self._waiting.append(waiting)
        try:
            self._begin_watch()
            _thread.start_new_thread(self._wait, (waiting, held, flags))
        except RuntimeError:  # memory is full, or the user has too many threads
            with self._lock:
                self._waiting.remove(waiting)
            os.close(held)
            waiting.listener.send(identity, (0, -errno.ENOMEM, 0))

    def ended(self, tid: int) -> None:
        """A thread has ended: it is no end of a FIFO any more. Only the supervisor's thread calls this."""
        for waiting in tuple(self._waiting):
            if waiting.tid == tid:
                self._end(waiting)

    def _end(self, waiting: _Waiting) -> None:
        """Interrupt an open, and wait until its thread has let go of the FIFO."""
        while waiting in self._waiting:
            with self._lock:
                if waiting in self._waiting and waiting.thread:
                    waiting.interrupt()
            waiting.has_ended.acquire(timeout=_SOON)

    def _wait(self, waiting: _Waiting, held: int, flags: int) -> None:
        path = b"/proc/self/fd/%d" % held
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, {_CANCEL})
        waiting.thread = _thread.get_ident()
        while True:
            fd = call(self._openat, AT_FDCWD, path, flags | os.O_CLOEXEC, 0, 0, 0)
            number = ctypes.get_errno() if fd < 0 else 0
            if number != errno.EINTR or waiting.is_interrupted:
                break
        _signal.pthread_sigmask(_signal.SIG_BLOCK, {_CANCEL})
        os.close(held)
        if number:
            answer = (0, -(ERESTARTSYS if number == errno.EINTR else number), 0)
            waiting.listener.send(waiting.identity, answer)
        else:
            waiting.listener.inject_last(waiting.identity, fd, flags & os.O_CLOEXEC)
        with self._lock:  # until here another open waits for this one if the caller was killed
            self._waiting.remove(waiting)
        waiting.has_ended.release()

    def _begin_watch(self) -> None:
        """Have callers that wait watched. RuntimeError if no thread can be started."""
        if self._is_watched:
            return
        _thread.start_new_thread(self._watch, ())
        self._is_watched = True

    def _watch(self) -> None:
        """Interrupt the opens of callers that have a signal to handle, or have ended, until none waits any more."""
        while True:
            time.sleep(_PAUSE)
            with self._lock:
                if not self._waiting:
                    self._is_watched = False
                    return
                for waiting in self._waiting:
                    if waiting.thread and (waiting.is_interrupted or _has_signal(waiting)):
                        waiting.interrupt()


class _Waiting:
    """A call that waits for the other end of a FIFO. `thread`: which opens it, and answers by `listener`; 0 before.

    `has_ended` is a lock that the thread releases at its end.
    """

    __slots__ = ("has_ended", "identity", "is_interrupted", "listener", "thread", "tid")

    def __init__(self, identity: int, tid: int, listener: Listener | Later) -> None:
        self.listener = listener
        self.identity = identity
        self.tid = tid
        self.thread = 0
        self.is_interrupted = False
        self.has_ended = _thread.allocate_lock()
        self.has_ended.acquire()

    def interrupt(self) -> None:
        """Let the open return."""
        self.is_interrupted = True
        _signal.pthread_kill(self.thread, _CANCEL)


def _has_signal(waiting: _Waiting) -> bool:
    """Whether the caller has a signal that is not ignored, or its call waits no more.

    A signal to a process is taken by its first thread if that does not block it.
    """
    try:
        with open(b"/proc/%d/status" % waiting.tid, "rb", buffering=0) as file:
            rows = dict(line.split(b":\t", 1) for line in file.read().splitlines() if b":\t" in line)
        waiting.listener.check(waiting.identity)
    except OSError:
        return True
    pending, shared, blocked, ignored, caught = (
        int(rows[name], 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn", b"SigCgt")
    )
    if rows[b"Tgid"] == rows[b"Pid"]:
        pending |= shared
    return bool(pending & ~blocked & ~ignored & (caught | ~_IGNORED))


def _nothing(number: int, frame: object) -> None:
    """Let a call return EINTR."""
