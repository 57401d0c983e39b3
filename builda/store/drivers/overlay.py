"""The driver for places where the kernel's overlay can be written: layers are directories that a mount stacks."""

from __future__ import annotations

import os
from contextlib import ExitStack

from builda.linux.directories import opened
from builda.store.drivers import OVERLAY, Driver
from builda.store.drivers.bookkeeping import ENTRY_SIZE, count
from builda.store.drivers.layered import Layered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from builda.events import Emit
    from builda.fs.layer import Applied, Clamp, Look, Marks, Whiteouts
    from builda.fs.tar import Writable
    from builda.linux.mount import Mount
    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest, Readable

_OPTIONS = ("redirect_dir=off", "metacopy=off", "index=off")
"""Whatever the machine's defaults: with one of these on, an upper directory is not the difference it seems to be."""

_USERXATTR_OPTIONS = ("userxattr", "redirect_dir=nofollow", "metacopy=off", "index=off")
"""The same in a user namespace, where the marks are user.* attributes: the kernel takes no other redirect_dir there."""

_UNSYNCED = "volatile"
"""No file is synced: not when it is copied up, not when a command asks, and the whole file system not at the end of
each mount. A working tree need not outlive a power cut (docs/store-format.md)."""


class _HasEntry(Exception):
    """Something was written."""


class _First:
    """A sink that ends the writing of a layer at its first entry: then the layer is not empty."""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """End at the first byte that is not of an archive's end."""
        if any(data):
            raise _HasEntry


