"""A file or directory inside a described rootfs as a mount of its own.

`RUN --mount=from=` hands the kernel a mount of a part of an image or of a container, whose own commands may be changing
it. The mount is described as the whole, which no command can replace, and the part as a path in it without links. That
path is opened inside the whole when the mount is made, and no link is followed, so a link put there meanwhile is an
error.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from builda.errors import InUse, NotFound
from builda.fs import paths
from builda.linux.detached import DIRECTORY_PART, FILE_PART, split_part
from builda.linux.mount import Mount, mounted, over_upper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def subtree(rootfs: tuple[Mount, ...], path: str, target: str, *, name: str) -> Mount:
    """A read-only mount at `target` of `path`, which is followed inside the rootfs; `name` says whose rootfs it is.

    NotFound when nothing is there.
    """
    (root,) = rootfs
    with mounted(rootfs) as top:
        words = part_of(top, path, name)
    if root.type == "bind":
        return Mount("bind", root.source, target, ("ro", *words))
    below = over_upper(root)
    return below._replace(target=target, options=(*below.options, *words))


def part_of(root: int, path: str, name: str) -> tuple[str, ...]:
    """The mount option that says which part of the directory `root` is meant; none for all of it."""
    try:
        fd = paths.open_in_root(root, path.lstrip("/") or ".", os.O_PATH)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"no such file or directory in {name}: {path}") from error
    try:
        top = os.readlink(f"/proc/self/fd/{root}")  # "/" where it is a mount of its own
        real = os.readlink(f"/proc/self/fd/{fd}").removeprefix(top.rstrip("/"))
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    return () if real in ("", "/") else (f"{DIRECTORY_PART if is_directory else FILE_PART}{real}",)


def is_directory(mount: Mount) -> bool:
    """Whether the mount shows a directory, not a file."""
    part, _ = split_part(mount.options)
    if part is not None:
        return part.startswith(DIRECTORY_PART)
    return bool(mount.lower) or os.path.isdir(mount.source)


@contextmanager
def shown(mount: Mount) -> Iterator[int]:
    """An O_PATH descriptor of the file or directory that the mount shows, for the time of the block.

    NotFound or InUse when another process has taken it away or replaced it.
    """
    part, options = split_part(mount.options)
    if part is None and not mount.lower:
        fd = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    with mounted((mount._replace(target="/", options=options),)) as root:
        fd = _opened(root, "." if part is None else part.partition("=")[2])
        try:
            yield fd
        finally:
            os.close(fd)


def _opened(root: int, path: str) -> int:
    """An O_PATH descriptor of what is at `path`; NotFound if it is gone, InUse if it is a link by now."""
    try:
        with paths.parent_of(root, path) as (parent, name):
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"no such file or directory any more: {path}") from error
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise InUse(f"was replaced by a link while it was mounted: {path}")
    return fd


def writable(mount: Mount, stacked: Mount) -> Mount:
    """The directory that `mount` shows, with the upper layer of `stacked`: writes do not reach the source."""
    kept = tuple(word for word in mount.options if word not in ("ro", "bind", "rbind") and word not in stacked.options)
    return stacked._replace(target=mount.target, options=(*kept, *stacked.options))
