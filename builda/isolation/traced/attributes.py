"""Reads and changes extended attributes of files."""

from __future__ import annotations

import errno
import os

from builda.isolation.traced.files import Unchanged
from builda.isolation.traced.kept_aside import CAPABILITIES, check_attribute, shown_names, stored_name
from builda.isolation.traced.tree import AT_FDCWD
from builda.linux import acl, filecaps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files

_NOFOLLOW = 0x100
_MOST_BYTES = 65536  # XATTR_SIZE_MAX


class Attributes:
    """Reads and changes extended attributes of files."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.processes = files.processes
        self.memory = files.memory

    def setxattr(self, tid: int, a: Words) -> int:
        name, value = self.given(tid, a)
        return self.set_attribute(tid, self.changed(tid, a[0], 0, name), name, value, a[4])

    def lsetxattr(self, tid: int, a: Words) -> int:
        name, value = self.given(tid, a)
        return self.set_attribute(tid, self.changed(tid, a[0], _NOFOLLOW, name), name, value, a[4])

    def fsetxattr(self, tid: int, a: Words) -> int:
        name, value = self.given(tid, a)
        return self.set_attribute(tid, self.changed_by_descriptor(tid, a[0], name), name, value, a[4])

    def given(self, tid: int, a: Words) -> tuple[str, bytes]:
        """The name and value that a call is to set."""
        if a[4] & 0xFFFFFFFF & ~3:
            raise OSError(errno.EINVAL, "setxattr")
        name = self.name(tid, a[1])
        if a[3] > _MOST_BYTES:
            raise OSError(errno.E2BIG, "setxattr")
        return name, self.memory.read(tid, a[2], a[3]) if a[3] else b""

    def name(self, tid: int, address: int) -> str:
        """The name of an attribute; ERANGE for one that is empty or too long."""
        try:
            name = os.fsdecode(self.memory.text(tid, address, 257))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise OSError(errno.ERANGE, os.strerror(errno.ERANGE)) from error
            raise
        if not name or len(os.fsencode(name)) > 255:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        return name

    def changed(self, tid: int, address: int, flags: int, name: str) -> tuple[int, os.stat_result]:
        """As `Files.changed`; devices have no attributes that a command may set."""
        try:
            return self.files.changed(tid, AT_FDCWD, address, flags)
        except Unchanged as error:
            raise _of_device(name) from error

    def changed_by_descriptor(self, tid: int, number: int, name: str) -> tuple[int, os.stat_result]:
        try:
            return self.files.changed_by_descriptor(tid, number)
        except Unchanged as error:
            raise _of_device(name) from error

    def set_attribute(self, tid: int, found: tuple[int, os.stat_result], name: str, value: bytes, flags: int) -> int:
        fd, info = found
        try:
            if name == filecaps.NAME and value:
                if not filecaps.is_valid(value):
                    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
                value = filecaps.shown(value)
            check_attribute(self.processes[tid], name)
            self.files.owners.check_attribute_of_users(self.processes[tid], b"/proc/self/fd/%d" % fd, name, 2)
            if name in acl.NAMES and acl.is_removal(value):
                return self.remove_attribute(tid, (os.dup(fd), info), name)
            if name in acl.NAMES and acl.is_acl(value):
                owners = self.files.owners
                set_acl = owners.set_acl if name == acl.NAMES[0] else owners.set_default_acl
                set_acl(self.processes[tid], b"/proc/self/fd/%d" % fd, value)
                return 0
            stored = stored_name(name)
            self.files.owners.forget(info)
            os.setxattr(b"/proc/self/fd/%d" % fd, stored, value, flags & 0xFFFFFFFF)
            if stored == CAPABILITIES:  # some process may have opened it to write before
                self.files.owners.opened_to_write(self.processes[tid], b"/proc/self/fd/%d" % fd, os.fstat(fd))
        finally:
            os.close(fd)
        return 0

    def getxattr(self, tid: int, a: Words) -> int:
        name = self.name(tid, a[1])
        return self.attribute(tid, self.seen_at(tid, a[0], follow=True), name, a)

    def lgetxattr(self, tid: int, a: Words) -> int:
        name = self.name(tid, a[1])
        return self.attribute(tid, self.seen_at(tid, a[0], follow=False), name, a)

    def fgetxattr(self, tid: int, a: Words) -> int:
        name = self.name(tid, a[1])
        return self.attribute(tid, self.seen_by_descriptor(tid, a[0]), name, a)

    def attribute(self, tid: int, fd: int, name: str, a: Words) -> int:
        place, owners = b"/proc/self/fd/%d" % fd, self.files.owners
        try:
            owners.check_attribute_of_users(self.processes[tid], place, name, 4)
        except OSError:
            os.close(fd)
            raise
        try:
            if name in acl.NAMES:
                value = owners.acl(place) if name == acl.NAMES[0] else owners.default_acl(place)
            else:
                value = os.getxattr(place, stored_name(name))
        except PermissionError as error:  # a stand-in for /proc or a device, which nobody may read
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from error
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and name.startswith("trusted."):
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from error
            raise
        finally:
            os.close(fd)
        return self.returned(tid, value, a[2], a[3])

    def listxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.seen_at(tid, a[0], follow=True), a)

    def llistxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.seen_at(tid, a[0], follow=False), a)

    def flistxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.seen_by_descriptor(tid, a[0]), a)

    def attributes(self, tid: int, fd: int, a: Words) -> int:
        try:
            names = os.listxattr(b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)
        value = b"".join(os.fsencode(name) + b"\0" for name in shown_names(names))
        return self.returned(tid, value, a[1], a[2])

    def removexattr(self, tid: int, a: Words) -> int:
        name = self.name(tid, a[1])
        return self.remove_attribute(tid, self.changed(tid, a[0], 0, name), name)

    def lremovexattr(self, tid: int, a: Words) -> int:
        name = self.name(tid, a[1])
        return self.remove_attribute(tid, self.changed(tid, a[0], _NOFOLLOW, name), name)

    def fremovexattr(self, tid: int, a: Words) -> int:
        name = self.name(tid, a[1])
        return self.remove_attribute(tid, self.changed_by_descriptor(tid, a[0], name), name)

    def remove_attribute(self, tid: int, found: tuple[int, os.stat_result], name: str) -> int:
        fd, _ = found
        try:
            check_attribute(self.processes[tid], name)
            place = b"/proc/self/fd/%d" % fd
            self.files.owners.check_attribute_of_users(self.processes[tid], place, name, 2)
            if name == acl.NAMES[0]:
                self.files.owners.remove_acl(self.processes[tid], place)
            elif name == acl.NAMES[1]:
                self.files.owners.remove_default_acl(self.processes[tid], place)
            else:
                os.removexattr(place, stored_name(name))
        finally:
            os.close(fd)
        return 0

    def returned(self, tid: int, value: bytes, address: int, size: int) -> int:
        """What getxattr(2) and listxattr(2) return for a buffer of this size; 0 asks for the length."""
        if size:
            if len(value) > size:
                raise OSError(errno.ERANGE, "getxattr")
            if value:
                self.files.write(tid, address, value)
        return len(value)

    def seen_at(self, tid: int, address: int, *, follow: bool) -> int:
        """An O_PATH descriptor; of the pod's own for /proc and devices, which have no attributes."""
        return self.files.tree.instead(
            self.files.place(tid, *self.files.at(tid, AT_FDCWD, address), follow=follow),
        )

    def seen_by_descriptor(self, tid: int, number: int) -> int:
        return self.files.seen_by_descriptor(tid, number)


def _of_device(name: str) -> OSError:
    """What setxattr(2) and removexattr(2) say of the attribute of a device."""
    number = errno.EPERM if name.startswith(("user.", "trusted.", "security.")) else errno.EOPNOTSUPP
    return OSError(number, os.strerror(number))
