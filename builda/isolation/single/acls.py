"""ACLs that name users or groups, which a process with one id cannot set: they are kept aside, and layers have them."""

from __future__ import annotations

import errno
import os

from builda.isolation.child.notification import GO_ON
from builda.isolation.emulated import ownership
from builda.isolation.emulated.credentials import FOWNER
from builda.isolation.emulated.ownership import ASIDE, HIDDEN
from builda.isolation.single.finding import Finder, Place, own
from builda.isolation.single.keeper import Keeper, attribute, has_attributes
from builda.isolation.single.marks import Marks
from builda.linux import acl
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.single.caller import Answer, Call

_AT_FDCWD = 0xFFFFFFFF & sys_.AT_FDCWD
_VALUE_MAX = 65536


class Acls:
    """Answers calls that read, set and remove attributes."""

    def __init__(self, marks: Marks, finder: Finder, keeper: Keeper) -> None:
        self.marks = marks
        self.finder = finder
        self.keeper = keeper

    def get_attribute(self, call: Call) -> Answer:
        """getxattr(2) and its relatives: an ACL that is kept aside, with the mode that its file has now."""
        name = call.path(call.arguments[1]).decode(errors="replace")
        if name in HIDDEN or name.startswith(ASIDE):
            raise OSError(errno.ENODATA, "")
        if name not in acl.NAMES:
            return GO_ON
        place, follow = self._place(call)
        if not self.finder.has_other_root(call) and attribute(place.quick(), ASIDE + name) is None:
            return GO_ON
        fd = self.finder.opened(call, place, follow=follow)
        try:
            value, info = attribute(own(fd), ASIDE + name), os.fstat(fd)
        finally:
            os.close(fd)
        if value is None:
            return GO_ON
        shown, size = acl.with_mode(value, info.st_mode) if name == acl.NAMES[0] else value, call.arguments[3]
        if size and size < len(shown):
            raise OSError(errno.ERANGE, "")
        if size:
            call.write(call.arguments[2], shown)
        return len(shown), 0, 0

    def _place(self, call: Call) -> tuple[Place, bool]:
        """Where the file of a call is, and whether a link at its end is followed."""
        if call.name.startswith("f"):
            self.finder.check_open(call, call.arguments[0])
            return self.finder.of_descriptor(call, call.arguments[0]), True
        return self.finder.place(call, _AT_FDCWD, call.path(call.arguments[0])), not call.name.startswith("l")

    def set_attribute(self, call: Call) -> Answer:
        """setxattr(2) and its relatives: the attributes in which owners are kept are not the command's."""
        name = call.path(call.arguments[1]).decode(errors="replace")
        if name in HIDDEN or name.startswith(ASIDE):
            raise OSError(errno.EPERM, "")
        size = call.arguments[3]
        if name not in acl.NAMES or not 0 < size <= _VALUE_MAX:
            return GO_ON
        value = call.read(call.arguments[2], size)
        return self.with_attribute(call, name, value if acl.is_acl(value) and acl.names_others(value) else None)

    def remove_attribute(self, call: Call) -> Answer:
        """removexattr(2) and its relatives."""
        name = call.path(call.arguments[1]).decode(errors="replace")
        if name in HIDDEN or name.startswith(ASIDE):
            raise OSError(errno.ENODATA, "")
        return self.with_attribute(call, name, None) if name in acl.NAMES else GO_ON

    def with_attribute(self, call: Call, name: str, value: bytes | None) -> Answer:
        """Keep aside an ACL that names ids which this process does not have; None: keep none, and the kernel acts."""
        place, follow = self._place(call)
        fd = self.finder.opened(call, place, follow=follow)
        try:
            info, path = os.fstat(fd), own(fd)
            if not has_attributes(info) or (value is None and attribute(path, ASIDE + name) is None):
                return GO_ON
            who = self.marks.of(call.pid)
            if who.fsuid != self.keeper.kept(fd, info).uid and not who.has(FOWNER):
                raise OSError(errno.EPERM, "")
            call.listener.check(call.identity)
            if value is None:
                os.removexattr(path, ASIDE + name)
                return GO_ON if call.name.endswith("setxattr") else (0, 0, 0)
            self._keep(path, info, name, value)
        finally:
            os.close(fd)
        return 0, 0, 0

    def _keep(self, path: bytes, info: os.stat_result, name: str, value: bytes) -> None:
        """Keep the ACL aside. The mode of the file becomes the one that the ACL says, as with any ACL."""
        if name == acl.NAMES[0]:
            os.chmod(path, info.st_mode & 0o7000 | acl.mode_of(value))
        elif info.st_mode & ownership.S_IFMT != ownership.S_IFDIR:
            raise OSError(errno.EACCES, "")
        if attribute(path, name) is not None:
            os.removexattr(path, name)
        os.setxattr(path, ASIDE + name, value)
