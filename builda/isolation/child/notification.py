"""The supervisor's side of seccomp notifications (seccomp_unotify(2)): receive a call, look at its caller, answer."""

from __future__ import annotations

import _socket
import _struct
import errno
import fcntl
import os
import select
import sys

from builda.isolation.child.bpf import HANDING_OVER
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# From linux/seccomp.h.
_RECV, _SEND, _ID_VALID, _ADDFD = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103
_SET_FLAGS, _SYNC_WAKE_UP = 0x40082104, 1
_ADDFD_SEND = 2
_REQUEST = _struct.Struct("=QIIiIQ6Q")  # id, pid, flags, nr, arch, instruction_pointer, args
_ANSWER = _struct.Struct("=QqiI")  # id, val, error, flags
_INJECTION = _struct.Struct("=QIIII")  # id, flags, srcfd, newfd, newfd_flags
_IDENTITY = _struct.Struct("=Q")
_unpack = _REQUEST.unpack
_pack_answer, _pack_injection, _pack_identity = _ANSWER.pack_into, _INJECTION.pack_into, _IDENTITY.pack_into
_ioctl = fcntl.ioctl
_WAKE = 4096  # bytes of a pipe of signals, or 32 records of signalfd(2)
_NOTHING = bytes(_REQUEST.size)

GO_ON = (0, 0, 1)
"""The answer that lets the kernel perform the call (SECCOMP_USER_NOTIF_FLAG_CONTINUE)."""


class Listener:
    """A filter's descriptor, which this object owns. Each thread that answers calls has an object of its own.

    `no_signals`: the thread blocks all signals.
    """

    switches = True
    """Whether the kernel wakes the caller, and this thread again, for each descriptor that it puts into the caller."""

    def __init__(self, fd: int, *, no_signals: bool = False) -> None:
        self.fd = fd
        # ioctl() of the standard library takes half of the time for buffers that it may change.
        self._request = bytearray(_REQUEST.size)
        self._answer = bytearray(_ANSWER.size)
        self._identity = bytearray(_IDENTITY.size)
        self._injection = bytearray(_INJECTION.size)
        self._signals = None if no_signals else sys_.SignalsOfThread()
        try:  # answer on the processor of the caller: a call takes 10 us there and 70 on another
            _ioctl(fd, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError:  # before Linux 6.6
            return

    def receive(self) -> tuple[int, ...] | None:
        """(id, pid of the thread, flags, number, arch, instruction pointer, six arguments) of a call; None if the
        caller was killed meanwhile."""
        request = self._request
        request[:] = _NOTHING
        try:
            _ioctl(self.fd, _RECV, request)
        except OSError:  # ENOENT: the caller was killed; EINTR: poll(2) returns it again
            return None
        return _unpack(request)

    def send(self, identity: int, answer: tuple[int, int, int]) -> None:
        """Answer with (value, negative errno, flags)."""
        _pack_answer(self._answer, 0, identity, *answer)
        try:
            _ioctl(self.fd, _SEND, self._answer)
        except OSError:  # the caller was killed
            return

    def check(self, identity: int) -> None:
        """OSError (ENOENT) if the call waits no more: then its pid may already belong to another process."""
        _pack_identity(self._identity, 0, identity)
        _ioctl(self.fd, _ID_VALID, self._identity)

    def inject(self, identity: int, fd: int, flags: int) -> int | None:
        """Put a descriptor into the caller, whose call returns its number. None if that answered the call.

        Signals wait meanwhile: one that interrupts the injection lets the call return 0 without a descriptor (Linux
        6.18, `seccomp_notify_addfd`), and the caller takes its standard input for the file.
        """
        if self._signals is None:
            return self._inject(identity, fd, flags)
        self._signals.hold()
        try:
            return self._inject(identity, fd, flags)
        finally:
            self._signals.let_go()

    def _inject(self, identity: int, fd: int, flags: int) -> int | None:
        _pack_injection(self._injection, 0, identity, _ADDFD_SEND, fd, 0, flags)
        try:
            _ioctl(self.fd, _ADDFD, self._injection)
        except OSError as error:
            if error.errno == errno.EINVAL:  # before Linux 5.14 the answer is a step of its own
                return int(_ioctl(self.fd, _ADDFD, bytearray(_INJECTION.pack(identity, 0, fd, 0, flags))))
            if error.errno != errno.ENOENT:  # ENOENT: the caller was killed
                raise
        return None

    def still_waits(self, identity: int) -> bool:
        """Whether the call has no answer yet, and its caller was not killed."""
        try:
            self.check(identity)
        except OSError:
            return False
        return True

    def drop_late(self) -> None:
        """No answer of another thread waits to be given."""

    def inject_last(self, identity: int, fd: int, flags: int) -> None:
        """As `inject`, and close the descriptor here before the caller goes on. The thread blocks all signals."""
        try:
            number = int(_ioctl(self.fd, _ADDFD, bytearray(_INJECTION.pack(identity, 0, fd, 0, flags))))
        except OSError as error:  # ENOENT, if the caller was killed
            answer = (0, -(error.errno or errno.EIO), 0)
        else:
            answer = (number, 0, 0)
        os.close(fd)
        self.send(identity, answer)

    def elsewhere(self, identity: int) -> Listener:
        """What another thread, which blocks all signals, answers this call with."""
        return Listener(self.fd, no_signals=True)

    def serve(self, one: Callable[[], None], wake: int, ended: Callable[[bytes], bool]) -> None:
        """Call `one` for each call until `ended`, which gets what `wake` has to read each time there is something."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            for fd, events in poll.poll():
                if fd == wake:
                    if ended(os.read(wake, _WAKE)):
                        return
                elif events & select.POLLIN:
                    one()
                else:  # POLLHUP: no process with the filter is left
                    poll.unregister(self.fd)


def hand_over(connection: int, program: bytes) -> None:
    """Install the filter on this thread, send its listener over the socket, and close that."""
    listener = sys_.seccomp_listener(program)
    other = _socket.socket(fileno=connection)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, sys.byteorder))
    other.sendmsg([b"l"], [rights], HANDING_OVER)
    other.close()
    os.close(listener)


def received(connection: _socket.socket) -> int | None:
    """Receive the listener that `hand_over` sends; None if the sender ended without."""
    data, ancillary, _, _ = connection.recvmsg(1, _socket.CMSG_SPACE(4))
    connection.close()
    return int.from_bytes(ancillary[0][2], sys.byteorder) if data and ancillary else None


def memory_of(pid: int) -> int:
    """A descriptor of a process's memory, by a path below the working directory, which is /proc."""
    return os.open(b"%d/mem" % pid, os.O_RDWR | os.O_CLOEXEC)
