"""Paths of a command that has no root directory of its own, found in its tree by descriptor.

openat2(2) resolves them: it holds the tree's directory as root, whatever links and `..` say and whoever changes them
meanwhile. Only paths that lead into /proc or to a device are walked here. Their places in the tree cannot be opened
(mode 0), so that the kernel says EACCES for each path that leads there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from builda.values import NamedTuple

AT_FDCWD = -100
DEVICES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"ptmx")
_IN_ROOT = 0x10 | 0x02  # RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
_BENEATH = 0x08 | 0x02  # RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS
_PATH_ONLY = os.O_PATH | os.O_CLOEXEC
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
_PATH_MAX = 4096
_STREAMS = {b"cwd", b"root", b"exe"}


# Without declared types, which ctypes would convert each argument to: bytes are passed as what they are.
_openat2 = ctypes.CDLL(None, use_errno=True).syscall
_openat2.restype = ctypes.c_long
_number = ctypes.c_long(437)
_how = struct.Struct("=QQQ")  # struct open_how
_how_size = ctypes.c_size_t(_how.size)


def open_inside(root: int, path: bytes, flags: int, mode: int = 0, resolve: int = _IN_ROOT) -> int:
    """Open `path` in the directory `root`, which no link and no `..` leads out of."""
    makes = flags & (os.O_CREAT | 0o20000000)  # O_TMPFILE's own bit
    how = _how.pack(flags | os.O_CLOEXEC, mode if makes else 0, resolve)
    number = 0
    for _ in range(64):  # EAGAIN: a rename somewhere made the kernel unsure whether `..` left the root
        fd: int = _openat2(_number, root, path, how, _how_size)
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number))


class Root:
    """A directory that is the root of some processes: the tree itself, or what chroot(2) inside it made one."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.path = os.readlink(b"/proc/self/fd/%d" % fd)

    def open(self, path: bytes, flags: int, mode: int = 0) -> int:
        """Open `path`, which begins in this root."""
        return open_inside(self.fd, path, flags, mode)

    def inside(self, path: bytes) -> bytes | None:
        """A path of this machine as one in the root; None if it lies outside."""
        if path == self.path:
            return b"/"
        return path[len(self.path) :] if path.startswith(self.path + b"/") else None


class Start(Root):
    """A directory whose path is too long or gone: paths begin here and may not leave it by `..` or a link.

    `beyond` is the errno for those that would. It owns `fd`.
    """

    __slots__ = ("beyond",)

    def __init__(self, fd: int, beyond: int) -> None:
        self.fd = fd
        self.path = b"//"  # no path of this machine is inside
        self.beyond = beyond

    def open(self, path: bytes, flags: int, mode: int = 0) -> int:
        try:
            return open_inside(self.fd, path, flags, mode, _BENEATH)
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise OSError(self.beyond, os.strerror(self.beyond)) from error
            raise

    def __del__(self) -> None:
        os.close(self.fd)


class State:
    """What the supervisor knows of a process; its threads share it."""

    __slots__ = ("exe", "loader", "pid", "root", "umask")

    def __init__(self, pid: int, root: Root, umask: int, exe: bytes, loader: bytes = b"") -> None:
        self.pid = pid
        self.root = root
        self.umask = umask
        self.exe = exe  # the program's path on this machine
        self.loader = loader  # the first argument of a program that a loader has started

    def copy(self, pid: int) -> State:
        """The state of a child process."""
        return State(pid, self.root, self.umask, self.exe, self.loader)


class Place(NamedTuple):
    """Where a path leads: into the tree (`path` is as the process sees it), or to one of the pod's own (`outside`).

    `removed`: the directory of the tree, which has been removed, that a link of /proc leads to.
    """

    path: bytes
    outside: bool = False
    removed: Start | None = None


