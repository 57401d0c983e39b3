"""Users and groups as the image knows them: `user[:group]` to numbers, by its own /etc/passwd and /etc/group."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from builda.errors import InvalidValue, NotFound
from builda.isolation.spec import User
from builda.linux import syscalls as sys_

_LIMIT = 16 << 20  # an image that has more than this to say about its users is not a good one
_LARGEST_ID = 0xFFFFFFFE


class Account(NamedTuple):
    """One line of /etc/passwd."""

    name: str
    uid: int
    gid: int
    home: str


class Group(NamedTuple):
    """One line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(root: int, text: str, additional: tuple[str, ...] = ()) -> User:
    """The identity that `user[:group]` means in the tree at `root`; "" is root.

    A name must be in /etc/passwd (/etc/group), a number need not. Without a group the user has its own and those it is
    a member of; with one, only that. `additional` groups come on top. NotFound says what is missing.
    """
    name, colon, group = text.partition(":")
    if colon and not group:
        raise InvalidValue(f"no group after the colon: {text}")
    groups = _groups(root)
    account = _account(root, name or "0")
    more = tuple(_gid(groups, word) for word in additional)
    if colon:
        return User(uid=account.uid, gid=_gid(groups, group), additional_gids=more)
    own = tuple(each.gid for each in groups if account.name and account.name in each.members)
    gids = tuple(gid for gid in dict.fromkeys((*own, *more)) if gid != account.gid)
    return User(uid=account.uid, gid=account.gid, additional_gids=gids)


def home_directory(root: int, uid: int) -> str:
    """Where the user lives by the tree's /etc/passwd; "/" when it does not say, as container engines have it."""
    found = next((account for account in _accounts(root) if account.uid == uid), None)
    return (found.home if found else "") or "/"


def _account(root: int, name: str) -> Account:
    """A number is a number even if an account has it for a name, as in chown(1) with `+`, and as Docker reads it."""
    accounts = _accounts(root)
    if name.isascii() and name.isdigit():
        uid = _id(name)
        return next((account for account in accounts if account.uid == uid), Account("", uid, 0, ""))
    for account in accounts:
        if account.name == name:
            return account
    raise NotFound(f"unknown user, not in the container's /etc/passwd: {name}", hint=_near(name, accounts))


def _gid(groups: tuple[Group, ...], name: str) -> int:
    if name.isascii() and name.isdigit():
        return _id(name)
    for group in groups:
        if group.name == name:
            return group.gid
    raise NotFound(f"unknown group, not in the container's /etc/group: {name}", hint=_near(name, groups))


def _id(text: str) -> int:
    if int(text) > _LARGEST_ID:
        raise InvalidValue(f"not a user or group id: {text}")
    return int(text)


def _near(name: str, known: tuple[Account, ...] | tuple[Group, ...]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(name, [each.name for each in known], 1)
    return f"did you mean {near[0]}?" if near else "a numeric id needs no entry"


def _accounts(root: int) -> tuple[Account, ...]:
    found = []
    for fields in _lines(root, "etc/passwd", 7):
        if fields[2].isdigit() and fields[3].isdigit():
            found.append(Account(fields[0], int(fields[2]), int(fields[3]), fields[5]))
    return tuple(found)


def _groups(root: int) -> tuple[Group, ...]:
    found = []
    for fields in _lines(root, "etc/group", 4):
        if fields[2].isdigit():
            found.append(Group(fields[0], int(fields[2]), tuple(filter(None, fields[3].split(",")))))
    return tuple(found)


def _lines(root: int, path: str, count: int) -> list[list[str]]:
    """The well-formed lines of a colon-separated file; none when there is no such file."""
    try:
        fd = sys_.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise
    with open(fd, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        text = file.read(_LIMIT)
    rows = (line.strip().split(":") for line in text.split("\n") if not line.startswith("#"))
    # A last field that is empty may lack its colon too.
    return [[*row, ""][:count] for row in rows if len(row) >= count - 1]
