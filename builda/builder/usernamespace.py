"""The user namespace that a command is asked to have: its maps, from options, /etc/subuid and other namespaces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from builda.errors import InvalidValue, IsolationUnavailable, Unsupported
from builda.linux.userns import in_user_namespace, unmapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builda.builder.builder import Builder
    from builda.linux.mount import Mount
    from builda.linux.subids import IdMap, IdRange, Kind
    from builda.plan import RunOptions
    from builda.store.store import WorkingContainer

AUTO = "containers"
"""Whose ranges in /etc/subuid and /etc/subgid are taken when nobody says whose."""
_SIZE = 65536
_LARGEST = 2**32 - 1


class Users(NamedTuple):
    """The maps of a user namespace, which is at `path` if it is not to be made."""

    uids: IdMap
    gids: IdMap
    path: str | None = None


def users_for(
    builder: Builder, container: WorkingContainer, options: RunOptions, rootfs: tuple[Mount, ...]
) -> Users | None:
    """The namespace that the command has to itself, None for the caller's; an error where there can be none."""
    users = checked(builder, options)
    if users is None:
        return None
    if rootfs[0].source == container.mount_point:
        raise InvalidValue(
            f"container is mounted, which fixes the ids of its files: {container.name}", hint="umount it first"
        )
    if rootfs[0].type not in ("overlay", "bind"):
        raise Unsupported(f"ids cannot be mapped with the storage driver {rootfs[0].type}", hint="overlay maps them")
    return users


def checked(builder: Builder, options: RunOptions) -> Users | None:
    """The same as far as it can be told without a container."""
    if not is_asked_for(options):
        return None
    if in_user_namespace() or os.geteuid() != 0 or not builder.store.can_mount:
        raise IsolationUnavailable(
            "only real root can give a command other ids: the files of its tree have those of this process's mode",
            hint="leave the --userns options out",
        )
    name = builder.isolation(options).name
    if name != "native":
        raise Unsupported(f"isolation {name} makes no user namespace", hint="--isolation native does")
    return users_of(options)


def is_asked_for(options: RunOptions) -> bool:
    """Whether anything but the caller's user namespace is."""
    return bool(options.userns not in (None, "", "host") or any(_maps(options)))


def users_of(options: RunOptions, *, etc: str = "/etc") -> Users:
    """The maps that the options ask for; InvalidValue names the option that makes no sense."""
    said = options.userns or "private"
    if any(_maps(options)):
        if said not in ("private", "container"):
            raise InvalidValue(f"--userns={said} cannot be used with options that say the map")
        return _said(options, etc)
    if said in ("private", "container"):
        return _automatic("", etc)
    if said == "auto" or said.startswith("auto:"):
        return _automatic(said[5:], etc)
    path = said.removeprefix("ns:")
    if not path.startswith("/"):
        raise InvalidValue(f"--userns is host, private, auto[:size=N,…] or the path of a namespace: {said}")
    from builda.linux.userns import maps_at

    return Users(*maps_at(path), path)


def check_user(users: Users, uid: int, gids: Iterable[int]) -> None:
    """Unsupported when the command's user or one of its groups has no id in the namespace."""
    maps = {"uid": users.uids, "gid": users.gids}
    for gid in gids:
        lacking = unmapped(uid, gid, maps)
        if lacking is not None:
            raise Unsupported(f"cannot run as {uid}:{gid}: {lacking}", hint="--userns-uid-map says which ids there are")


def with_ids(mounts: tuple[Mount, ...], places: tuple[str, ...]) -> tuple[Mount, ...]:
    """The mounts; what is below `places` is builda's own, and has its ids as the command's tree has."""
    below = tuple(f"{place}/" for place in places)
    return tuple(
        mount._replace(options=(*mount.options, "idmap")) if mount.source.startswith(below) else mount
        for mount in mounts
    )


def _maps(options: RunOptions) -> tuple[str | None, str | None, str | None, str | None]:
    return (
        options.userns_uid_map,
        options.userns_gid_map,
        options.userns_uid_map_user,
        options.userns_gid_map_group,
    )


def _said(options: RunOptions, etc: str) -> Users:
    uid_map, gid_map, user, group = _maps(options)
    if gid_map and not (uid_map or user):
        raise InvalidValue("--userns-gid-map needs --userns-uid-map")
    written = _consecutive(_ranges("uid", user or group or "", etc)) if not uid_map else ()
    uids = parse_map(uid_map, "--userns-uid-map") if uid_map else written
    if gid_map:
        return Users(uids, parse_map(gid_map, "--userns-gid-map"))
    if uid_map and not (user or group):
        return Users(uids, uids)
    return Users(uids, _consecutive(_ranges("gid", group or user or "", etc)))


def parse_map(text: str, option: str, *, whole: bool = True) -> IdMap:
    """`CONTAINER:HOST:SIZE,…` as rows; InvalidValue names what is malformed, overlaps, or lacks id 0 if it is all."""
    rows = []
    for part in text.split(","):
        numbers = part.split(":")
        if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
            raise InvalidValue(f"{option} is CONTAINER:HOST:SIZE[,…]: {part}")
        inside, outside, size = map(int, numbers)
        if not size or inside + size > _LARGEST or outside + size > _LARGEST:
            raise InvalidValue(f"not a range of ids in {option}: {part}", hint=f"ids end at {_LARGEST - 1}")
        rows.append((inside, outside, size))
    for column in (0, 1):
        ends = 0
        for row in sorted(rows, key=lambda row: row[column]):
            if row[column] < ends:
                raise InvalidValue(f"{option} maps an id twice: {row[column]}")
            ends = row[column] + row[2]
    if whole and not any(row[0] == 0 for row in rows):
        raise InvalidValue(f"{option} has no id 0, which the command's root directory belongs to: {text}")
    return tuple(rows)


def _automatic(settings: str, etc: str) -> Users:
    size, said = _SIZE, {"uidmapping": "", "gidmapping": ""}
    for word in settings.split(",") if settings else ():
        key, _, value = word.partition("=")
        if key == "size" and value.isdecimal() and int(value):
            size = int(value)
        elif key in said and value:
            said[key] = f"{said[key]},{value}".strip(",")
        else:
            raise InvalidValue(f"--userns=auto takes size=N, uidmapping=C:H:S and gidmapping=C:H:S: {word}")
    uids = _filled(said["uidmapping"], size, _ranges("uid", AUTO, etc), "uidmapping")
    return Users(uids, _filled(said["gidmapping"], size, _ranges("gid", AUTO, etc), "gidmapping"))


def _filled(said: str, size: int, ranges: tuple[IdRange, ...], option: str) -> IdMap:
    """The map of ids 0 to `size`: what is said, and for the rest what the ranges hold, one after the other."""
    rows = list(parse_map(said, option, whole=False)) if said else []
    gaps, at = [], 0
    for inside, _, count in (*sorted(rows), (max(size, 0), 0, 0)):
        if at < inside <= size:
            gaps.append((at, inside - at))
        at = max(at, inside + count)
    free = [[one.start, one.size] for one in ranges]
    for first, count in gaps:
        while count and free:
            part = min(count, free[0][1])
            rows.append((first, free[0][0], part))
            first, count = first + part, count - part
            free[0] = [free[0][0] + part, free[0][1] - part]
            if not free[0][1]:
                free.pop(0)
    return tuple(sorted(rows))


def _consecutive(ranges: tuple[IdRange, ...]) -> IdMap:
    rows, at = [], 0
    for one in ranges:
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
    return found
