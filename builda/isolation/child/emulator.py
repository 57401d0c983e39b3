"""A supervisor that lets a command with one id run as if it were root, or a user, of many ids.

The kernel hands it calls about ids, owners and devices (`emulated_calls`). What each process would be, and what each
file should look like, is in `isolation.emulated`; here are the memory of processes and the files. Owners are kept in
attributes of the files, so that layers and later commands find them.

The supervisor is in the root directory of the command, and has no more rights over files than the command itself. It
reads a path once and works by the descriptor that it got. It follows no magic link of /proc: with its right to read the
memory of processes (CAP_SYS_PTRACE) it could follow more of them than the command may.
"""

from __future__ import annotations

import _socket
import errno
import os
import resource
import struct
import sys

from builda.isolation.child.emulated_calls import IDENTITY, NUMBERS
from builda.isolation.child.notification import GO_ON, Listener, memory_of
from builda.isolation.emulated import idcalls, ownership
from builda.isolation.emulated.credentials import Credentials
from builda.isolation.emulated.execution import Program, changes_nothing, executed
from builda.isolation.emulated.ownership import ATTRIBUTE, HIDDEN, NAMED, Kept, parse_kept
from builda.isolation.emulated.statbuffers import LAYOUTS, STATX_SIZE, write_stat, write_statx
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[int, int, int]

_CAPABILITY = "security.capability"
_WORD = 0xFFFFFFFF
_AT_FDCWD = _WORD & sys_.AT_FDCWD
_NOFOLLOW, _EMPTY = sys_.AT_SYMLINK_NOFOLLOW, sys_.AT_EMPTY_PATH
_AT_EACCESS = 0x200
_PATH_MAX = 4096
_PATH = os.O_PATH | os.O_CLOEXEC
_O_TMPFILE = 0o20000000
_SOL_SOCKET, _SO_PEERCRED = 1, 17
_MARK = resource.RLIMIT_RTTIME
_FIRST_MARK = 1 << 62
_STREAMS = {b"/dev/stdin": 0, b"/dev/stdout": 1, b"/dev/stderr": 2}
_LINKS_OF_PROC = (b"/proc/self/", b"/proc/thread-self/")


class Call:
    """One call that waits for its answer. `memory` is a descriptor of the caller's memory, -1 until it is needed."""

    __slots__ = ("arguments", "identity", "listener", "memory", "name", "pid", "reader")

    def __init__(
        self,
        listener: Listener,
        reader: sys_.PeerReader,
        identity: int,
        pid: int,
        name: str,
        arguments: tuple[int, ...],
    ) -> None:
        self.listener = listener
        self.reader = reader
        self.identity = identity
        self.pid = pid  # of the thread
        self.name = name
        self.arguments = arguments
        self.memory = -1

    def read(self, address: int, size: int) -> bytes:
        """See `idcalls.Memory`."""
        data = self._read(address, size)
        if len(data) < size:
            raise OSError(errno.EFAULT, "")
        return data

    def write(self, address: int, data: bytes | bytearray) -> None:
        """See `idcalls.Memory`."""
        self._open()
        try:
            written = os.pwrite(self.memory, data, address)
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, "") from error
        if written < len(data):
            raise OSError(errno.EFAULT, "")

    def path(self, address: int) -> bytes:
        """The path at an address."""
        data = self._read(address, 256)
        end = data.find(b"\0")
        if end < 0:
            data = self._read(address, _PATH_MAX)
            end = data.find(b"\0")
        if end < 0:
            raise OSError(errno.EFAULT if len(data) < _PATH_MAX else errno.ENAMETOOLONG, "")
        return data[:end]

    def _read(self, address: int, size: int) -> bytes:
        """Bytes of the caller's memory, which may be another process's: whoever acts upon them checks the call."""
        if self.memory < 0:
            found = self.reader.read(self.pid, address, size) if size <= _PATH_MAX else None
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


class Place:
    """What a path of a call means: `path` below the directory `base`, a path of the supervisor (its working directory
    is /proc), or absolute with an empty `base`. With an empty `path` it is `base` itself."""

    __slots__ = ("base", "path")

    def __init__(self, base: bytes, path: bytes) -> None:
        self.base = base
        self.path = path

    def quick(self) -> bytes:
        """A path for a look without consequences: it may also follow magic links."""
        return self.base + b"/" + self.path if self.base and self.path else self.base or self.path

    def parent(self) -> tuple[Place, bytes]:
        """The directory that holds it, and its name there."""
        head, slash, name = self.path.rstrip(b"/").rpartition(b"/")
        return Place(self.base, head or slash or b"."), name


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
        if program is None or program == _file_of(b"%d/exe" % pid):
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


