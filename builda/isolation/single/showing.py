"""What files look like to a command with one id: the stat family, access(2), the names of attributes."""

from __future__ import annotations

import errno
import os

from builda.isolation.child.emulated_calls import NUMBERS
from builda.isolation.child.notification import GO_ON
from builda.isolation.emulated import ownership
from builda.isolation.emulated.credentials import DAC_OVERRIDE
from builda.isolation.emulated.ownership import ASIDE, HIDDEN
from builda.isolation.emulated.statbuffers import LAYOUTS, STATX_SIZE, write_stat, write_statx
from builda.isolation.single.finding import Finder, Place, own
from builda.isolation.single.keeper import Keeper, acl_of
from builda.isolation.single.marks import Marks
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.single.caller import Answer, Call

_WORD = 0xFFFFFFFF
_AT_FDCWD = _WORD & sys_.AT_FDCWD
_NOFOLLOW = sys_.AT_SYMLINK_NOFOLLOW
_EMPTY = sys_.AT_EMPTY_PATH
_AT_EACCESS = 0x200
_SYNC_TYPES = 0x6000  # AT_STATX_SYNC_TYPE: both are an error
_STAT_FLAGS = _NOFOLLOW | _EMPTY | 0x6800  # AT_NO_AUTOMOUNT, AT_STATX_SYNC_TYPE


class Showing:
    """Answers calls about what files look like."""

    def __init__(self, marks: Marks, finder: Finder, keeper: Keeper) -> None:
        machine = os.uname().machine
        self.numbers = NUMBERS[machine]
        self.layout = LAYOUTS[machine]
        self.marks = marks
        self.finder = finder
        self.keeper = keeper

    def status(self, call: Call) -> Answer:
        """stat(2), lstat(2), newfstatat and statx(2)."""
        name, arguments = call.name, call.arguments
        if name == "newfstatat":
            directory, address, flags = arguments[0], arguments[1], arguments[3]
        elif name == "statx":
            directory, address, flags = arguments[0], arguments[1], arguments[2]
        else:
            directory, address, flags = _AT_FDCWD, arguments[0], _NOFOLLOW if name == "lstat" else 0
        if flags & _WORD & ~_STAT_FLAGS or flags & _SYNC_TYPES == _SYNC_TYPES:
            return GO_ON
        path = (
            call.path(address) if address or not flags & _EMPTY else b""
        )  # a null pointer is an empty path (Linux 6.11)
        place = self.finder.place(call, directory, path, empty=bool(flags & _EMPTY))
        follow = not flags & _NOFOLLOW
        # A quick look from here would follow `..` out of another root directory.
        shows = self.finder.has_other_root(call) or self.keeper.keeps(place, follow=follow)
        return self.shown(call, place, follow=follow) if shows else GO_ON

    def descriptor_status(self, call: Call) -> Answer:
        """fstat(2)."""
        place = self.finder.of_descriptor(call, call.arguments[0])
        return self.shown(call, place, follow=True) if self.keeper.keeps(place, follow=True) else GO_ON

    def shown(self, call: Call, place: Place, *, follow: bool) -> Answer:
        """Show what is at a place. The kernel does for a magic link of /proc."""
        try:
            fd = self.finder.opened(call, place, follow=follow)
        except OSError:
            return GO_ON
        try:
            return self.show(call, fd)
        finally:
            os.close(fd)

    def show(self, call: Call, fd: int) -> Answer:
        """Write what an open file looks like to the buffer of a call of the stat family."""
        info = os.fstat(fd)
        kept = self.keeper.kept(fd, info)
        name, arguments = call.name, call.arguments
        if name == "statx":
            words = (_EMPTY, arguments[3] & _WORD)
            data = bytearray(sys_.file_status(self.numbers["statx"], fd, b"", words, (), STATX_SIZE))
            write_statx(data, kept, with_mode=False)
            call.write(arguments[4], data)
            return 0, 0, 0
        data = bytearray(sys_.file_status(self.numbers["newfstatat"], fd, b"", (), (_EMPTY,), self.layout.size))
        write_stat(data, self.layout, kept, with_mode=False)
        call.write(arguments[2 if name == "newfstatat" else 1], data)
        return 0, 0, 0

    def access(self, call: Call) -> Answer:
        """access(2) and its relatives: what the kernel denies root stays denied."""
        who = self.marks.of(call.pid)
        if not (who.ruid or who.euid or who.fsuid) and who.has(DAC_OVERRIDE):
            return GO_ON
        name, arguments = call.name, call.arguments
        if name == "access":
            directory, address, wanted, flags = _AT_FDCWD, arguments[0], arguments[1], 0
        else:
            directory, address, wanted = arguments[:3]
            flags = arguments[3] & _WORD if name == "faccessat2" else 0
        place = self.finder.place(call, directory, call.path(address), empty=bool(flags & _EMPTY))
        try:
            fd = self.finder.opened(call, place, follow=not flags & _NOFOLLOW)
        except OSError:
            return GO_ON
        try:
            info = os.fstat(fd)
            owner, real = self.keeper.kept(fd, info)[:2], not flags & _AT_EACCESS
            if not ownership.may_access(who, info.st_mode, owner, wanted & 7, acl=lambda: acl_of(fd), real=real):
                raise OSError(errno.EACCES, "")
        finally:
            os.close(fd)
        return GO_ON

    def names(self, call: Call, place: Place, *, follow: bool) -> list[str]:
        """The names of all attributes of what is at a place."""
        if not self.finder.has_other_root(call):
            return os.listxattr(place.quick(), follow_symlinks=follow)
        fd = self.finder.opened(call, place, follow=follow)
        try:
            return os.listxattr(own(fd))
        finally:
            os.close(fd)

    def list_attributes(self, call: Call) -> Answer:
        """listxattr(2) and its relatives: without what owners are kept in."""
        if call.name == "flistxattr":
            self.finder.check_open(call, call.arguments[0])
            place, follow = self.finder.of_descriptor(call, call.arguments[0]), True
        else:
            place, follow = self.finder.place(call, _AT_FDCWD, call.path(call.arguments[0])), call.name == "listxattr"
        try:
            names = self.names(call, place, follow=follow)
        except OSError:
            return GO_ON
        if not any(name.startswith((*HIDDEN, ASIDE)) for name in names):
            return GO_ON
        shown = b"".join(os.fsencode(name) + b"\0" for name in names if not name.startswith((*HIDDEN, ASIDE)))
        size = call.arguments[2]
        if size and size < len(shown):
            raise OSError(errno.ERANGE, "")
        if size:
            call.write(call.arguments[1], shown)
        return len(shown), 0, 0
