"""Reads and changes extended attributes of files."""

from __future__ import annotations

import errno
import os

from builda.isolation.traced.kept_aside import check_attribute, shown_names, stored_name
from builda.isolation.traced.tree import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.isolation.traced.calling import Words
    from builda.isolation.traced.files import Files


class Attributes:
    """Reads and changes extended attributes of files."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.processes = files.processes
        self.memory = files.memory

    def setxattr(self, tid: int, a: Words) -> int:
        return self.set_attribute(tid, self.files.in_tree(tid, AT_FDCWD, a[0], follow=True), a)

    def lsetxattr(self, tid: int, a: Words) -> int:
        return self.set_attribute(tid, self.files.in_tree(tid, AT_FDCWD, a[0], follow=False), a)

    def fsetxattr(self, tid: int, a: Words) -> int:
        return self.set_attribute(tid, self.files.held_in_tree(tid, a[0]), a)

    def set_attribute(self, tid: int, fd: int, a: Words) -> int:
        try:
            name = os.fsdecode(self.memory.text(tid, a[1], 256))
            value = self.memory.read(tid, a[2], a[3]) if a[3] else b""
            check_attribute(self.processes[tid], name)
            os.setxattr(b"/proc/self/fd/%d" % fd, stored_name(name), value, a[4] & 0xFFFFFFFF)
        finally:
            os.close(fd)
        return 0

    def getxattr(self, tid: int, a: Words) -> int:
        return self.attribute(tid, self.seen_at(tid, a[0], follow=True), a)

    def lgetxattr(self, tid: int, a: Words) -> int:
        return self.attribute(tid, self.seen_at(tid, a[0], follow=False), a)

    def fgetxattr(self, tid: int, a: Words) -> int:
        return self.attribute(tid, self.files.held_in_tree(tid, a[0]), a)

    def attribute(self, tid: int, fd: int, a: Words) -> int:
        try:
            name = os.fsdecode(self.memory.text(tid, a[1], 256))
            value = os.getxattr(b"/proc/self/fd/%d" % fd, stored_name(name))
        except PermissionError as error:  # a stand-in for /proc or a device, which nobody may read
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from error
        finally:
            os.close(fd)
        return self.returned(tid, value, a[2], a[3])

    def listxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.seen_at(tid, a[0], follow=True), a)

    def llistxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.seen_at(tid, a[0], follow=False), a)

    def flistxattr(self, tid: int, a: Words) -> int:
        return self.attributes(tid, self.files.held_in_tree(tid, a[0]), a)

    def attributes(self, tid: int, fd: int, a: Words) -> int:
        try:
            names = os.listxattr(b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)
        value = b"".join(os.fsencode(name) + b"\0" for name in shown_names(names))
        return self.returned(tid, value, a[1], a[2])

    def removexattr(self, tid: int, a: Words) -> int:
        return self.remove_attribute(tid, self.files.in_tree(tid, AT_FDCWD, a[0], follow=True), a)

    def lremovexattr(self, tid: int, a: Words) -> int:
        return self.remove_attribute(tid, self.files.in_tree(tid, AT_FDCWD, a[0], follow=False), a)

    def fremovexattr(self, tid: int, a: Words) -> int:
        return self.remove_attribute(tid, self.files.held_in_tree(tid, a[0]), a)

    def remove_attribute(self, tid: int, fd: int, a: Words) -> int:
        try:
            name = os.fsdecode(self.memory.text(tid, a[1], 256))
            check_attribute(self.processes[tid], name)
            os.removexattr(b"/proc/self/fd/%d" % fd, stored_name(name))
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
        state, path = self.files.at(tid, AT_FDCWD, address)
        return self.files.open_place(state, tid, path, follow=follow)