class Emulator:
    """Answers the calls of all processes of the command, whose first credentials are `first`.

    The working directory must be /proc of this process's pid namespace, and the root directory the command's.
    """

    def __init__(self, listener: Listener, first: Credentials, *, other_roots: bool) -> None:
        machine = os.uname().machine
        self.listener = listener
        self.numbers = NUMBERS[machine]
        self.names = {number: name for name, number in self.numbers.items()}
        self.layout = LAYOUTS[machine]
        self.marks = Marks(first)
        self.other_roots = other_roots  # whether a process may have another root directory than the command
        self.has_rows = False  # whether owners of links were met in the tree
        self.root = _file_of(b"/")
        self.reader = sys_.PeerReader(_PATH_MAX)
        self.opener = sys_.PathOpener(sys_.RESOLVE_NO_MAGICLINKS)
        self.started = False  # what builda's child does until it executes the command is the kernel's
        self.serve: dict[str, Callable[[Call], Answer]] = {
            **dict.fromkeys(IDENTITY, self.identity),
            **dict.fromkeys(("chown", "lchown", "fchown", "fchownat"), self.chown),
            **dict.fromkeys(("stat", "lstat", "newfstatat", "statx"), self.status),
            "fstat": self.descriptor_status,
            **dict.fromkeys(("open", "openat", "openat2", "creat"), self.open),
            **dict.fromkeys(("mkdir", "mkdirat"), self.mkdir),
            **dict.fromkeys(("symlink", "symlinkat"), self.symlink),
            **dict.fromkeys(("mknod", "mknodat"), self.mknod),
            **dict.fromkeys(("rename", "renameat", "renameat2"), self.rename),
            **dict.fromkeys(("access", "faccessat", "faccessat2"), self.access),
            **dict.fromkeys(("execve", "execveat"), self.execute),
            **dict.fromkeys(("setxattr", "lsetxattr", "fsetxattr"), self.set_attribute),
            **dict.fromkeys(("listxattr", "llistxattr", "flistxattr"), self.list_attributes),
            "chroot": self.chroot,
            "getsockopt": self.peer,
        }

    def one(self) -> None:
        """Answer one call."""
        request = self.listener.receive()
        if request is None:
            return
        identity, pid, _, number, _, _, *arguments = request
        name = self.names[number]
        if not self.started:
            self.started = name == "execve"
            self.listener.send(identity, GO_ON)
            return
        call = Call(self.listener, self.reader, identity, pid, name, tuple(arguments))
        try:
            answer = self.serve[call.name](call)
        except OSError as error:
            answer = (0, -(error.errno or errno.EIO), 0)
        except (OverflowError, ValueError):  # arguments that Python cannot pass on
            answer = (0, -errno.EINVAL, 0)
        finally:
            call.close()
        if answer is not _SENT:
            self.listener.send(identity, answer)

    # Who a process is

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
            place = self.place(call, _AT_FDCWD, call.path(call.arguments[0]))
        else:
            place = self.place(
                call, call.arguments[0], call.path(call.arguments[1]), empty=bool(call.arguments[4] & _EMPTY)
            )
        who = self.marks.of(call.pid)
        try:
            info = os.stat(place.quick())
        except OSError:
            return GO_ON
        value = _attribute(place.quick(), _CAPABILITY) or b""
        if changes_nothing(who, Program(info.st_mode, 0, 0, value)) and not self.is_doubtful(call.pid):
            return GO_ON
        try:
            fd = self.opened(call, place)
        except OSError:  # what the kernel says is right, or it is a magic link
            return GO_ON
        try:
            info = os.fstat(fd)
            if not info.st_mode & 0o111 or _is_script(fd):
                new = executed(who, Program(0o100755, 0, 0))
            else:
                kept = self.kept(fd, info)
                new = executed(who, Program(info.st_mode, kept.uid, kept.gid, _attribute(_own(fd), _CAPABILITY) or b""))
        finally:
            os.close(fd)
        if new != who or self.is_doubtful(call.pid):
            self.listener.check(call.identity)
            self.marks.set(call.pid, new, who, None if new == who else (info.st_dev, info.st_ino))
        return GO_ON

    def is_doubtful(self, pid: int) -> bool:
        """Whether the credentials of a process depend on the file that it executes."""
        if not self.marks.meanings:
            return False
        found = self.marks.meanings.get(_mark(pid))
        return found is not None and found[2] is not None

    def chroot(self, call: Call) -> Answer:
        """chroot(2): from now on, each process's root directory is looked at."""
        self.other_roots = True
        return GO_ON

    def peer(self, call: Call) -> Answer:
        """getsockopt(SO_PEERCRED): what the process at the other end is now."""
        pid = _peer(call.pid, call.arguments[0] & _WORD)
        if not pid:
            return GO_ON
        who = self.marks.of(pid)
        data = struct.pack("=iII", int(_field(pid, b"\nNSpid:").split()[-1]), who.euid, who.egid)
        length = min(struct.unpack("=i", call.read(call.arguments[4], 4))[0], len(data))
        if length < 0:
            raise OSError(errno.EINVAL, "")
        call.write(call.arguments[3], data[:length])
        call.write(call.arguments[4], struct.pack("=i", length))
        return 0, 0, 0

    # What a file looks like

    def chown(self, call: Call) -> Answer:
        """chown(2) and its relatives."""
        name, arguments = call.name, call.arguments
        if name == "fchown":
            place, follow, owner = self.of_descriptor(call, arguments[0]), True, arguments[1:3]
        elif name == "fchownat":
            flags = arguments[4] & _WORD
            if flags & ~(_NOFOLLOW | _EMPTY):
                raise OSError(errno.EINVAL, "")
            place = self.place(call, arguments[0], call.path(arguments[1]), empty=bool(flags & _EMPTY))
            follow, owner = not flags & _NOFOLLOW, arguments[2:4]
        else:
            place, follow, owner = self.place(call, _AT_FDCWD, call.path(arguments[0])), name == "chown", arguments[1:3]
        fd = self.opened(call, place, follow=follow)
        try:
            who = self.marks.of(call.pid)
            info = os.fstat(fd)
            kept = self.kept(fd, info)
            uid, gid = ownership.given(who, (kept.uid, kept.gid), owner[0] & _WORD, owner[1] & _WORD)
            self.listener.check(call.identity)
            os.chown(_own(fd), 0, 0)  # takes set-id bits and capabilities, and fails where a change would
            if (uid, gid) != (kept.uid, kept.gid):
                self.keep(fd, info, kept._replace(uid=uid, gid=gid))
        finally:
            os.close(fd)
        return 0, 0, 0

    def status(self, call: Call) -> Answer:
        """stat(2), lstat(2), newfstatat and statx(2)."""
        name, arguments = call.name, call.arguments
        if name == "newfstatat":
            directory, address, flags = arguments[0], arguments[1], arguments[3]
        elif name == "statx":
            directory, address, flags = arguments[0], arguments[1], arguments[2]
        else:
            directory, address, flags = _AT_FDCWD, arguments[0], _NOFOLLOW if name == "lstat" else 0
        if not address:
            return GO_ON
        place = self.place(call, directory, call.path(address), empty=bool(flags & _EMPTY))
        follow = not flags & _NOFOLLOW
        return self.shown(call, place, follow=follow) if self.keeps(place, follow=follow) else GO_ON

    def descriptor_status(self, call: Call) -> Answer:
        """fstat(2)."""
        place = self.of_descriptor(call, call.arguments[0])
        return self.shown(call, place, follow=True) if self.keeps(place, follow=True) else GO_ON

    def shown(self, call: Call, place: Place, *, follow: bool) -> Answer:
        """Show what is at a place. The kernel does for a magic link of /proc."""
        try:
            fd = self.opened(call, place, follow=follow)
        except OSError:
            return GO_ON
        try:
            return self.show(call, fd)
        finally:
            os.close(fd)

    def show(self, call: Call, fd: int) -> Answer:
        """Write what an open file looks like to the buffer of a call of the stat family."""
        info = os.fstat(fd)
        kept = self.kept(fd, info)
        name, arguments = call.name, call.arguments
        if name == "statx":
            words = (0, arguments[3] & _WORD)
            data = bytearray(sys_.file_status(self.numbers["statx"], _own(fd), words, (), STATX_SIZE))
            write_statx(data, kept, with_mode=False)
            call.write(arguments[4], data)
            return 0, 0, 0
        data = bytearray(sys_.file_status(self.numbers["newfstatat"], _own(fd), (), (0,), self.layout.size))
        write_stat(data, self.layout, kept, with_mode=False)
        call.write(arguments[2 if name == "newfstatat" else 1], data)
        return 0, 0, 0

    def access(self, call: Call) -> Answer:
        """access(2) and its relatives: what the kernel denies root stays denied."""
        who = self.marks.of(call.pid)
        if not (who.ruid or who.euid):
            return GO_ON
        name, arguments = call.name, call.arguments
        if name == "access":
            directory, address, wanted, flags = _AT_FDCWD, arguments[0], arguments[1], 0
        else:
            directory, address, wanted = arguments[:3]
            flags = arguments[3] & _WORD if name == "faccessat2" else 0
        place = self.place(call, directory, call.path(address), empty=bool(flags & _EMPTY))
        try:
            fd = self.opened(call, place, follow=not flags & _NOFOLLOW)
        except OSError:
            return GO_ON
        try:
            info = os.fstat(fd)
            kept = self.kept(fd, info)
        finally:
            os.close(fd)
        real = not flags & _AT_EACCESS
        if not ownership.may_access(who, info.st_mode, (kept.uid, kept.gid), wanted & 7, real=real):
            raise OSError(errno.EACCES, "")
        return GO_ON

    def set_attribute(self, call: Call) -> Answer:
        """setxattr(2) and its relatives: the attributes in which owners are kept are not the command's."""
        if call.path(call.arguments[1]).decode(errors="replace") in HIDDEN:
            raise OSError(errno.EPERM, "")
        return GO_ON

    def list_attributes(self, call: Call) -> Answer:
        """listxattr(2) and its relatives, without the attributes in which owners are kept."""
        if call.name == "flistxattr":
            place, follow = self.of_descriptor(call, call.arguments[0]), True
        else:
            place, follow = self.place(call, _AT_FDCWD, call.path(call.arguments[0])), call.name == "listxattr"
        try:
            names = os.listxattr(place.quick(), follow_symlinks=follow)
        except OSError:
            return GO_ON
        shown = b"".join(os.fsencode(name) + b"\0" for name in names if name not in HIDDEN)
        if len(shown) == sum(len(os.fsencode(name)) + 1 for name in names):
            return GO_ON
        size = call.arguments[2]
        if size and size < len(shown):
            raise OSError(errno.ERANGE, "")
        if size:
            call.write(call.arguments[1], shown)
        return len(shown), 0, 0

    # What a process makes

    def open(self, call: Call) -> Answer:
        """open(2) and its relatives, when they may make a file."""
        name, arguments = call.name, call.arguments
        if name == "openat2":
            directory, address = arguments[0], arguments[1]
            flags, mode, resolve = struct.unpack("=QQQ", call.read(arguments[2], 24))
            if not flags & (os.O_CREAT | _O_TMPFILE) or resolve or flags >> 31:
                return GO_ON
        elif name == "openat":
            directory, address, flags, mode = arguments[:4]
        elif name == "open":
            directory, (address, flags, mode) = _AT_FDCWD, arguments[:3]
        else:
            directory, (address, mode), flags = _AT_FDCWD, arguments[:2], os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        flags &= 0x7FFFFFFF
        place = self.place(call, directory, call.path(address))
        who = self.marks.of(call.pid)
        if not place.path:
            return GO_ON
        if flags & _O_TMPFILE == _O_TMPFILE and flags & os.O_DIRECTORY:
            parent, leaf = place, b"."
        else:
            parent, leaf = place.parent()
        if self.is_plain(who, parent):
            return GO_ON
        directory = self.opened(call, parent)
        try:
            if leaf != b"." and self.exists(who, directory, leaf, flags):
                return GO_ON
            owner = self.owner_in(who, directory)
            os.umask(_umask(call.pid))
            self.listener.check(call.identity)
            how = flags | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_EXCL if flags & os.O_CREAT else 0)
            try:
                fd = os.open(leaf, how, mode & 0o7777, dir_fd=directory)
            except FileExistsError:
                return GO_ON
        finally:
            os.close(directory)
        try:
            self.keep(fd, os.fstat(fd), Kept(*owner, mode & 0o7777))
            number = self.listener.inject(call.identity, fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)
        return (number, 0, 0) if number is not None else _SENT

    def mkdir(self, call: Call) -> Answer:
        """mkdir(2) and mkdirat(2)."""
        directory, address, mode = call.arguments[:3] if call.name == "mkdirat" else (_AT_FDCWD, *call.arguments[:2])

        def make(parent: int, name: bytes) -> None:
            os.mkdir(name, mode & 0o7777, dir_fd=parent)

        return self.made(call, directory, address, make)

    def symlink(self, call: Call) -> Answer:
        """symlink(2) and symlinkat(2)."""
        if call.name == "symlinkat":
            target, directory, address = call.arguments[:3]
        else:
            target, directory, address = call.arguments[0], _AT_FDCWD, call.arguments[1]

        def make(parent: int, name: bytes) -> None:
            os.symlink(call.path(target), name, dir_fd=parent)

        return self.made(call, directory, address, make)

    def mknod(self, call: Call) -> Answer:
        """mknod(2) and mknodat(2). A device becomes a file that stands in for it."""
        directory, address, mode, number = (
            call.arguments[:4] if call.name == "mknodat" else (_AT_FDCWD, *call.arguments[:3])
        )
        mode &= 0xFFFF
        ownership.check_node(self.marks.of(call.pid), mode)
        kind = mode & ownership.S_IFMT
        if kind not in (ownership.S_IFCHR, ownership.S_IFBLK):
            return self.made(call, directory, address, lambda parent, name: os.mknod(name, mode, dir_fd=parent))
        device = ((number & 0xFFF00) >> 8, number & 0xFF | number >> 12 & 0xFFF00)
        if kind == ownership.S_IFCHR and device == (0, 0):
            raise OSError(errno.EPERM, "")

        def make(parent: int, name: bytes) -> None:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode & 0o777, dir_fd=parent))

        return self.made(call, directory, address, make, kind, device)

    def made(
        self,
        call: Call,
        directory: int,
        address: int,
        make: Callable[[int, bytes], None],
        kind: int = 0,
        device: tuple[int, int] = (0, 0),
    ) -> Answer:
        """Make something else than a regular file, if its owner is not what the kernel would give it."""
        parent, name = self.place(call, directory, call.path(address)).parent()
        who = self.marks.of(call.pid)
        if not name or name in (b".", b"..") or (not kind and not self.has_rows and self.is_plain(who, parent)):
            return GO_ON
        place = self.opened(call, parent)
        try:
            owner = self.owner_in(who, place)
            os.umask(_umask(call.pid))
            self.listener.check(call.identity)
            make(place, name)
            fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=place)
            try:
                info = os.fstat(fd)
                kept = Kept(*owner, info.st_mode & 0o7777, kind, device)
                if owner != (0, 0) or kind or not _has_attributes(info):
                    self.keep(fd, info, kept)
            finally:
                os.close(fd)
        finally:
            os.close(place)
        return 0, 0, 0

    def rename(self, call: Call) -> Answer:
        """rename(2) and its relatives: the owner of a link goes with it."""
        if not self.has_rows:
            return GO_ON
        if call.name == "rename":
            ends = ((_AT_FDCWD, call.arguments[0]), (_AT_FDCWD, call.arguments[1]))
        else:
            ends = ((call.arguments[0], call.arguments[1]), (call.arguments[2], call.arguments[3]))
        if call.name == "renameat2" and call.arguments[4] & ~1:
            return GO_ON
        (old, old_name), (new, new_name) = (self.place(call, at, call.path(path)).parent() for at, path in ends)
        key = ownership.row_key(old_name)
        if key not in _rows(old.quick()) and ownership.row_key(new_name) not in _rows(new.quick()):
            return GO_ON
        source, target = self.opened(call, old), self.opened(call, new)
        try:
            self.listener.check(call.identity)
            if call.name == "renameat2" and call.arguments[4] & 1 and _exists(target, new_name):
                raise OSError(errno.EEXIST, "")
            os.rename(old_name, new_name, src_dir_fd=source, dst_dir_fd=target)
            owner = _rows(_own(source)).get(key, (0, 0))
            _note(source, old_name, (0, 0))
            _note(target, new_name, owner)
        finally:
            os.close(source)
            os.close(target)
        return 0, 0, 0

    def is_plain(self, who: Credentials, parent: Place) -> bool:
        """Whether what `who` makes in a directory belongs to 0:0, as the kernel has it."""
        if who.fsuid or who.fsgid:
            return False
        value = _attribute(parent.quick(), ATTRIBUTE)
        if value is None:
            return True
        try:
            return not os.stat(parent.quick()).st_mode & ownership.S_ISGID
        except OSError:
            return True

    def owner_in(self, who: Credentials, directory: int) -> tuple[int, int]:
        """The owner of what `who` makes in a directory. EACCES if it may make nothing there."""
        info = os.fstat(directory)
        kept = self.kept(directory, info)
        if not ownership.may_access(who, info.st_mode, (kept.uid, kept.gid), 3):
            raise OSError(errno.EACCES, "")
        return ownership.owner_of_new(who, info.st_mode, kept.gid)

    def exists(self, who: Credentials, directory: int, name: bytes, flags: int) -> bool:
        """Whether a file is there already. EACCES if `who` may not open it so."""
        try:
            fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return False
        try:
            info = os.fstat(fd)
            wanted = (4, 2, 6, 0)[flags & os.O_ACCMODE] if info.st_mode & ownership.S_IFMT == ownership.S_IFREG else 0
            kept = self.kept(fd, info)
            if not flags & os.O_EXCL and not ownership.may_access(who, info.st_mode, (kept.uid, kept.gid), wanted):
                raise OSError(errno.EACCES, "")
        finally:
            os.close(fd)
        return True

    # Where a file is

    def place(self, call: Call, directory: int, path: bytes, *, empty: bool = False) -> Place:
        """What a path of the caller means. With `empty` (AT_EMPTY_PATH) an empty one is the directory's descriptor."""
        if path[:1] == b"/":
            if path[:6] in (b"/proc/", b"/dev/f", b"/dev/s"):
                return self.special(call, path)
            return Place(b"", path)
        if not path and not empty:
            raise OSError(errno.ENOENT, "")
        directory &= _WORD
        base = b"%d/cwd" % call.pid if directory == _AT_FDCWD else b"%d/fd/%d" % (call.pid, directory)
        return Place(base, path)

    def of_descriptor(self, call: Call, number: int) -> Place:
        return Place(b"%d/fd/%d" % (call.pid, number & _WORD), b"")

    def special(self, call: Call, path: bytes) -> Place:
        """A path of the caller below /proc or /dev/fd: what the caller's own magic links lead to."""
        if path in _STREAMS:
            return self.of_descriptor(call, _STREAMS[path])
        for start in (*(link + b"fd/" for link in _LINKS_OF_PROC), b"/dev/fd/"):
            number, slash, rest = path[len(start) :].partition(b"/")
            if path.startswith(start) and number.isdigit():
                return Place(b"%d/fd/%d" % (call.pid, int(number)), rest or (b"." if slash else b""))
        for link in _LINKS_OF_PROC:
            name, _, rest = path[len(link) :].partition(b"/")
            if path.startswith(link) and name in (b"cwd", b"root", b"exe"):
                return Place(b"%d/%b" % (call.pid, name), rest)
        return Place(b"", path)

    def opened(self, call: Call, place: Place, *, follow: bool = True) -> int:
        """A descriptor (O_PATH) of what a place is now."""
        if place.base and not place.path:
            return os.open(place.base, _PATH)
        if self.other_roots and _file_of(b"%d/root" % call.pid) != self.root:
            return self.opened_elsewhere(call, place, _PATH if follow else _PATH | os.O_NOFOLLOW)
        if not place.base:
            return self.opener.open(sys_.AT_FDCWD, place.path, follow=follow)
        base = os.open(place.base, _PATH)
        try:
            return self.opener.open(base, place.path, follow=follow)
        finally:
            os.close(base)

    def opened_elsewhere(self, call: Call, place: Place, flags: int) -> int:
        """As `opened`, for a process with a root directory of its own."""
        root = os.open(b"%d/root" % call.pid, _PATH)
        try:
            path = place.path
            if place.base:
                top, here = os.readlink(_own(root)), os.readlink(place.base)
                path = here.removeprefix(top.rstrip(b"/")) + b"/" + place.path
            return sys_.openat2(root, path, flags)
        finally:
            os.close(root)

    # What is kept aside

    def keeps(self, place: Place, *, follow: bool) -> bool:
        """Whether something is surely, or may be, kept aside of what is at a place."""
        path = place.quick()
        try:
            os.getxattr(path, ATTRIBUTE, follow_symlinks=follow or not place.path)
        except OSError as error:
            if error.errno != errno.ENODATA or not place.path or (follow and not self.has_rows):
                return False
        else:
            return True
        parent, name = place.parent()
        rows = _rows(parent.quick())
        self.has_rows = self.has_rows or bool(rows)
        return ownership.row_key(name) in rows

    def kept(self, fd: int, info: os.stat_result) -> Kept:
        """What is kept aside of an open file: its own owner and mode if nothing is."""
        if _has_attributes(info):
            value = _attribute(_own(fd), ATTRIBUTE)
            found = None if value is None else parse_kept(value)
            return found or Kept(info.st_uid, info.st_gid, info.st_mode & 0o7777)
        place = _name_of(fd, info)
        owner = None
        if place is not None:
            owner = _rows(_own(place[0])).get(ownership.row_key(place[1]))
            os.close(place[0])
        return Kept(*(owner or (info.st_uid, info.st_gid)), info.st_mode & 0o7777)

    def keep(self, fd: int, info: os.stat_result, kept: Kept) -> None:
        """Keep something aside of an open file."""
        if _has_attributes(info):
            os.setxattr(_own(fd), ATTRIBUTE, kept.value())
            return
        place = _name_of(fd, info)
        if place is not None:
            try:
                _note(*place, (kept.uid, kept.gid))
            finally:
                os.close(place[0])
            self.has_rows = True


