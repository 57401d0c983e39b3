"""Subordinate ids of a user: the ranges in /etc/subuid and /etc/subgid, or of the directory service (getsubids(1))."""

from __future__ import annotations

from builda.errors import IsolationUnavailable
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from builda.linux.userns import IdMap

Kind: TypeAlias = "Literal['uid', 'gid']"
ENOUGH = 65536
"""The number of ids that images use. Ids below it belong to accounts of the machine."""
_LEAST = 1000  # system users of every distribution end below
_FIRST = 100000  # where useradd begins
_LARGEST = 2**32 - 1


class IdRange(NamedTuple):
    """So many ids from `start` on."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first id after the range."""
        return self.start + self.size


def subordinate_map(kind: Kind, own: int, user: int, *, etc: str = "/etc", held: IdMap | None = None) -> IdMap:
    """A map with the caller's own id as 0 and the usable ranges of user `user` from 1 on.

    `held` is the map of the caller's user namespace (None: read it): a pod with hostUsers: false has 65536 ids, and a
    range beyond them does not exist there. IsolationUnavailable if there are too few ids, with the line that would do.
    """
    from builda.linux.userns import id_map

    here = id_map(kind) if held is None else held
    ranges = ranges_of(kind, user, etc=etc)
    _check(ranges, kind, own, user, etc, here)
    rows = [(0, own, 1)]
    inside = 1
    for one in _usable(ranges, here):
        rows.append((inside, one.start, one.size))
        inside += one.size
    return tuple(rows)


def ranges_of(kind: Kind, user: int, *, etc: str = "/etc") -> tuple[IdRange, ...]:
    """The user's ranges in the order of the file, found by name or number; () if there are none."""
    return _written(kind, {str(user), *_names(user)}, etc) or _from_library(kind, user, etc)


def ranges_named(kind: Kind, name: str, *, etc: str = "/etc") -> tuple[IdRange, ...]:
    """The ranges of `name`, which need not be an account; () if there are none."""
    return _written(kind, {name}, etc)


def _written(kind: Kind, names: set[str], etc: str) -> tuple[IdRange, ...]:
    path = f"{etc}/sub{kind}"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ()
    rows = enumerate(lines, 1)
    return tuple(_parsed(line, f"{path}:{number}") for number, line in rows if line.partition(":")[0] in names)


def advice(kind: Kind, user: int, etc: str, held: IdMap) -> str:
    """A line for the file that would give the user a range which no other line and no account has."""
    name = next(iter(_names(user)), str(user))
    free = _free(_taken(kind, etc), held)
    if free is None:
        return f"no {_LEAST} ids in a row are free for {name} in {etc}/sub{kind}: give back a range there"
    line = f"{name}:{free.start}:{free.size}"
    return f"a line such as {line} in {etc}/sub{kind}, or: usermod --add-sub{kind}s {free.start}-{free.end - 1} {name}"


def _taken(kind: Kind, etc: str) -> list[IdRange]:
    """The ranges of all users and the ids of all accounts, sorted."""
    import grp
    import pwd

    try:
        with open(f"{etc}/sub{kind}", encoding="utf-8", errors="replace") as file:
            rows = [line.strip().split(":") for line in file]
    except FileNotFoundError:
        rows = []
    numbers = [row[1:] for row in rows if len(row) == 3 and row[1].isdecimal() and row[2].isdecimal()]
    ids = [row.pw_uid for row in pwd.getpwall()] if kind == "uid" else [row.gr_gid for row in grp.getgrall()]
    return sorted([*(IdRange(int(start), int(size)) for start, size in numbers), *(IdRange(one, 1) for one in ids)])


