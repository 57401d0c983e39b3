"""Where the files are that a call names."""

from __future__ import annotations

import _socket
import errno
import os

from builda.isolation.emulated.ownership import S_IFDIR, S_IFMT, S_IFREG
from builda.isolation.single.caller import KernelAnswers, Refused
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.single.caller import Call

_WORD = 0xFFFFFFFF
_AT_FDCWD = _WORD & sys_.AT_FDCWD
_PATH = os.O_PATH | os.O_CLOEXEC
_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STREAMS = {b"/dev/stdin": 0, b"/dev/stdout": 1, b"/dev/stderr": 2}
_SCOPED = sys_.RESOLVE_BENEATH | sys_.RESOLVE_IN_ROOT
_LINKS_OF_PROC = (b"/proc/self/", b"/proc/thread-self/")


class Place:
    """What a path of a call means: `path` below the directory `base`, a path of the supervisor (its working directory
    is /proc), or absolute with an empty `base`. With an empty `path` it is `base` itself.

    `missing` is the errno if the base does not exist; `resolve` are the rules of openat2(2) for the path (RESOLVE_…).
    """

    __slots__ = ("base", "missing", "path", "resolve")

    def __init__(self, base: bytes, path: bytes, missing: int = errno.ENOENT, resolve: int = 0) -> None:
        self.base = base
        self.path = path
        self.missing = missing
        self.resolve = resolve

    def opened_base(self, flags: int = _PATH) -> int:
        """A descriptor of the base."""
        try:
            return os.open(self.base, flags)
        except FileNotFoundError as error:
            raise OSError(self.missing, "") from error

    def quick(self) -> bytes:
        """A path for a look without consequences: it may also follow magic links.

        It means another file than the call's if the caller has another root directory, and the path has `..` or links.
        """
        return self.base + b"/" + self.path if self.base and self.path else self.base or self.path

    def parent(self) -> tuple[Place, bytes]:
        """The directory that holds it, and its name there."""
        head, slash, name = self.path.rstrip(b"/").rpartition(b"/")
        return Place(self.base, head or slash or b".", self.missing, self.resolve), name

    def linked(self, target: bytes) -> Place | None:
        """Where a link that is here leads to, by the rules of openat2(2) for the path; None if they forbid it."""
        if self.resolve & sys_.RESOLVE_NO_SYMLINKS:
            return None
        if target[:1] != b"/":
            return Place(self.base, self.parent()[0].path + b"/" + target, self.missing, self.resolve)
        if self.resolve & sys_.RESOLVE_IN_ROOT:
            return Place(self.base, target.lstrip(b"/") or b".", self.missing, self.resolve)
        return None if self.resolve & sys_.RESOLVE_BENEATH else Place(b"", target, self.missing, self.resolve)

    def asks_for_directory(self) -> bool:
        """Whether a slash at its end says that it is a directory."""
        return self.path.endswith(b"/")