_SENT = (-1, -1, -1)


def _own(fd: int) -> bytes:
    """A path that leads to an open file of this process."""
    return b"self/fd/%d" % fd


def _has_attributes(info: os.stat_result) -> bool:
    return info.st_mode & ownership.S_IFMT in (ownership.S_IFREG, ownership.S_IFDIR)


def _attribute(path: bytes, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None


def _rows(directory: bytes) -> dict[int, tuple[int, int]]:
    value = _attribute(directory, NAMED)
    return {} if value is None else ownership.parse_rows(value)


def _note(directory: int, name: bytes, owner: tuple[int, int]) -> None:
    """Note the owner of a link or FIFO in its directory; 0:0 needs no note."""
    rows = _rows(_own(directory))
    key = ownership.row_key(name)
    before = dict(rows)
    if owner == (0, 0):
        rows.pop(key, None)
    else:
        rows[key] = owner
    if rows != before:
        os.setxattr(_own(directory), NAMED, ownership.rows_value(rows))


def _name_of(fd: int, info: os.stat_result) -> tuple[int, bytes] | None:
    """(directory, name) of an open link or FIFO; the caller closes the directory. None if it has no name any more."""
    head, _, name = os.readlink(_own(fd)).rpartition(b"/")
    try:
        parent = os.open(head or b"/", _PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (found.st_dev, found.st_ino) == (info.st_dev, info.st_ino):
            return parent, name
    except OSError:
        pass
    os.close(parent)
    return None


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _file_of(path: bytes) -> tuple[int, int] | None:
    """Device and inode of a file."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _mark(pid: int) -> int:
    _, hard = resource.prlimit(pid, _MARK)
    return _FIRST_MARK if hard == resource.RLIM_INFINITY else min(hard, _FIRST_MARK)


def _field(pid: int, name: bytes) -> bytes:
    """A line of /proc/PID/status."""
    with open(b"%d/status" % pid, "rb", buffering=0) as file:
        text = file.read(4096)
    return text[text.index(name) + len(name) :].split(b"\n", 1)[0]


def _umask(pid: int) -> int:
    return int(_field(pid, b"\nUmask:"), 8)


def _peer(pid: int, number: int) -> int:
    """The process at the other end of a socket, which is the descriptor `number` of a process; 0 if it is not known."""
    try:
        process = sys_.pidfd_open(int(_field(pid, b"\nTgid:")))
        try:
            fd = sys_.pidfd_getfd(process, number)
        finally:
            os.close(process)
        connection = _socket.socket(fileno=fd)
        try:
            return int.from_bytes(connection.getsockopt(_SOL_SOCKET, _SO_PEERCRED, 12)[:4], sys.byteorder)
        finally:
            connection.close()
    except OSError:
        return 0


def _is_called(pid: int, number: int) -> bool:
    """Whether a process is called `number` in its own pid namespace."""
    return int(_field(pid, b"\nNSpid:").split()[-1]) == number


def _is_script(fd: int) -> bool:
    try:
        file = os.open(_own(fd), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(file, 2) == b"#!"
    finally:
        os.close(file)
