"""A file or directory inside a described rootfs as a mount of its own, without mounting the whole.

An overlay of the layers' own subdirectories is the same tree, as long as deletions and replacements above it are
minded: `COPY --from` has no need of this, but `RUN --mount=from=` hands the kernel a mount of a part of an image.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from builda.errors import NotFound
from builda.fs import paths
from builda.fs.xattrs import OPAQUE
from builda.linux.detached import FUSE
from builda.linux.mount import Mount, mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PLACES = ("upperdir=", "workdir=")


def subtree(rootfs: tuple[Mount, ...], path: str, target: str, *, name: str) -> Mount:
    """A read-only mount at `target` of `path`, which is followed inside the rootfs; `name` says whose rootfs it is."""
    (root,) = rootfs
    real = _resolved(rootfs, path, name)
    if root.type == "bind":
        return Mount("bind", _below(root.source, real), target, ("ro",))
    layers = tuple(_iter_layers(root, real))
    if not os.path.isdir(layers[0]) or (len(layers) == 1 and root.type == "overlay"):
        return Mount("bind", layers[0], target, ("ro",))
    options = tuple(word for word in root.options if not word.startswith(_PLACES) and word not in ("ro", "rw"))
    return Mount(root.type, root.source, target, ("ro", *options), layers)


def writable(mount: Mount, stacked: Mount) -> Mount:
    """The directory that `mount` shows, in the way that `stacked` does: with writes that go elsewhere."""
    kept = tuple(word for word in mount.options if word not in ("ro", "bind", "rbind") and word not in stacked.options)
    return stacked._replace(target=mount.target, options=(*kept, *stacked.options))


def _resolved(rootfs: tuple[Mount, ...], path: str, name: str) -> str:
    with mounted(rootfs) as root:
        try:
            fd = paths.open_in_root(root, path.lstrip("/") or ".", os.O_PATH)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"no such file or directory in {name}: {path}") from error
        try:
            top = os.readlink(f"/proc/self/fd/{root}")  # "/" where it is a mount of its own
            return os.readlink(f"/proc/self/fd/{fd}").removeprefix(top.rstrip("/")) or "/"
        finally:
            os.close(fd)


def _iter_layers(root: Mount, path: str) -> Iterator[str]:
    """The layers' own `path`, topmost first, down to the one that hides what is below it."""
    upper = next((word.partition("=")[2] for word in root.options if word.startswith("upperdir=")), None)
    covered = False  # by a directory of a higher layer, which hides a file
    for layer in (*((upper,) if upper else ()), *root.lower):
        found, ends = _in_layer(layer, path, _marked if root.type == FUSE else _overlaid)
        here = _below(layer, path)
        if found and not (covered and not os.path.isdir(here)):
            yield here
            covered = True
        if ends:
            return


def _in_layer(layer: str, path: str, says: Callable[[str], tuple[bool, bool]]) -> tuple[bool, bool]:
    """Whether the layer has `path`, and whether it hides what lower layers have there.

    No component is a link: the path was resolved in the whole tree, and a link in an upper layer is a link there.
    `says` tells of a path in the layer whether it is deleted, and whether it is a directory that hides what is below.
    """
    here = layer
    ends = False
    whole = _below(layer, path)
    for part in filter(None, path.split("/")):
        here = f"{here}/{part}"
        is_deleted, is_opaque = says(here)
        if is_deleted:
            return False, True
        try:
            info = os.lstat(here)
        except FileNotFoundError:
            return False, ends
        if not stat.S_ISDIR(info.st_mode):
            return here == whole, True
        ends = ends or is_opaque
    return True, ends


def _overlaid(path: str) -> tuple[bool, bool]:
    """What the kernel's overlay says of a path in a layer of its own."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return False, False
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0, stat.S_ISDIR(info.st_mode) and _is_opaque(path)


def _marked(path: str) -> tuple[bool, bool]:
    """What fuse-overlayfs says of it."""
    is_deleted, is_opaque = _overlaid(path)
    head, _, name = path.rpartition("/")
    return (
        is_deleted or os.path.lexists(f"{head}/.wh.{name}"),
        is_opaque or os.path.lexists(f"{path}/.wh..wh..opq"),
    )


def _is_opaque(path: str) -> bool:
    for name in OPAQUE:
        try:
            if os.getxattr(path, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False


def _below(directory: str, path: str) -> str:
    return directory + path if path != "/" else directory
