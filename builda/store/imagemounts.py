"""Mounts of images (`builda image mount`): one record for each image and mount namespace.

A record keeps the image and its snapshots from the sweep for as long as the mount can be there. It comes before the
mount and goes after it, so that a kill leaves a record without a mount, which the next look removes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial

from builda import jsontext
from builda.linux.userns import in_user_namespace
from builda.oci.digest import Digest
from builda.store import layout, locks
from builda.store.layout import Damaged, Layout
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any


class ImageMount(NamedTuple):
    """An image that is mounted at `place`, `times` more often than it was unmounted."""

    image: Digest  # of the manifest
    place: str
    base: str | None  # committed snapshot of the topmost layer
    tree: str | None  # active snapshot that was made for this mount, where a driver copies
    times: int = 1
    boot: str = ""
    namespace: str = ""  # the mount namespace; empty if nothing is mounted and `place` is the tree itself
    pids: str = ""  # the pid namespace that the mount was made in
    session: str = ""  # the session that the mount ends with

    @property
    def snapshots(self) -> tuple[str | None, ...]:
        """The snapshots that the mount needs."""
        return self.base, self.tree


class ImageMounts:
    """The mounts of one store's images. `report` is told of records that cannot be read; they count as missing.

    With a session, mounts are made in it, and only its own are seen.
    """

    def __init__(self, where: Layout, report: Callable[[Damaged], None], session: str = "") -> None:
        self._layout = where
        self._report = report
        self._session = session

    def locked(self) -> AbstractContextManager[None]:
        """Lock held while a record and its mount are made, changed or removed."""
        return locks.brief(self._layout.path("locks", "mounts.lock"))

    def place(self, image: Digest) -> str:
        """The path where an image is mounted in this mount namespace."""
        return self._layout.mount_point(f"{_PREFIX}{image.encoded}-{_namespace('mnt')}")

    def find(self, image: Digest) -> ImageMount | None:
        """The mount of an image that this process sees; None if there is none."""
        return next((one for one in self.iter() if one.image == image and self._is_here(one)), None)

    def seen(self) -> Iterator[ImageMount]:
        """Every mount that this process sees."""
        return (one for one in self.iter() if self._is_here(one))

    def iter(self) -> Iterator[ImageMount]:
        """Every mount that is there, as far as this process can know."""
        return (one for one in self._records() if _is_there(one))

    def write(self, mount: ImageMount, *, is_mounted: bool) -> None:
        """Record a mount of this boot, made in this process's namespaces."""
        from builda.store.drivers.bookkeeping import boot_id

        namespace = _namespace("mnt") if is_mounted else ""
        made = mount._replace(boot=boot_id(), namespace=namespace, pids=_namespace("pid"), session=self._session)
        with layout.translated(self._layout.root):
            os.makedirs(self._layout.path("mounts"), mode=0o700, exist_ok=True)
            layout.publish(self._layout, self._path(made), jsontext.dumps(_to_json(made)).encode())

    def remove(self, mount: ImageMount) -> None:
        """Forget a mount that is undone, and remove the directory that it was at."""
        layout.unlink(self._layout, self._path(mount))
        if mount.namespace:
            with suppress(OSError):  # busy if a process has it as its directory: the next sweep removes it
                os.rmdir(mount.place)

    def of_session(self, session: str) -> tuple[ImageMount, ...]:
        """The mounts that were made in a session, whether they are still there or not."""
        return tuple(one for one in self._records() if one.session == session)

    def sweep(self) -> None:
        """Forget mounts that ended with their namespace or with the machine, and remove their directories."""
        with self.locked():
            for mount in tuple(self._records()):
                if not _is_there(mount):
                    self.remove(mount)
            known = {mount.place for mount in self._records()}
            parent = f"{self._layout.runroot}/mounts"
            for name in layout.iter_names(parent):
                if name.startswith(_PREFIX) and f"{parent}/{name}" not in known:
                    with suppress(OSError):
                        os.rmdir(f"{parent}/{name}")

    def _path(self, mount: ImageMount) -> str:
        owner = mount.namespace or mount.session or "tree"
        return self._layout.path("mounts", f"{mount.image.encoded}-{owner}.json")

    def _is_here(self, mount: ImageMount) -> bool:
        return mount.session == self._session and mount.namespace in ("", _namespace("mnt"))

    def _records(self) -> Iterator[ImageMount]:
        for name in layout.iter_names(self._layout.path("mounts")):
            path = self._layout.path("mounts", name)
            if (mount := layout.if_whole(partial(_read, path), self._report)) is not None:
                yield mount


_PREFIX = "image-"
_OVERFLOW = 65534  # what a user namespace shows of owners that it does not map


def is_of_an_image(name: str) -> bool:
    """Whether a directory for mounts is one that `image mount` made."""
    return name.startswith(_PREFIX)


def _read(path: str) -> ImageMount:
    return parse(layout.read_json(path), path)


def _namespace(kind: str) -> str:
    """The number of a namespace of this process."""
    return _number(f"/proc/self/ns/{kind}")


def _number(path: str) -> str:
    return os.readlink(path).partition("[")[2].rstrip("]")


def _is_there(mount: ImageMount) -> bool:
    """Whether the mount is there. A mount of another pid namespace, whose processes cannot be seen, counts as there."""
    from builda.linux.mount import is_mounted
    from builda.store.drivers.bookkeeping import boot_id

    if mount.boot != boot_id():
        return False
    if not mount.namespace:
        return os.path.isdir(mount.place)
    if mount.namespace == _namespace("mnt"):
        return is_mounted(mount.place)
    return mount.pids != _namespace("pid") or _is_used(mount.namespace)


def _is_used(namespace: str) -> bool:
    """Whether a process is in the mount namespace of this number, or may be."""
    return any(name.isdecimal() and _may_be_in(namespace, f"/proc/{name}") for name in os.listdir("/proc"))


def _may_be_in(namespace: str, process: str) -> bool:
    """Whether a process is in a mount namespace; also if this user started it and the kernel does not tell.

    In a user namespace the kernel tells nothing of processes in another one beside it.
    """
    try:
        try:
            return _number(f"{process}/ns/mnt") == namespace
        except PermissionError:
            return in_user_namespace() and os.stat(process).st_uid != _OVERFLOW
    except OSError:  # it has ended
        return False


def _to_json(mount: ImageMount) -> dict[str, Any]:
    value = {**mount._asdict(), "image": str(mount.image)}
    return value if mount.session else {name: one for name, one in value.items() if name != "session"}


def parse(value: dict[str, Any], path: str) -> ImageMount:
    """The mount that the record at `path` tells of; Damaged if it tells of none."""
    from builda.errors import BuildaError

    try:
        mount = ImageMount(**{**value, "image": Digest.parse(value["image"])})
    except (KeyError, TypeError, AttributeError, BuildaError) as error:
        raise Damaged(path) from error
    texts = (mount.place, mount.boot, mount.namespace, mount.pids, mount.session)
    if not all(isinstance(text, str) for text in texts) or not isinstance(mount.times, int):
        raise Damaged(path)
    if not all(one is None or isinstance(one, str) for one in mount.snapshots):
        raise Damaged(path)
    return mount
