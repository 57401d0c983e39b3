"""A supervisor that lets a command with one id run as if it were root, or a user, of many ids.

The kernel hands it calls about ids, owners and devices (`emulated_calls`). What each process would be, and what each
file should look like, is in `isolation.emulated`; here are the memory of processes and the files. Owners are kept in
attributes of the files, so that layers and later commands find them.

The supervisor is in the root directory of the command, and has no more rights over files than the command itself. It
reads a path once and works by the descriptor that it got. It follows no magic link of /proc: with its right to read the
memory of processes (CAP_SYS_PTRACE) it could follow more of them than the command may.
"""

from __future__ import annotations

import errno
import os
import struct
import sys

from builda.isolation.child.emulated_calls import IDENTITY, NUMBERS
from builda.isolation.child.notification import GO_ON, Listener
from builda.isolation.emulated import idcalls, ownership
from builda.isolation.emulated.credentials import FOWNER, FSETID, Credentials
from builda.isolation.emulated.execution import Program, changes_nothing, executed
from builda.isolation.emulated.messages import CONTROL_MAX, MANY_STRIDE, MESSAGE, with_kernels_ids
from builda.isolation.single.acls import Acls
from builda.isolation.single.caller import SENT, Call, KernelAnswers, Refused
from builda.isolation.single.finding import Finder, field, own, socket_of
from builda.isolation.single.keeper import Keeper, attribute
from builda.isolation.single.making import Making
from builda.isolation.single.marks import Marks
from builda.isolation.single.showing import Showing
from builda.linux import filecaps
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.isolation.single.caller import Answer


