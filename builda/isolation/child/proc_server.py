"""A supervisor that gives /proc and /dev to a command whose root has neither.

A filter hands calls that may name a path there over to it (seccomp_unotify(2)). The supervisor opens the path in its
own /proc and puts the descriptor into the caller; other calls continue in the kernel. Landlock binds the command and
not the supervisor, so the supervisor refuses to open for writing what Landlock would forbid the command.
"""

from __future__ import annotations

import _struct
import errno
import os

from builda.isolation.child import notification, pseudoterminals
from builda.isolation.child.notification import GO_ON, Listener
from builda.linux import syscalls as sys_
from builda.linux.landlock import confine_writes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOW = _struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve
_RULE = _struct.Struct("=HBBI")

_AT_FDCWD = 0xFFFFFFFF & sys_.AT_FDCWD
_AT_EMPTY_PATH = 0x1000
_NOFOLLOW = sys_.AT_SYMLINK_NOFOLLOW
_PATH_MAX = 4096
_MAP_SHARED, _MAP_ANONYMOUS = 0x01, 0x20  # the first is a bit of MAP_SHARED_VALIDATE too
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_STATX_SIZE = 256
# Files of /proc/PID that the kernel guards by ptrace access mode checks (ptrace(2)): the command gets them of processes
# in its own tree only.
_GUARDED = frozenset(
    b"auxv clear_refs cwd environ exe fd fdinfo io map_files maps mem ns numa_maps pagemap personality root smaps "
    b"smaps_rollup stack syscall".split()
)

_ATTRIBUTES = ("getxattr", "lgetxattr", "listxattr", "llistxattr")
DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"ptmx")
_STREAMS = {b"/dev/stdin": b"0", b"/dev/stdout": b"1", b"/dev/stderr": b"2"}


class _Calls:
    """The system call numbers of an architecture. `arch` is its AUDIT_ARCH_*, `status_size` the size of struct stat."""

    def __init__(self, arch: int, status_size: int, at: dict[str, int], plain: dict[str, int], mmap: int) -> None:
        self.arch = arch
        self.status_size = status_size
        self.at = at
        self.plain = plain
        self.mmap = mmap
        self.names = {number: name for names in (at, plain, {"mmap": mmap}) for name, number in names.items()}


_MACHINES = {
    "x86_64": _Calls(
        0xC000003E,
        144,
        {
            "openat": 257,
            "openat2": 437,
            "readlinkat": 267,
            "newfstatat": 262,
            "statx": 332,
            "faccessat": 269,
            "faccessat2": 439,
        },
        {
            "open": 2,
            "readlink": 89,
            "stat": 4,
            "lstat": 6,
            "access": 21,
            "getxattr": 191,
            "lgetxattr": 192,
            "listxattr": 194,
            "llistxattr": 195,
        },
        9,
    ),
    "aarch64": _Calls(
        0xC00000B7,
        128,
        {
            "openat": 56,
            "openat2": 437,
            "readlinkat": 78,
            "newfstatat": 79,
            "statx": 291,
            "faccessat": 48,
            "faccessat2": 439,
        },
        {"getxattr": 8, "lgetxattr": 9, "listxattr": 11, "llistxattr": 12},
        222,
    ),
}


def filter_program(machine: str) -> bytes:
    """A BPF program that hands over calls that may name an absolute path or map a file to change it.

    All others are allowed, also calls relative to a directory's descriptor and those about a descriptor itself.
    """
    calls = _MACHINES[machine]
    notify, allow = 0x7FC00000, 0x7FFF0000  # SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ALLOW
    load, equal, at_least, any_of, leave = 0x20, 0x15, 0x35, 0x45, 0x06
    # (code, jump if true, jump if false, operand); a jump is a label, None is the next rule
    rows: list[tuple[int, str | None, str | None, int, str | None]] = [
        (load, None, None, 4, None),
        (equal, None, "allow", calls.arch, None),
        (load, None, None, 0, None),
        (at_least, "allow", None, 0x40000000, None),  # x32
    ]
    rows += [(equal, "notify", None, number, None) for number in calls.plain.values()]
    special = {"newfstatat": "flags3", "statx": "flags2"}
    rows += [(equal, special.get(name, "at"), None, number, None) for name, number in calls.at.items()]
    rows += [
        (equal, "flags of mmap", None, calls.mmap, None),
        (leave, None, None, allow, None),
        (load, None, None, 40, "flags3"),
        (any_of, "allow", "at", _AT_EMPTY_PATH, None),
        (load, None, None, 32, "flags2"),
        (any_of, "allow", "at", _AT_EMPTY_PATH, None),
        (load, None, None, 16, "at"),
        (equal, "notify", "allow", _AT_FDCWD, None),
        (load, None, None, 40, "flags of mmap"),
        (any_of, None, "allow", _MAP_SHARED, None),
        (any_of, "allow", "notify", _MAP_ANONYMOUS, None),
        (leave, None, None, notify, "notify"),
        (leave, None, None, allow, "allow"),
    ]
    labels = {row[4]: index for index, row in enumerate(rows) if row[4]}

    def jump(index: int, label: str | None) -> int:
        return 0 if label is None else labels[label] - index - 1

    return b"".join(
        _RULE.pack(code, jump(index, true), jump(index, false), operand)
        for index, (code, true, false, operand, _) in enumerate(rows)
    )


