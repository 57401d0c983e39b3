"""What a command with one id makes or renames: files that get an owner other than the kernel would give."""

from __future__ import annotations

import errno
import os
import struct
import sys

from builda.isolation.child.emulated_calls import NUMBERS
from builda.isolation.child.notification import GO_ON, Listener
from builda.isolation.emulated import ownership
from builda.isolation.emulated.credentials import DAC_OVERRIDE, Credentials
from builda.isolation.emulated.ownership import ATTRIBUTE, Kept
from builda.isolation.single.caller import SENT, Refused
from builda.isolation.single.finding import Finder, Place, field, is_in_proc, own, socket_of
from builda.isolation.single.keeper import Keeper, acl_of, attribute, has_attributes, note, rows_of
from builda.isolation.single.marks import Marks
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.isolation.single.caller import Answer, Call

_WORD = 0xFFFFFFFF
_AT_FDCWD = _WORD & sys_.AT_FDCWD
_PATH = os.O_PATH | os.O_CLOEXEC
_O_TMPFILE = 0o20000000
_VALID = 0o37777703  # the flags that openat2(2) knows
_RULES = 0x1F  # RESOLVE_… but RESOLVE_CACHED, with which nothing is made
_PATH_MAX = 4096
_NOREPLACE, _EXCHANGE = 1, 2  # RENAME_…
_AF_UNIX = 1
_SOCKADDR_UN = 110  # bytes: the family, and sun_path
_MOST_LINKS = 40  # that the kernel follows
_MOST_TRIES = 100
_NODES = frozenset((0, ownership.S_IFREG, ownership.S_IFCHR, ownership.S_IFBLK, ownership.S_IFIFO, ownership.S_IFSOCK))


