"""Answers calls at which their threads have stopped for the tracer (ptrace(2)), where the kernel hands no calls over.

The answer goes into the thread's registers. A descriptor goes over a socket that all processes of the command have at a
high number, which they can neither close nor replace: the thread is made to receive it with recvmsg(2) in place of its
own call (unix(7), SCM_RIGHTS). Nothing else is answered meanwhile, so that no other thread takes it.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct
import sys
from contextlib import suppress

from builda.isolation.emulated.messages import MESSAGE
from builda.isolation.traced.caught_calls import NUMBERS, supervisor_filter
from builda.linux import ptrace
from builda.linux import syscalls as sys_
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from builda.linux.ptrace import Memory, Registers

    Answer: TypeAlias = tuple[int, int, int]

_HIGHEST = 1000  # the number of the socket, if the limit allows it
_CONTROL = struct.Struct("=QiiiI")  # struct cmsghdr and one descriptor, padded
ERESTARTSYS = 512
"""The kernel makes such a call again after a handler with SA_RESTART; after another one it returns EINTR."""
_GO_ON = 1  # of an answer: the kernel performs the call
_WAKE = 4096


def hand_over(connection: int, machine: str, protected: tuple[int, ...], *, syncs: bool) -> None:
    """Install a filter that stops calls for the tracer, send it both ends of the socket, and close the connection."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    limit = os.sysconf("SC_OPEN_MAX")  # -1 without one
    number = _HIGHEST if limit < 0 else min(_HIGHEST, limit - 1)
    os.dup2(theirs.fileno(), number, inheritable=True)
    sys_.set_seccomp_filter(supervisor_filter(machine, protected, number, syncs=syncs))
    other = _socket.socket(fileno=connection)
    rights = b"".join(end.fileno().to_bytes(4, sys.byteorder) for end in (ours, theirs))
    other.sendmsg([number.to_bytes(4, sys.byteorder)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    for end in (other, ours, theirs):
        end.close()


class Stops:
    """The calls at which threads have stopped; the `identity` of one is its thread.

    `ours` and `theirs` are the ends of the socket; the command has the latter as `channel`.
    """

    switches = False

    def __init__(self, ours: int, theirs: int, channel: int, machine: str) -> None:
        self.ours, self.theirs = _socket.socket(fileno=ours), _socket.socket(fileno=theirs)
        self.channel = channel
        self.number = NUMBERS[machine]["recvmsg"]
        self.receiving: dict[int, bytes] = {}
        """The registers, before the call, of threads that receive a descriptor."""
        self.waiting: set[int] = set()
        """Threads that stay stopped until another thread of this process has an answer."""
        self._late: list[Late] = []
        self._finished, self._notice = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def attach(
        self,
        registers: Registers,
        memory: Memory,
        room: Callable[[int, int], int],
        resume: Callable[[int], None],
        when_returned: dict[int, Callable[[], None]],
    ) -> None:
        """Share the tracer's registers and memory, and what is done when a thread's call returns.

        `room` finds a place in a thread's memory (`Tracer.room`). `resume` lets a thread go on that has its answer.
        """
        self._registers, self._memory, self._room, self._resume = registers, memory, room, resume
        self._when_returned = when_returned

    def send(self, identity: int, answer: Answer) -> None:
        """Answer with (value, negative errno, flags)."""
        value, error, flags = answer
        if flags & _GO_ON:
            return
        registers = self._registers
        if error == -ERESTARTSYS:  # which the kernel looks for in the registers of a call that it knows
            before, error = bytes(registers.words), 0

            def restart() -> None:
                registers.restore(before, -ERESTARTSYS)
                registers.write(identity)

            self._when_returned[identity] = restart
        with suppress(OSError):  # it was killed
            registers.skip(identity, error or value)

    def check(self, identity: int) -> None:
        """A thread that has stopped keeps its number."""

    def still_waits(self, identity: int) -> bool:
        """Whether the thread has stopped at a call without an answer, and was not killed. Only the tracer may ask."""
        if identity not in self.waiting:
            return False
        try:
            ptrace.event_message(identity)
        except OSError:
            return False
        return True

    def drop_late(self) -> None:
        """Close descriptors that another thread has found for threads that were killed since."""
        for late in tuple(self._late):
            if late.fd >= 0 and not self.still_waits(late.identity):
                self._late.remove(late)
                os.close(late.fd)

    def inject(self, identity: int, fd: int, flags: int) -> None:
        """Let the thread receive a descriptor in place of its call."""
        registers = self._registers
        before = bytes(registers.words)
        size = 8 + _CONTROL.size + 16 + MESSAGE.size
        at = self._room(identity, size)
        control, vector, message = at + 8, at + 8 + _CONTROL.size, at + 8 + _CONTROL.size + 16
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
        self._memory.write(
            identity,
            at,
            bytes(8 + _CONTROL.size)
            + struct.pack("=QQ", at, 1)
            + MESSAGE.pack(0, 0, vector, 1, control, _CONTROL.size, 0),
        )
        self.ours.sendmsg([b"d"], [rights], _socket.MSG_DONTWAIT)
        how = _socket.MSG_DONTWAIT | (_socket.MSG_CMSG_CLOEXEC if flags & os.O_CLOEXEC else 0)
        for index, value in enumerate((self.channel, message, how)):
            registers.set_argument(index, value)
        try:
            registers.set_number(identity, self.number)
            registers.write(identity)
        except OSError:  # it was killed
            self._take_back()
            raise
        self.receiving[identity] = before

    def received(self, tid: int) -> None:
        """The thread's recvmsg(2) has returned: its own call returns the descriptor. OSError if it was killed."""
        before = self.receiving.pop(tid)
        try:
            self._registers.read(tid)
            if self._registers.result < 0:
                self._take_back()
                number = -errno.EIO
            else:
                number = self._number_of(tid)
        except OSError:
            self._take_back()
            raise
        self._registers.restore(before, number)
        self._registers.write(tid)

    def _number_of(self, tid: int) -> int:
        """The descriptor that the thread has received, by the control data; -EMFILE without one."""
        at = self._registers.argument(1) - 16 - _CONTROL.size
        length, level, kind, number, _ = _CONTROL.unpack(self._memory.read(tid, at, _CONTROL.size))
        is_given = (length, level, kind) == (20, _socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        return int(number) if is_given else -errno.EMFILE

    def _take_back(self) -> None:
        """Take back a descriptor that no thread has received, so that the next one does not get it."""
        with suppress(BlockingIOError):
            while True:
                self.theirs.recv(1, _socket.MSG_DONTWAIT)

    def forget(self, tid: int) -> None:
        """A thread has ended."""
        self.waiting.discard(tid)
        if self.receiving.pop(tid, None) is not None:
            self._take_back()

    def elsewhere(self, identity: int) -> Later:
        """What another thread of this process answers this call with, which waits until then."""
        self.waiting.add(identity)
        return Later(self)

    def answer_later(self, late: Late) -> None:
        """Have the tracer's thread give an answer."""
        self._late.append(late)
        os.write(self._notice, b"a")

    def serve(self, wake: int, ended: Callable[[bytes], bool]) -> None:
        """Give late answers until `ended`, which gets what `wake` has to read each time there is something."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        poll.register(self._finished, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                data = os.read(fd, _WAKE)
                if fd == wake and ended(data):
                    return
                if fd == self._finished:
                    self._answer_late()

    def _answer_late(self) -> None:
        while self._late:
            late = self._late.pop()
            with suppress(OSError):  # it was killed
                self._give(late)

    def _give(self, late: Late) -> None:
        """Give an answer, and close its descriptor before the thread goes on. OSError if that was killed."""
        try:
            if late.identity not in self.waiting:  # it has ended
                return
            self.waiting.discard(late.identity)
            self._registers.read(late.identity)
            if late.fd < 0:
                self.send(late.identity, late.answer)
            else:
                self.inject(late.identity, late.fd, late.flags)
        finally:
            if late.fd >= 0:
                os.close(late.fd)
        self._resume(late.identity)


class Late(NamedTuple):
    """An answer that another thread found: a descriptor, or, if that is negative, what `Stops.send` takes."""

    identity: int
    fd: int
    flags: int
    answer: Answer


class Later:
    """Answers calls from another thread than the tracer's."""

    def __init__(self, stops: Stops) -> None:
        self.stops = stops

    def inject_last(self, identity: int, fd: int, flags: int) -> None:
        """As `Stops.inject`; the descriptor is closed here before the thread goes on."""
        self.stops.answer_later(Late(identity, fd, flags, (0, 0, 0)))

    def check(self, identity: int) -> None:
        """OSError (ENOENT) if the call waits no more."""
        if identity not in self.stops.waiting:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def send(self, identity: int, answer: Answer) -> None:
        """As `Stops.send`."""
        self.stops.answer_later(Late(identity, -1, 0, answer))
