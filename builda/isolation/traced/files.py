"""Finds the files of a call: its caller's memory, paths and descriptors as descriptors of the supervisor."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builda.isolation.child import pseudoterminals
from builda.isolation.emulated.processes import Processes
from builda.isolation.traced.calling import signed
from builda.isolation.traced.kept_aside import Owners
from builda.isolation.traced.outside import Outside, flags_of
from builda.isolation.traced.tree import AT_FDCWD, DEVICES, Root, State, Tree
from builda.linux.ptrace import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.child.notification import Listener
    from builda.isolation.traced.stops import Stops

_PATH = os.O_PATH | os.O_CLOEXEC
_LINK = _PATH | os.O_NOFOLLOW
_DIRECTORY = _PATH | os.O_DIRECTORY
_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
_DEVICES = frozenset(b"/dev/" + name for name in DEVICES)


class Unchanged(Exception):
    """A call would change a device of the pod: it succeeds, and nothing is changed."""


class Files:
    """Finds the files that calls name. `identity` is the call that is being answered."""

    def __init__(self, listener: Listener | Stops, tree: Tree, processes: Processes, states: dict[int, State]) -> None:
        self.listener = listener
        self.tree = tree
        self.processes = processes
        self.states = states
        self.memory = Memory()
        self.owners = Owners((os.getuid(), os.getgid()))
        self.outside = Outside(tree, states, processes)
        self.identity = 0
        self._umask = -1

    def take_umask(self, umask: int) -> None:
        """Let the kernel apply this umask to what is made next: where a default ACL counts instead, it does not.

        It leaves the owner's bits, which `Owners.new` takes, and the supervisor would miss.
        """
        if umask & 0o077 != self._umask:
            self._umask = umask & 0o077
            os.umask(self._umask)

    @contextmanager
    def whole_umask(self, umask: int) -> Iterator[None]:
        """As `take_umask`, with the owner's bits."""
        self.take_umask(umask)
        if not umask & 0o700:
            yield
            return
        os.umask(umask)
        try:
            yield
        finally:
            os.umask(self._umask)

    def path(self, tid: int, address: int) -> bytes:
        """The path at an address; ENOENT for an empty one."""
        path = self.memory.text(tid, address)
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return path

    def write(self, tid: int, address: int, data: bytes) -> None:
        """Write into the caller's memory if the call still waits: its number may be another thread's by now."""
        self.listener.check(self.identity)
        self.memory.write(tid, address, data)

    def write_from(self, tid: int, address: int, here: bytes, size: int) -> None:
        """As `write`, of what this process has at `here` (`ptrace.iovec`)."""
        self.listener.check(self.identity)
        self.memory.write_from(tid, address, here, size)

    def at(self, tid: int, directory: int, address: int) -> tuple[Root, bytes]:
        """(root, path from it on) of a path that a call names."""
        path = self.memory.text(tid, address)
        state = self.states[tid]
        if path[:1] == b"/":
            return state.root, path
        if not path:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.tree.start(state, tid, signed(directory), path)

    def at_or_open(self, tid: int, directory: int, address: int, flags: int) -> tuple[Root, bytes] | bytes:
        """As `at`; with AT_EMPTY_PATH and no path, the path in /proc of the caller's descriptor or directory."""
        if flags & _EMPTY_PATH and not self.memory.some(tid, address, 1).strip(b"\0"):
            return self.held(tid, directory)
        return self.at(tid, directory, address)

    def place(self, tid: int, root: Root, path: bytes, *, follow: bool) -> int:
        """An O_PATH descriptor of what is at `path`, in the tree or in the part of the pod that the command may see."""
        try:
            return root.open(path, _PATH if follow else _LINK)
        except PermissionError:
            state = self.states[tid]
            place = self.tree.walk(state, tid, root, path, follow=follow)
        if place.outside:
            self.outside.check_seen(state, tid, place.path)
            return os.open(place.path, _PATH if follow else _LINK)
        return root.open(place.path, _LINK)

    def changed(self, tid: int, directory: int, address: int, flags: int = 0) -> tuple[int, os.stat_result]:
        """An O_PATH descriptor of a file that a call is to change, and its status; EPERM for one of the pod's.

        `flags`: AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH.
        """
        found = self.at_or_open(tid, directory, address, flags)
        if isinstance(found, bytes):
            return self.own(os.open(found, _PATH))
        root, path = found
        try:
            fd = root.open(path, _LINK if flags & _NOFOLLOW else _PATH)
        except PermissionError:
            return self.own(self.place(tid, root, path, follow=not flags & _NOFOLLOW))
        info = os.fstat(fd)
        return self.own(fd) if (info.st_dev, info.st_ino) in self.tree.marks else (fd, info)

    def changed_by_descriptor(self, tid: int, number: int) -> tuple[int, os.stat_result]:
        """As `changed`, for a descriptor of the caller. EBADF for one that was opened with O_PATH."""
        return self.own(self.seen_by_descriptor(tid, number))

    def seen_by_descriptor(self, tid: int, number: int) -> int:
        """An O_PATH descriptor of the file behind a descriptor of the caller; EBADF for one opened with O_PATH."""
        path = b"/proc/%d/fd/%d" % (tid, signed(number))
        try:
            if not flags_of(path) & os.O_PATH:
                return os.open(path, _PATH)
        except FileNotFoundError:
            pass
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def own(self, fd: int) -> tuple[int, os.stat_result]:
        """The descriptor and its status, if its file is of the tree or has no path; else it is closed, and EPERM."""
        try:
            info = os.fstat(fd)
            if self.is_ours(fd, info):
                return fd, info
            if self.is_device(fd):
                raise Unchanged
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        except BaseException:
            os.close(fd)
            raise

    def is_ours(self, fd: int, info: os.stat_result | None = None) -> bool:
        """Whether an open file is of the tree or has no path."""
        info = info or os.fstat(fd)
        if (info.st_dev, info.st_ino) in self.tree.marks:
            return False
        try:
            path = os.readlink(b"/proc/self/fd/%d" % fd)
        except OSError as error:
            return error.errno == errno.ENAMETOOLONG  # only `Tree.start` leads as deep as this, and has looked
        return self.tree.root.inside(path) is not None or path[:1] != b"/" or path.startswith(b"/memfd:")

    def is_device(self, fd: int) -> bool:
        """Whether an open file is a device of the pod that the command sees, or stands for one."""
        info = os.fstat(fd)
        stands_for = self.tree.marks.get((info.st_dev, info.st_ino)) or os.readlink(b"/proc/self/fd/%d" % fd)
        return stands_for in _DEVICES or stands_for.startswith(pseudoterminals.DIRECTORY)

    def parent(self, tid: int, directory: int, address: int) -> tuple[int, bytes]:
        """An open directory and the name in it that a path means; links at the end are not followed.

        The directory may be one of /proc, where nothing can be made or changed.
        """
        root, path = self.at(tid, directory, address)
        whole = path.rstrip(b"/")
        above, _, name = whole.rpartition(b"/")
        if not name:
            return root.open(b"/", _DIRECTORY), b"/"  # nothing can be done to it, and the kernel says why
        above = above or (b"/" if path[:1] == b"/" else b".")
        try:
            fd = root.open(above, _DIRECTORY)
        except PermissionError:
            state = self.states[tid]
            place = self.tree.walk(state, tid, root, above, follow=True, parent=True)
            if place.outside:
                self.outside.check_seen(state, tid, place.path)
                fd = os.open(place.path, _DIRECTORY | os.O_NOFOLLOW)
            elif place.removed is not None:
                fd = os.dup(place.removed.fd)
            else:
                fd = root.open(place.path, _DIRECTORY | os.O_NOFOLLOW)
        else:
            fd = self.not_standing(fd)
        return fd, name + path[len(whole) :]

    def not_standing(self, fd: int) -> int:
        """The descriptor; one of /proc for the directory of the tree that stands for it."""
        info = os.fstat(fd)
        stands_for = self.tree.marks.get((info.st_dev, info.st_ino))
        if stands_for is None:
            return fd
        os.close(fd)
        return os.open(stands_for, _DIRECTORY)

    def held(self, tid: int, number: int) -> bytes:
        """The path in /proc of a descriptor of the caller, or of its directory; EBADF if it has no such descriptor."""
        number = signed(number)
        if number == AT_FDCWD:
            return b"/proc/%d/cwd" % tid
        path = b"/proc/%d/fd/%d" % (tid, number)
        try:
            os.readlink(path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return path
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error
        return path

    @contextmanager
    def noting_directory(self, place: bytes) -> Iterator[tuple[int, bytes] | None]:
        """The directory, open, and the name in it of a link, FIFO or socket, which is open: there its owner is kept.

        `place` is its path in /proc. None for what is outside the tree.
        """
        above, _, name = os.readlink(place).rpartition(b"/")
        inside = self.tree.root.inside(above)
        if inside is None:
            yield None
            return
        directory = self.tree.root.open(inside, _DIRECTORY)
        try:
            yield directory, name
        finally:
            os.close(directory)

    def owner_of_name(self, place: bytes) -> tuple[int, int] | None:
        """The owner that a directory keeps of a link, FIFO or socket, which is open: `place` is its path in /proc."""
        with suppress(OSError), self.noting_directory(place) as parent:
            return None if parent is None else self.owners.named(parent)
        return None
