"""The command's user namespace: its maps, from options, /etc/subuid and existing namespaces."""

from __future__ import annotations

import os
from itertools import pairwise

from builda.errors import InvalidValue, IsolationUnavailable, Unsupported
from builda.linux.userns import id_map, identity, in_user_namespace, unmapped
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from builda.builder.context import Context
    from builda.linux.mount import Mount
    from builda.linux.subids import IdRange, Kind
    from builda.linux.userns import IdMap
    from builda.plan import RunOptions
    from builda.store.containers import WorkingContainer
    from builda.store.drivers import Driver
    from builda.store.store import Store

AUTO = "containers"
"""Whose ranges in /etc/subuid and /etc/subgid `--userns=auto` takes."""
_SIZE = 65536
_LARGEST = 2**32 - 1
_MOST_ROWS = 340  # of a map, by the kernel


class Users(NamedTuple):
    """The maps of a user namespace; `path` is set if it exists already."""

    uids: IdMap
    gids: IdMap
    path: str | None = None

    @property
    def are_others(self) -> bool:
        """Whether some id differs inside and outside, so that the files of a tree have to be mapped."""
        return any(inside != outside for inside, outside, _ in (*self.uids, *self.gids))

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """Map a user and a group of the namespace to ids outside of it."""
        return _outside(uid, self.uids), _outside(gid, self.gids)


def users_for(
    ctx: Context, container: WorkingContainer, options: RunOptions, rootfs: tuple[Mount, ...]
) -> Users | None:
    """The command's own user namespace; None for the caller's. Raises if it cannot be made here."""
    users = _permitted(ctx, options)
    if users is None or not users.are_others:
        return users
    if rootfs[0].source == container.mount_point:
        raise InvalidValue(
            f"container is mounted, which fixes the ids of its files: {container.name}", hint="umount it first"
        )
    _check_driver(ctx.store.snapshots.kind_of(container.snapshot).driver)
    return users


def checked(ctx: Context, options: RunOptions) -> None:
    """Raise if the namespace that the options ask for cannot be made, as far as that shows without a container."""
    users = _permitted(ctx, options)
    if users is not None and users.are_others:
        _check_store(ctx.store, users)


def is_asked_for(options: RunOptions) -> bool:
    """Whether the options ask for a user namespace other than the caller's."""
    return bool(options.userns not in (None, "", "host") or any(_maps(options)))


def _permitted(ctx: Context, options: RunOptions) -> Users | None:
    if not is_asked_for(options):
        return None
    if ctx.store.no_run is not None:
        raise ctx.store.no_run
    if not ctx.store.can_mount:
        raise IsolationUnavailable(
            "a command cannot have a user namespace of its own here", hint="leave the --userns options out"
        )
    is_real_root = os.geteuid() == 0 and not in_user_namespace()
    if not is_real_root and _takes_ranges(options):
        raise _no_others()
    users = users_of(options)
    if users.are_others and not is_real_root:
        raise _no_others()
    if users.path is None:
        users = Users(_fitted(users.uids, id_map("uid")), _fitted(users.gids, id_map("gid")))
    kind = ctx.isolation(options).kind
    if kind.no_own_ids is not None:
        raise Unsupported(
            f"isolation {kind.name} cannot map the ids of a command: {kind.no_own_ids}",
            hint="--isolation native does",
        )
    return users


def _takes_ranges(options: RunOptions) -> bool:
    is_auto = (options.userns or "").partition(":")[0] == "auto"
    return is_auto or bool(options.userns_uid_map_user or options.userns_gid_map_group)


def _no_others() -> IsolationUnavailable:
    return IsolationUnavailable(
        "only real root can map the ids of a command: files here have the ids of this process's user namespace",
        hint="leave the --userns options out; --userns=private is a namespace in which every id stays itself",
    )


def _fitted(rows: IdMap, outer: IdMap) -> IdMap:
    """The rows split so that each lies in one row of this process's own map, which the kernel requires.

    InvalidValue for an id that is not in it.
    """
    found = []
    for inside, outside, size in rows:
        end = outside + size
        while outside < end:
            ends = next((first + count for first, _, count in outer if first <= outside < first + count), None)
            if ends is None:
                held = ", ".join(f"{first}-{first + count - 1}" for first, _, count in outer)
                raise InvalidValue(f"a user namespace cannot have id {outside}: there are {held} here")
            part = min(end, ends) - outside
            found.append((inside, outside, part))
            inside, outside = inside + part, outside + part
    return tuple(found)


def _check_driver(driver: Driver) -> None:
    if not driver.maps_ids:
        raise Unsupported(f"ids cannot be mapped with the storage driver {driver.name}", hint="overlay maps them")