class Tree:
    """The tree of a command, and what in it stands for the pod's /proc and devices."""

    def __init__(self, root: int, *, hostname: str | None = None) -> None:
        self.root = Root(root)
        self.hostname = hostname
        """What the command sees; None: the pod's."""
        self.proc = self.root.path + b"/proc"
        self.terminals = self.root.path + b"/dev/pts"
        self.standing: dict[bytes, bytes] = {}
        """Paths of this machine in the tree, and the pod's own that they stand for."""
        self.marks: dict[tuple[int, int], bytes] = {}
        """The same by device and inode."""
        self._closed: list[tuple[bytes, int]] = []
        self._stands(b"/proc", b"/proc")
        for name in (*DEVICES, b"pts"):
            self._stands(b"/dev/" + name, b"/dev/" + name)

    def _stands(self, path: bytes, for_path: bytes) -> None:
        """Close what the builder has put at `path`, so that the kernel says where paths lead to it."""
        try:
            fd = open_inside(self.root.fd, path, _LINK)
        except OSError:
            return
        try:
            info = os.fstat(fd)
            if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
                os.chmod(b"/proc/self/fd/%d" % fd, 0)
                self._closed.append((path, info.st_mode & 0o7777))
                self.standing[self.root.path + path] = for_path
                self.marks[info.st_dev, info.st_ino] = for_path
        finally:
            os.close(fd)

    def reopen(self) -> None:
        """Give what was closed its modes back."""
        for path, mode in self._closed:
            try:
                fd = open_inside(self.root.fd, path, _LINK)
            except OSError:
                continue
            try:
                info = os.fstat(fd)
                if (info.st_dev, info.st_ino) in self.marks:
                    os.chmod(b"/proc/self/fd/%d" % fd, mode)
            finally:
                os.close(fd)

    def instead(self, fd: int) -> int:
        """The descriptor, or one of what it stands for: /proc itself and devices have a place in the tree."""
        info = os.fstat(fd)
        stands_for = self.marks.get((info.st_dev, info.st_ino))
        if stands_for is None:
            return fd
        os.close(fd)
        return os.open(stands_for, _PATH_ONLY)

    def start(self, state: State, tid: int, directory: int, path: bytes) -> tuple[Root, bytes]:
        """(root, path from it on) of a path of a process. ENOENT if it begins in a directory outside the tree."""
        if path[:1] == b"/":
            return state.root, path
        link = b"/proc/%d/cwd" % tid if directory == AT_FDCWD else b"/proc/%d/fd/%d" % (tid, directory)
        try:
            base = os.readlink(link)
        except FileNotFoundError as error:
            number = errno.ENOENT if directory == AT_FDCWD else errno.EBADF
            raise OSError(number, os.strerror(number)) from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return self._deep(link), path
        if directory != AT_FDCWD and not stat.S_ISDIR(os.stat(link).st_mode):  # it may be a link, opened with O_PATH
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        root = state.root
        found = root.inside(base)
        if found is None:
            root, found = self._around(state, base)
        if len(found) + len(path) >= _PATH_MAX - 1:
            path = _squeezed(path)
        if len(found) + len(path) >= _PATH_MAX - 1:
            return self._deep(link), path
        if _is_removed(base):
            return self._gone(state, link, path)
        return root, found + b"/" + path

    def _around(self, state: State, path: bytes) -> tuple[Root, bytes]:
        """Where a directory lies that is outside of the process's root: in the tree around it, or in /proc."""
        if path[:6] == b"/proc/" or path == b"/proc":
            return self.root, path
        found = self.root.inside(path)
        if found is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self.root, found

    def seen(self, state: State, path: bytes) -> bytes:
        """A directory of this machine as the process sees it. ENOENT for one outside the tree."""
        root, found = state.root, state.root.inside(path)
        if found is None:
            root, found = self._around(state, path)
        return found if root.path == state.root.path else b"(unreachable)" + found

    def _deep(self, link: bytes) -> Start:
        """The directory behind a link of /proc whose path is too long. ENOENT if it is outside the tree."""
        fd = os.open(link, _PATH_ONLY | os.O_DIRECTORY)
        top = os.stat(self.root.fd)
        above = os.dup(fd)
        try:
            info, last = os.stat(above), None
            while (info.st_dev, info.st_ino) != (top.st_dev, top.st_ino):
                if last == (info.st_dev, info.st_ino):
                    os.close(fd)
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                last = info.st_dev, info.st_ino
                former, above = above, os.open(b"..", _PATH_ONLY, dir_fd=above)
                os.close(former)
                info = os.stat(above)
        finally:
            os.close(above)
        return Start(fd, errno.ENAMETOOLONG)

    def _gone(self, state: State, link: bytes, path: bytes) -> tuple[Root, bytes]:
        """As `start`, from a directory that has been removed, but is still some process's."""
        rest = _parts(path)
        start = _above(link, rest)
        path = b"/".join(reversed(rest)) + _end(path) if rest else b"."  # no call may take it for a name in its parent
        base = os.readlink(b"/proc/self/fd/%d" % start.fd)
        if _is_removed(base):
            return start, path
        found = state.root.inside(base)
        root, found = self._around(state, base) if found is None else (state.root, found)
        return root, found + b"/" + path

    def walk(
        self,
        state: State,
        tid: int,
        root: Root,
        path: bytes,
        *,
        follow: bool,
        parent: bool = False,
        makes: bool = False,
    ) -> Place:
        """Where a path leads that the kernel could not follow. What is missing is in the tree.

        With `parent`, something below it is meant: links at its end are followed, also those of descriptors. With
        `makes`, a file is to be made: EISDIR for a link at the end whose text ends with a slash.
        """
        here, rest = b"", _parts(path)
        is_directory = False
        end = _end(path)
        slash = bool(end)
        follow = follow or slash or parent
        links = _MOST_LINKS
        while rest:
            name = rest.pop()
            if name == b"..":
                if here:
                    os.close(root.open(here, _PATH_ONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
                here = here.rpartition(b"/")[0]
                continue
            here = here + b"/" + name
            if root.path + here == self.terminals and rest[-1:] != [b".."]:
                if len(rest) > 1:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                return Place(b"/".join([b"/dev/pts", *rest]), outside=True)
            if root.path + here == self.proc:
                back, links = self._in_proc(state, tid, rest, links, follow=follow, parent=parent, slash=slash)
                if (back.outside or back.removed) and is_directory:
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                if back.outside or back.removed:
                    return back
                here = back.path.rstrip(b"/")  # a link of a process led back into the tree
                continue
            target = None if not rest and not follow else self._link(root, here)
            if target is None:
                continue
            if not links:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            links -= 1
            here = b"" if target[:1] == b"/" else here.rpartition(b"/")[0]
            if makes and not is_directory and not rest and not end and names_directory(target):
                is_directory = parent = follow = True
                rest = _parts(target)[1:]  # the kernel looks no further than for the directory that holds it
                continue
            if not rest:
                end = end or _end(target)
                slash = bool(end)
            rest += _parts(target)
        if is_directory:
            os.close(root.open(here or b"/", _PATH_ONLY | os.O_DIRECTORY))
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        stands_for = self.standing.get(root.path + here)
        if stands_for is None:
            return Place(here + (b"" if parent else end) if here else b"/")
        if slash and stands_for != b"/proc":
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return Place(stands_for, outside=True)

    def _link(self, root: Root, path: bytes) -> bytes | None:
        """The text of the link at `path`, which has no links before its end; None if it is none or missing."""
        try:
            fd = root.open(path, _LINK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.readlink(b"", dir_fd=fd)
        except OSError:  # ENOENT, EINVAL: not a link
            return None
        finally:
            os.close(fd)

    def _in_proc(
        self, state: State, tid: int, rest: list[bytes], links: int, *, follow: bool, parent: bool, slash: bool
    ) -> tuple[Place, int]:
        """Where the parts `rest` (the next one last) lead from /proc on, and how many links may still follow.

        Those that are left lie in the tree.
        """
        here: list[bytes] = []
        while rest:
            name = rest.pop()
            last = not rest and not follow
            if name == b"..":
                if not here:
                    return Place(b"/"), links
                self._check_directory(b"/proc/" + b"/".join(here))
                here.pop()
            elif here or last or name not in (b"self", b"thread-self", b"mounts", b"net"):
                here.append(name)
            elif name == b"self":
                here.append(b"%d" % state.pid)
            elif name == b"thread-self":
                here += [b"%d" % state.pid, b"task", b"%d" % tid]
            else:
                here += [b"%d" % state.pid, name]
            of_process = here[2:] if here[1:2] == [b"task"] and len(here) > 3 else here
            is_file = len(of_process) == 2 and of_process[0].isdigit() and of_process[1] in _STREAMS and not last
            is_open = len(of_process) == 3 and of_process[1] == b"fd" and (rest or parent or slash)
            if is_file or is_open:
                if not links:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                links -= 1
                link = b"/proc/" + b"/".join(here)
                if is_open and of_process[0] == b"%d" % state.pid:
                    self._check_open_directory(link)
                back = self.led_by(state, link)
                if is_open:
                    self._check_open_directory(link)
                if of_process[1] != b"exe" and _is_removed(os.readlink(link)):
                    if not rest and not parent:
                        return Place(link, outside=True), links
                    start = _above(link, rest)
                    back = self.led_by(state, b"/proc/self/fd/%d" % start.fd)
                    if not rest and back.path.endswith(b" (deleted)"):
                        back = back._replace(removed=start)
                if not back.outside:
                    return back, links
                here = back.path.split(b"/")[2:]
        if here and (parent or slash):
            self._check_directory(b"/proc/" + b"/".join(here))
        return Place(b"/proc/" + b"/".join(here) if here else b"/proc", outside=True), links

    def _check_directory(self, path: bytes) -> None:
        """ENOTDIR for a path of /proc that is no directory, ENOENT for one that is missing."""
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _check_open_directory(self, link: bytes) -> None:
        """ENOTDIR for the descriptor of a file, which may have no name any more, or of a link."""
        if not stat.S_ISDIR(os.stat(link).st_mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def led_by(self, state: State, link: bytes) -> Place:
        """Where a link of a process in /proc leads; EACCES if it is outside the tree."""
        target = os.readlink(link)
        if link.endswith(b"/exe") and link[6:].partition(b"/")[0] == b"%d" % state.pid:
            target = state.exe
        elif link.endswith(b"/root"):
            target = state.root.path
        found = state.root.inside(target)
        if found is None and (target[:6] == b"/proc/" or target == b"/proc"):
            return Place(target, outside=True)
        if found is None:
            raise OSError(errno.EACCES if target[:1] == b"/" else errno.ENOTDIR, "")
        return Place(found)


def _is_removed(path: bytes) -> bool:
    """Whether a link of /proc with this text leads to a file that was removed."""
    return path.endswith(b" (deleted)") and not os.path.lexists(path)


def _above(link: bytes, rest: list[bytes]) -> Start:
    """Where each `..` that the parts `rest` begin with leads from a removed directory, up to one that is there."""
    start = Start(os.open(link, _PATH_ONLY | os.O_DIRECTORY), errno.ENOENT)
    while rest[-1:] == [b".."] and _is_removed(os.readlink(b"/proc/self/fd/%d" % start.fd)):
        rest.pop()
        start = Start(os.open(b"..", _PATH_ONLY | os.O_DIRECTORY, dir_fd=start.fd), errno.ENOENT)
    return start


def _end(path: bytes) -> bytes:
    """What a path has after its last name to ask for a directory: `/` or `/.`."""
    if not path.endswith((b"/", b"/.")):
        return b""
    return b"/." if path.rstrip(b"/").rpartition(b"/")[2] in (b".", b"..") else b"/"


def asks_for_directory(path: bytes) -> bool:
    """Whether a path ends with a slash or a dot: links at its end are followed."""
    return bool(_end(path))


def names_directory(path: bytes) -> bool:
    """Whether a path ends with a name and a slash: open(2) makes no file there."""
    return _end(path) == b"/" and bool(path.strip(b"/"))


def _squeezed(path: bytes) -> bytes:
    """A relative path without what leads nowhere: `.` and repeated slashes. Its end keeps its meaning."""
    return (b"/".join(reversed(_parts(path))) + _end(path)).lstrip(b"/") or b"."


def _parts(path: bytes) -> list[bytes]:
    """The names in a path, the first one last."""
    return [name for name in reversed(path.split(b"/")) if name and name != b"."]
