"""Answers the calls of a command that has no root directory of its own.

Each path is opened inside the tree, and what the call asks is done with the descriptor or, where a name counts, in the
opened directory that holds it (`files`). Files of the pod are reached by no other way than those that `outside` allows.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from builda.isolation.child.notification import GO_ON
from builda.isolation.emulated import idcalls
from builda.isolation.emulated.processes import Processes
from builda.isolation.traced.attributes import Attributes
from builda.isolation.traced.calling import failure, plain_call
from builda.isolation.traced.caught_calls import ANSWERED, NUMBERS, SYNCS
from builda.isolation.traced.changes import Changes
from builda.isolation.traced.entries import Entries
from builda.isolation.traced.files import Files, Unchanged
from builda.isolation.traced.looks import Looks
from builda.isolation.traced.opening import Opening
from builda.isolation.traced.tree import AT_FDCWD, Root, State, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.isolation.child.notification import Listener
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.stops import Stops

_UTS_FIELD = 65  # bytes of each of the six fields of struct utsname
_uts = ctypes.create_string_buffer(6 * _UTS_FIELD)
_uts_at = ctypes.addressof(_uts)


class Supervisor:
    """Answers the calls of all processes of a command. The thread blocks all signals.

    `states` has what is known of each thread; the tracer keeps it and `processes` up to date.
    """

    def __init__(self, listener: Listener | Stops, tree: Tree, processes: Processes, states: dict[int, State]) -> None:
        self.listener = listener
        self.processes = processes
        self.states = states
        self.files = files = Files(self.listener, tree, processes, states)
        self.owners = files.owners
        self.outside = files.outside
        opening = Opening(files)
        self.injecting = opening.injecting
        self.fifos = opening.fifos
        rooms = (self, opening, Looks(files), Entries(files), Changes(files), Attributes(files))
        numbers = NUMBERS[os.uname().machine]
        self.uname_number = numbers["uname"]
        self.serve: dict[int, Callable[[int, Words], int | None]] = {
            numbers[name]: next(getattr(room, name) for room in rooms if hasattr(room, name))
            for name in (*ANSWERED, *SYNCS)
            if name in numbers and name not in idcalls.CALLS
        }
        self.opens = frozenset(numbers[name] for name in ("open", "creat", "openat", "openat2") if name in numbers)
        self.ids = {numbers[name]: name for name in idcalls.CALLS if name in numbers}

    def answer(self, identity: int, tid: int, number: int, arguments: Words) -> None:
        """Answer one call of the thread `tid`."""
        self.files.identity = identity
        if tid not in self.states:  # the tracer follows all threads: nothing is known of this one
            self.listener.send(identity, (0, -errno.EPERM, 0))
            return
        try:
            if self.owners.written.files:
                self.owners.settle()
            if self.injecting.is_kept and number not in self.opens:
                self.injecting.release()
            name = self.ids.get(number)
            value = self.serve[number](tid, arguments) if name is None else self.answer_id(name, tid, arguments)
            if value is None:
                return
            answer = (value, 0, 0)
        except OSError as error:
            answer = (0, -(error.errno or errno.EIO), 0)
        except Unchanged:
            answer = (0, 0, 0)
        except (OverflowError, ValueError, struct.error):  # arguments that no file has
            answer = (0, -errno.EINVAL, 0)
        self.listener.send(identity, answer)

    def go_on(self) -> None:
        """Let the kernel perform the call."""
        self.listener.send(self.files.identity, GO_ON)

    def uname(self, tid: int, a: Words) -> int:
        """uname(2) with the command's own host name, as in a uts namespace."""
        if plain_call(self.uname_number, _uts_at, 0, 0, 0) < 0:
            raise failure()
        data = bytearray(_uts.raw)
        name = self.files.tree.hostname
        if name is not None:
            data[_UTS_FIELD : 2 * _UTS_FIELD] = os.fsencode(name)[: _UTS_FIELD - 1].ljust(_UTS_FIELD, b"\0")
        self.files.write(tid, a[0], bytes(data))
        return 0

    def umask(self, tid: int, a: Words) -> int | None:
        self.states[tid].umask = a[0] & 0o777
        self.go_on()
        return None

    def sched_setaffinity(self, tid: int, a: Words) -> None:
        self.injecting.may_change()
        self.go_on()

    def sched_getaffinity(self, tid: int, a: Words) -> None:
        self.go_on()  # what a descriptor was put into has its processors back by now

    def chroot(self, tid: int, a: Words) -> int:
        fd = self.files.place(tid, *self.files.at(tid, AT_FDCWD, a[0]), follow=True)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not self.processes[tid].has(18):  # CAP_SYS_CHROOT
                raise OSError(errno.EPERM, "chroot")
            if not self.files.is_ours(fd):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError:
            os.close(fd)
            raise
        self.states[tid].root = Root(fd)  # it stays open as long as the command: few processes change their root
        return 0

    def answer_id(self, name: str, tid: int, a: Words) -> int:
        who = self.processes[tid]
        result, after = idcalls.answer(name, a, who, _CallersMemory(self, tid), lambda pid: pid in (0, tid))
        if after is not who:
            self.processes[tid] = after
        return result


class _CallersMemory:
    """The memory of a caller, for the calls about ids."""

    def __init__(self, supervisor: Supervisor, tid: int) -> None:
        self.supervisor = supervisor
        self.tid = tid

    def read(self, address: int, size: int) -> bytes:
        return self.supervisor.files.memory.read(self.tid, address, size)

    def write(self, address: int, data: bytes) -> None:
        self.supervisor.files.write(self.tid, address, data)
