"""The bookkeeping of snapshots that all drivers share: their records, their ChainIDs, and whether they can be trusted.

`snapshots/ID/info.json` is written last and makes a snapshot real. `chains/CHAIN` is a link to the committed snapshot
of a ChainID.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import cache

from builda import jsontext
from builda.errors import NotFound, StoreUnavailable
from builda.linux.directories import opened
from builda.store import layout
from builda.store.drivers import Driver, Info
from builda.store.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar

    from builda.oci.digest import Digest
    from builda.store.blobs import Blobs

ENTRY_SIZE = 1024
"""Bytes of a tar for an entry besides its content: its header, and half a block of zeros behind the content."""


class Records:
    """The snapshots of one store as records. A driver adds `_make` and `_measure`, and what `protocol` asks for."""

    driver: ClassVar[Driver]

    def __init__(self, where: Layout, blobs: Blobs, *, userxattr: bool) -> None:
        self._layout = where
        self._blobs = blobs
        self._userxattr = userxattr

    def _make(self, key: str, parent: str | None) -> None:
        """Make what an active snapshot on `parent` has in its new directory."""
        raise NotImplementedError

    def _measure(self, snapshot: str) -> tuple[int, int]:
        """Entries and bytes of what a committed snapshot holds."""
        return count(self.path(snapshot, "fs"))

    def path(self, snapshot: str, *parts: str) -> str:
        """A path in a snapshot's directory."""
        return self._layout.path("snapshots", snapshot, *parts)

    def info(self, snapshot: str) -> Info:
        """The record of a snapshot; NotFound if it is missing or half made."""
        path = self._layout.path("snapshots", snapshot, "info.json")
        try:
            return Info(**layout.read_json(path))
        except FileNotFoundError as error:
            raise NotFound(f"no such snapshot: {snapshot}") from error
        except TypeError as error:
            raise layout.Damaged(path) from error

    def _write_info(self, snapshot: str, info: Info) -> None:
        value = jsontext.dumps(info._replace(driver=self.driver.name)._asdict())
        layout.publish(self._layout, self._layout.path("snapshots", snapshot, "info.json"), value.encode())

    def exists(self, snapshot: str) -> bool:
        """Whether the snapshot exists. If so, no sweep removes it while this process holds a lease."""
        return layout.touch(self.path(snapshot)) and os.path.exists(self.path(snapshot, "info.json"))

    def lineage(self, snapshot: str | None) -> tuple[str, ...]:
        """The snapshot and all below it, topmost first."""
        found: list[str] = []
        while snapshot is not None:
            found.append(snapshot)
            snapshot = self.info(snapshot).parent
        return tuple(found)

    def prepare(self, parent: str | None) -> str:
        """A new active snapshot on a committed one (None: on nothing)."""
        if parent is not None and not self.exists(parent):
            raise NotFound(f"no such snapshot: {parent}")
        with self._new() as key:
            self._make(key, parent)
            self._write_info(key, Info(parent, committed=False, boot=boot_id()))
        return key

    def is_of_earlier_boot(self, key: str) -> bool:
        """Whether an active snapshot was last known to be whole in another boot of the machine."""
        info = self.info(key)
        return not info.committed and info.boot not in (None, boot_id())

    def take_as_it_is(self, key: str) -> None:
        """Record that an active snapshot counts as whole in this boot."""
        self._write_info(key, self.info(key)._replace(boot=boot_id()))

    @contextmanager
    def _new(self) -> Iterator[str]:
        """A new snapshot's directory, to be filled and recorded in the block; removed if the block fails."""
        key = os.urandom(16).hex()
        with layout.translated(self._layout.root):
            os.mkdir(self._layout.path("snapshots", key), 0o700)
            try:
                yield key
            except BaseException:
                self.remove(key)
                raise

    def remove(self, snapshot: str) -> None:
        """Remove a snapshot. Its record goes first, so that a crash leaves nothing that looks whole."""
        from builda.fs.paths import remove_tree

        with suppress(FileNotFoundError), opened(self._layout.path("snapshots")) as directory:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self.path(snapshot, "info.json"))
            remove_tree(directory, snapshot)

    def take_out(self, key: str) -> None:
        """Nothing to do: what a command is given is mounted, and never in the tree itself."""

    def bring_home(self, cache: str) -> None:
        """Nothing to do: a cache is mounted, and never in a tree itself."""

    # ChainIDs

    def find_chain(self, chain: Digest) -> str | None:
        """The committed snapshot of a ChainID; None if there is none that can be trusted."""
        try:
            snapshot = os.readlink(self._chain(chain))
        except FileNotFoundError:
            return None
        return snapshot if self.is_trusted(snapshot) else None

    def is_trusted(self, snapshot: str) -> bool:
        """Whether the snapshot exists with the content that was committed.

        Then no sweep takes it while this process holds a lease. Snapshots are not synced, so after a crash of the
        machine one may lack content: the first look in another boot counts its entries and bytes again.
        """
        if not self.exists(snapshot):
            return False
        try:
            info = self.info(snapshot)
        except (StoreUnavailable, NotFound):  # emptied by a power cut; or removed just now
            return False
        if info.boot == boot_id():
            return True
        if info.entries < 0 or self._measure(snapshot) != (info.entries, info.size):
            return False
        self._write_info(snapshot, info._replace(boot=boot_id()))
        return True

    def bind_chain(self, chain: Digest, snapshot: str) -> str:
        """Record `snapshot` as the one of `chain`; returns it, or the one that another process recorded first."""
        return self._commit(chain, snapshot, self.info(snapshot))

    def _commit(self, chain: Digest, snapshot: str, info: Info) -> str:
        """Record a committed snapshot with its measures, and its ChainID, as `bind_chain` does."""
        entries, size = self._measure(snapshot)
        self._write_info(
            snapshot, info._replace(committed=True, chain=str(chain), boot=boot_id(), entries=entries, size=size)
        )
        known = self.find_chain(chain)
        if known is not None:
            return known
        temp = layout.temporary(self._layout)
        os.symlink(snapshot, temp)
        os.rename(temp, self._chain(chain))
        return snapshot

    def _chain(self, chain: Digest) -> str:
        return self._layout.path("chains", f"{chain.encoded}{self.driver.chain_suffix}")


@cache
def boot_id() -> str:
    """The kernel's ID of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()


def count(path: str) -> tuple[int, int]:
    """Entries of a tree and bytes of its regular files."""
    entries = size = 0
    pending = [path]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                entries += 1
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    size += entry.stat(follow_symlinks=False).st_size
    return entries, size
