"""Mount points that a run had to make in the root file system: they are removed, so that no layer records them.

`child.mountpoints` writes the record: one line before it makes a mount point, with the parent's time at that moment,
and one after. A crash in between leaves at most a line without a mount point.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import suppress
from typing import NamedTuple

from builda.linux import syscalls as sys_

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})
# It holds something or is mounted on: it is a mount point of builda's no longer.
_USED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})


class Stub(NamedTuple):
    """One mount point. `before` and `after` are its parent's mtime in ns; `after` is None if a crash came between."""

    path: str
    directory: bool
    before: int
    after: int | None


def remove_stubs(root: int, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Remove the mount points recorded in the file `path` that are still empty from the tree at `root`.

    Returns the removed paths. A parent that nothing else changed gets its old mtime back. The file is removed last, so
    a call after a crash at any point finishes the work; without the file there is nothing to do.
    """
    try:
        with open(path, "rb") as file:
            stubs = parse_stubs(file.read())
    except FileNotFoundError:
        return ()
    removed = tuple(stub.path for stub in reversed(stubs) if _remove(root, stub))
    with suppress(FileNotFoundError):
        os.unlink(path)
    return removed


def parse_stubs(data: bytes) -> tuple[Stub, ...]:
    """The records in order. A last line without its newline is left out: the crash came before the mount point."""
    found: dict[str, Stub] = {}
    for line in data.split(b"\n")[:-1]:
        entry = json.loads(line)
        name, mtime = entry["path"], entry["mtime_ns"]
        if not entry["made"]:
            found.pop(name, None)
            found[name] = Stub(name, entry["directory"], mtime, None)
        else:
            found[name] = found[name]._replace(after=mtime)
    return tuple(found.values())


def _remove(root: int, stub: Stub) -> bool:
    parent, _, name = stub.path.rpartition("/")
    try:
        fd = sys_.openat2(root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    try:
        return _remove_empty(fd, name, stub)
    finally:
        os.close(fd)


def _remove_empty(parent: int, name: str, stub: Stub) -> bool:
    times = os.fstat(parent)
    try:
        if stub.directory:
            os.rmdir(name, dir_fd=parent)
        elif not _is_empty_file(parent, name):
            return False
        else:
            os.unlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in _GONE | _USED:
            return False
        raise
    untouched = stub.after is None or times.st_mtime_ns == stub.after
    os.utime(parent, ns=(times.st_atime_ns, stub.before if untouched else times.st_mtime_ns))
    return True


def _is_empty_file(parent: int, name: str) -> bool:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
