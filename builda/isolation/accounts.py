"""Users and groups of an image: `user[:group]` to numbers, by /etc/passwd and /etc/group in its root file system."""

from __future__ import annotations

import errno
import os

from builda.errors import InvalidValue, NotFound
from builda.isolation.spec import User
from builda.linux import syscalls as sys_
from builda.linux.regular import open_regular
from builda.values import NamedTuple

_LIMIT = 16 << 20  # bytes read of each file: the image may be hostile
LARGEST_ID = 0xFFFFFFFE
"""The id above, 4294967295, means "do not change" to setresuid(2): a command that asked for it would stay root."""


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
    """The number of a user or group id; InvalidValue if it is larger than any id."""
    number = _number(text)
    if number > LARGEST_ID:
        raise InvalidValue(f"not a user or group id: {text[:40]}", hint=f"ids are numbers from 0 to {LARGEST_ID}")
    return number


def _number(text: str) -> int:
    """The number; LARGEST_ID + 1 for more digits than any id has (int() refuses very long texts)."""
    return int(text) if len(text) <= 20 else LARGEST_ID + 1


def resolve_user(root: int, text: str, additional: tuple[str, ...] = ()) -> User:
    """The identity that `user[:group]` means in the tree at `root`; "" is root.

    A name must be in /etc/passwd (/etc/group), a number need not be. Without a group the user gets the group of its
    entry and all groups that list it as a member; with one, only that. `additional` groups are added in both cases.
    The primary group is among the supplementary ones too: else a command could drop it by a setgid file, and reach
    files whose mode denies that group (CVE-2022-2990). NotFound for an unknown name, InvalidValue for an impossible id.
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
    """The home directory by the tree's /etc/passwd; "/" if it has no entry, as in other container engines."""
    found = next((account for account in _accounts(root) if account.uid == uid), None)
    return (found.home if found else "") or "/"


def _account(root: int, name: str) -> Account:
    """The entry for a name or number. Digits are always a number, even if an account has them as its name, as in
    Docker."""
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
    """The fields of the well-formed lines of a colon-separated file; empty if there is no such file."""
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
    # The last field may be missing together with its colon.
    return [[*row, ""][:count] for row in rows if len(row) >= count - 1]