class Call:
    """One call that waits for its answer. `path` is the path in this process's view."""

    __slots__ = ("arguments", "identity", "memory", "name", "path", "pid")

    def __init__(self, identity: int, pid: int, name: str, arguments: list[int]) -> None:
        self.identity = identity
        self.pid = pid  # of the thread
        self.name = name
        self.arguments = arguments  # those from the path on
        self.memory = -1
        self.path = b""


class Supervisor:
    """Answers the calls of all processes of the command; `root` is a descriptor of its root directory.

    `end_with_parent` asks for a signal when the parent dies. It is called after each change of this process's ids,
    which clears that request.
    """

    def __init__(self, listener: int, root: int, end_with_parent: Callable[[], None]) -> None:
        self.listener = Listener(listener)
        self.end_with_parent = end_with_parent
        self.calls = _MACHINES[os.uname().machine]
        self.root = os.readlink(b"/proc/self/fd/%d" % root)
        self.devices = frozenset(b"/dev/" + name for name in DEVICES if not _is_device(root, b"dev/" + name))
        self.links = _links_to_proc(root)
        self.serve: dict[str, Callable[[Call], int | None]] = {
            "open": self.open,
            "openat": self.open,
            "openat2": self.open,
            "readlink": self.readlink,
            "readlinkat": self.readlink,
            "access": self.access,
            "faccessat": self.access,
            "faccessat2": self.access,
            "stat": self.status,
            "lstat": self.status,
            "newfstatat": self.status,
            "statx": self.status,
            **dict.fromkeys(_ATTRIBUTES, self.attribute),
        }

    def run(self, wake: int, ended: Callable[[], bool]) -> None:
        """Answer calls until `ended()`, which is asked each time when `wake` becomes readable."""
        self.listener.serve(self.one, wake, lambda _: ended())

    def one(self) -> None:
        """Answer one call."""
        request = self.listener.receive()
        if request is None:
            return
        identity, pid, _, number, _, _, *arguments = request
        name = self.calls.names[number]
        call = Call(identity, pid, name, arguments[1:] if name in self.calls.at else arguments)
        answer = self.answer(call)
        if answer is not None:
            self.listener.send(identity, answer)

    def answer(self, call: Call) -> tuple[int, int, int] | None:
        """(value, negative errno, flags) of the answer; None if it has been sent already.

        For a process of another user, the supervisor takes on that user's file ids: it may not read the process's
        memory otherwise, and opens nothing that the user may not. If it still may not read the memory (a process that
        has just changed its user is not dumpable), the call continues in the kernel.
        """
        call.memory = _memory(call.pid)
        if call.memory >= 0:
            return self.served(call)
        try:
            owner = os.stat(f"/proc/{call.pid}")
        except OSError:
            return GO_ON
        if owner.st_uid == 0:
            return GO_ON
        try:
            if not _can_be(owner.st_uid, owner.st_gid):
                return GO_ON
            call.memory = _memory(call.pid)
            return GO_ON if call.memory < 0 else self.served(call)
        finally:
            sys_.set_file_ids(0, 0)
            self.end_with_parent()

    def served(self, call: Call) -> tuple[int, int, int] | None:
        """As `answer`, for a call whose caller's memory is open."""
        try:
            if call.name == "mmap":
                self.mapped(call)
                return GO_ON
            path = _string(call.memory, call.arguments[0])
            found = None if path is None else self.translated(call, path)
            if found is None:
                return GO_ON
            call.path = found
            value = self.serve[call.name](call)
            return None if value is None else (value, 0, 0)
        except OSError as error:
            return (0, -(error.errno or errno.EIO), 0)
        except (OverflowError, ValueError):  # arguments that Python cannot pass on
            return (0, -errno.EINVAL, 0)
        finally:
            os.close(call.memory)

    def translated(self, call: Call, path: bytes) -> bytes | None:
        """The path in this process's view of what the caller means; None if it lies in the caller's tree."""
        path = _normal(path)
        if path in self.links and not _is_of_link(call):
            path = self.links[path]
        if path[:5] == b"/dev/":
            return self.translated_device(call, path)
        if path[:6] != b"/proc/":
            return path if path == b"/proc" else None
        if b"/.." in path:
            return None
        head, slash, rest = path[6:].partition(b"/")
        if head not in (b"self", b"thread-self", b"mounts", b"net") or (not slash and _is_of_link(call)):
            return path
        if head == b"self":
            return b"/proc/%d%s%s" % (_tgid(call.pid), slash, rest)
        if head == b"thread-self":
            return b"/proc/%d/task/%d%s%s" % (_tgid(call.pid), call.pid, slash, rest)
        return b"/proc/%d/%s%s%s" % (_tgid(call.pid), head, slash, rest)

    def translated_device(self, call: Call, path: bytes) -> bytes | None:
        terminal = path.removeprefix(pseudoterminals.DIRECTORY)
        if path in self.devices or (terminal != path and (terminal == b"ptmx" or terminal.isdigit())):
            return path
        if path[:8] == b"/dev/fd/" and b"/.." not in path:
            return b"/proc/%d/fd/%s" % (_tgid(call.pid), path[8:])
        if _is_of_link(call):
            return None
        if path in _STREAMS:
            return b"/proc/%d/fd/%s" % (_tgid(call.pid), _STREAMS[path])
        return b"/proc/%d/fd" % _tgid(call.pid) if path == b"/dev/fd" else None

    def mapped(self, call: Call) -> None:
        """Give a file that the caller may change in memory a new ctime, by which the layer's walk finds it.

        On tmpfs, stores to a page that was read before change no time.
        """
        place = b"/proc/%d/fd/%d" % (call.pid, call.arguments[4] & 0x7FFFFFFF)
        try:
            if _description(place)[0] != os.O_RDWR:
                return
            fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        except OSError:  # no descriptor: the kernel says so
            return
        try:
            if os.fstat(fd).st_mode & 0o170000 == 0o100000:
                sys_.set_file_ids(0, 0)  # the file may be another user's than the caller
                sys_.renew_access_time(b"/proc/self/fd/%d" % fd)
        except OSError:  # a file whose times cannot change, such as one of another machine: it is in no tree of builda
            return
        finally:
            os.close(fd)

    # One method for each kind of call: the value that the call returns, None if the answer has been sent.

    def open(self, call: Call) -> int | None:
        """open(2) and its relatives."""
        flags = _flags_of_openat2(call) if call.name == "openat2" else call.arguments[1] & 0x7FFFFFFF
        if flags & os.O_PATH:  # the kernel injects no O_PATH descriptor; one for reading can do all that it can
            flags &= os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self.opened(call, flags)
        try:
            return self.listener.inject(call.identity, fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)

    def opened(self, call: Call, flags: int) -> int:
        """Open the path of the call. PermissionError for what Landlock or ptrace checks would refuse the caller."""
        if call.path.startswith(pseudoterminals.DIRECTORY):
            if not pseudoterminals.is_own(call.path, call.pid, self.processes()):
                raise PermissionError(errno.EACCES, "")
            return _opened(call.path, flags)
        if call.path[:6] != b"/proc/":
            return _opened(call.path, flags)
        process, *parts = call.path[6:].split(b"/")
        if parts[:1] == [b"task"]:
            del parts[:2]
        what = parts[0] if parts else b""
        # The supervisor has the rights of builda: it must not open /proc/sys, its own memory or another process's
        # descriptors for writing where the command could not.
        writing = bool(flags & _WRITING)
        if (writing or what in _GUARDED) and not self.is_inside(call, process):
            raise PermissionError(errno.EACCES, "")
        if not writing:
            return _opened(call.path, flags)
        if what in (b"root", b"cwd", b"exe", b"map_files") or (what == b"fd" and len(parts) != 2):
            raise PermissionError(errno.EACCES, "")
        return self.reopened(call.path, flags) if what == b"fd" else _opened(call.path, flags)

    def is_inside(self, call: Call, process: bytes) -> bool:
        """Whether `process`, a name in /proc, is the caller or a process whose root is in the tree."""
        if not process.isdigit():
            return False
        if int(process) in (call.pid, _tgid(call.pid)):
            return True
        return self.holds(os.readlink(b"/proc/%s/root" % process))

    def processes(self) -> Iterator[int]:
        """Those whose root is in the tree."""
        for name in os.listdir(b"/proc"):
            try:
                if name.isdigit() and self.holds(os.readlink(b"/proc/%b/root" % name)):
                    yield int(name)
            except OSError:  # it has ended, or is another user's
                continue

    def holds(self, path: bytes) -> bool:
        """Whether a path in this process's view lies in the tree."""
        return path == self.root or path.startswith(self.root + b"/")

    def reopened(self, path: bytes, flags: int) -> int:
        """Reopen for writing the file behind another process's descriptor.

        Allowed only if it lies in the tree, is no file with a path, or is open for writing already. An O_PATH handle
        pins it: its process may reuse the number at any moment.
        """
        held = os.open(path, os.O_PATH)
        try:
            ours = b"/proc/self/fd/%d" % held
            link = os.readlink(ours)
            if link.startswith(b"/") and not self.holds(link):
                mode, file = _description(path)
                if mode == os.O_RDONLY or file != _description(ours)[1]:
                    raise PermissionError(errno.EACCES, "")
            return _opened(ours, flags)
        finally:
            os.close(held)

    def readlink(self, call: Call) -> int | None:
        """readlink(2)."""
        if call.path == b"/proc/self":
            link = b"%d" % _tgid(call.pid)
        elif call.path == b"/proc/thread-self":
            link = b"%d/task/%d" % (_tgid(call.pid), call.pid)
        else:
            link = os.readlink(call.path)
        if self.holds(link):
            link = link[len(self.root) :] or b"/"
        return self.write(call, call.arguments[1], link[: call.arguments[2]])

    def status(self, call: Call) -> int | None:
        """The stat family."""
        first, second = call.arguments[1] & 0xFFFFFFFF, call.arguments[2] & 0xFFFFFFFF
        if call.name == "statx":
            data = sys_.file_status(self.calls.at["statx"], sys_.AT_FDCWD, call.path, (first, second), (), _STATX_SIZE)
            self.write(call, call.arguments[3], data)
            return 0
        flags = {"stat": 0, "lstat": _NOFOLLOW}.get(call.name, second)
        number = self.calls.at["newfstatat"]
        data = sys_.file_status(number, sys_.AT_FDCWD, call.path, (), (flags,), self.calls.status_size)
        self.write(call, call.arguments[1], data)
        return 0

    def access(self, call: Call) -> int | None:
        """access(2) and its relatives."""
        os.stat(call.path)
        if not os.access(call.path, call.arguments[1] & 7):
            raise OSError(errno.EACCES, "")
        return 0

    def attribute(self, call: Call) -> int | None:
        """getxattr(2) and listxattr(2): no file of /proc and no device has attributes."""
        os.lstat(call.path)
        raise OSError(errno.ENOTSUP, "")

    def write(self, call: Call, address: int, data: bytes) -> int:
        """Write `data` into the caller's memory if the call still waits: its pid may belong to another process by
        now."""
        self.listener.check(call.identity)
        try:
            return os.pwrite(call.memory, data, address)
        except (OSError, OverflowError) as error:
            raise OSError(errno.EFAULT, "") from error


