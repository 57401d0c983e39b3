"""Mount points that a run had to make in the root file system: they are removed, so that no layer records them.

`child.mountpoints` writes the record: one line before it makes a mount point, with the parent's time at that moment,
and one after. A crash in between leaves at most a line without a mount point.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from builda import jsontext
from builda.linux import syscalls as sys_
from builda.values import NamedTuple

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})
# It holds something or is mounted on: it is a mount point of builda's no longer.
_USED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})


class MadeMountpoint(NamedTuple):
    """One mount point. `before` and `after` are its parent's mtime in ns; `after` is None if a crash came between."""

    path: str
    directory: bool
    before: int
    after: int | None


def recorded(path: str | os.PathLike[str]) -> tuple[MadeMountpoint, ...] | None:
    """The mount points recorded in the file `path`; None without the file: there is nothing to do."""
    try:
        with open(path, "rb") as file:
            return parse_record(file.read())
    except FileNotFoundError:
        return None


def remove_made(
    root: int, path: str | os.PathLike[str], made: tuple[MadeMountpoint, ...] | None = None
) -> tuple[str, ...]:
    """Remove the mount points recorded in the file `path` that are still empty from the tree at `root`.

    Returns the removed paths. A parent that nothing else changed gets its old mtime back. The file is removed last, so
    a call after a crash at any point finishes the work. `made` is what the file has, if it was read already.
    """
    if made is None:
        made = recorded(path)
        if made is None:
            return ()
    removed = tuple(point.path for point in reversed(made) if _remove(root, point))
    with suppress(FileNotFoundError):
        os.unlink(path)
    return removed


def parse_record(data: bytes) -> tuple[MadeMountpoint, ...]:
    """The records in order. A last line without its newline is left out: the crash came before the mount point."""
    found: dict[str, MadeMountpoint] = {}
    for line in data.split(b"\n")[:-1]:
        entry = jsontext.loads(line)
        name, mtime = entry["path"], entry["mtime_ns"]
        if not entry["made"]:
            found.pop(name, None)
            found[name] = MadeMountpoint(name, entry["directory"], mtime, None)
        else:
            before = found[name]
            found[name] = MadeMountpoint(name, before.directory, before.before, mtime)
    return tuple(found.values())


def _remove(root: int, point: MadeMountpoint) -> bool:
    parent, _, name = point.path.rpartition("/")
    try:
        fd = sys_.openat2(root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    try:
        return _remove_empty(fd, name, point)
    finally:
        os.close(fd)


def _remove_empty(parent: int, name: str, point: MadeMountpoint) -> bool:
    times = os.fstat(parent)
    try:
        if point.directory:
            os.rmdir(name, dir_fd=parent)
        elif not _is_empty_file(parent, name):
            return False
        else:
            os.unlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in _GONE | _USED:
            return False
        raise
    untouched = point.after is None or times.st_mtime_ns == point.after
    os.utime(parent, ns=(times.st_atime_ns, point.before if untouched else times.st_mtime_ns))
    return True


def _is_empty_file(parent: int, name: str) -> bool:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
