"""What a command without a root directory of its own may reach of the pod: /proc, as it sees it, and a few devices."""

from __future__ import annotations

import errno
import os
import stat

from builda.isolation.child import pseudoterminals
from builda.isolation.traced.programs import own_arguments
from builda.isolation.traced.tree import DEVICES, State, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.emulated.processes import Processes

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Files of /proc/PID that the kernel guards by ptrace access mode checks (ptrace(2)): of the command's processes only.
_GUARDED = frozenset(
    b"auxv clear_refs cwd environ exe fd fdinfo io map_files maps mem ns numa_maps pagemap personality root smaps "
    b"smaps_rollup stack syscall".split()
)
_HOSTNAME = b"/proc/sys/kernel/hostname"
_DEVICES = frozenset(b"/dev/" + name for name in DEVICES)
_LINKS = (b"cwd", b"root", b"exe", b"map_files", b"ns")


class Outside:
    """Opens files outside the tree for the command's processes, which are the keys of `states`."""

    def __init__(self, tree: Tree, states: dict[int, State], processes: Processes) -> None:
        self.tree = tree
        self.states = states
        self.processes = processes

    def check_seen(self, state: State, tid: int, path: bytes) -> None:
        """EACCES for what only processes outside the tree have in /proc."""
        process, what, _ = self._of_process(path)
        if what in _GUARDED and not self._is_ours(process):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def open(self, state: State, tid: int, path: bytes, flags: int) -> int:
        """Open a path outside the tree: a device, or a file of /proc; -1 for a FIFO, as `_reopen`."""
        if flags & os.O_CREAT:
            self._check_made(path, flags)
        flags |= os.O_CLOEXEC | os.O_NOCTTY
        if path == b"/dev/tty":
            return self._open_terminal(tid, flags)
        if path.startswith(pseudoterminals.DIRECTORY) and not pseudoterminals.is_own(path, tid, self.states):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path[:5] == b"/dev/":
            return os.open(path, flags & ~(os.O_CREAT | os.O_EXCL))
        self.check_seen(state, tid, path)
        process, what, rest = self._of_process(path)
        mode = os.lstat(path).st_mode
        if flags & os.O_NOFOLLOW and stat.S_ISLNK(mode):
            _refuse_link(flags)
        if not flags & _WRITING and what not in (b"fd", b"cwd"):
            if what == b"status" and process.isdigit():
                return self._status(path, int(process)) if self._is_ours(process) else _status_of_pod(path)
            if what == b"cmdline" and self._is_ours(process):
                return _holding(own_arguments(_text(path), self.states[int(process)].loader))
            if what in (b"maps", b"smaps") and self._is_ours(process):
                return _holding(_text(path).replace(b" " + state.root.path + b"/", b" /"))
            if what in _LINKS:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            if path == _HOSTNAME and self.tree.hostname is not None:
                return _holding(os.fsencode(self.tree.hostname) + b"\n")
            return os.open(path, flags)
        if (what == b"fd" and len(rest) == 1) or (what == b"cwd" and not rest):  # the latter: a removed directory
            return self._reopen(state, tid, path, flags)
        if flags & _WRITING and stat.S_ISDIR(mode):
            return os.open(path, flags)  # which fails: the kernel says why
        if flags & _WRITING and (not self._is_ours(process) or what in (*_LINKS, b"mem")):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return os.open(path, flags & ~(os.O_CREAT | os.O_EXCL))

    def _check_made(self, path: bytes, flags: int) -> None:
        """What open(2) with O_CREAT says of a file that is there."""
        mode = os.lstat(path).st_mode
        if flags & os.O_EXCL:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if flags & os.O_NOFOLLOW and stat.S_ISLNK(mode):
            _refuse_link(flags)
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))

    def readlink(self, state: State, tid: int, path: bytes) -> bytes:
        """The text of a link of /proc as the process sees it."""
        if path == b"/proc/self":
            return b"%d" % state.pid
        if path == b"/proc/thread-self":
            return b"%d/task/%d" % (state.pid, tid)
        self.check_seen(state, tid, path)
        process, what, _ = self._of_process(path)
        of = self.states.get(int(process)) if process.isdigit() else None
        if what == b"exe" and of is not None:
            return of.root.inside(of.exe) or of.exe
        if what == b"root" and of is not None:
            return b"/"
        link = os.readlink(path)
        return state.root.inside(link) or link

    def _reopen(self, state: State, tid: int, path: bytes, flags: int) -> int:
        """Open the file behind a descriptor again; -1 for a FIFO of the tree, whose other end must be waited for.

        With more rights than the descriptor has: files of the tree, and what the caller could open by its path.
        """
        held = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            ours = b"/proc/self/fd/%d" % held
            link = os.readlink(ours)
            if link[:1] == b"/" and self.tree.root.inside(link) is None:
                given = flags_of(path)
                if given & os.O_PATH or (given & 3 != os.O_RDWR and given & 3 != flags & 3):
                    if stat.S_ISLNK(os.fstat(held).st_mode):
                        _refuse_link(flags)
                    if link == b"/proc" or link[:6] == b"/proc/" or link in _DEVICES:
                        return self.open(state, tid, link, flags)
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            waits = link[:1] == b"/" and not flags & os.O_NONBLOCK and flags & 3 != os.O_RDWR
            if waits and stat.S_ISFIFO(os.fstat(held).st_mode):
                return -1
            return os.open(ours, flags & ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW))
        finally:
            os.close(held)

    def _open_terminal(self, tid: int, flags: int) -> int:
        """The caller's terminal: this process has none, so it is looked for among the caller's descriptors."""
        for number in (0, 1, 2):
            path = b"/proc/%d/fd/%d" % (tid, number)
            try:
                if os.readlink(path).startswith((b"/dev/pts/", b"/dev/console", b"/dev/tty")):
                    return os.open(path, flags & ~(os.O_CREAT | os.O_EXCL))
            except OSError:
                continue
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    def _status(self, path: bytes, pid: int) -> int:
        """A copy of /proc/PID/status with the ids and capabilities that the process has here."""
        who = self.processes[pid]
        ids = {b"Uid": (who.ruid, who.euid, who.suid, who.fsuid), b"Gid": (who.rgid, who.egid, who.sgid, who.fsgid)}
        sets = zip(
            (b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb"),
            (who.inheritable, who.permitted, who.effective, who.bounding, who.ambient),
            strict=True,
        )
        shown = {
            **{name: b"\t".join(b"%d" % number for number in numbers) for name, numbers in ids.items()},
            **{name: b"%016x" % bits for name, bits in sets},
            b"Groups": b" ".join(b"%d" % number for number in who.groups),
            b"NoNewPrivs": b"%d" % who.no_new_privileges,
            b"TracerPid": b"0",
        }
        rows = (line.partition(b":\t") for line in _text(path).splitlines())
        text = b"".join(b"%b:\t%b\n" % (name, shown.get(name, value)) for name, _, value in rows)
        return _holding(text)

    def _of_process(self, path: bytes) -> tuple[bytes, bytes, list[bytes]]:
        """(number, file, what follows) of a path below /proc."""
        process, *parts = path[6:].split(b"/")
        if parts[:1] == [b"task"]:
            del parts[:2]
        return process, parts[0] if parts else b"", parts[1:]

    def _is_ours(self, process: bytes) -> bool:
        return process.isdigit() and int(process) in self.states


def flags_of(descriptor: bytes) -> int:
    """The flags that a descriptor was opened with, by its path /proc/PID/fd/N; FileNotFoundError if it is not open.

    The mode of that link does not tell: for a moment it can be that of an older descriptor of the same number, while
    another process looks at it too (`tid_fd_revalidate`, Linux 6.18).
    """
    fd = os.open(descriptor.replace(b"/fd/", b"/fdinfo/", 1), os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 512)
    finally:
        os.close(fd)
    return int(text.partition(b"flags:\t")[2].partition(b"\n")[0], 8)


def _status_of_pod(path: bytes) -> int:
    """A copy of /proc/PID/status of a process that is not the command's: the user of the pod is root.

    Else programs would take it for a process of a user that the command has made: userdel(8) refuses then.
    """
    roots = {b"Uid": b"%d" % os.getuid(), b"Gid": b"%d" % os.getgid(), b"Groups": b"%d" % os.getgid()}
    rows = []
    for line in _text(path).splitlines(keepends=True):
        name, _, value = line.partition(b":\t")
        if name in roots:
            ids = [b"0" if number == roots[name] else number for number in value.split()]
            line = b"%b:\t%b\n" % (name, (b" " if name == b"Groups" else b"\t").join(ids))
        rows.append(line)
    return _holding(b"".join(rows))


def _text(path: bytes) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _refuse_link(flags: int) -> None:
    """What open(2) says of a link that it is not to follow."""
    number = errno.ENOTDIR if flags & os.O_DIRECTORY else errno.ELOOP
    raise OSError(number, os.strerror(number))


def _holding(text: bytes) -> int:
    """A descriptor of a file in memory with this text."""
    fd = os.memfd_create("text", os.MFD_CLOEXEC)
    os.write(fd, text)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
