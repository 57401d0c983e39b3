"""Users and groups, looked up in the root file system's own /etc/passwd and /etc/group.

A name that the root file system does not know is an error; a number never needs to be known.
"""

from __future__ import annotations

from typing import NamedTuple

from builda.errors import NotFound
from builda.fs import paths

ID_LIMIT = 1 << 32


class Account(NamedTuple):
    """Who a command runs as; `home` is "" when /etc/passwd does not know the user."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


class _User(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def account(root: int, text: str) -> Account:
    """The account that `user[:group]` means in the tree `root`; "" is root.

    Without a group it is the user's own from /etc/passwd (0 for an unknown number), with the further groups that list
    the user as a member. With one, it is that group and no other.
    """
    user_text, colon, group_text = text.partition(":")
    known = _find_user(root, user_text or "0")
    uid = known.uid if known else _number(user_text or "0", "user", text)
    home = known.home if known else ""
    if colon and group_text:
        return Account(uid, group(root, group_text), (), home)
    if known is None:
        return Account(uid, 0, (), home)
    further = {entry.gid for entry in _groups(root) if known.name in entry.members} - {known.gid}
    return Account(uid, known.gid, tuple(sorted(further)), home)


def owner(root: int, text: str) -> tuple[int, int]:
    """The owner that `--chown user[:group]` means: a bare number is both, a bare name brings its own group."""
    user_text, _, group_text = text.partition(":")
    known = _find_user(root, user_text or "0")
    uid = known.uid if known else _number(user_text or "0", "user", text)
    if group_text:
        return uid, group(root, group_text)
    if known is not None and not user_text.isdigit():
        return uid, known.gid
    return uid, uid


def group(root: int, text: str) -> int:
    """The number of a group."""
    for entry in _groups(root):
        if entry.name == text:
            return entry.gid
    return _number(text, "group", text)


def _find_user(root: int, text: str) -> _User | None:
    users = _users(root)
    by_name = next((user for user in users if user.name == text), None)
    if by_name is not None or not text.isdigit():
        return by_name
    return next((user for user in users if user.uid == int(text)), None)


def _number(text: str, kind: str, whole: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < ID_LIMIT:
        return int(text)
    raise NotFound(
        f"no such {kind} in the container: {text}" + (f" (of {whole})" if whole != text else ""),
        hint=f"add it to the container's /etc/{'passwd' if kind == 'user' else 'group'} first, or give a number",
    )


def _users(root: int) -> tuple[_User, ...]:
    found = []
    for fields in _table(root, "/etc/passwd"):
        if len(fields) >= 6 and fields[2].isdigit() and fields[3].isdigit():
            found.append(_User(fields[0], int(fields[2]), int(fields[3]), fields[5]))
    return tuple(found)


def _groups(root: int) -> tuple[_Group, ...]:
    found = []
    for fields in _table(root, "/etc/group"):
        if len(fields) >= 3 and fields[2].isdigit():
            members = fields[3].split(",") if len(fields) > 3 else []
            found.append(_Group(fields[0], int(fields[2]), tuple(name.strip() for name in members)))
    return tuple(found)


def _table(root: int, path: str) -> list[list[str]]:
    """The fields of a colon-separated file; none when the image does not have it."""
    try:
        data = paths.read_file(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [line.split(":") for line in data.decode("utf-8", "replace").splitlines() if line]
