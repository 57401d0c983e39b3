"""A user namespace of a command's own, whose ids the files of its root have by id-mapped mounts.

The tree keeps the ids that images have: what id 0 of the namespace writes is 0 on the disk, and shows as the id that 0
is mapped to to everybody else (mount_setattr(2), ID mapping). Imported by the child: standard library only.
"""

from __future__ import annotations

import errno
import os

from builda.isolation.child.failure import Failure, refused
from builda.linux import detached
from builda.linux import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._maps_files = any(inside != outside for inside, outside, _ in (*uids, *gids))
        self.fd = _made(uids, gids) if path is None else _opened(path)

    def host_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """What a user and a group of the namespace are outside; -1 for one that it does not have."""
        return _outside(uid, self.uids), _outside(gid, self.gids)

    def clone(self, mount: detached.Description) -> int:
        """As `detached.clone`, with the ids of all directories that it is made of mapped."""
        userns = self.fd if self._maps_files else -1
        held = sys_.capget()
        try:
            # An overlay makes its own files in the upper directory as the user that mounts it.
            sys_.set_file_ids(*self.host_ids(0, 0))
            sys_.capset(*held)
            return _cloned(mount, userns)
        except OSError as error:
            hint = _NO_IDMAP if self._maps_files else None
            raise refused(
                f"{_what(userns)} {mount[1] if mount[0] != 'overlay' else mount[4][0]}", error, hint
            ) from error
        finally:
            sys_.set_file_ids(0, 0)
            sys_.capset(*held)

    def can_map(self, path: str) -> bool:
        """Whether there is anything to map, and all that is mounted at and below `path` has id-mapped mounts."""
        if not self._maps_files:
            return False
        try:
            os.close(detached.clone_bind(path, recursive=True, options=(), userns=self.fd))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EPERM):
                return False
            raise
        return True

    def give(self, made: tuple[int, ...], uid: int, gid: int) -> None:
        """Pipes that the command inherits belong to it, so that it can open them again; `made` are those of builda."""
        owner = self.host_ids(uid, gid)
        for fd in made:
            os.fchown(fd, *owner)
        for fd in {0, 1, 2}.difference(made):
            if _is_pipe(fd):
                _give(fd, owner)

    def enter(self, *, keep_groups: bool) -> None:
        """Be the namespace's root, with all rights in it and none outside but those of groups that are kept."""
        try:
            sys_.setns(self.fd, sys_.CLONE_NEWUSER)
            if not keep_groups and _may_set_groups():
                os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError as error:
            raise refused("enter the user namespace", error, "its map must have the ids 0") from error
        sys_.prctl(sys_.PR_SET_DUMPABLE, 1)  # else our own /proc entries are the real root's
        os.close(self.fd)


def _cloned(mount: detached.Description, userns: int) -> int:
    if mount[0] != "overlay":
        return detached.clone(mount, userns)
    try:
        return detached.clone(mount, userns)
    except detached.NoLowerPlus:
        return in_other_namespace(lambda: detached.attached_overlay(mount[4], mount[3], userns))
    except OSError as error:
        if error.errno != errno.EINVAL or userns < 0:
            raise
        # Before Linux 6.15 overlay takes no layers of mounts that are attached nowhere.
        return in_other_namespace(lambda: detached.attached_overlay(mount[4], mount[3], userns))


def in_other_namespace(work: Callable[[], int]) -> int:
    """What `work` makes in a mount namespace that is gone afterwards; this process is where it was."""
    here = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    root = os.open("/", os.O_PATH)
    try:
        sys_.unshare(sys_.CLONE_NEWNS)
        sys_.mount(None, "/", None, sys_.MS_REC | sys_.MS_PRIVATE)
        try:
            return work()
        finally:
            sys_.setns(here, sys_.CLONE_NEWNS)
            os.fchdir(root)
            os.chroot(".")  # which need not be that of the namespace
    finally:
        os.close(here)
        os.close(root)


def _what(userns: int) -> str:
    return "map the ids of" if userns >= 0 else "mount"


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


def _give(fd: int, owner: tuple[int, int]) -> None:
    try:
        os.fchown(fd, *owner)
    except PermissionError:
        return  # it belongs to who started us, in a user namespace above ours: then it stays theirs, and can be written


def _may_set_groups() -> bool:
    """False where there is one id only: a plain user's groups cannot be given up (user_namespaces(7))."""
    with open("/proc/self/setgroups", encoding="ascii") as file:
        return file.read().strip() == "allow"


def _outside(inside: int, rows: Rows) -> int:
    return next((outside + inside - first for first, outside, size in rows if first <= inside < first + size), -1)
