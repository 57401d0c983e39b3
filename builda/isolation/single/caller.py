"""One call that waits for its answer, and the memory of its caller."""

from __future__ import annotations

import errno
import os

from builda.isolation.child.notification import Listener, memory_of
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    Answer = tuple[int, int, int]

_PATH_MAX = 4096


class KernelAnswers(Exception):
    """What the kernel says of a call is right."""


class Refused(Exception):
    """What a call returns: an error number. The kernel is not asked again: other processes may change the tree."""

    def __init__(self, number: int) -> None:
        self.number = number


class Call:
    """One call that waits for its answer. `memory` is a descriptor of the caller's memory, -1 until it is needed."""

    __slots__ = ("arguments", "identity", "listener", "memory", "name", "peer", "pid")

    def __init__(
        self,
        listener: Listener,
        peer: sys_.PeerMemory,
        identity: int,
        pid: int,
        name: str,
        arguments: tuple[int, ...],
    ) -> None:
        self.listener = listener
        self.peer = peer
        self.identity = identity
        self.pid = pid  # of the thread
        self.name = name
        self.arguments = arguments
        self.memory = -1

    def read(self, address: int, size: int) -> bytes:
        """See `idcalls.Memory`."""
        data = b"".join(self._read(address + at, min(size - at, _PATH_MAX)) for at in range(0, size, _PATH_MAX))
        if len(data) < size:
            raise OSError(errno.EFAULT, "")
        return data

    def write(self, address: int, data: bytes | bytearray) -> None:
        """See `idcalls.Memory`."""
        self.listener.check(self.identity)
        for at in range(0, len(data), _PATH_MAX):
            part = data[at : at + _PATH_MAX]
            if self._write(address + at, part) < len(part):
                raise OSError(errno.EFAULT, "")

    def _write(self, address: int, data: bytes | bytearray) -> int:
        written = self.peer.write(self.pid, address, data)
        if written or not data:
            return written or 0
        self._open()
        try:
            if written is None:
                return os.pwrite(self.memory, data, address)
            os.pread(self.memory, 1, address)  # a stack grows down to there, which process_vm_writev(2) does not allow
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, "") from error
        return self.peer.write(self.pid, address, data) or 0

    def path(self, address: int) -> bytes:
        """The path at an address. KernelAnswers if there is none: the kernel knows which error comes first."""
        if self.memory < 0:
            text = self.peer.text(self.pid, address)
            if text is not None:
                return text
        data = self._read(address, _PATH_MAX)
        end = data.find(b"\0")
        if end < 0:
            raise KernelAnswers
        return data[:end]

    def _read(self, address: int, size: int) -> bytes:
        """Bytes of the caller's memory, which may be another process's: whoever acts upon them checks the call."""
        if self.memory < 0:
            found = self.peer.read(self.pid, address, size)
            if found is not None:
                return found
        self._open()
        try:
            return os.pread(self.memory, size, address)
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, "") from error

    def _open(self) -> None:
        """Open the caller's memory, once. ENOENT if the call waits no more: the memory may be another process's."""
        if self.memory < 0:
            self.memory = memory_of(self.pid)
            self.listener.check(self.identity)

    def close(self) -> None:
        if self.memory >= 0:
            os.close(self.memory)


SENT = (-1, -1, -1)
"""The answer of a call that has been answered already."""
