"""A user namespace of the command's own, with id-mapped mounts for the files of its root (mount_setattr(2)).

The tree keeps the ids that images have. The mount shows owner 0 on the disk as the host id that the namespace maps its
id 0 to, so the command sees 0; and what its id 0 writes is stored as 0.
"""

from __future__ import annotations

import errno
import os

from builda.isolation.child.failure import TOLD_LIMIT, Failure, check_told, refused, told
from builda.linux import detached, fork
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
    """A user namespace that this process has not entered yet; `fd` is a descriptor of it."""

    def __init__(self, uids: Rows, gids: Rows, path: str | None) -> None:
        self.uids = uids
        self.gids = gids
        self._maps_files = any(inside != outside for inside, outside, _ in (*uids, *gids))
        self.fd = _made(uids, gids) if path is None else _opened(path)

    def host_ids(self, uid: int, gid: int) -> tuple[int, int]:
        """The ids outside of a user and a group of the namespace; -1 for one that is not mapped."""
        return _outside(uid, self.uids), _outside(gid, self.gids)

    def clone(self, mount: detached.Description) -> int:
        """As `detached.clone`, with the mount's directories id-mapped by the namespace."""
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
        """Whether ids differ, and all file systems mounted at and below `path` support id-mapped mounts."""
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
        """Give the command's user the pipes `made` by builda and those it inherits, so that it can open them again."""
        owner = self.host_ids(uid, gid)
        for fd in made:
            os.fchown(fd, *owner)
        for fd in {0, 1, 2}.difference(made):
            if _is_pipe(fd):
                _give(fd, owner)

    def enter(self, *, keep_groups: bool) -> None:
        """Become root of the namespace: all rights inside, none outside except those of groups that are kept."""
        try:
            sys_.setns(self.fd, sys_.CLONE_NEWUSER)
            if not keep_groups and _may_set_groups():
                os.setgroups(())
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        except OSError as error:
            raise refused("enter the user namespace", error, "its maps must contain the id 0") from error
        sys_.prctl(
            sys_.PR_SET_DUMPABLE, 1
        )  # a change of ids made it 0: this process could not open its own /proc files
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
    """Call `work` in a new mount namespace and return to the old one. Returns what `work` returns."""
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
            os.chroot(".")  # this process's root, which may differ from the namespace's
    finally:
        os.close(here)
        os.close(root)


def _what(userns: int) -> str:
    return "map the ids of" if userns >= 0 else "mount"


def _made(uids: Rows, gids: Rows) -> int:
    """Create a user namespace with these maps; a descriptor of it. A child keeps it alive until it is open."""
    ready, done = os.pipe(), os.pipe()

    def hold() -> int:
        try:
            sys_.unshare(sys_.CLONE_NEWUSER)
        except OSError as error:
            os.write(ready[1], told(error))
            return 1
        os.write(ready[1], b"\0")
        os.close(done[1])
        os.read(done[0], 1)
        return 0

    holder = fork.start(hold)
    os.close(ready[1])
    try:
        try:
            check_told(os.read(ready[0], TOLD_LIMIT))
        except OSError as error:
            raise refused("make a user namespace", error) from error
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
    """Whether it is an anonymous pipe: changing its owner changes no file of the caller's."""
    return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")


def _give(fd: int, owner: tuple[int, int]) -> None:
    try:
        os.fchown(fd, *owner)
    except PermissionError:
        return  # an owner of a user namespace above this one. The command can still write to it.


def _may_set_groups() -> bool:
    """False in a user namespace that denies setgroups(2), as one of a single id does (user_namespaces(7))."""
    with open("/proc/self/setgroups", encoding="ascii") as file:
        return file.read().strip() == "allow"


def _outside(inside: int, rows: Rows) -> int:
    return next((outside + inside - first for first, outside, size in rows if first <= inside < first + size), -1)
