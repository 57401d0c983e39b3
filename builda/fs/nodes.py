"""Owner, mode, attributes and times of files that cannot be opened: FIFOs, device nodes, sockets and links.

Another process may replace a file that was just made by a link. So a name is used once, to get an O_PATH descriptor;
the type is checked, and changes are made through the descriptor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from builda.errors import InUse
from builda.fs import owners, xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.fs.trees.target import Looks

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


@contextmanager
def pinned(parent: int, name: str | bytes, kind: int) -> Iterator[str]:
    """A path that leads to `name` in the directory `parent`, whatever is renamed meanwhile, for the time of the block.

    InUse unless it is of this `kind` (S_IFIFO …) now. A device may be a file that stands in for one.
    """
    fd = os.open(name, _PATH, dir_fd=parent)
    try:
        found = stat.S_IFMT(os.fstat(fd).st_mode)
        if found != kind and not (found == stat.S_IFREG and kind in _DEVICES):
            raise InUse(
                f"file was replaced while it was made: {os.fsdecode(name)}",
                hint="another process changes the same directory; do it again when that has ended",
            )
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def dress(parent: int, name: bytes, kind: int, looks: Looks) -> tuple[str, ...]:
    """Give what was just made as `name` its looks; the names of attributes that could not be kept.

    InUse when it is not of this `kind` any more. A link's mode stays. Owner first: chown(2) clears set-id bits.
    """
    time_ns = looks.time_ns or 0
    times = (time_ns, time_ns)
    if kind == stat.S_IFLNK:  # each call acts upon the name itself, and none follows it
        owners.give_at(name, *looks.owner, dir_fd=parent)
        skipped = xattrs.write(xattrs.place_of(parent, name), looks.values) if looks.values else ()
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
        return skipped
    with pinned(parent, name, kind) as path:
        owners.give_node(parent, name, path, *looks.owner)
        # A file that stands in for a device must stay readable for its owner.
        os.chmod(path, looks.mode | (0o600 if stat.S_ISREG(os.stat(path).st_mode) else 0))
        skipped = xattrs.write(path, looks.values, follow=True) if looks.values else ()
        os.utime(path, ns=times)
    return skipped
