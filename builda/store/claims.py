"""A store belongs to one user in one view of ids: trees that were unpacked in one view have wrong owners in another.

The first verb that works in trees writes its claim into builda.json; every later one compares.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from builda import jsontext
from builda.errors import BuildaError, StoreUnavailable
from builda.store import layout
from builda.store.drivers import DRIVERS, LISTS, OVERLAY, PLAIN, Driver
from builda.store.layout import Layout
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ANOTHER = "use another --root; `builda push` and `builda image save` still take images out of this one"


class Claim(NamedTuple):
    """The id maps and abilities with which a process opens a store.

    `ids` are the id maps that the store may have been made with, that of a new store first: "" is no map, else rows of
    an id map. `overlay_refused` tries an overlay in an empty directory; it returns why there can be none, or None.
    """

    mode: str
    ids: tuple[str, ...] = ("",)
    overlay_refused: Callable[[str], str | None] = lambda _: None
    mounts: bool = True
    chroots: bool = True  # whether commands are given their root directory by the kernel
    no_run: BuildaError | None = None  # why no command can be run
    no_others: BuildaError | None = None  # why commands have one id


class Chosen(NamedTuple):
    """The driver of a store. `trees` is the one of its trees, in case `driver` makes none.

    `reason` says why it is not overlay, if that was found out just now; `is_first`: the store had no claim yet.
    """

    driver: Driver
    trees: Driver
    reason: str | None = None
    is_first: bool = False


def take(where: Layout, marker: Mapping[str, Any], claim: Claim, driver: str | None, *, inside: bool) -> Chosen:
    """The driver for this claim, `driver` if one is asked for; builda.json (`marker`) is completed by what was decided.

    StoreUnavailable when the store's trees are another user's, or were made in another mode. `inside`: in a user
    namespace, where overlay's marks are other attributes.
    """
    path = where.path("builda.json")
    if os.stat(path).st_uid != os.geteuid():
        raise StoreUnavailable(f"store belongs to another user: {where.root}", hint="use another --root")
    known = {**marker}
    known.setdefault("mode", claim.mode)
    known.setdefault("ids", claim.ids[0])
    if driver == LISTS.name:  # it leaves open what trees will be like
        _check_ids(where, claim, known)
        trees = DRIVERS.get(known.get("driver", ""), OVERLAY)
        return Chosen(LISTS, trees, is_first="mode" not in marker)
    named = DRIVERS.get(driver or known.get("driver", ""))
    chosen = _try(where, claim) if named is None else Chosen(named, named)
    if driver is None:
        known["driver"] = chosen.driver.name
    marks = None
    if chosen.driver.has_private_marks:
        marks = "user" if inside else "trusted"
        known.setdefault("marks", marks)
    _check_ids(where, claim, known, marks)
    if known != marker:
        layout.publish(where, path, jsontext.dumps(known).encode())
    return chosen._replace(is_first="mode" not in marker)


def _check_ids(where: Layout, claim: Claim, known: Mapping[str, Any], marks: str | None = None) -> None:
    if known["ids"] in claim.ids and (marks is None or known["marks"] == marks):
        return
    if known["mode"] != claim.mode:
        raise StoreUnavailable(
            f"store was made in mode {known['mode']}, this is mode {claim.mode}: {where.root}",
            hint=f"use another --root, or --mode {known['mode']} where that works",
        )
    raise StoreUnavailable(f"{_difference(known, claim)}: {where.root}", hint=_ANOTHER)


def _difference(known: Mapping[str, Any], claim: Claim) -> str:
    """The reason why the store cannot be used although the mode is the one that it was made in."""
    if known["ids"] in claim.ids:
        here, there = ("inside", "outside") if known["marks"] == "trusted" else ("outside", "inside")
        return f"store was made {there} a user namespace, this process is {here} one"
    if known["ids"] and claim.ids[0] and all(map(_is_map, (known["ids"], claim.ids[0]))):
        return f"store was made with the ids {known['ids']} (inside:outside:size), here they are {claim.ids[0]}"
    return f"store of an earlier builda: in mode {claim.mode} it recorded the owners of files in another way"


def _is_map(ids: str) -> bool:
    return ids[:1].isdigit()


def _try(where: Layout, claim: Claim) -> Chosen:
    from builda.fs.paths import remove_tree

    place = layout.temporary(where)
    os.makedirs(place, mode=0o700)
    refused = claim.overlay_refused(place)
    parent = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent, os.path.basename(place))
    finally:
        os.close(parent)
    if refused is None:
        return Chosen(OVERLAY, OVERLAY)
    return Chosen(PLAIN, PLAIN, refused.replace(place, where.root))
