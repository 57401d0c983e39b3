"""The ranges of ids that a user may have besides their own: /etc/subuid and /etc/subgid, else what getsubids says."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple, TypeAlias

from builda.errors import IsolationUnavailable

Kind: TypeAlias = Literal["uid", "gid"]
IdMap: TypeAlias = tuple[tuple[int, int, int], ...]
"""Rows of /proc/PID/uid_map: first id inside, first id outside, how many."""

ENOUGH = 65536
_LEAST = 1000  # system users of every distribution end below
_LARGEST = 2**32 - 1


class IdRange(NamedTuple):
    """So many ids from `start` on."""

    start: int
    size: int

    @property
    def end(self) -> int:
        """The first id behind it."""
        return self.start + self.size


def subordinate_map(kind: Kind, own: int, user: int, *, etc: str = "/etc") -> IdMap:
    """The caller's own id as 0, then the ranges of user `user` from 1 on; IsolationUnavailable says what is wrong."""
    ranges = ranges_of(kind, user, etc=etc)
    _check(ranges, kind, own, user, etc)
    rows = [(0, own, 1)]
    inside = 1
    for one in ranges:
        rows.append((inside, one.start, one.size))
        inside += one.size
    return tuple(rows)


def ranges_of(kind: Kind, user: int, *, etc: str = "/etc") -> tuple[IdRange, ...]:
    """The user's ranges in the order written, by their name or number; () when there are none."""
    return _written(kind, {str(user), *_names(user)}, etc) or _from_library(kind, user, etc)


def ranges_named(kind: Kind, name: str, *, etc: str = "/etc") -> tuple[IdRange, ...]:
    """The ranges that are written for `name`, who need not have an account; () when there are none."""
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


def advice(kind: Kind, user: int, etc: str = "/etc") -> str:
    """The line that would do in the file."""
    name = next(iter(_names(user)), str(user))
    return (
        f"a line such as {name}:100000:{ENOUGH} in {etc}/sub{kind}, or: usermod --add-sub{kind}s 100000-165535 {name}"
    )


def _parsed(line: str, place: str) -> IdRange:
    parts = line.split(":")
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise IsolationUnavailable(f"not USER:START:COUNT: {place}: {line}", hint="START and COUNT are plain numbers")
    found = IdRange(int(parts[1]), int(parts[2]))
    if not found.size or found.end > _LARGEST:
        raise IsolationUnavailable(f"not a range of ids: {place}: {line}", hint=f"ids end at {_LARGEST - 1}")
    return found


def _check(ranges: tuple[IdRange, ...], kind: Kind, own: int, user: int, etc: str) -> None:
    path = f"{etc}/sub{kind}"
    if not ranges:
        raise IsolationUnavailable(f"no range of {kind}s for user {user} in {path}", hint=advice(kind, user, etc))
    last = None
    for one in sorted((*ranges, IdRange(own, 1))):
        if last is not None and one.start < last.end:
            raise IsolationUnavailable(
                f"ranges of {kind}s of user {user} overlap in {path}: {one.start}",
                hint="each id may be given once, the user's own not at all",
            )
        last = one
    total = sum(one.size for one in ranges)
    if total < _LEAST:
        raise IsolationUnavailable(
            f"range of {kind}s of user {user} is too small: {total}", hint=advice(kind, user, etc)
        )


def _names(user: int) -> tuple[str, ...]:
    import pwd

    try:
        return (pwd.getpwuid(user).pw_name,)
    except KeyError:  # a pod's arbitrary user
        return ()


def _from_library(kind: Kind, user: int, etc: str) -> tuple[IdRange, ...]:
    """What getsubids(1) says, which asks a directory service where nsswitch.conf names one for `subid`."""
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


def find_tool(name: str) -> str | None:
    """The path of a program, which distributions keep in an sbin at times; None when missing."""
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/bin", "/usr/sbin", "/bin", "/sbin"):
        path = f"{directory}/{name}"
        if directory and os.access(path, os.X_OK):
            return path
    return None
