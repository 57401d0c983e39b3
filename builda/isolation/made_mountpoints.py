"""Mount points that a run had to make in the rootfs, taken away again so that no layer records them.

The child appends to the file two lines for each: before it makes the mount point (with its parent's time then) and
after. A crash between leaves at most a line too many.
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
# Something was put there or mounted there: it is no stub any more.
_USED = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})


class Stub(NamedTuple):
    """One mount point: `before` and `after` are its parent's mtime, `after` None when it may never have been made."""

    path: str
    directory: bool
    before: int
    after: int | None


def remove_stubs(root: int, path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Remove the mount points recorded in the file `path` that are still empty from the tree at `root`.

    A parent that nothing else changed has its old mtime again. The file is removed last; no file means nothing to do,
    so this may be repeated after a crash at any point. Returns what was removed.
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
    """The stubs in the order they were made; a last line that a crash cut short is left out (its stub was not made)."""
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