def hand_over(connection: int, program: bytes | None, queues: int = -1) -> None:
    """Confine this thread's writes to its root and to message queues (`landlock.queues`).

    Install the filter, if any, and send its listener over the socket.
    """
    confine_writes(os.open("/", os.O_PATH), queues)
    if program is not None:
        notification.hand_over(connection, program)


def give_up(capabilities: int) -> None:
    """Drop these capabilities, a bit set, from this thread."""
    effective, permitted, inheritable = sys_.capget()
    if capabilities:
        sys_.capset(effective & ~capabilities, permitted & ~capabilities, inheritable & ~capabilities)


def _can_be(uid: int, gid: int) -> bool:
    """Open files as this user from now on; False if the kernel refuses."""
    try:
        sys_.set_file_ids(uid, gid)
    except OSError:
        return False
    return True


def _memory(pid: int) -> int:
    """A descriptor of a process's memory; -1 if this process may not open it."""
    try:
        return os.open(f"/proc/{pid}/mem", os.O_RDWR)
    except OSError:
        return -1


def _string(memory: int, address: int) -> bytes | None:
    """The absolute path at an address; None if it is relative or cannot be read."""
    try:
        data = os.pread(memory, 256, address)
        if data[:1] != b"/":
            return None
        end = data.find(b"\0")
        if end < 0:
            data = os.pread(memory, _PATH_MAX, address)
            end = data.find(b"\0")
    except (OSError, OverflowError):
        return None
    return None if end < 0 else data[:end]