class Finder:
    """Finds the files of calls; `other_roots`: a process may have another root directory than the command."""

    def __init__(self, *, other_roots: bool) -> None:
        self.other_roots = other_roots
        self.root = file_of(b"/")
        self.opener = sys_.PathOpener(sys_.RESOLVE_NO_MAGICLINKS)
        self.reader = sys_.PathOpener(sys_.RESOLVE_NO_MAGICLINKS, _READING)

    def place(self, call: Call, directory: int, path: bytes, *, empty: bool = False) -> Place:
        """What a path of the caller means. With `empty` (AT_EMPTY_PATH) an empty one is the directory's descriptor."""
        if path[:1] == b"/":
            if path[:6] in (b"/proc/", b"/dev/f", b"/dev/s"):
                return self.special(call, path)
            return Place(b"%d/root" % call.pid, path.lstrip(b"/")) if self.has_other_root(call) else Place(b"", path)
        if not path and not empty:
            raise KernelAnswers
        directory &= _WORD
        if directory == _AT_FDCWD:
            return Place(b"%d/cwd" % call.pid, path)
        return Place(b"%d/fd/%d" % (call.pid, directory), path, errno.EBADF)

    def place_by_rules(self, call: Call, directory: int, path: bytes, resolve: int) -> Place:
        """What a path of openat2(2) with RESOLVE_… means. KernelAnswers if it surely refuses the path."""
        if path[:1] == b"/":
            if resolve & sys_.RESOLVE_BENEATH:
                raise KernelAnswers
            if not resolve & sys_.RESOLVE_IN_ROOT:
                return Place(b"", path, resolve=resolve)
            path = path.lstrip(b"/") or b"."
        place = self.place(call, directory, path)
        return Place(place.base, place.path, place.missing, resolve)

    def of_descriptor(self, call: Call, number: int) -> Place:
        return Place(b"%d/fd/%d" % (call.pid, number & _WORD), b"", errno.EBADF)

    def check_open(self, call: Call, number: int) -> None:
        """EBADF for a descriptor that says only where a file is (O_PATH), or none."""
        try:
            with open(b"%d/fdinfo/%d" % (call.pid, number & _WORD), "rb", buffering=0) as file:
                flags = int(file.read(512).partition(b"flags:\t")[2].partition(b"\n")[0], 8)
        except FileNotFoundError:
            flags = os.O_PATH
        if flags & os.O_PATH:
            raise OSError(errno.EBADF, "")

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
        return self._opened(call, place, self.opener, _PATH, follow=follow)

    def opened_to_change(self, call: Call, place: Place, *, follow: bool) -> tuple[int, bytes | int]:
        """As `opened`, and what calls on the file take: the descriptor itself is quicker than a path that leads to it.

        The file is open for reading then. Only regular files and directories are: to open others has effects.
        """
        try:
            if follow or not place.path:
                mode = os.stat(place.quick()).st_mode & S_IFMT
            else:
                mode = os.lstat(place.quick()).st_mode & S_IFMT
            if mode in (S_IFREG, S_IFDIR):
                if place.base or self.other_roots:
                    fd = self._opened(call, place, self.reader, _READING, follow=follow)
                else:
                    fd = self.reader.open(sys_.AT_FDCWD, place.path, follow=follow)
                return fd, fd
        except OSError:  # it is missing, a magic link, or of another user: the next lines say so
            pass
        fd = self.opened(call, place, follow=follow)
        return fd, own(fd)

    def _opened(self, call: Call, place: Place, opener: sys_.PathOpener, flags: int, *, follow: bool) -> int:
        if place.base and not place.path:
            return place.opened_base(flags)
        how = flags if follow else flags | os.O_NOFOLLOW
        if not place.resolve & _SCOPED and self.has_other_root(call):
            return self.opened_elsewhere(call, place, how)
        if not place.base:
            if place.resolve:
                return sys_.openat2(sys_.AT_FDCWD, place.path, how, resolve=place.resolve | sys_.RESOLVE_NO_MAGICLINKS)
            return opener.open(sys_.AT_FDCWD, place.path, follow=follow)
        base = place.opened_base()
        try:
            if place.resolve:
                return sys_.openat2(base, place.path, how, resolve=place.resolve | sys_.RESOLVE_NO_MAGICLINKS)
            return opener.open(base, place.path, follow=follow)
        finally:
            os.close(base)

    def refused(self, call: Call, place: Place, error: OSError) -> OSError | Refused:
        """What to raise for a path that is missing: `Refused`, or the error itself if the caller may find the path.

        The kernel is not asked: another process could have made it by then, and the kernel would answer as for root.
        """
        return Refused(error.errno or errno.ENOENT) if self._is_missing(call, place) else error

    def _is_missing(self, call: Call, place: Place) -> bool:
        """Whether a path that could not be opened is missing for its caller, too.

        Not so if it leads into /proc, where links depend on the process, or if a link on its way leads to nothing.
        """
        path = place.path.rstrip(b"/")
        while path:
            head, slash, name = path.rpartition(b"/")
            path = head.rstrip(b"/")
            try:
                fd = self.opened(call, Place(place.base, path or slash or b".", place.missing))
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                return not is_in_proc(fd) and not _is_link(fd, name)
            finally:
                os.close(fd)
        return False

    def has_other_root(self, call: Call) -> bool:
        """Whether the caller's root directory is not the command's."""
        return self.other_roots and file_of(b"%d/root" % call.pid) != self.root

    def opened_elsewhere(self, call: Call, place: Place, flags: int) -> int:
        """As `opened`, for a process with a root directory of its own."""
        root = os.open(b"%d/root" % call.pid, _PATH)
        try:
            inside = sys_.RESOLVE_INSIDE | place.resolve
            if not place.base:
                return sys_.openat2(root, place.path, flags, resolve=inside)
            top, here = os.readlink(own(root)).rstrip(b"/"), os.readlink(place.base)
            if here == top or here.startswith(top + b"/"):
                return sys_.openat2(root, here.removeprefix(top) + b"/" + place.path, flags, resolve=inside)
        finally:
            os.close(root)
        base = place.opened_base()  # the directory lies outside of the caller's root, and `..` leads on from there
        try:
            return sys_.openat2(base, place.path, flags, resolve=sys_.RESOLVE_NO_MAGICLINKS | place.resolve)
        finally:
            os.close(base)


def is_in_proc(fd: int) -> bool:
    """Whether an open file is in the command's /proc, or in the supervisor's."""
    return os.fstat(fd).st_dev in {found[0] for found in (file_of(b"/proc"), file_of(b".")) if found is not None}


def _is_link(directory: int, name: bytes) -> bool:
    try:
        os.readlink(name, dir_fd=directory)
    except OSError:
        return False
    return True


def own(fd: int) -> bytes:
    """A path that leads to an open file of this process."""
    return b"self/fd/%d" % fd


def file_of(path: bytes) -> tuple[int, int] | None:
    """Device and inode of a file."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def socket_of(pid: int, number: int) -> _socket.socket:
    """A duplicate of a socket, which is the descriptor `number` of a process. OSError if it is none."""
    process = sys_.pidfd_open(int(field(pid, b"\nTgid:")))
    try:
        fd = sys_.pidfd_getfd(process, number)
    finally:
        os.close(process)
    try:
        return _socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        raise


def field(pid: int, name: bytes) -> bytes:
    """A line of /proc/PID/status."""
    with open(b"%d/status" % pid, "rb", buffering=0) as file:
        text = file.read(4096)
    return text[text.index(name) + len(name) :].split(b"\n", 1)[0]
