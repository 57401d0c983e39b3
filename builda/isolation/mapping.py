"""A user namespace of a command's own, whose ids the files of its root have by id-mapped mounts.

The tree keeps the ids that images have: what id 0 of the namespace writes is 0 on the disk, and shows as the id that 0
is mapped to to everybody else (mount_setattr(2), ID mapping). Imported by the child: standard library only.
"""

from __future__ import annotations

import os

from builda.isolation.failure import Failure, refused
from builda.linux import detached
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    Rows = tuple[tuple[int, int, int], ...]  # of /proc/PID/uid_map

_NO_IDMAP = (
    "it takes root's rights over the store's file system, and one that has id-mapped mounts (Linux 5.19: ext4, xfs, "
    "btrfs; 6.3: tmpfs)"
)


class Mapping:
    """The namespace, which this process is not in yet: `fd` is of it, and its maps are known."""

    def __init__(self, uids: Rows, gids: Rows, path: str | None) -> None:
        self.uids = uids
        self.gids = gids
        self.fd = _made(uids, gids) if path is None else _opened(path)

    def host_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """What a user and a group of the namespace are outside; -1 for one that it does not have."""
        return _outside(uid, self.uids), _outside(gid, self.gids)

    def clone(self, mount: detached.Description) -> int:
        """As `detached.clone`, with the ids of all directories that it is made of mapped."""
        held = sys_.capget()
        sys_.set_file_ids(*self.host_ids(0, 0))  # who mounts an overlay makes its own files in the upper directory
        sys_.capset(*held)
        try:
            return detached.clone(mount, self.fd)
        except detached.NoLowerPlus as error:
            raise refused("map the ids of the root file system", error, "it takes Linux 6.8") from error
        except OSError as error:
            raise refused("map the ids of the root file system", error, _NO_IDMAP) from error
        finally:
            sys_.set_file_ids(0, 0)
            sys_.capset(*held)

    def give(self, made: tuple[int, ...], uid: int, gid: int) -> None:
        """Pipes that the command inherits belong to it, so that it can open them again; `made` are those of builda."""
        for fd in {*made, *filter(_is_pipe, (0, 1, 2))}:
            os.fchown(fd, *self.host_ids(uid, gid))

    def enter(self) -> None:
        """Be the namespace's root, with all rights in it and none outside."""
        try:
            sys_.setns(self.fd, sys_.CLONE_NEWUSER)
            os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError as error:
            raise refused("enter the user namespace", error, "its map must have the ids 0") from error
        sys_.prctl(sys_.PR_SET_DUMPABLE, 1)  # else our own /proc entries are the real root's
        os.close(self.fd)


def _made(uids: Rows, gids: Rows) -> int:
    """A new namespace with these maps, which a process of ours holds for as long as it takes to open it."""
    ready, done = os.pipe(), os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            sys_.unshare(sys_.CLONE_NEWUSER)
            os.write(ready[1], b"x")
            os.close(done[1])
            os.read(done[0], 1)
        finally:
            os._exit(0)
    os.close(ready[1])
    try:
        if not os.read(ready[0], 1):
            raise Failure(
                "IsolationUnavailable", "cannot make a user namespace", "see /proc/sys/user/max_user_namespaces"
            )
        for kind, rows in (("uid", uids), ("gid", gids)):
            _write_map(f"/proc/{holder}/{kind}_map", kind, rows)
        return os.open(f"/proc/{holder}/ns/user", os.O_RDONLY)
    finally:
        for fd in (ready[0], *done):
            os.close(fd)
        os.waitpid(holder, 0)


def _write_map(path: str, kind: str, rows: Rows) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, "\n".join(" ".join(map(str, row)) for row in rows).encode())
    except OSError as error:
        raise refused(f"map {kind}s in the user namespace", error) from error
    finally:
        os.close(fd)


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise Failure("NotFound", f"cannot open the namespace: {path}: {error.strerror}") from error


def _is_pipe(fd: int) -> bool:
    """Whether it is a pipe without a name: giving that away changes nothing of the caller's files."""
    return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")


def _outside(inside: int, rows: Rows) -> int:
    return next((outside + inside - first for first, outside, size in rows if first <= inside < first + size), -1)