def _normal(path: bytes) -> bytes:
    """An absolute path without empty parts and dots: `//proc/./self` is `/proc/self`. A slash at its end is kept.

    Without this, `/proc/./PID/mem` would pass the checks below as no process's file.
    """
    if b"//" not in path and b"/." not in path:
        return path
    parts = path.split(b"/")
    end = b"/" if parts[-1] in (b"", b".") else b""
    return b"/" + b"".join(part + b"/" for part in parts if part not in (b"", b"."))[: None if end else -1]


def _flags_of_openat2(call: Call) -> int:
    try:
        data = os.pread(call.memory, _HOW.size, call.arguments[1])
    except (OSError, OverflowError) as error:
        raise OSError(errno.EFAULT, "") from error
    if len(data) < _HOW.size:
        raise OSError(errno.EFAULT, "")
    flags, _, resolve = _HOW.unpack(data)
    if resolve:
        raise OSError(errno.EXDEV, "")
    if flags > 0x7FFFFFFF:
        raise OSError(errno.EINVAL, "")
    return int(flags)


def _description(path: bytes) -> tuple[int, tuple[bytes, bytes]]:
    """(access mode, (mount id, inode)) of the descriptor at /proc/PID/fd/N."""
    with open(path.replace(b"/fd/", b"/fdinfo/", 1), "rb", buffering=0) as file:
        fields = dict(line.split(b":\t", 1) for line in file.read(512).splitlines() if b":\t" in line)
    return int(fields[b"flags"], 8) & os.O_ACCMODE, (fields[b"mnt_id"], fields.get(b"ino", b""))


