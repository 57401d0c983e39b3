"""Whose store it is: one user's, in one view of ids. Trees unpacked in one view have wrong owners in another.

The first verb that works in trees writes its claim into builda.json; every later one compares.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from builda.errors import StoreUnavailable
from builda.store import layout
from builda.store.layout import Layout


class Claim(NamedTuple):
    """How a process sees the ids of a store's trees.

    `ids` are the views that it may take the store for, that of a new store first: "" is the ids as they are, else rows
    of an id map. `marks` is whose extended attributes overlay's marks are, for stores that have any.
    """

    mode: str
    ids: tuple[str, ...] = ("",)
    marks: str | None = None


def check_owner(where: Layout) -> None:
    """StoreUnavailable for root in somebody else's store: what it wrote, they could not use."""
    owner = os.stat(where.path("builda.json")).st_uid
    if os.geteuid() == 0 and owner != 0:
        raise StoreUnavailable(
            f"store belongs to another user: {where.root}", hint=f"work as user {owner}, or use another --root"
        )


def check(where: Layout, claim: Claim) -> None:
    """StoreUnavailable when the store's trees are another user's, or were made in another mode."""
    path = where.path("builda.json")
    owner = os.stat(path).st_uid
    if owner != os.geteuid():
        raise StoreUnavailable(f"store belongs to another user: {where.root}", hint="use another --root")
    marker = layout.read_json(path)
    ids, marks = marker.get("ids"), marker.get("marks")
    fits = (ids is None or ids in claim.ids) and (marks is None or claim.marks in (None, marks))
    if not fits:
        raise StoreUnavailable(
            f"store was made in mode {marker.get('mode')}, this is mode {claim.mode}: {where.root}",
            hint=f"use another --root, or --mode {marker.get('mode')} where that works",
        )
    if ids is None or (marks is None and claim.marks is not None):
        named = claim.mode if ids is None else marker.get("mode")
        view = claim.ids[0] if ids is None else ids
        changed = {**marker, "mode": named, "ids": view, "marks": claim.marks or marks}
        layout.publish(where, path, json.dumps(changed).encode())