def _check_store(store: Store, users: Users) -> None:
    """Raise if the store's file system does not take id-mapped mounts: one is made, attached nowhere."""
    _check_driver(store.snapshots.driver)
    from builda.isolation.child.failure import Failure
    from builda.isolation.child.id_mapping import Mapping
    from builda.linux.trial import attempt

    def mapped() -> None:
        layers = store.layout.path("snapshots"), store.layout.path("empty")
        overlay = ("overlay", "overlay", "/", ("ro",), layers)
        try:
            Mapping(*users).clone(("bind", layers[0], "/", (), ()) if store.snapshots.new.driver.copies else overlay)
        except Failure as failure:
            message, hint = failure.fields[1:3]
            raise IsolationUnavailable(f"{message}\n{hint or ''}") from failure

    refused = attempt(mapped)
    if refused is not None:
        message, _, hint = refused.partition("\n")
        raise IsolationUnavailable(f"ids cannot be mapped with this store: {message}", hint=hint or None)


def users_of(options: RunOptions, *, etc: str = "/etc") -> Users:
    """The maps that the options ask for; InvalidValue names the option that makes no sense."""
    said = options.userns or "private"
    if any(_maps(options)):
        if said not in ("private", "container"):
            raise InvalidValue(f"--userns={said} cannot be used with options that set the map")
        return _said(options, etc)
    if said in ("private", "container"):
        maps = identity()
        return Users(maps.uids, maps.gids)
    if said == "auto" or said.startswith("auto:"):
        return _automatic(parse_auto(said), etc)
    path = said.removeprefix("ns:")
    if not path.startswith("/"):
        raise InvalidValue(f"--userns must be host, private, auto[:size=N,…] or the path of a namespace: {said}")
    from builda.linux.userns import maps_at

    users = Users(*maps_at(path), path)
    if -1 in users.outside(0, 0):
        raise InvalidValue(f"user namespace lacks id 0, the owner of the command's root directory: {path}")
    return users


def check_ids(users: Users, uid: int, gid: int, what: str) -> None:
    """Unsupported, with a message that begins with `what`, if a user or group is not mapped in the namespace."""
    lacking = unmapped(uid, gid, {"uid": users.uids, "gid": users.gids})
    if lacking is not None:
        raise Unsupported(f"{what}: {lacking}", hint="--userns-uid-map says which ids there are")


def _maps(options: RunOptions) -> tuple[str | None, str | None, str | None, str | None]:
    return (
        options.userns_uid_map,
        options.userns_gid_map,
        options.userns_uid_map_user,
        options.userns_gid_map_group,
    )


def _said(options: RunOptions, etc: str) -> Users:
    """A map or a name for users and for groups; given for one kind only, it counts for both."""
    uid_map, gid_map, user, group = _maps(options)
    if uid_map and user:
        raise InvalidValue("--userns-uid-map cannot be used with --userns-uid-map-user")
    if gid_map and group:
        raise InvalidValue("--userns-gid-map cannot be used with --userns-gid-map-group")
    if gid_map and not (uid_map or user):
        raise InvalidValue("--userns-gid-map needs --userns-uid-map")
    uids = parse_map(uid_map, "--userns-uid-map") if uid_map else _consecutive("uid", user or group or "", etc)
    if gid_map:
        return Users(uids, parse_map(gid_map, "--userns-gid-map"))
    name = group or user
    return Users(uids, _consecutive("gid", name, etc) if name else uids)


def parse_map(text: str, option: str, *, whole: bool = True) -> IdMap:
    """`CONTAINER:HOST:SIZE,…` as rows; InvalidValue names what is malformed, overlaps, or lacks id 0 if it is all."""
    rows = []
    for part in text.split(","):
        numbers = part.split(":")
        if len(numbers) != 3 or not all(map(_is_id, numbers)):
            raise InvalidValue(f"{option} is CONTAINER:HOST:SIZE[,…]: {part}")
        inside, outside, size = map(int, numbers)
        if not size or inside + size > _LARGEST or outside + size > _LARGEST:
            raise InvalidValue(f"not a range of ids in {option}: {part}", hint=f"ids end at {_LARGEST - 1}")
        rows.append((inside, outside, size))
    if len(rows) > _MOST_ROWS:
        raise InvalidValue(f"{option} has more than the {_MOST_ROWS} ranges that a map can have: {len(rows)}")
    twice = _twice(rows)
    if twice is not None:
        raise InvalidValue(f"{option} maps an id twice: {twice}")
    if whole and not any(row[0] == 0 for row in rows):
        raise InvalidValue(f"{option} lacks id 0, the owner of the command's root directory: {text}")
    return tuple(rows)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST))