def _free(taken: list[IdRange], held: IdMap) -> IdRange | None:
    """The first free range of the usual size; without one, the largest that is large enough; else None."""
    gaps: list[IdRange] = []
    for first, _, size in held:
        at, end = max(first, _LEAST), min(first + size, _LARGEST)
        for one in (*taken, IdRange(end, 1)):
            if at < min(one.start, end):
                gaps.append(IdRange(at, min(one.start, end) - at))
            at = max(at, one.end)
    usual = (IdRange(start, ENOUGH) for gap in gaps if gap.end - (start := max(gap.start, _FIRST)) >= ENOUGH)
    largest = max((IdRange(gap.start, min(gap.size, ENOUGH)) for gap in gaps), key=lambda one: one.size, default=None)
    return next(usual, None) or (largest if largest is not None and largest.size >= _LEAST else None)


def _usable(ranges: tuple[IdRange, ...], held: IdMap) -> tuple[IdRange, ...]:
    """The parts of `ranges` that exist in a user namespace with the map `held`.

    Ranges among the ids of accounts are left out if the others are enough: a file may have one row for pods with a
    user namespace and one for pods without.
    """
    parts = tuple(
        IdRange(start, end - start)
        for one in ranges
        for first, _, size in held
        if (start := max(one.start, first)) < (end := min(one.end, first + size))
    )
    high = tuple(one for one in parts if one.start >= ENOUGH)
    return high if sum(one.size for one in high) >= ENOUGH else parts


def _parsed(line: str, place: str) -> IdRange:
    parts = line.split(":")
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise IsolationUnavailable(f"not USER:START:COUNT: {place}: {line}", hint="START and COUNT are plain numbers")
    found = IdRange(int(parts[1]), int(parts[2]))
    if not found.size or found.end > _LARGEST:
        raise IsolationUnavailable(f"not a range of ids: {place}: {line}", hint=f"ids end at {_LARGEST - 1}")
    return found


def _check(ranges: tuple[IdRange, ...], kind: Kind, own: int, user: int, etc: str, held: IdMap) -> None:
    path = f"{etc}/sub{kind}"
    if not ranges:
        raise IsolationUnavailable(f"no range of {kind}s for user {user} in {path}", hint=advice(kind, user, etc, held))
    last = None
    for one in sorted((*ranges, IdRange(own, 1))):
        if last is not None and one.start < last.end:
            raise IsolationUnavailable(
                f"ranges of {kind}s of user {user} overlap in {path}: {one.start}",
                hint="list each id once, and not the user's own",
            )
        last = one
    total = sum(one.size for one in ranges)
    if total < _LEAST:
        raise IsolationUnavailable(
            f"range of {kind}s of user {user} is too small: {total}", hint=advice(kind, user, etc, held)
        )
    usable = sum(one.size for one in _usable(ranges, held))
    if usable < _LEAST:
        written = ", ".join(f"{one.start}-{one.end - 1}" for one in ranges)
        there = ", ".join(f"{first}-{first + size - 1}" for first, _, size in held)
        raise IsolationUnavailable(
            f"the {kind}s {written} of user {user} in {path} do not exist here: this user namespace has {there}",
            hint=advice(kind, user, etc, held),
        )


def _names(user: int) -> tuple[str, ...]:
    import pwd

    try:
        return (pwd.getpwuid(user).pw_name,)
    except KeyError:  # a pod's arbitrary user
        return ()


def _from_library(kind: Kind, user: int, etc: str) -> tuple[IdRange, ...]:
    """The ranges that getsubids(1) lists, if nsswitch.conf names a directory service for `subid`."""
    try:
        with open(f"{etc}/nsswitch.conf", encoding="utf-8", errors="replace") as file:
            if not any(line.startswith("subid:") for line in file):
                return ()
    except FileNotFoundError:
        return ()
    import subprocess

    name = next(iter(_names(user)), str(user))
    options = ["-g"] if kind == "gid" else []
    try:
        done = subprocess.run(["getsubids", *options, name], capture_output=True, text=True)
    except FileNotFoundError:
        return ()
    rows = [line.split() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return tuple(IdRange(int(row[-2]), int(row[-1])) for row in rows if len(row) == 4)