class OverlaySnapshots(Layered):
    """Snapshots that hold the files of one layer in `fs`, and overlay's marks of what it deletes."""

    driver: ClassVar[Driver] = OVERLAY
    mount_type = "overlay"
    marks: Marks = "overlay"
    """How a snapshot says what is deleted."""
    whiteouts: Whiteouts = "overlay"
    """How what a layer deletes is unpacked."""

    def _make(self, key: str, parent: str | None) -> None:
        os.mkdir(self.path(key, "work"), 0o700)
        os.mkdir(self.path(key, "fs"))
        os.chmod(self.path(key, "fs"), 0o755)  # whatever the umask
        if parent is not None:  # the root directory's own attributes are the upper's
            below = os.stat(self.path(parent, "fs"))
            os.chown(self.path(key, "fs"), below.st_uid, below.st_gid)
            os.chmod(self.path(key, "fs"), below.st_mode & 0o7777)
            os.utime(self.path(key, "fs"), ns=(below.st_atime_ns, below.st_mtime_ns))

    # Mounts

    def rootfs(self, key: str) -> tuple[Mount, ...]:
        """The mounts of an active snapshot, to be written to."""
        from builda.linux.mount import Mount  # which brings ctypes

        lower = tuple(self.path(below, "fs") for below in self.lineage(self.info(key).parent))
        options = (f"upperdir={self.path(key, 'fs')}", f"workdir={self.path(key, 'work')}", _UNSYNCED, *self._options())
        return (Mount(self.mount_type, self.mount_type, "/", options, lower or (self._layout.path("empty"),)),)

    def view(self, snapshot: str | None) -> tuple[Mount, ...]:
        """The read-only mounts of a committed snapshot (None: of an empty one)."""
        from builda.linux.mount import Mount  # which brings ctypes

        lower = tuple(self.path(below, "fs") for below in self.lineage(snapshot))
        if not lower:
            return (Mount("bind", self._layout.path("empty"), "/", ("ro",)),)
        if len(lower) == 1 and self.mount_type == "overlay":  # which needs two lower directories if it has no upper one
            return (Mount("bind", lower[0], "/", ("ro",)),)
        return (Mount(self.mount_type, self.mount_type, "/", (*self._options(), "ro"), lower),)

    def stacked(self, lower: tuple[str, ...], place: str) -> Mount:
        """A mount of directories on each other, topmost first, with writes going to `place`, a new directory."""
        from builda.linux.mount import Mount  # which brings ctypes

        for name in ("upper", "work"):
            os.mkdir(f"{place}/{name}")
        options = (f"upperdir={place}/upper", f"workdir={place}/work", _UNSYNCED, *self._options())
        return Mount(self.mount_type, self.mount_type, "/", options, lower)

    def _options(self) -> tuple[str, ...]:
        return _USERXATTR_OPTIONS if self._userxattr else _OPTIONS

    # Layers of what was changed

    def write_changes(self, key: str, sink: Writable, *, clamp: Clamp, below: str | None = None) -> tuple[str, ...]:
        """Write a snapshot's layer as a tar; returns the paths of sockets, which no tar can hold."""
        from builda.fs.layer import diff

        with ExitStack() as stack:
            root, *lowers = (stack.enter_context(opened(self.path(snapshot, "fs"))) for snapshot in self._layers(key))
            return diff(root, sink, clamp=clamp, marks=self.marks, below=self._root_below(key), lowers=lowers)

    def _layers(self, key: str) -> list[str]:
        """The snapshot and those below it, topmost first."""
        parent = self.info(key).parent
        return [key, *(() if parent is None else self.lineage(parent))]

    def changed_size(self, key: str) -> int | None:
        """About how many bytes `write_changes` writes."""
        try:
            entries, size = count(self.upper(key))
        except OSError:  # something is removed meanwhile
            return None
        return size + entries * ENTRY_SIZE

    def is_changed(self, key: str, below: str | None) -> bool:
        if os.listdir(self.upper(key)):
            return self._writes(key)
        from builda.fs.layer import Look

        return self._root_below(key) not in (None, Look.of(os.stat(self.upper(key))))

    def _writes(self, key: str) -> bool:
        """Whether a layer would have any entry: a file that was opened, and not written to, is in `fs` too."""
        from builda.fs.layer import AS_IS

        try:
            self.write_changes(key, _First(), clamp=AS_IS)
        except _HasEntry:
            return True
        return False

    def _root_below(self, key: str) -> Look | None:
        """The metadata of the root directory below a snapshot; None for a committed one without a parent."""
        from builda.fs.layer import Look

        parent = self.info(key).parent
        if parent is not None:
            return Look.of(os.stat(self.path(parent, "fs")))
        try:  # which has the owner that the root directory was made with
            return Look.of(os.stat(self.path(key, "work")))._replace(mode=Look().mode)
        except FileNotFoundError:
            return None

    def freeze(self, key: str) -> str:
        """Make the layer of a `cut` a committed snapshot, in place; returns its ID, which stays. Copies nothing."""
        super().freeze(key)
        from builda.fs.paths import remove_tree

        with opened(os.path.dirname(self.path(key, "work"))) as directory:
            remove_tree(directory, "work")
        return key

    def fill(self, key: str, archive: Readable) -> None:
        """Apply a layer's archive to an active snapshot without changes."""
        from builda.fs.layer import apply

        with opened(self.upper(key)) as root:
            apply(archive, root, whiteouts=self.whiteouts, userxattr=self._userxattr)

    # Images

    def _read_layer(self, key: str, layer: Descriptor, diff_id: Digest) -> Applied:
        from builda.store.drivers.layerblob import unpack_into

        os.mkdir(self.path(key, "fs"))
        os.chmod(self.path(key, "fs"), 0o755)
        with opened(self.path(key, "fs")) as root:
            return unpack_into(root, self._blobs, layer, diff_id, whiteouts=self.whiteouts, userxattr=self._userxattr)

    def _tell(self, layer: Descriptor, applied: Applied, emit: Emit) -> None:
        from builda.events import BlobProgress, Warned

        emit(BlobProgress(action="unpack", digest=layer.digest, offset=layer.size, total=layer.size, done=True))
        if applied.skipped:
            names = ", ".join(sorted(set(applied.skipped)))
            emit(Warned(message=f"attributes that the store's file system cannot keep: {names}"))

    def _fit(self, key: str, parent: str | None, applied: Applied) -> None:
        """Give directories that the layer implies the look that they have below it, remove idle whiteouts, note owners.

        An overlay shows an upper directory's attributes, and an archive need not list the directories of its files. In
        a directory that only one layer has, overlay lists the names of whiteouts, as files that cannot be opened.
        """
        from builda.fs.layer import drop_idle_whiteouts, inherit_directories, inherit_noted_owners
        from builda.fs.owners import keeps_aside

        notes_owners = parent is not None and keeps_aside()
        if not (applied.hidden or applied.implied or notes_owners):
            return
        with ExitStack() as stack:
            fds = [
                stack.enter_context(opened(self.path(snapshot, "fs")))
                for snapshot in (key, *(() if parent is None else self.lineage(parent)))
            ]
            drop_idle_whiteouts(fds[0], fds[1:], applied.hidden)
            inherit_directories(fds[0], fds[1:], applied.implied)
            if notes_owners:
                inherit_noted_owners(fds[0], fds[1:])
