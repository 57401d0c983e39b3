"""Whose store it is: one user's, in one view of ids. Trees unpacked in one view have wrong owners in another.

The first verb that works in trees writes its claim into builda.json; every later one compares.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import NamedTuple

from builda.errors import StoreUnavailable
from builda.store import layout
from builda.store.layout import Layout

COMPOSED = "composed"
"""The driver whose snapshots are no trees."""
FUSE = "fuse-overlayfs"
"""The driver whose snapshots have files for what is deleted."""


class Claim(NamedTuple):
    """How a process sees the ids of a store's trees, and what it can do with them.

    `ids` are the views that it may take the store for, that of a new store first: "" is the ids as they are, else rows
    of an id map. `overlay_refused` tries an overlay in an empty directory and says why there can be none, and so does
    `fuse_refused` with one of fuse-overlayfs.
    """

    mode: str
    ids: tuple[str, ...] = ("",)
    overlay_refused: Callable[[str], str | None] = lambda _: None
    fuse_refused: Callable[[str], str | None] = lambda _: "it was not tried"


class Chosen(NamedTuple):
    """The driver of a store, why it is not overlay if that was decided just now, and whether all of it was."""

    driver: str
    reason: str | None = None
    is_first: bool = False


def check_owner(where: Layout) -> None:
    """StoreUnavailable for root in somebody else's store: what it wrote, they could not use."""
    owner = os.stat(where.path("builda.json")).st_uid
    if os.geteuid() == 0 and owner != 0:
        raise StoreUnavailable(
            f"store belongs to another user: {where.root}", hint=f"work as user {owner}, or use another --root"
        )


def driver_of(where: Layout) -> str:
    """The driver that was chosen for a store, by what its file system can do; overlay until that is known."""
    driver = layout.read_json(where.path("builda.json")).get("driver")
    return driver if isinstance(driver, str) else "overlay"


def take(where: Layout, claim: Claim, driver: str | None, *, inside: bool) -> Chosen:
    """The driver for this claim, `driver` if one is asked for; what was not known of the store is written down.

    StoreUnavailable when the store's trees are another user's, or were made in another mode. `inside`: in a user
    namespace, where overlay's marks are other attributes.
    """
    path = where.path("builda.json")
    if os.stat(path).st_uid != os.geteuid():
        raise StoreUnavailable(f"store belongs to another user: {where.root}", hint="use another --root")
    marker = layout.read_json(path)
    known = {**marker}
    known.setdefault("mode", claim.mode)
    known.setdefault("ids", claim.ids[0])
    chosen = Chosen(driver or known.get("driver", "")) if driver or "driver" in known else _try(where, claim)
    _check_kind(where, marker.get("driver"), chosen.driver)
    if driver in (None, COMPOSED, FUSE):
        known["driver"] = chosen.driver
    marks = "user" if inside else "trusted"
    if chosen.driver == "overlay":
        known.setdefault("marks", marks)
    if known["ids"] not in claim.ids or (chosen.driver == "overlay" and known["marks"] != marks):
        raise StoreUnavailable(
            f"store was made in mode {known['mode']}, this is mode {claim.mode}: {where.root}",
            hint=f"use another --root, or --mode {known['mode']} where that works",
        )
    if known != marker:
        layout.publish(where, path, json.dumps(known).encode())
    return chosen._replace(is_first="mode" not in marker)


def _check_kind(where: Layout, known: object, driver: str) -> None:
    """StoreUnavailable where one driver cannot read the other's snapshots."""
    alone = (COMPOSED, FUSE)
    if known is None:
        mixed = driver in alone and next(layout.iter_names(where.path("snapshots")), None) is not None
    else:
        mixed = driver != known and (driver in alone or known in alone)
    if mixed:
        raise StoreUnavailable(
            f"store was made with driver {known or 'overlay'}, this is {driver}: {where.root}",
            hint="use another --root, or the mode that made it",
        )


def _try(where: Layout, claim: Claim) -> Chosen:
    """The best driver that works here, and why it is not overlay."""
    refused = _tried(where, claim.overlay_refused)
    if refused is None:
        return Chosen("overlay")
    return Chosen(FUSE if _tried(where, claim.fuse_refused) is None else "plain", refused)


def _tried(where: Layout, refused: Callable[[str], str | None]) -> str | None:
    from builda.fs.paths import remove_tree

    place = layout.temporary(where)
    os.makedirs(place, mode=0o700)
    said = refused(place)
    parent = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, os.path.basename(place))
    finally:
        os.close(parent)
    return None if said is None else said.replace(place, where.root)
