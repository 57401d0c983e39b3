"""Paths inside a root, resolved by descriptor.

Every path that comes from an image, an archive or a Containerfile goes through here: symbolic links, absolute ones
included, and `..` are followed by the kernel inside the root (openat2, RESOLVE_IN_ROOT) and never lead out of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from builda.fs import owners, rights
from builda.linux import regular, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

Path: TypeAlias = str | bytes

_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_LINKS = 40  # the kernel's own limit


def open_in_root(root: int, path: Path, flags: int) -> int:
    """A descriptor of `path` inside `root`; the last component is followed unless `flags` hold O_NOFOLLOW."""
    name = os.fsencode(path)
    if not name.strip(b"/"):
        name = b"."
    try:
        return syscalls.openat2(root, name, flags)
    except OSError as error:
        # ENOSYS: some pods filter the call. EAGAIN that stays: `..` at the root behind an absolute link, in an overlay
        # that is attached nowhere (seen with Linux 6.18).
        if error.errno not in (errno.ENOSYS, errno.EAGAIN):
            raise
    return walk_in_root(root, name, flags)


def walk_in_root(root: int, path: bytes, flags: int) -> int:
    """`open_in_root` where openat2(2) is missing: one component after the other, links read and resolved here."""
    opened = [os.dup(root)]  # the directories from the root down to where we are
    pending = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
    links = 0
    if path.endswith((b"/", b"/.")):
        flags = flags & ~os.O_NOFOLLOW | os.O_DIRECTORY
    try:
        while pending:
            part = pending.pop()
            if part == b"..":
                if len(opened) > 1:
                    os.close(opened.pop())
                continue
            last = not pending
            if (target := link_at(opened[-1], part)) is None:
                if last:
                    return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1])
                opened.append(os.open(part, _STEP, dir_fd=opened[-1]))
                continue
            if last and flags & os.O_NOFOLLOW:
                return os.open(part, flags | os.O_CLOEXEC, dir_fd=opened[-1])
            if last and target.endswith((b"/", b"/.")):
                flags |= os.O_DIRECTORY
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
            if target.startswith(b"/"):
                _close_all(opened, keep=1)
            pending += [piece for piece in reversed(target.split(b"/")) if piece not in (b"", b".")]
        return os.open(b".", flags & ~os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=opened[-1])
    finally:
        _close_all(opened, keep=0)


def link_at(parent: int, name: bytes) -> bytes | None:
    """The target of the symbolic link `name` in the directory `parent`; None if it is missing or no link."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  #
            return None
        raise


def _close_all(opened: list[int], *, keep: int) -> None:
    while len(opened) > keep:
        os.close(opened.pop())


def open_parent(root: int, path: Path) -> tuple[int, bytes]:
    """A descriptor of the directory that holds `path`, and the last component, which is not followed.

    The name is b"." for the root itself.
    """
    clean = os.fsencode(path).strip(b"/")
    head, _, name = clean.rpartition(b"/")
    if name in (b"", b".", b".."):
        return open_in_root(root, clean, os.O_PATH | os.O_DIRECTORY), b"."
    return open_in_root(root, head, os.O_PATH | os.O_DIRECTORY), name


@contextmanager
def parent_of(root: int, path: Path) -> Iterator[tuple[int, bytes]]:
    """`open_parent` whose descriptor is closed at the end of the block."""
    fd, name = open_parent(root, path)
    try:
        yield fd, name
    finally:
        os.close(fd)


