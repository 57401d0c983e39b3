"""Attributes that name users or groups, which a process with one id cannot set: the kernel has them in disguise.

They are ACLs, and capabilities for user namespaces with another root user.
"""

from __future__ import annotations

import errno
import os

from builda.isolation.child.notification import GO_ON
from builda.isolation.emulated.credentials import DAC_OVERRIDE, FOWNER, SETFCAP
from builda.isolation.emulated.ownership import ASIDE, HIDDEN, check_attribute_of_users
from builda.isolation.single.finding import Finder, Place, own
from builda.isolation.single.keeper import Keeper, acl_of, attribute, has_attributes
from builda.isolation.single.marks import Marks
from builda.linux import acl, filecaps
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.single.caller import Answer, Call

_AT_FDCWD = 0xFFFFFFFF & sys_.AT_FDCWD
_VALUE_MAX = 65536
_CAPABILITIES_MAX = 24  # bytes of `security.capability`
_WORD = 0xFFFFFFFF
_DISGUISED = (*acl.NAMES, filecaps.NAME)
_OWN = 0  # the one user of the namespace


class Acls:
    """Answers calls that read, set and remove attributes."""

    def __init__(self, marks: Marks, finder: Finder, keeper: Keeper) -> None:
        self.marks = marks
        self.finder = finder
        self.keeper = keeper

    def get_attribute(self, call: Call) -> Answer:
        """getxattr(2) and its relatives: what a disguise hides."""
        name = call.path(call.arguments[1]).decode(errors="replace")
        if name in HIDDEN or name.startswith(ASIDE):
            raise OSError(errno.ENODATA, "")
        if name not in _DISGUISED:
            return self._of_users(call, 4) if name.startswith("user.") else GO_ON
        place, follow = self._place(call)
        if not self.finder.has_other_root(call) and not _hides(name, attribute(place.quick(), name)):
            return GO_ON
        fd = self.finder.opened(call, place, follow=follow)
        try:
            value = attribute(own(fd), name)
        finally:
            os.close(fd)
        if value is None or not _hides(name, value):
            return GO_ON
        shown, size = _revealed(name, value), call.arguments[3]
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
        if name.startswith("user."):
            return self._of_users(call, 2)
        if name == filecaps.NAME:
            return self._capabilities(
                call, call.read(call.arguments[2], size) if 0 < size <= _CAPABILITIES_MAX else b""
            )
        if name not in acl.NAMES or not 0 < size <= _VALUE_MAX:
            return GO_ON
        value = call.read(call.arguments[2], size)
        is_hidden = acl.is_acl(value) and (acl.names_others(value) or acl.is_disguise(value))
        return self._changed(call, name, acl.disguised(value, _OWN) if is_hidden else None)

    def remove_attribute(self, call: Call) -> Answer:
        """removexattr(2) and its relatives."""
        name = call.path(call.arguments[1]).decode(errors="replace")
        if name in HIDDEN or name.startswith(ASIDE):
            raise OSError(errno.ENODATA, "")
        if name.startswith("user."):
            return self._of_users(call, 2)
        if name == filecaps.NAME:
            return self._capabilities(call, None)
        return self._changed(call, name, None) if name in acl.NAMES else GO_ON

    def _of_users(self, call: Call, wanted: int) -> Answer:
        """Let the kernel read (4) or change (2) an attribute `user.…`, if the caller may do that."""
        who = self.marks.of(call.pid)
        if who.has(DAC_OVERRIDE):
            return GO_ON
        place, follow = self._place(call)
        fd = self.finder.opened(call, place, follow=follow)
        try:
            info = os.fstat(fd)
            if has_attributes(info):
                owner = self.keeper.kept(fd, info)[:2]
                check_attribute_of_users(who, info.st_mode, owner, wanted, lambda: acl_of(fd))
        finally:
            os.close(fd)
        return GO_ON

    def _capabilities(self, call: Call, value: bytes | None) -> Answer:
        """Set the capabilities of a file, or remove them (None): in disguise, or the kernel does it or says why not.

        EPERM if the caller may not change them.
        """
        if value is not None and not filecaps.is_valid(value):
            return GO_ON
        hidden = filecaps.disguised(value) if value is not None else b""
        may = self.marks.of(call.pid).has(SETFCAP)
        if may and not hidden:
            return GO_ON
        place, follow = self._place(call)
        fd = self.finder.opened(call, place, follow=follow)
        try:
            if not may:
                raise OSError(errno.EPERM, "")
            call.listener.check(call.identity)
            os.setxattr(own(fd), filecaps.NAME, hidden, call.arguments[4] & _WORD)
        finally:
            os.close(fd)
        return 0, 0, 0

    def _changed(self, call: Call, name: str, hidden: bytes | None) -> Answer:
        """Set an ACL in disguise; None: the kernel changes it. EPERM if the caller may not change that of the file."""
        who = self.marks.of(call.pid)
        if hidden is None and who.has(FOWNER):
            return GO_ON
        place, follow = self._place(call)
        fd = self.finder.opened(call, place, follow=follow)
        try:
            if who.fsuid != self.keeper.kept(fd, os.fstat(fd)).uid and not who.has(FOWNER):
                raise OSError(errno.EPERM, "")
            if hidden is None:
                return GO_ON
            call.listener.check(call.identity)
            os.setxattr(own(fd), name, hidden)
        finally:
            os.close(fd)
        return 0, 0, 0


def _hides(name: str, value: bytes | None) -> bool:
    return value is not None and _revealed(name, value) != value


def _revealed(name: str, value: bytes) -> bytes:
    return filecaps.revealed(value) if name == filecaps.NAME else acl.revealed(value)
