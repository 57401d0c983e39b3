"""What is kept aside of files: read and written."""

from __future__ import annotations

import errno
import os
import stat

from builda.isolation.emulated import ownership
from builda.isolation.emulated.ownership import ATTRIBUTE, NAMED, Kept, parse_kept
from builda.isolation.single.finding import Place, own
from builda.linux import acl
from builda.linux import syscalls as sys_

_PATH = os.O_PATH | os.O_CLOEXEC
_MOST_PARSED = 1000
_NAME = os.fsencode(ATTRIBUTE)


class Keeper:
    """Reads and writes what is kept aside; `has_rows`: owners of links were met in the tree."""

    def __init__(self) -> None:
        self.has_rows = False
        self.parsed: dict[bytes, Kept | None] = {}

    def keeps(self, place: Place, *, follow: bool) -> bool:
        """Whether something is surely, or may be, kept aside of what is at a place."""
        path = place.quick()
        found = sys_.attribute_size(path, _NAME, follow=follow or not place.path)
        if found >= 0:
            return True
        if found != -errno.ENODATA or ((follow or not place.path) and not self.has_rows):
            return False
        if not place.path:  # a descriptor, perhaps of a link, FIFO or socket
            return os.stat(path).st_mode & ownership.S_IFMT not in (ownership.S_IFREG, ownership.S_IFDIR)
        parent, name = place.parent()
        rows = rows_of(parent.quick())
        self.has_rows = self.has_rows or bool(rows)
        return ownership.row_key(name) in rows

    def kept(self, fd: int, info: os.stat_result, path: bytes | int | None = None) -> Kept:
        """What is kept aside of an open file: its own owner and mode if nothing is.

        `path`: what calls on the file take, if it is not the usual path.
        """
        if has_attributes(info):
            value = attribute(path or own(fd), ATTRIBUTE)
            found = None if value is None else self.parse(value)
            return found or Kept(info.st_uid, info.st_gid, info.st_mode & 0o7777)
        place = _name_of(fd, info)
        owner = None
        if place is not None:
            owner = rows_of(own(place[0])).get(ownership.row_key(place[1]))
            os.close(place[0])
        return Kept(*(owner or (info.st_uid, info.st_gid)), info.st_mode & 0o7777)

    def parse(self, value: bytes) -> Kept | None:
        """What an attribute holds. Most files have one of a few owners and modes."""
        if value not in self.parsed:
            if len(self.parsed) >= _MOST_PARSED:
                self.parsed.clear()
            self.parsed[value] = parse_kept(value)
        return self.parsed[value]

    def keep(self, fd: int, info: os.stat_result, kept: Kept, path: bytes | int | None = None) -> None:
        """Keep something aside of an open file; `path` as in `kept`.

        A terminal (devpts) has no place for it: its owner stays what it is.
        """
        if has_attributes(info):
            os.setxattr(path or own(fd), ATTRIBUTE, kept.value())
            return
        place = _name_of(fd, info)
        if place is not None:
            try:
                note(*place, (kept.uid, kept.gid))
            except OSError as error:
                if error.errno != errno.ENOTSUP or not stat.S_ISCHR(info.st_mode):
                    raise
            finally:
                os.close(place[0])
            self.has_rows = True


def has_attributes(info: os.stat_result) -> bool:
    return info.st_mode & ownership.S_IFMT in (ownership.S_IFREG, ownership.S_IFDIR)


def attribute(path: bytes | int, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError:
        return None


def acl_of(fd: int) -> bytes:
    """The ACL of an open file, without its disguise; empty if it has none."""
    value = attribute(own(fd), acl.NAMES[0])
    return b"" if value is None else acl.revealed(value)


def rows_of(directory: bytes) -> dict[int, tuple[int, int]]:
    value = attribute(directory, NAMED)
    return {} if value is None else ownership.parse_rows(value)


def note(directory: int, name: bytes, owner: tuple[int, int]) -> None:
    """Note the owner of a link or FIFO in its directory; 0:0 needs no note."""
    rows = rows_of(own(directory))
    key = ownership.row_key(name)
    before = dict(rows)
    if owner == (0, 0):
        rows.pop(key, None)
    else:
        rows[key] = owner
    if rows != before:
        os.setxattr(own(directory), NAMED, ownership.rows_value(rows))


def _name_of(fd: int, info: os.stat_result) -> tuple[int, bytes] | None:
    """(directory, name) of an open link or FIFO; the caller closes the directory. None if it has no name any more."""
    head, _, name = os.readlink(own(fd)).rpartition(b"/")
    try:
        parent = os.open(head or b"/", _PATH | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (found.st_dev, found.st_ino) == (info.st_dev, info.st_ino):
            return parent, name
    except OSError:
        pass
    os.close(parent)
    return None