def lstat_in_root(root: int, path: Path) -> os.stat_result | None:
    """lstat(2) of `path` inside `root`, not following its last component; None if it is missing."""
    try:
        with parent_of(root, path) as (parent, name):
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def stat_in_root(root: int, path: Path) -> os.stat_result | None:
    """stat(2) of `path` inside `root`, following links; None if it leads nowhere."""
    try:
        fd = open_in_root(root, path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def resolved(root: int, path: Path) -> bytes:
    """`path` inside `root` with links and dots resolved, relative to it; b"" is the root. Missing parts are kept."""
    done: list[bytes] = []
    pending = list(reversed(os.fsencode(path).split(b"/")))
    links = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            done = done[:-1]
            continue
        target = _link_in_root(root, b"/".join((*done, part)))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
        done = [] if target.startswith(b"/") else done
        pending += reversed(target.split(b"/"))
    return b"/".join(done)


def _link_in_root(root: int, path: bytes) -> bytes | None:
    try:
        with parent_of(root, path) as (parent, name):
            return link_at(parent, name)
    except (FileNotFoundError, NotADirectoryError):
        return None


def open_directory(root: int, path: str) -> int:
    """A descriptor of the directory at `path`, in which no link is followed, not even the last."""
    fd = os.open(".", _LIST, dir_fd=root)
    for name in path.split("/") if path else ():
        try:
            inner = os.open(name, _STEP, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    try:
        return os.open(".", _LIST, dir_fd=fd)
    finally:
        os.close(fd)


@contextmanager
def directory_at(root: int, path: str) -> Iterator[int | None]:
    """A descriptor of a directory for the time of the block; None when none is there."""
    try:
        fd = open_directory(root, path)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def open_regular(root: int, path: Path) -> int:
    """A descriptor for reading of a regular file inside `root`; OSError for anything else, which is not opened."""
    return regular.open_regular(open_in_root(root, path, os.O_PATH), path)


def read_file(root: int, path: Path, limit: int = 16 << 20) -> bytes:
    """The bytes of a regular file inside `root`, at most `limit`; OSError when it is none."""
    with open(open_regular(root, path), "rb") as file:
        return file.read(limit)


def make_directory(parent: int, name: Path, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Make the directory `name` in the directory `parent`, with this mode whatever the umask, and this owner."""
    os.mkdir(name, 0o700, dir_fd=parent)
    fd = open_made(parent, name)
    try:
        if owner is not None:
            owners.fchown(fd, *owner)
        os.fchmod(fd, mode | 0o700 if rights.lacks_rights() else mode)  # else it could not be renamed
    finally:
        os.close(fd)


def open_made(parent: int, name: Path) -> int:
    """Open the directory `name`, which was just made, with all rights of its owner.

    It lacks some if a default ACL of `parent` denies them, and a process without capabilities needs them.
    """
    try:
        fd = os.open(name, _LIST, dir_fd=parent)
    except PermissionError:
        made = os.open(name, _STEP, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{made}", 0o700)
            return os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(made)
    if os.fstat(fd).st_mode & 0o700 != 0o700 and rights.lacks_rights():
        os.fchmod(fd, 0o700)
    return fd


class Descent:
    """The position of a walk below a directory. It keeps one descriptor open: trees may be deeper than RLIMIT_NOFILE.

    Going up opens `..` and checks that it is the directory that the walk came from.
    """

    def __init__(self, directory: int) -> None:
        self.fd = os.open(".", _LIST, dir_fd=directory)
        self._above: list[tuple[int, int]] = []

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def enter(self, name: Path) -> None:
        """Go into the directory `name`, which is not followed if it is a link."""
        here = os.fstat(self.fd)
        self._move(os.open(name, _LIST, dir_fd=self.fd))
        self._above.append((here.st_dev, here.st_ino))

    def leave(self) -> None:
        """Go back up."""
        self._move(os.open("..", _LIST, dir_fd=self.fd))
        here = os.fstat(self.fd)
        if (here.st_dev, here.st_ino) != self._above.pop():
            raise OSError(errno.ESTALE, "directory was moved during a walk")

    def _move(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd


def walk(directory: int) -> Iterator[tuple[int, bytes]]:
    """Yield everything below `directory` as (descriptor of the parent, name); a directory after its entries.

    Links are not followed. The descriptor is valid until the next step.
    """
    with Descent(directory) as at:
        stack = [(b"", _names(at.fd))]
        while stack:
            name, entries = stack[-1]
            if not entries:
                stack.pop()
                if stack:
                    at.leave()
                    yield at.fd, name
                continue
            inner, is_directory = entries.pop()
            if is_directory:
                at.enter(inner)
                stack.append((inner, _names(at.fd)))
            else:
                yield at.fd, inner


def _names(directory: int) -> list[tuple[bytes, bool]]:
    with os.scandir(directory) as entries:
        return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]


def remove_tree(parent: int, name: Path) -> None:
    """Remove `name` in the directory `parent` with all below it, following no links; a missing one is no error."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    try:
        fd = os.open(name, _LIST, dir_fd=parent)
    except FileNotFoundError:
        return
    except PermissionError:
        open_up(parent, name)
        fd = os.open(name, _LIST, dir_fd=parent)
    try:
        empty(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def open_up(parent: int, name: Path) -> None:
    """Give the owner of a directory all rights in it. PermissionError for the caller who is not the owner."""
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def discard(path: str) -> None:
    """Like `remove_tree` for something unneeded: errors are ignored, and part of it may stay."""
    with suppress(OSError):
        remove_tree(syscalls.AT_FDCWD, path)


def empty(directory: int) -> None:
    """Remove everything in `directory`."""
    with Descent(directory) as at:
        stack: list[tuple[bytes, list[bytes]]] = [(b"", _unlink_files(at.fd))]
        while stack:
            name, directories = stack[-1]
            if directories:
                child = directories.pop()
                try:
                    at.enter(child)
                except PermissionError:
                    open_up(at.fd, child)
                    at.enter(child)
                stack.append((child, _unlink_files(at.fd)))
                continue
            stack.pop()
            if stack:
                at.leave()
                os.rmdir(name, dir_fd=at.fd)


def _unlink_files(directory: int) -> list[bytes]:
    """Remove all but directories, which are returned."""
    names = _names(directory)
    for name, is_directory in names:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
    return [name for name, is_directory in names if is_directory]
