"""Owners, looked up in the root file system's own /etc/passwd and /etc/group."""

from __future__ import annotations

from builda.errors import NotFound
from builda.isolation.accounts import resolve_user


def owner(root: int, text: str) -> tuple[int, int]:
    """The owner that `--chown user[:group]` means in `root`: a bare number is both, a bare name brings its group.

    NotFound when the tree does not know a name; a number, and root, never need to be known.
    """
    name, colon, group = text.partition(":")
    try:
        user = resolve_user(root, text if colon or name else "0")
    except NotFound:
        if "root" not in (name, group):
            raise
        user = resolve_user(root, ":".join("0" if part == "root" else part for part in text.split(":")))
    if not colon and name.isascii() and name.isdigit():
        return user.uid, user.uid
    return user.uid, user.gid


def directory_owner(root: int, text: str) -> tuple[int, int]:
    """The owner of a directory that WORKDIR makes under USER `text`: names that the tree does not know are root's.

    BuildKit does the same: a later step may make the user, or no command may need it.
    """
    name, colon, group = text.partition(":")
    try:
        user = resolve_user(root, name)
    except NotFound:
        user = resolve_user(root, "0:0")
    if not colon:
        return user.uid, user.gid
    try:
        return user.uid, resolve_user(root, f"0:{group}").gid
    except NotFound:
        return user.uid, 0