_WORD = 0xFFFFFFFF
_AT_FDCWD = _WORD & sys_.AT_FDCWD
_NOFOLLOW = sys_.AT_SYMLINK_NOFOLLOW
_EMPTY = sys_.AT_EMPTY_PATH
_PATH_MAX = 4096
_CAP_SYS_CHROOT = 18
# What is wrong with arguments, or with a path: the kernel then fails too, and knows which error comes first.
_OF_ARGUMENTS = frozenset(
    (errno.EFAULT, errno.EINVAL, errno.EBADF, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
)
_SOL_SOCKET, _SO_PEERCRED = 1, 17
_MOST_MESSAGES = 1024  # of one sendmmsg(2)
_KERNELS_IDS = (0, 0)  # the one user and the one group of the namespace


class Emulator:
    """Answers the calls of all processes of the command, whose first credentials are `first`.

    The working directory must be /proc of this process's pid namespace, and the root directory the command's.
    """

    def __init__(self, listener: Listener, first: Credentials, *, other_roots: bool) -> None:
        self.listener = listener
        self.names = {number: name for name, number in NUMBERS[os.uname().machine].items()}
        self.marks = Marks(first)
        self.finder = finder = Finder(other_roots=other_roots)
        self.keeper = keeper = Keeper()
        self.peer_memory = sys_.PeerMemory(_PATH_MAX)
        showing, making = Showing(self.marks, finder, keeper), Making(listener, self.marks, finder, keeper)
        acls = Acls(self.marks, finder, keeper)
        self.started = False  # what builda's child does until it executes the command is the kernel's
        self.serve: dict[str, Callable[[Call], Answer]] = {
            **dict.fromkeys(IDENTITY, self.identity),
            **dict.fromkeys(("chown", "lchown", "fchown", "fchownat"), self.chown),
            **dict.fromkeys(("chmod", "fchmod", "fchmodat", "fchmodat2"), self.chmod),
            **dict.fromkeys(("stat", "lstat", "newfstatat", "statx"), showing.status),
            "fstat": showing.descriptor_status,
            **dict.fromkeys(("open", "openat", "openat2", "creat"), making.open),
            **dict.fromkeys(("mkdir", "mkdirat"), making.mkdir),
            **dict.fromkeys(("symlink", "symlinkat"), making.symlink),
            **dict.fromkeys(("mknod", "mknodat"), making.mknod),
            "bind": making.bind,
            **dict.fromkeys(("rename", "renameat", "renameat2"), making.rename),
            **dict.fromkeys(("link", "linkat"), making.link),
            **dict.fromkeys(("access", "faccessat", "faccessat2"), showing.access),
            **dict.fromkeys(("execve", "execveat"), self.execute),
            **dict.fromkeys(("setxattr", "lsetxattr", "fsetxattr"), acls.set_attribute),
            **dict.fromkeys(("removexattr", "lremovexattr", "fremovexattr"), acls.remove_attribute),
            **dict.fromkeys(("getxattr", "lgetxattr", "fgetxattr"), acls.get_attribute),
            **dict.fromkeys(("listxattr", "llistxattr", "flistxattr"), showing.list_attributes),
            "chroot": self.chroot,
            "getsockopt": self.peer,
            "sendmsg": self.send,
            "sendmmsg": self.send_many,
        }

    def one(self) -> None:
        """Answer one call."""
        request = self.listener.receive()
        if request is None:
            return
        identity, name = request[0], self.names[request[3]]
        if not self.started:
            self.started = name == "execve"
            self.listener.send(identity, GO_ON)
            return
        call = Call(self.listener, self.peer_memory, identity, request[1], name, request[6:])
        try:
            answer = self.serve[name](call)
        except KernelAnswers:
            answer = GO_ON
        except Refused as error:
            answer = (0, -error.number, 0)
        except OSError as error:
            is_kernels = error.errno in _OF_ARGUMENTS and name not in IDENTITY
            answer = GO_ON if is_kernels else (0, -(error.errno or errno.EIO), 0)
        except (OverflowError, ValueError):  # arguments that Python cannot pass on
            answer = (0, -errno.EINVAL, 0)
        finally:
            call.close()
        if answer is not SENT:
            self.listener.send(identity, answer)

    def identity(self, call: Call) -> Answer:
        """Calls about ids and capabilities."""
        who = self.marks.of(call.pid)
        value, new = idcalls.answer(call.name, call.arguments, who, call, lambda pid: _is_called(call.pid, pid))
        if new != who:
            self.listener.check(call.identity)
            self.marks.set(call.pid, new, who)
            if new.no_new_privileges and not who.no_new_privileges:
                return GO_ON  # a process needs the kernel's own flag for a filter
        return value, 0, 0

    def execute(self, call: Call) -> Answer:
        """execve(2) and execveat(2): the kernel executes; the credentials change if it does."""
        if call.name == "execve":
            place = self.finder.place(call, _AT_FDCWD, call.path(call.arguments[0]))
        else:
            if call.arguments[4] & _WORD & ~(_EMPTY | _NOFOLLOW):  # an error, or AT_EXECVE_CHECK: nothing is executed
                return GO_ON
            place = self.finder.place(
                call, call.arguments[0], call.path(call.arguments[1]), empty=bool(call.arguments[4] & _EMPTY)
            )
        who = self.marks.of(call.pid)
        if not self.finder.has_other_root(call):
            try:
                info = os.stat(place.quick())
            except OSError:
                return GO_ON
            value = attribute(place.quick(), filecaps.NAME) or b""
            if changes_nothing(who, Program(info.st_mode, 0, 0, value)) and not self.marks.are_doubtful(call.pid):
                return GO_ON
        try:
            fd = self.finder.opened(call, place)
        except OSError:  # what the kernel says is right, or it is a magic link
            return GO_ON
        try:
            info = os.fstat(fd)
            if info.st_mode & ownership.S_IFMT != ownership.S_IFREG:
                return GO_ON
            if not info.st_mode & 0o111 or _is_script(fd) or self.forbids_set_id(fd):
                new = executed(who, Program(0o100755, 0, 0))
            else:
                kept = self.keeper.kept(fd, info)
                value = filecaps.revealed(attribute(own(fd), filecaps.NAME) or b"")
                new = executed(who, Program(info.st_mode, kept.uid, kept.gid, value))
        finally:
            os.close(fd)
        if new != who or self.marks.are_doubtful(call.pid):
            self.listener.check(call.identity)
            self.marks.set(call.pid, new, who, None if new == who else (info.st_dev, info.st_ino))
        return GO_ON

    def forbids_set_id(self, fd: int) -> bool:
        """Whether an open program lies where set-id bits and capabilities have no effect: on a mount with nosuid.

        The command's root directory may be on such a mount itself, if the user's store is; there they have effect.
        """
        if not os.fstatvfs(fd).f_flag & os.ST_NOSUID:
            return False
        return not os.statvfs(b"/").f_flag & os.ST_NOSUID

    def chroot(self, call: Call) -> Answer:
        """chroot(2): from now on, each process's root directory is looked at."""
        if not self.marks.of(call.pid).has(_CAP_SYS_CHROOT):
            place = self.finder.place(call, _AT_FDCWD, call.path(call.arguments[0]))
            if os.path.isdir(place.quick()):
                raise OSError(errno.EPERM, "")
        self.finder.other_roots = True
        return GO_ON

    def peer(self, call: Call) -> Answer:
        """getsockopt(SO_PEERCRED): what the process at the other end is now."""
        pid = _peer(call.pid, call.arguments[0] & _WORD)
        if not pid:
            return GO_ON
        try:
            who = self.marks.of(pid)
            data = struct.pack("=iII", int(field(pid, b"\nNSpid:").split()[-1]), who.euid, who.egid)
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            return GO_ON
        length = min(struct.unpack("=i", call.read(call.arguments[4], 4))[0], len(data))
        if length < 0:
            raise OSError(errno.EINVAL, "")
        call.write(call.arguments[3], data[:length])
        call.write(call.arguments[4], struct.pack("=i", length))
        return 0, 0, 0

    def send(self, call: Call) -> Answer:
        """sendmsg(2): ids that the message claims become those that the kernel takes, in the caller's memory."""
        self._claim(call, call.arguments[1])
        return GO_ON

    def send_many(self, call: Call) -> Answer:
        """sendmmsg(2): the same of each message. The kernel ends the call before one that it must refuse."""
        at, count = call.arguments[1], min(call.arguments[2] & _WORD, _MOST_MESSAGES)
        for number in range(count):
            try:
                self._claim(call, at + number * MANY_STRIDE)
            except OSError:
                if not number:
                    raise
                break
        return GO_ON

    def _claim(self, call: Call, at: int) -> None:
        *_, control, size, _ = MESSAGE.unpack(call.read(at, MESSAGE.size))
        if not control or not 0 < size <= CONTROL_MAX:
            return
        data = call.read(control, size)
        claims = with_kernels_ids(data, self.marks.of(call.pid), _KERNELS_IDS)
        if claims != data:
            call.write(control, claims)

    def chown(self, call: Call) -> Answer:
        """chown(2) and its relatives."""
        name, arguments = call.name, call.arguments
        if name == "fchown":
            self.finder.check_open(call, arguments[0])
            place, follow, owner = self.finder.of_descriptor(call, arguments[0]), True, arguments[1:3]
        elif name == "fchownat":
            flags = arguments[4] & _WORD
            if flags & ~(_NOFOLLOW | _EMPTY):
                raise OSError(errno.EINVAL, "")
            place = self.finder.place(call, arguments[0], call.path(arguments[1]), empty=bool(flags & _EMPTY))
            follow, owner = not flags & _NOFOLLOW, arguments[2:4]
        else:
            place, follow, owner = (
                self.finder.place(call, _AT_FDCWD, call.path(arguments[0])),
                name == "chown",
                arguments[1:3],
            )
        try:
            fd, path = self.finder.opened_to_change(call, place, follow=follow)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.finder.refused(call, place, error) from error
        try:
            who = self.marks.of(call.pid)
            info = os.fstat(fd)
            kept = self.keeper.kept(fd, info, path)
            former = kept[:2]
            uid, gid = ownership.given(who, former, owner[0] & _WORD, owner[1] & _WORD)
            mode = ownership.mode_after_chown(who, info.st_mode, former, gid)
            self.listener.check(call.identity)
            os.chown(path, 0, 0)  # takes capabilities and most set-id bits, and fails where a change would
            if mode != info.st_mode:
                os.chmod(path, mode & 0o7777)
            if (uid, gid) != former:
                self.keeper.keep(fd, info, ownership.Kept(uid, gid, kept.mode, kept.kind, kept.device), path)
        finally:
            os.close(fd)
        return 0, 0, 0

    def chmod(self, call: Call) -> Answer:
        """chmod(2) and its relatives with a set-id bit: others than root need the file, and its group."""
        who = self.marks.of(call.pid)
        if who.has(FOWNER) and who.has(FSETID):
            return GO_ON
        name, arguments = call.name, call.arguments
        flags = arguments[3] & _WORD if name == "fchmodat2" else 0
        if name == "fchmod":
            self.finder.check_open(call, arguments[0])
            place, mode = self.finder.of_descriptor(call, arguments[0]), arguments[1]
        elif name == "chmod":
            place, mode = self.finder.place(call, _AT_FDCWD, call.path(arguments[0])), arguments[1]
        else:
            path, mode = call.path(arguments[1]), arguments[2]
            place = self.finder.place(call, arguments[0], path, empty=bool(flags & _EMPTY))
        fd = self.finder.opened(call, place, follow=not flags & _NOFOLLOW)
        try:
            info = os.fstat(fd)
            if info.st_mode & ownership.S_IFMT == ownership.S_IFLNK:
                return GO_ON
            mode = ownership.changed_mode(who, mode & 0o7777, self.keeper.kept(fd, info)[:2])
            self.listener.check(call.identity)
            os.chmod(own(fd), mode)
        finally:
            os.close(fd)
        return 0, 0, 0


def _peer(pid: int, number: int) -> int:
    """The process at the other end of a socket, which is the descriptor `number` of a process; 0 if it is not known."""
    try:
        connection = socket_of(pid, number)
        try:
            return int.from_bytes(connection.getsockopt(_SOL_SOCKET, _SO_PEERCRED, 12)[:4], sys.byteorder)
        finally:
            connection.close()
    except OSError:
        return 0


def _is_called(pid: int, number: int) -> bool:
    """Whether a process is called `number` in its own pid namespace."""
    return int(field(pid, b"\nNSpid:").split()[-1]) == number


def _is_script(fd: int) -> bool:
    try:
        file = os.open(own(fd), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(file, 2) == b"#!"
    finally:
        os.close(file)
