"""What fuse-overlayfs does not keep of the directories that it copies up, given back to them.

It makes them by mkdir(2), which takes no set-id bits: so whatever is created in a directory of a lower layer, such as
Debian's /usr/local/lib/python3, would take the bit away by which the directory's group is that of all in it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from builda.fs import paths
from builda.fs.whiteouts import WHITEOUT, is_marked_opaque

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SET_IDS = stat.S_ISUID | stat.S_ISGID


def restore_set_ids(upper: int, lowers: Sequence[int]) -> None:
    """Directories in `upper` that look as the topmost of `lowers` has them, but for set-id bits, have these too."""
    with paths.Descent(upper) as at:
        stack = [(b"", _directories(at.fd))]
        while stack:
            prefix, names = stack[-1]
            for name in names:
                path = prefix + name
                below = _below(lowers, path)
                if below is None:  # it is new, and all in it
                    continue
                at.enter(name)
                here = os.fstat(at.fd)
                lost = below.st_mode & _SET_IDS & ~here.st_mode
                if lost and _looks(here) == _looks(below):
                    os.fchmod(at.fd, stat.S_IMODE(here.st_mode) | lost)
                stack.append((path + b"/", iter(()) if is_marked_opaque(at.fd) else _directories(at.fd)))
                break
            else:
                stack.pop()
                if stack:
                    at.leave()


def _looks(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_mode & ~_SET_IDS, info.st_uid, info.st_gid


def _directories(fd: int) -> Iterator[bytes]:
    with os.scandir(fd) as found:
        return iter([os.fsencode(entry.name) for entry in found if entry.is_dir(follow_symlinks=False)])


def _below(lowers: Sequence[int], path: bytes) -> os.stat_result | None:
    """What the layers show at `path`; None when that is nothing, or no directory."""
    head, slash, name = path.rpartition(b"/")
    for lower in lowers:
        info = paths.lstat_in_root(lower, path)
        if info is not None:
            return info if stat.S_ISDIR(info.st_mode) else None
        if paths.lstat_in_root(lower, head + slash + WHITEOUT + name) is not None:
            return None
    return None
