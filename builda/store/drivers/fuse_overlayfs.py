"""The driver for places where the kernel's overlay cannot be written: overlays by the program fuse-overlayfs.

Snapshots are those of the overlay driver, except that files say what is deleted, called as in an archive: where there
can be no overlay there can be no whiteouts of its kind either.
"""

from __future__ import annotations

from contextlib import ExitStack

from builda.linux.directories import opened
from builda.linux.fuse import KIND, unserved
from builda.store.drivers import FUSE, Driver
from builda.store.drivers.overlay import OverlaySnapshots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from builda.fs.layer import Clamp, Marks, Whiteouts
    from builda.fs.tar import Writable


class FuseOverlaySnapshots(OverlaySnapshots):
    """Snapshots that fuse-overlayfs puts on each other."""

    driver: ClassVar[Driver] = FUSE
    mount_type = KIND
    marks: Marks = "files"
    whiteouts: Whiteouts = "files"

    def freeze(self, key: str) -> str:
        with unserved(self.path(key, "work")):
            self._set_right(key)
            return super().freeze(key)

    def write_changes(self, key: str, sink: Writable, *, clamp: Clamp, below: str | None = None) -> tuple[str, ...]:
        if not self.info(key).committed:
            with unserved(self.path(key, "work")):
                self._set_right(key)
        return super().write_changes(key, sink, clamp=clamp, below=below)

    def _set_right(self, key: str) -> None:
        """Make directories those that the kernel's overlay would have made."""
        from builda.fs.layer import as_overlay_has_it

        with ExitStack() as stack:
            fds = [stack.enter_context(opened(self.path(snapshot, "fs"))) for snapshot in self.lineage(key)]
            as_overlay_has_it(fds[0], fds[1:])

    def _options(self) -> tuple[str, ...]:
        return ()
