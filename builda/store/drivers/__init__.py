"""The drivers of snapshots: how layers are unpacked, and how working trees are made on them.

`Store` chooses one for trees and one for lists of files; no other package asks for a driver by its name. `protocol`
says what a driver promises, and tests/contract/test_snapshots.py tries it with every driver. A new driver is one module
here and one row of DRIVERS. The one rule: a driver describes mounts and never makes one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builda.store.drivers.protocol import Driver

if TYPE_CHECKING:
    from builda.store.blobs import Blobs
    from builda.store.drivers.protocol import Snapshots
    from builda.store.layout import Layout


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


def open_snapshots(driver: Driver, layout: Layout, blobs: Blobs, *, userxattr: bool) -> Snapshots:
    """The snapshots of a store by a driver. `userxattr`: in a user namespace, which has no trusted attributes."""
    from importlib import import_module

    module, name = driver.where.split(":")
    made: Snapshots = getattr(import_module(f"{__name__}.{module}"), name)(layout, blobs, userxattr=userxattr)
    return made
