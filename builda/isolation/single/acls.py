"""ACLs that name users or groups, which a process with one id cannot set: they are kept aside, and layers have them."""

from __future__ import annotations

import errno
import os

from builda.isolation.child.notification import GO_ON
from builda.isolation.emulated import ownership
from builda.isolation.emulated.credentials import FOWNER
from builda.isolation.emulated.ownership import ASIDE, HIDDEN
from builda.isolation.single.finding import Finder, own
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
    """Answers calls that set and remove attributes."""

    def __init__(self, marks: Marks, finder: Finder, keeper: Keeper) -> None:
        self.marks = marks
        self.finder = finder
        self.keeper = keeper

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
        if call.name in ("fsetxattr", "fremovexattr"):
            place, follow = self.finder.of_descriptor(call, call.arguments[0]), True
        else:
            place = self.finder.place(call, _AT_FDCWD, call.path(call.arguments[0]))
            follow = not call.name.startswith("l")
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