class Making:
    """Answers calls that make files, and rename(2)."""

    def __init__(self, listener: Listener, marks: Marks, finder: Finder, keeper: Keeper) -> None:
        self.listener = listener
        self.marks = marks
        self.finder = finder
        self.keeper = keeper
        self.rename_number = NUMBERS[os.uname().machine]["renameat2"]

    def open(self, call: Call) -> Answer:
        """open(2) and its relatives, when they may make a file."""
        name, arguments, resolve = call.name, call.arguments, 0
        if name == "openat2":
            directory, address = arguments[0], arguments[1]
            if not 24 <= arguments[3] <= _PATH_MAX:
                return GO_ON
            how = call.read(arguments[2], arguments[3])
            flags, mode, resolve = struct.unpack("=QQQ", how[:24])
            if any(how[24:]) or not flags & (os.O_CREAT | _O_TMPFILE) or flags & ~_VALID or mode & ~0o7777:
                return GO_ON
            if resolve & ~_RULES:
                return GO_ON
        elif name == "openat":
            directory, address, flags, mode = arguments[:4]
        elif name == "open":
            directory, (address, flags, mode) = _AT_FDCWD, arguments[:3]
        else:
            directory, (address, mode), flags = _AT_FDCWD, arguments[:2], os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        flags &= 0x7FFFFFFF
        if flags & os.O_PATH or _is_invalid(flags):
            return GO_ON
        path, who = call.path(address), self.marks.of(call.pid)
        if resolve:
            place = self.finder.place_by_rules(call, directory, path, resolve)
        else:
            place = self.finder.place(call, directory, path)
        is_nameless = flags & _O_TMPFILE == _O_TMPFILE and flags & os.O_DIRECTORY
        follows = not flags & (os.O_EXCL | os.O_NOFOLLOW)
        for _ in range(_MOST_LINKS):
            if not place.path or (place.asks_for_directory() and not is_nameless):
                return GO_ON
            if resolve and self.is_refused(call, place, follow=follows):
                return GO_ON
            parent, leaf = (place, b".") if is_nameless else place.parent()
            if self.is_plain(call, who, parent) or (leaf in (b".", b"..") and not is_nameless):
                return GO_ON
            directory = self.directory(call, parent)
            try:
                if is_in_proc(directory):  # what is there depends on the process
                    return GO_ON
                target = _target(directory, leaf) if follows else None
                if target is None:
                    if resolve and self.is_plain_in(call, who, directory):
                        return GO_ON
                    return self.hand_over(call, self.opened(call, who, directory, leaf, flags, mode), flags)
            finally:
                os.close(directory)
            if resolve:
                linked = place.linked(target)
                if linked is None:
                    return GO_ON
                place = linked
            else:
                at = Place(parent.base, parent.path + b"/" + target, parent.missing)
                place = self.finder.place(call, _AT_FDCWD, target) if target[:1] == b"/" else at
        return GO_ON  # too many links

    def is_refused(self, call: Call, place: Place, *, follow: bool) -> bool:
        """Whether openat2(2) fails by its rules, and says so itself. A file that is missing may be made."""
        try:
            os.close(self.finder.opened(call, place, follow=follow))
        except OSError as error:
            if error.errno == errno.EAGAIN:  # a rename somewhere: the kernel could make root's file the next moment
                raise Refused(errno.EAGAIN) from error
            return error.errno != errno.ENOENT
        return False

    def opened(self, call: Call, who: Credentials, directory: int, name: bytes, flags: int, mode: int) -> int | None:
        """A descriptor of a file that a call opens and may make; None if it is there and no regular file."""
        for _ in range(_MOST_TRIES):
            kind = self.kind(who, directory, name, flags) if name != b"." else 0
            if kind and flags & os.O_EXCL:
                raise OSError(errno.EEXIST, "")
            if kind not in (0, ownership.S_IFREG):
                return None
            self.listener.check(call.identity)
            try:
                if kind:
                    return _opened_again(directory, name, flags & ~os.O_CREAT | os.O_CLOEXEC)
                return self.opened_new(call, who, directory, name, flags, mode)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
            except FileNotFoundError as error:
                if not kind:
                    raise Refused(errno.ENOENT) from error
        raise OSError(errno.EAGAIN, "")  # other processes make and remove it all the time

    def opened_new(self, call: Call, who: Credentials, directory: int, name: bytes, flags: int, mode: int) -> int:
        """A descriptor of a file that is made, and gets its owner."""
        owner = self.owner_in(who, directory)
        mode = self.mode_in(who, directory, mode & 0o7777)
        os.umask(_umask(call.pid))
        how = flags | os.O_CLOEXEC | (os.O_EXCL if flags & os.O_CREAT else 0)  # with O_EXCL no link is followed
        fd = os.open(name, how, mode, dir_fd=directory)
        try:
            self.keeper.keep(fd, os.fstat(fd), Kept(*owner, mode))
        except OSError:
            os.close(fd)
            raise
        return fd

    def hand_over(self, call: Call, fd: int | None, flags: int) -> Answer:
        """Put the descriptor into the caller, and close it here; without one the kernel answers."""
        if fd is None:
            return GO_ON
        try:
            number = self.listener.inject(call.identity, fd, flags & os.O_CLOEXEC)
        finally:
            os.close(fd)
        return (number, 0, 0) if number is not None else SENT

    def directory(self, call: Call, place: Place) -> int:
        """A descriptor of the directory in which something is made; `Refused` if it is missing."""
        try:
            return self.finder.opened(call, place)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.finder.refused(call, place, error) from error

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

        text = call.path(target)
        if not text:
            return GO_ON  # the kernel refuses it before it looks at the path

        def make(parent: int, name: bytes) -> None:
            os.symlink(text, name, dir_fd=parent)

        return self.made(call, directory, address, make)

    def mknod(self, call: Call) -> Answer:
        """mknod(2) and mknodat(2). A device becomes a file that stands in for it."""
        directory, address, mode, number = (
            call.arguments[:4] if call.name == "mknodat" else (_AT_FDCWD, *call.arguments[:3])
        )
        mode &= 0xFFFF
        kind = mode & ownership.S_IFMT
        if kind not in _NODES:
            return GO_ON
        who = self.marks.of(call.pid)
        if kind not in (ownership.S_IFCHR, ownership.S_IFBLK):

            def make_node(parent: int, name: bytes) -> None:
                os.mknod(name, self.mode_in(who, parent, mode), dir_fd=parent)

            return self.made(call, directory, address, make_node)
        device = ((number & 0xFFF00) >> 8, number & 0xFF | number >> 12 & 0xFFF00)
        if kind == ownership.S_IFCHR and device == (0, 0):
            raise OSError(errno.EPERM, "")

        def make(parent: int, name: bytes) -> None:
            ownership.check_node(who, kind)
            how, given = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, self.mode_in(who, parent, mode & 0o7777)
            os.close(os.open(name, how, given, dir_fd=parent))

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
        place = self.finder.place(call, directory, call.path(address))
        parent, name = place.parent()
        who = self.marks.of(call.pid)
        if (
            not name
            or name in (b".", b"..")
            or (not kind and not self.keeper.has_rows and self.is_plain(call, who, parent))
        ):
            return GO_ON
        opened = self.directory(call, parent)
        try:
            if _exists(opened, name):
                raise OSError(errno.EEXIST, "")
            if place.asks_for_directory() and call.name not in ("mkdir", "mkdirat"):
                raise OSError(errno.ENOENT, "")
            owner = self.owner_in(who, opened)
            os.umask(_umask(call.pid))
            self.listener.check(call.identity)
            try:
                make(opened, name)
            except FileNotFoundError as error:  # the directory was removed
                raise Refused(errno.ENOENT) from error
            fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=opened)
            try:
                info = os.fstat(fd)
                kept = Kept(*owner, info.st_mode & 0o7777, kind, device)
                if owner != (0, 0) or kind or not has_attributes(info):
                    self.keeper.keep(fd, info, kept)
            finally:
                os.close(fd)
        finally:
            os.close(opened)
        return 0, 0, 0

    def bind(self, call: Call) -> Answer:
        """bind(2) of a socket to a path: its owner is noted before the kernel makes it.

        So getsockname(2) returns the caller's own path, as it would not if the supervisor bound the socket. A note
        that remains when the kernel refuses counts for nothing: what else is made there gets a note of its own.
        """
        length = call.arguments[2] & _WORD
        if not 2 < length <= _SOCKADDR_UN:
            return GO_ON
        address = call.read(call.arguments[1], length)
        path = address[2:].partition(b"\0")[0]
        if int.from_bytes(address[:2], sys.byteorder) != _AF_UNIX or not path:
            return GO_ON
        place = self.finder.place(call, _AT_FDCWD, path)
        parent, name = place.parent()
        if not name or name in (b".", b"..") or place.asks_for_directory():
            return GO_ON
        if not _is_local(call.pid, call.arguments[0] & _WORD):
            return GO_ON
        directory = self.directory(call, parent)
        try:
            if is_in_proc(directory) or _exists(directory, name):
                return GO_ON
            owner = self.owner_in(self.marks.of(call.pid), directory)
            self.listener.check(call.identity)
            note(directory, name, owner)
            self.keeper.has_rows = self.keeper.has_rows or owner != (0, 0)
        finally:
            os.close(directory)
        return GO_ON

    def rename(self, call: Call) -> Answer:
        """rename(2) and its relatives: the owner of a link goes with it."""
        if not self.keeper.has_rows:
            return GO_ON
        if call.name == "rename":
            ends = ((_AT_FDCWD, call.arguments[0]), (_AT_FDCWD, call.arguments[1]))
        else:
            ends = ((call.arguments[0], call.arguments[1]), (call.arguments[2], call.arguments[3]))
        flags = call.arguments[4] & _WORD if call.name == "renameat2" else 0
        if flags not in (0, _NOREPLACE, _EXCHANGE):
            return GO_ON
        places = [self.finder.place(call, at, call.path(path)) for at, path in ends]
        if any(place.asks_for_directory() for place in places):
            return GO_ON
        (old, old_name), (new, new_name) = (place.parent() for place in places)
        key, new_key = ownership.row_key(old_name), ownership.row_key(new_name)
        other_root = self.finder.has_other_root(call)
        if not other_root and key not in rows_of(old.quick()) and new_key not in rows_of(new.quick()):
            return GO_ON
        source, target = self.finder.opened(call, old), self.finder.opened(call, new)
        try:
            self.listener.check(call.identity)
            sys_.call("renameat2", self.rename_number, source, old_name, target, new_name, flags)
            owner, replaced = rows_of(own(source)).get(key, (0, 0)), (0, 0)
            if flags == _EXCHANGE:
                replaced = rows_of(own(target)).get(new_key, (0, 0))
            elif _exists(source, old_name):  # both are names of one file, and stay
                return 0, 0, 0
            note(source, old_name, replaced)
            note(target, new_name, owner)
        finally:
            os.close(source)
            os.close(target)
        return 0, 0, 0

    def link(self, call: Call) -> Answer:
        """link(2) and linkat(2): a second name of a link, FIFO or socket has the owner that the first one has."""
        if not self.keeper.has_rows:
            return GO_ON
        if call.name == "link":
            ends, flags = ((_AT_FDCWD, call.arguments[0]), (_AT_FDCWD, call.arguments[1])), 0
        else:
            ends = ((call.arguments[0], call.arguments[1]), (call.arguments[2], call.arguments[3]))
            flags = call.arguments[4] & _WORD
        if flags:
            return GO_ON
        source, target = (self.finder.place(call, at, call.path(path)) for at, path in ends)
        if source.asks_for_directory() or target.asks_for_directory():
            return GO_ON
        (old, old_name), (new, new_name) = source.parent(), target.parent()
        key, new_key = ownership.row_key(old_name), ownership.row_key(new_name)
        other_root = self.finder.has_other_root(call)
        if not other_root and key not in rows_of(old.quick()) and new_key not in rows_of(new.quick()):
            return GO_ON
        above, below = self.finder.opened(call, old), self.finder.opened(call, new)
        try:
            self.listener.check(call.identity)
            owner = rows_of(own(above)).get(key, (0, 0))
            os.link(old_name, new_name, src_dir_fd=above, dst_dir_fd=below, follow_symlinks=False)
            note(below, new_name, owner)
        finally:
            os.close(above)
            os.close(below)
        return 0, 0, 0

    def is_plain(self, call: Call, who: Credentials, parent: Place) -> bool:
        """Whether what `who` makes in a directory surely belongs to 0:0, as the kernel has it."""
        if parent.resolve or not self.is_root(call, who):  # a quick look follows links that the rules forbid
            return False
        value = attribute(parent.quick(), ATTRIBUTE)
        if value is None:
            return True
        try:
            return not os.stat(parent.quick()).st_mode & ownership.S_ISGID
        except OSError:
            return True

    def is_plain_in(self, call: Call, who: Credentials, directory: int) -> bool:
        """As `is_plain`, of an open directory."""
        if not self.is_root(call, who):
            return False
        return not os.fstat(directory).st_mode & ownership.S_ISGID or attribute(own(directory), ATTRIBUTE) is None

    def is_root(self, call: Call, who: Credentials) -> bool:
        """Whether `who` is root, with root's rights and the command's root directory."""
        is_root = not (who.fsuid or who.fsgid) and who.has(DAC_OVERRIDE)
        return is_root and not self.finder.has_other_root(call)

    def owner_in(self, who: Credentials, directory: int) -> tuple[int, int]:
        """The owner of what `who` makes in a directory. EACCES if it may make nothing there."""
        info = os.fstat(directory)
        if info.st_mode & ownership.S_IFMT != ownership.S_IFDIR:
            raise OSError(errno.ENOTDIR, "")
        kept = self.keeper.kept(directory, info)
        if not ownership.may_access(who, info.st_mode, kept[:2], 3, acl=lambda: acl_of(directory)):
            raise OSError(errno.EACCES, "")
        return ownership.owner_of_new(who, info.st_mode, kept.gid)

    def mode_in(self, who: Credentials, directory: int, mode: int) -> int:
        """The mode for a file, no directory, that `who` makes in a directory (`ownership.mode_of_new`)."""
        if mode & (ownership.S_ISGID | ownership.S_IXGRP) != ownership.S_ISGID | ownership.S_IXGRP:
            return mode
        info = os.fstat(directory)
        return ownership.mode_of_new(who, mode, info.st_mode, self.keeper.kept(directory, info).gid)

    def kind(self, who: Credentials, directory: int, name: bytes, flags: int) -> int:
        """The kind (S_IFMT) of a file, 0 if it is missing. EACCES if `who` may not open it so."""
        try:
            fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            return 0
        try:
            info = os.fstat(fd)
            kind = info.st_mode & ownership.S_IFMT
            wanted = (4, 2, 6, 0)[flags & os.O_ACCMODE] if kind == ownership.S_IFREG else 0
            kept = self.keeper.kept(fd, info)
            may = ownership.may_access(who, info.st_mode, kept[:2], wanted, acl=lambda: acl_of(fd))
            if not flags & os.O_EXCL and not may:
                raise OSError(errno.EACCES, "")
        finally:
            os.close(fd)
        return kind


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_local(pid: int, number: int) -> bool:
    """Whether the descriptor `number` of a process is an AF_UNIX socket."""
    try:
        found = socket_of(pid, number)
    except OSError:
        return False
    try:
        return found.family == _AF_UNIX
    finally:
        found.close()