def _twice(rows: Iterable[tuple[int, int, int]]) -> int | None:
    """An id that two rows have inside, or two have outside; None if there is none."""
    rows = tuple(rows)
    for column in (0, 1):
        ends = 0
        for row in sorted(rows, key=lambda row: row[column]):
            if row[column] < ends:
                return row[column]
            ends = row[column] + row[2]
    return None


class Auto(NamedTuple):
    """The settings of `--userns=auto:…`: the number of ids, and fixed rows among them."""

    size: int | None = None  # None: as many as there are, up to what images use
    uids: IdMap = ()
    gids: IdMap = ()


def parse_auto(text: str) -> Auto:
    """The settings behind `auto:`; InvalidValue for an unknown one."""
    size, said = None, {"uidmapping": "", "gidmapping": ""}
    for word in text[5:].split(",") if text[5:] else ():
        key, _, value = word.partition("=")
        if key == "size" and _is_id(value) and 0 < int(value) <= _LARGEST:
            size = int(value)
        elif key in said and value:
            said[key] = f"{said[key]},{value}".strip(",")
        else:
            raise InvalidValue(f"--userns=auto takes size=N, uidmapping=C:H:S and gidmapping=C:H:S: {word}")
    maps = (parse_map(rows, key, whole=False) if rows else () for key, rows in said.items())
    return Auto(size, *maps)


def _automatic(auto: Auto, etc: str) -> Users:
    return Users(_filled("uid", auto.uids, auto.size, etc), _filled("gid", auto.gids, auto.size, etc))


def _filled(kind: Kind, said: IdMap, size: int | None, etc: str) -> IdMap:
    """A map of ids 0 to `size`: the given rows, with gaps filled from the free parts of the ranges in order."""
    rows = list(said)
    free = _without(_ranges(kind, AUTO, etc), said)
    for first, count in _gaps(said, size or _SIZE):
        while count and free:
            one = free.pop(0)
            part = min(count, one[1])
            rows.append((first, one[0], part))
            first, count = first + part, count - part
            if part < one[1]:
                free.insert(0, (one[0] + part, one[1] - part))
        if count and (size is not None or not first):
            raise IsolationUnavailable(
                f"{etc}/sub{kind} has too few ids for {AUTO}: --userns=auto needs {size or 1}, {count} are missing",
                hint="a smaller size=N, or a longer range",
            )
    return tuple(sorted(rows))


def _gaps(said: IdMap, size: int) -> list[tuple[int, int]]:
    """The ids from 0 to `size` that no row has, as (first, count)."""
    gaps, at = [], 0
    for inside, _, count in (*sorted(said), (size, 0, 0)):
        if at < min(inside, size):
            gaps.append((at, min(inside, size) - at))
        at = max(at, inside + count)
    return gaps


def _without(ranges: tuple[IdRange, ...], said: IdMap) -> list[tuple[int, int]]:
    """The parts of the ranges that no row uses, as (first, count)."""
    free = []
    for one in ranges:
        at = one.start
        for _, outside, count in sorted(said, key=lambda row: row[1]):
            if outside < one.end and outside + count > at:
                if at < outside:
                    free.append((at, outside - at))
                at = outside + count
        if at < one.end:
            free.append((at, one.end - at))
    return free


def _consecutive(kind: Kind, name: str, etc: str) -> IdMap:
    """All of the ranges, mapped one after the other from id 0 on."""
    rows, at = [], 0
    for one in _ranges(kind, name, etc):
        rows.append((at, one.start, one.size))
        at += one.size
    return tuple(rows)


def _ranges(kind: Kind, name: str, etc: str) -> tuple[IdRange, ...]:
    from builda.linux.subids import ranges_named

    found = ranges_named(kind, name, etc=etc)
    if not found:
        raise IsolationUnavailable(
            f"no range of {kind}s for {name} in {etc}/sub{kind}",
            hint=f"a line such as {name}:2147483648:{_SIZE} gives one; --userns-uid-map needs none",
        )
    ordered = sorted(found)
    twice = next((after.start for one, after in pairwise(ordered) if after.start < one.end), None)
    if twice is not None:
        raise IsolationUnavailable(
            f"ranges of {kind}s of {name} overlap in {etc}/sub{kind}: {twice}", hint="each id may be given once"
        )
    return found


def _outside(inside: int, rows: IdMap) -> int:
    return next((outside + inside - first for first, outside, size in rows if first <= inside < first + size), -1)
