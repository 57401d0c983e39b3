"""Tracing threads (ptrace(2)) and their memory (process_vm_readv(2)), one thin function each."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_CONT, _SYSCALL, _SEIZE, _LISTEN = 7, 24, 0x4206, 0x4208
_GETEVENTMSG, _GETREGSET, _SETREGSET = 0x4201, 0x4204, 0x4205
_NT_PRSTATUS, _NT_ARM_SYSTEM_CALL = 1, 0x404

TRACE_SYSGOOD, TRACE_FORK, TRACE_VFORK, TRACE_CLONE, TRACE_EXEC, TRACE_SECCOMP = 1, 2, 4, 8, 16, 128
EXIT_KILL = 1 << 20
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_SECCOMP, EVENT_STOP = 1, 2, 3, 4, 7, 128
RETURNED = 0x85
"""The signal of a stop where a call returns, with TRACE_SYSGOOD."""
WAIT_ALL = 0x40000000  # __WALL: threads too

_PAGE = 4096
_TEXT = 256  # bytes that are read at first where a string begins


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


_libc = ctypes.CDLL(None, use_errno=True)
_long, _pointer = ctypes.c_long, ctypes.c_void_p
_ptrace = ctypes.CFUNCTYPE(_long, _long, _long, _pointer, _pointer, use_errno=True)(("ptrace", _libc))
# Without declared types, which ctypes would convert each argument to: bytes are passed as what they are.
_readv, _writev = _libc.process_vm_readv, _libc.process_vm_writev
_readv.restype = _writev.restype = ctypes.c_ssize_t
_ONE, _NONE = ctypes.c_ulong(1), ctypes.c_ulong(0)

iovec = struct.Struct("=QQ").pack
"""iovec(address, size): a struct iovec."""


def seize(pid: int, options: int) -> None:
    """Become the tracer of a thread, which goes on; `options` are TRACE_… and EXIT_KILL."""
    _call(_SEIZE, pid, 0, options)


def go_on(tid: int, signal: int = 0) -> None:
    """Let a stopped thread go on, with a signal. Nothing happens if it was killed."""
    _ptrace(_CONT, tid, None, signal or None)


def go_on_until_return(tid: int) -> None:
    """Let a thread that has stopped before a call go on until the call returns. Nothing happens if it was killed."""
    _ptrace(_SYSCALL, tid, None, None)


def stay_stopped(tid: int) -> None:
    """Leave a thread in its group stop until SIGCONT. Nothing happens if it was killed."""
    _ptrace(_LISTEN, tid, None, None)


def event_message(tid: int) -> int:
    """The number that belongs to the event at which a thread has stopped."""
    value = ctypes.c_ulong()
    _call(_GETEVENTMSG, tid, 0, ctypes.addressof(value))
    return value.value


class Layout:
    """Where the registers of a system call are in the general register set of one architecture."""

    def __init__(
        self,
        count: int,
        arguments: tuple[int, ...],
        number: int,
        result: int,
        stack: int,
        instruction: tuple[int, int],
    ) -> None:
        self.count = count
        self.arguments = arguments
        self.number = number
        self.result = result
        self.stack = stack
        self.instruction, self.size = instruction  # where its address is, and the bytes of one that makes a call


LAYOUTS = {
    "x86_64": Layout(27, (14, 13, 12, 7, 9, 8), 15, 10, 19, (16, 2)),  # struct user_regs_struct
    "aarch64": Layout(34, (0, 1, 2, 3, 4, 5), 8, 0, 31, (32, 4)),  # struct user_pt_regs
}
"""By machine (`uname -m`)."""


class Registers:
    """The general registers of a stopped thread, read and written as a whole."""

    def __init__(self, machine: str) -> None:
        self.layout = LAYOUTS[machine]
        self.separate_number = machine == "aarch64"
        self.words = (ctypes.c_uint64 * self.layout.count)()
        self.vector = _Vector(ctypes.addressof(self.words), ctypes.sizeof(self.words))
        self.address = ctypes.addressof(self.vector)

    def read(self, tid: int) -> None:
        self.vector.length = ctypes.sizeof(self.words)
        _call(_GETREGSET, tid, _NT_PRSTATUS, self.address)

    def write(self, tid: int) -> None:
        _call(_SETREGSET, tid, _NT_PRSTATUS, self.address)

    def set_number(self, tid: int, number: int) -> None:
        """Make the call that the thread is about to begin another one; takes effect with `write`."""
        self.words[self.layout.number] = number & 0xFFFFFFFFFFFFFFFF
        if self.separate_number:
            word = ctypes.c_int(number)
            vector = _Vector(ctypes.addressof(word), ctypes.sizeof(word))
            _call(_SETREGSET, tid, _NT_ARM_SYSTEM_CALL, ctypes.addressof(vector))

    def skip(self, tid: int, result: int) -> None:
        """Let the call return `result` without being performed."""
        self.set_number(tid, -1)
        self.words[self.layout.result] = result & 0xFFFFFFFFFFFFFFFF
        self.write(tid)

    def again(self, tid: int, number: int, first: int) -> None:
        """Let a call that has returned be made once more, with another first argument."""
        self.words[self.layout.instruction] -= self.layout.size
        if not self.separate_number:
            self.words[self.layout.result] = number
        self.set_argument(0, first)
        self.write(tid)

    def restore(self, words: bytes, result: int) -> None:
        """Take all registers from a copy of `words`, but for the result of a call."""
        for index, word in enumerate(struct.unpack(f"={self.layout.count}Q", words)):
            self.words[index] = word
        self.words[self.layout.result] = result & 0xFFFFFFFFFFFFFFFF

    def argument(self, index: int) -> int:
        return self.words[self.layout.arguments[index]]

    def set_argument(self, index: int, value: int) -> None:
        self.words[self.layout.arguments[index]] = value & 0xFFFFFFFFFFFFFFFF

    @property
    def number(self) -> int:
        return self.words[self.layout.number]

    def set_result(self, value: int) -> None:
        """Let a call that returns have another result; takes effect with `write`."""
        self.words[self.layout.result] = value & 0xFFFFFFFFFFFFFFFF

    @property
    def result(self) -> int:
        """The result of a system call; a negative number is an errno."""
        word: int = self.words[self.layout.result]
        return word - (1 << 64) if word >> 63 else word

    @property
    def stack(self) -> int:
        return self.words[self.layout.stack]


def reached(tid: int, address: int) -> bool:
    """Whether a thread has memory at an address. Its stack grows down to there, as if the thread used the address.

    From Linux 6.5 on, process_vm_writev(2) lets no stack grow.
    """
    try:
        fd = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return bool(os.pread(fd, 1, address))
    except (OSError, OverflowError):
        return False
    finally:
        os.close(fd)


def far_in_stack(tid: int, below: int) -> int:
    """The address that many bytes below the end of the first thread's stack, which grows down to there; 0 if it cannot.

    `tid` is any thread of the process.
    """
    try:
        with open(f"/proc/{tid}/maps", "rb") as file:
            line = next((line for line in file if line.endswith(b" [stack]\n")), b"")
    except OSError:
        return 0
    end = int(line.partition(b"-")[2].partition(b" ")[0] or b"0", 16)
    return end - below if end > below and reached(tid, end - below) else 0


class Memory:
    """Copies to and from the memory of other threads. EFAULT for addresses that they do not have."""

    def __init__(self, largest: int = 1 << 20) -> None:
        self.buffer = ctypes.create_string_buffer(largest)
        self.bytes = memoryview(self.buffer).cast("B")
        self.largest = largest
        self.here = ctypes.addressof(self.buffer)
        self.start = ctypes.create_string_buffer(_TEXT)
        self.start_here = iovec(ctypes.addressof(self.start), _TEXT)

    def some(self, tid: int, address: int, size: int) -> bytes:
        """Up to `size` bytes: fewer where memory ends."""
        count = _readv(tid, iovec(self.here, size), _ONE, iovec(address, size), _ONE, _NONE)
        if count < 0:
            raise OSError(ctypes.get_errno(), "process_vm_readv")
        return bytes(self.bytes[:count])

    def read(self, tid: int, address: int, size: int) -> bytes:
        """Exactly `size` bytes."""
        if size > self.largest:
            raise OSError(errno.E2BIG, "process_vm_readv")
        data = self.some(tid, address, size)
        if len(data) < size:
            raise OSError(errno.EFAULT, "process_vm_readv")
        return data

    def write(self, tid: int, address: int, data: bytes) -> None:
        """Write `data` to an address of the thread; OSError if not all of it can be written."""
        size = len(data)
        if size > self.largest:
            for at in range(0, size, self.largest):
                self.write(tid, address + at, data[at : at + self.largest])
            return
        self.bytes[:size] = data
        self.write_from(tid, address, iovec(self.here, size), size)

    def write_from(self, tid: int, address: int, here: bytes, size: int) -> None:
        """Write from this process's memory at `here`, an `iovec` of this size; OSError if not all can be written."""
        there = iovec(address, size)
        if _writev(tid, here, _ONE, there, _ONE, _NONE) == size:
            return
        if not reached(tid, address) or _writev(tid, here, _ONE, there, _ONE, _NONE) != size:
            raise OSError(errno.EFAULT, "process_vm_writev")

    def text(self, tid: int, address: int, limit: int = 4096) -> bytes:
        """The string at an address; ENAMETOOLONG if it has `limit` bytes or more."""
        count = _readv(tid, self.start_here, _ONE, iovec(address, _TEXT), _ONE, _NONE)
        found = self.start.value  # up to the first NUL, which may be what an earlier call left behind
        if len(found) < count and len(found) < limit:
            return found
        data = self.some(tid, address, min(256, _PAGE - address % _PAGE))
        end = data.find(b"\0")
        while end < 0:
            if len(data) >= limit:
                raise OSError(errno.ENAMETOOLONG, "path")
            more = self.some(tid, address + len(data), _PAGE - (address + len(data)) % _PAGE)
            if not more:
                raise OSError(errno.EFAULT, "process_vm_readv")
            data += more
            end = data.find(b"\0")
        if end >= limit:
            raise OSError(errno.ENAMETOOLONG, "path")
        return data[:end]

    def words(self, tid: int, address: int, limit: int) -> list[int]:
        """The words of 64 bits from an address on, up to one that is 0, which is left out."""
        found: list[int] = []
        while len(found) < limit:
            data = self.some(tid, address, _PAGE - address % _PAGE if address % 8 == 0 else 8)
            row = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data) - 7, 8)]
            if not row:
                raise OSError(errno.EFAULT, "process_vm_readv")
            if 0 in row:
                return found + row[: row.index(0)]
            found += row
            address += 8 * len(row)
        raise OSError(errno.E2BIG, "execve")


def _call(request: int, tid: int, address: int, data: int) -> None:
    if _ptrace(request, tid, address or None, data or None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace: {os.strerror(number)}")
