"""The drivers of snapshots: how layers are unpacked, and how working trees are made on them.

`Store` chooses one for trees and one for lists of files; no other package asks for a driver by its name. `protocol`
says what a driver promises, and tests/contract/test_snapshots.py tries it with every driver. A new driver is one module
here and one row of DRIVERS. The one rule: a driver describes mounts and never makes one.
"""

from __future__ import annotations

from builda.values import NamedTuple


class Driver(NamedTuple):
    """The name of a driver, its module and class, and what can be done with its snapshots."""

    name: str
    where: str  # module and class
    has_trees: bool = True  # else snapshots are lists of files: nothing can be run in them or mounted
    stacks: bool = True  # a snapshot is one layer's own files, put on the others by a mount
    lasts: bool = True  # trees outlive this process
    needs_mounts: bool = True  # trees are seen through a mount only
    is_served: bool = False  # by a program, through FUSE
    maps_ids: bool = True  # its mounts can be made with other ids
    is_exact: bool = True  # a layer has the modes and owners that commands left; else steps say which driver made them
    has_private_marks: bool = False  # a deletion is marked by attributes that a user namespace calls otherwise
    can_be_named: bool = True  # by --storage-driver
    also: tuple[str, ...] = ()  # what Buildah calls it
    chain_suffix: str = ""  # what the names of its ChainIDs end with: snapshots of several drivers may have one ChainID

    @property
    def copies(self) -> bool:
        """Whether each working tree is a whole copy of its own."""
        return self.has_trees and not self.stacks


class Info(NamedTuple):
    """The record of a snapshot: the one below it, and whether it is committed."""

    parent: str | None
    committed: bool
    chain: str | None = None
    boot: str | None = None  # the boot in which its content was last known to be whole
    entries: int = -1
    size: int = -1
    driver: str | None = None  # the one that made it; None in old records: that of the store's trees


class Cut(NamedTuple):
    """A divided snapshot: the layer of what was changed, None without changes, and where work goes on."""

    layer: str | None
    fresh: str
    empty: bool


OVERLAY = Driver("overlay", "overlay:OverlaySnapshots", has_private_marks=True, also=("overlay2",))
FUSE = Driver(
    "fuse-overlayfs",
    "fuse_overlayfs:FuseOverlaySnapshots",
    is_served=True,
    maps_ids=False,
    is_exact=False,
    chain_suffix=".marked",
)
PLAIN = Driver("plain", "plain:PlainSnapshots", stacks=False, needs_mounts=False, also=("vfs",))
LISTS = Driver(
    "composed", "lists:ListSnapshots", has_trees=False, stacks=False, needs_mounts=False, chain_suffix=".list"
)
MEMORY = Driver("memory", "memory:MemorySnapshots", lasts=False, can_be_named=False, chain_suffix=".flat")

DRIVERS = {driver.name: driver for driver in (OVERLAY, FUSE, PLAIN, LISTS, MEMORY)}
NAMES = tuple(driver.name for driver in DRIVERS.values() if driver.can_be_named)
"""What --storage-driver takes."""


def own_name(name: str) -> str:
    """The driver's own name, for its own or Buildah's; any other name as it is."""
    return next((driver.name for driver in DRIVERS.values() if name in driver.also), name)
