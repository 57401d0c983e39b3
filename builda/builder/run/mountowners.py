"""Changes the owners of mounted files: for option U, and for contexts whose files must be root's."""

from __future__ import annotations

import os
import stat

from builda.builder.run.subtree import is_directory, shown
from builda.fs import owners, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.linux.mount import Mount


def has_other_owners(found: Mount) -> bool:
    """Whether a file that the mount shows has an owner other than root."""
    with shown(found) as top:
        if _is_others(os.fstat(top)):
            return True
        if not stat.S_ISDIR(os.fstat(top).st_mode):
            return False
        directory = os.open(f"/proc/self/fd/{top}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return any(
                _is_others(os.stat(name, dir_fd=parent, follow_symlinks=False))
                for parent, name in paths.walk(directory)
            )
        finally:
            os.close(directory)


def _is_others(status: os.stat_result) -> bool:
    return (status.st_uid, status.st_gid) != (0, 0)


def chown_shown(mount: Mount, uid: int, gid: int) -> None:
    """Like `chown_tree`, for the files of a mount, which may be part of a larger directory."""
    with shown(mount._replace(options=tuple(word for word in mount.options if word != "ro"))) as fd:
        if is_directory(mount):
            chown_tree(f"/proc/self/fd/{fd}/.", uid, gid)
        else:
            owners.chown_node(fd, b"", f"/proc/self/fd/{fd}", uid, gid)


def chown_tree(path: str, uid: int, gid: int) -> None:
    """Option U: give the tree to this owner. Links are changed themselves, never their targets."""
    owners.chown(path, uid, gid)
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        return
    try:
        for parent, name in paths.walk(top):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (found.st_uid, found.st_gid) != (uid, gid):  # in an overlay each change costs a copy
                owners.chown(name, uid, gid, dir_fd=parent)
    finally:
        os.close(top)