def _tgid(pid: int) -> int:
    """The process that a thread belongs to."""
    fd = os.open(f"/proc/{pid}/status", os.O_RDONLY)
    try:
        text = os.read(fd, 512)
    finally:
        os.close(fd)
    return int(text[text.index(b"\nTgid:") + 6 :].split(None, 1)[0])


def _is_of_link(call: Call) -> bool:
    """Whether the call does not follow a link at the end of its path."""
    if call.name in ("newfstatat", "faccessat2"):
        return bool(call.arguments[2] & _NOFOLLOW)
    if call.name == "statx":
        return bool(call.arguments[1] & _NOFOLLOW)
    if call.name in ("open", "openat"):
        return bool(call.arguments[1] & os.O_NOFOLLOW)
    return call.name in ("readlink", "readlinkat", "lstat", "lgetxattr", "llistxattr")


def _opened(path: bytes, flags: int) -> int:
    """Open a path for the caller, without waiting for the other end of a FIFO as the caller would."""
    flags |= os.O_CLOEXEC | os.O_NOCTTY
    if not any(part in path for part in (b"/fd/", b"/root/", b"/cwd/")):
        return os.open(path, flags)
    fd = os.open(path, flags | os.O_NONBLOCK)
    if not flags & os.O_NONBLOCK:
        os.set_blocking(fd, True)
    return fd


def _is_device(root: int, path: bytes) -> bool:
    try:
        fd = sys_.openat2(root, path, os.O_PATH)
    except OSError:
        return False
    try:
        return os.fstat(fd).st_mode & 0o170000 == 0o020000
    finally:
        os.close(fd)


def _links_to_proc(root: int) -> dict[bytes, bytes]:
    """/etc/mtab, which distributions link to /proc/mounts, and the path that it leads to."""
    try:
        parent = sys_.openat2(root, "etc", os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return {}
    try:
        link = os.readlink(b"mtab", dir_fd=parent)
    except OSError:
        return {}
    finally:
        os.close(parent)
    link = link.removeprefix(b"..")
    return {b"/etc/mtab": link} if link.startswith(b"/proc/") else {}
