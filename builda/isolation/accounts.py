"""Users and groups as the image knows them: `user[:group]` to numbers, by its own /etc/passwd and /etc/group."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from builda.errors import InvalidValue, NotFound
from builda.isolation.spec import User
from builda.linux import syscalls as sys_
from builda.linux.regular import open_regular

_LIMIT = 16 << 20  # an image that has more than this to say about its users is not a good one
LARGEST_ID = 0xFFFFFFFE
"""The kernel's id 4294967295 means "leave it as it is": who became it would stay root."""


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


def is_number(text: str) -> bool:
    """Whether `text` is an id, not a name."""
    return text.isascii() and text.isdigit()


def parse_id(text: str) -> int:
    """The user or group id that a number is; InvalidValue for one that no user or group can have."""
    number = _number(text)
    if number > LARGEST_ID:
        raise InvalidValue(f"not a user or group id: {text[:40]}", hint=f"ids are numbers from 0 to {LARGEST_ID}")
    return number


def _number(text: str) -> int:
    """A number of any length; more digits than an id has make one that is too large."""
    return int(text) if len(text) <= 20 else LARGEST_ID + 1


def resolve_user(root: int, text: str, additional: tuple[str, ...] = ()) -> User:
    """The identity that `user[:group]` means in the tree at `root`; "" is root.

    A name must be in /etc/passwd (/etc/group), a number need not. Without a group the user has its own and those it is
    a member of; with one, only that. `additional` groups come on top. The first group is among the supplementary ones
    too: a command that could leave its group through a setgid file would reach what is closed to that group
    (CVE-2022-2990). NotFound says what is missing, InvalidValue which id is none.
    """
    name, colon, group = text.partition(":")
    if colon and not group:
        raise InvalidValue(f"no group after the colon: {text}")
    groups = _groups(root)
    account = _account(root, name or "0")
    more = tuple(_gid(groups, word) for word in additional)
    gid = _gid(groups, group) if colon else account.gid
    memberships = () if colon or not account.name else (each for each in groups if account.name in each.members)
    own = tuple(map(_checked_gid, memberships))
    return User(uid=account.uid, gid=gid, additional_gids=tuple(dict.fromkeys((gid, *own, *more))))


def home_directory(root: int, uid: int) -> str:
    """Where the user lives by the tree's /etc/passwd; "/" when it does not say, as container engines have it."""
    found = next((account for account in _accounts(root) if account.uid == uid), None)
    return (found.home if found else "") or "/"


def _account(root: int, name: str) -> Account:
    """A number is a number even if an account has it for a name, as in chown(1) with `+`, and as Docker reads it."""
    accounts = _accounts(root)
    if is_number(name):
        uid = parse_id(name)
        known = next((account for account in accounts if account.uid == uid), None)
        return _checked_account(known) if known is not None else Account("", uid, 0, "")
    for account in accounts:
        if account.name == name:
            return _checked_account(account)
    raise NotFound(f"unknown user, not in the container's /etc/passwd: {name}", hint=_near(name, accounts))


def _gid(groups: tuple[Group, ...], name: str) -> int:
    if is_number(name):
        return parse_id(name)
    for group in groups:
        if group.name == name:
            return _checked_gid(group)
    raise NotFound(f"unknown group, not in the container's /etc/group: {name}", hint=_near(name, groups))


def _checked_account(account: Account) -> Account:
    for number in (account.uid, account.gid):
        _check_range(number, f"of {account.name} in the container's /etc/passwd")
    return account


def _checked_gid(group: Group) -> int:
    _check_range(group.gid, f"of {group.name} in the container's /etc/group")
    return group.gid


def _check_range(number: int, what: str) -> None:
    if number > LARGEST_ID:
        raise InvalidValue(f"id {what} is larger than {LARGEST_ID}")


def _near(name: str, known: tuple[Account, ...] | tuple[Group, ...]) -> str | None:
    from difflib import get_close_matches

    near = get_close_matches(name, [each.name for each in known], 1)
    return f"did you mean {near[0]}?" if near else "a numeric id needs no entry"


def _accounts(root: int) -> tuple[Account, ...]:
    found = []
    for fields in _lines(root, "etc/passwd", 7):
        if is_number(fields[2]) and is_number(fields[3]):
            found.append(Account(fields[0], _number(fields[2]), _number(fields[3]), fields[5]))
    return tuple(found)


def _groups(root: int) -> tuple[Group, ...]:
    found = []
    for fields in _lines(root, "etc/group", 4):
        if is_number(fields[2]):
            found.append(Group(fields[0], _number(fields[2]), tuple(filter(None, fields[3].split(",")))))
    return tuple(found)


def _lines(root: int, path: str, count: int) -> list[list[str]]:
    """The well-formed lines of a colon-separated file; none when there is no such file."""
    try:
        fd = open_regular(sys_.openat2(root, path, os.O_PATH), path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        if error.errno == errno.EINVAL:
            raise InvalidValue(f"not a regular file in the container: /{path}") from error
        raise
    with open(fd, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        text = file.read(_LIMIT)
    rows = (line.strip().split(":") for line in text.split("\n") if not line.startswith("#"))
    # A last field that is empty may lack its colon too.
    return [[*row, ""][:count] for row in rows if len(row) >= count - 1]
