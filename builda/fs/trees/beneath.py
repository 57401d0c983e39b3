"""What the layers beneath a directory of changes show in the same place, followed by descriptor as a walk goes on.

A layer says what differs from the tree below it. An overlay's directory of changes has more: files that were opened for
writing and left as they were, directories whose attributes were set to what they had been, and marks that hide
everything below where nothing is, as every directory has that was renamed.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

from builda.fs import paths, xattrs
from builda.fs.whiteouts import WHITEOUT, is_marked_opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20


class Beneath:
    """The layers below, topmost first; None if they are not known. What one of them hides in another is left out.

    `by_files` says that files mark what is deleted (fuse-overlayfs), not overlay's own marks.
    """

    def __init__(self, lowers: Sequence[int] | None, *, by_files: bool = False) -> None:
        self.unknown = lowers is None
        self._by_files = by_files
        self._open = ExitStack()
        self._levels = [[self._open.enter_context(paths.Descent(lower)) for lower in lowers or ()]]

    def __enter__(self) -> Beneath:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def enter(self, name: bytes) -> None:
        """The walk goes into the directory `name`, which the layers below may not have."""
        found = []
        for layer in self._levels[-1]:
            info = self._stat(layer.fd, name)
            if info is not None and not stat.S_ISDIR(info.st_mode):
                break
            if info is not None:
                layer.enter(name)
                found.append(layer)
                if self._is_opaque(layer.fd):
                    break
            elif self._is_deleted(layer.fd, name):
                break
        self._levels.append(found)

    def leave(self) -> None:
        """The walk goes back up."""
        for layer in self._levels.pop():
            layer.leave()

    def directory(self) -> int | None:
        """The topmost layer's directory here, as a descriptor; its attributes show. None if no layer has one."""
        return self._levels[-1][0].fd if self._levels[-1] else None

    def names(self) -> set[bytes]:
        """The names that the layers show in this directory."""
        shown: set[bytes] = set()
        hidden: set[bytes] = set()
        for layer in self._levels[-1]:
            with os.scandir(layer.fd) as found:
                entries = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
            deleted = {name: self._deletes(name, info) for name, info in entries}
            shown |= {name for name, hides in deleted.items() if hides is None} - hidden
            hidden |= {hides or name for name, hides in deleted.items()}
        return shown

    def has_equal(self, name: bytes, fd: int, info: os.stat_result, values: Mapping[str, bytes]) -> bool:
        """Whether the layers show a file `name` here that has the content, attributes and times of the open one."""
        for layer in self._levels[-1]:
            found = self._stat(layer.fd, name)
            if found is None and not self._is_deleted(layer.fd, name):
                continue
            return found is not None and _look(found) == _look(info) and _is_equal(layer.fd, name, fd, values)
        return False

    def _stat(self, directory: int, name: bytes) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _is_deleted(self, directory: int, name: bytes) -> bool:
        return self._by_files and self._stat(directory, WHITEOUT + name) is not None

    def _deletes(self, name: bytes, info: os.stat_result) -> bytes | None:
        """The name that an entry of a layer's directory deletes; None if it is a file itself."""
        if self._by_files:
            return name[len(WHITEOUT) :] if name.startswith(WHITEOUT) else None
        return name if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0 else None

    def _is_opaque(self, directory: int) -> bool:
        return xattrs.is_opaque(directory) or (self._by_files and is_marked_opaque(directory))


def has_look(directory: int, info: os.stat_result, values: Mapping[str, bytes]) -> bool:
    """Whether an open directory has these attributes and times."""
    return _look(os.fstat(directory))[:4] == _look(info)[:4] and xattrs.recorded(directory) == values


def is_copy(fd: int) -> bool:
    """Whether overlay has copied the open file from a layer below, to change it."""
    return not xattrs.ORIGIN.isdisjoint(os.listxattr(fd))


def _look(info: os.stat_result) -> tuple[int, int, int, int, int]:
    return info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_size


def _is_equal(directory: int, name: bytes, fd: int, values: Mapping[str, bytes]) -> bool:
    other = os.open(name, _OPEN_FILE, dir_fd=directory)
    try:
        if xattrs.recorded(other) != values:
            return False
        at = 0
        while piece := os.pread(fd, _PIECE, at):
            if os.pread(other, _PIECE, at) != piece:
                return False
            at += len(piece)
        return True
    finally:
        os.close(other)
