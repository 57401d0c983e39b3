"""What fuse-overlayfs does otherwise than the kernel's overlay to the directories that it makes, set right.

It copies directories up by mkdir(2), which takes no set-id bits: so whatever is created in a directory of a lower
layer, such as Debian's /usr/local/lib/python3, would take the bit away by which the directory's group is that of all in
it. And it marks each new directory as opaque, also where nothing lies below that the mark could hide: the same files
would make another layer than under overlay.
"""

from __future__ import annotations

import errno
import os
import stat

from builda.fs import paths, xattrs
from builda.fs.whiteouts import OPAQUE, WHITEOUT, is_marked_opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SET_IDS = stat.S_ISUID | stat.S_ISGID


def as_overlay_has_it(upper: int, lowers: Sequence[int]) -> None:
    """Give directories in `upper` the set-id bits that were lost, and take opaque marks from those that hide nothing.

    A bit was lost where a directory looks as the topmost of `lowers` has it but for that.
    """
    with paths.Descent(upper) as at:
        stack = [(b"", _directories(at.fd), True)]
        while stack:
            prefix, names, open_below = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                if stack:
                    at.leave()
                continue
            path = prefix + name
            below = _below(lowers, path) if open_below else None
            at.enter(name)
            if below is None:
                _remove_mark(at.fd)
            elif stat.S_ISDIR(below.st_mode):
                _restore_set_ids(at.fd, below)
            shows = below is not None and stat.S_ISDIR(below.st_mode) and not is_marked_opaque(at.fd)
            stack.append((path + b"/", _directories(at.fd), shows))


def _restore_set_ids(directory: int, below: os.stat_result) -> None:
    here = os.fstat(directory)
    lost = below.st_mode & _SET_IDS & ~here.st_mode
    if lost and _looks(here) == _looks(below):
        os.fchmod(directory, stat.S_IMODE(here.st_mode) | lost)


def _looks(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_mode & ~_SET_IDS, info.st_uid, info.st_gid


def _directories(fd: int) -> Iterator[bytes]:
    with os.scandir(fd) as found:
        return iter([os.fsencode(entry.name) for entry in found if entry.is_dir(follow_symlinks=False)])


def _remove_mark(directory: int) -> None:
    info = os.fstat(directory)
    try:
        os.unlink(OPAQUE, dir_fd=directory)
        os.utime(directory, ns=(info.st_atime_ns, info.st_mtime_ns))
    except FileNotFoundError:
        pass
    for name in xattrs.OPAQUE:
        try:
            os.removexattr(directory, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise


def _below(lowers: Sequence[int], path: bytes) -> os.stat_result | None:
    """The status of `path` in the layers together; None if it is missing."""
    above = [path[:at] for at, byte in enumerate(path) if byte == 0x2F]
    for lower in lowers:
        info = paths.lstat_in_root(lower, path)
        if info is not None:
            return info
        if any(_hides(lower, part) for part in above) or _has(lower, _mark_of(path)):
            return None
    return None


def _hides(layer: int, directory: bytes) -> bool:
    """Whether nothing of what the layers below have in `directory` shows."""
    if _has(layer, directory + b"/" + OPAQUE) or _has(layer, _mark_of(directory)):
        return True
    info = paths.lstat_in_root(layer, directory)
    return info is not None and not stat.S_ISDIR(info.st_mode)


def _has(layer: int, path: bytes) -> bool:
    return paths.lstat_in_root(layer, path) is not None


def _mark_of(path: bytes) -> bytes:
    head, slash, name = path.rpartition(b"/")
    return head + slash + WHITEOUT + name