def _target(directory: int, name: bytes) -> bytes | None:
    """The text of a link; None for what is no link."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def _is_invalid(flags: int) -> bool:
    """Whether open(2) says EINVAL of flags, before it looks at the path (`build_open_flags`)."""
    if not flags & _O_TMPFILE:
        return flags & (os.O_DIRECTORY | os.O_CREAT) == os.O_DIRECTORY | os.O_CREAT  # Linux 6.4
    return flags & (os.O_DIRECTORY | os.O_CREAT) != os.O_DIRECTORY or not flags & os.O_ACCMODE


def _opened_again(directory: int, name: bytes, flags: int) -> int:
    """A descriptor of a regular file that is there. FileNotFoundError if it is no regular file any more.

    It has no O_NOFOLLOW that the caller did not ask for: F_GETFL of fcntl(2) would show that.
    """
    if flags & os.O_NOFOLLOW:
        return os.open(name, flags, dir_fd=directory)
    handle = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=directory)
    try:
        if os.fstat(handle).st_mode & ownership.S_IFMT != ownership.S_IFREG:
            raise FileNotFoundError(errno.ENOENT, "")
        return os.open(own(handle), flags)
    finally:
        os.close(handle)


def _umask(pid: int) -> int:
    return int(field(pid, b"\nUmask:"), 8)
