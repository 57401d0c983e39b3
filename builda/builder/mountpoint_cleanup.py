"""Remove the mount points that a run made in the root file system, so that no image contains them."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.store.containers import WorkingContainer


def settle(ctx: Context, container: WorkingContainer) -> None:
    """Take away the mount points that a run, perhaps a killed one, had to make in the root file system.

    If nothing can be mounted, remove all that was put into the tree instead of mounts.
    """
    from builda.isolation.made_mountpoints import recorded, remove_made

    ctx.store.snapshots.take_out(container.snapshot)
    record = ctx.store.containers.path(container.id, "stubs")
    made = recorded(record)
    if made is None:
        return
    from builda.builder.working_tree import rootfs
    from builda.linux.mount import mounted

    mounts = rootfs(ctx, container)
    with mounted(mounts) as root:
        remove_made(root, record, made)
    (tree,) = mounts
    if tree.type != "bind":  # it is not mounted, so its upper directory may be changed
        for parent in sorted({os.path.dirname(point.path) for point in made}, key=len, reverse=True):
            _forget_copy(
                ctx.store.snapshots.kind_of(container.snapshot).upper(container.snapshot), tree.lower, parent.strip("/")
            )


def _forget_copy(upper: str, lower: tuple[str, ...], path: str) -> None:
    """Remove directories that are in the upper layer only because a mount point was once made in them."""
    top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while path:
            below = next((there for layer in lower if _is_said(there := os.path.join(layer, path))), None)
            head, _, name = path.rpartition("/")
            if below is None or not _forget_one(top, head, name, below):
                return
            path = head
    finally:
        os.close(top)


def _forget_one(upper: int, head: str, name: str, below: str) -> bool:
    """Remove a directory that is a mere copy; whether it was one. Links in the path are not followed."""
    from builda.fs.paths import directory_at

    with directory_at(upper, head) as parent:
        if parent is None:
            return False
        with directory_at(parent, name) as here:
            if here is None or not _is_mere_copy(here, below):
                return False
        times = os.fstat(parent)
        os.rmdir(name, dir_fd=parent)
        os.utime(parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        return True


def _is_said(path: str) -> bool:
    """Whether a layer has the path, or a whiteout of it."""
    head, name = os.path.split(path)
    return os.path.lexists(path) or os.path.lexists(f"{head}/.wh.{name}")


def _is_mere_copy(here: int, below: str) -> bool:
    """Whether an empty directory of the upper layer is the same as the one below it."""
    from builda.fs.xattrs import recorded

    try:
        mine, other = os.fstat(here), os.lstat(below)
    except FileNotFoundError:
        return False
    if not (stat.S_ISDIR(mine.st_mode) and stat.S_ISDIR(other.st_mode)) or os.listdir(here):
        return False
    if any(name.endswith("overlay.opaque") for name in os.listxattr(here)):
        return False
    same = all(getattr(mine, key) == getattr(other, key) for key in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"))
    return same and recorded(here) == recorded(below)
