"""Owners, looked up in the root file system's own /etc/passwd and /etc/group."""

from __future__ import annotations

from builda.isolation.users import resolve_user


def owner(root: int, text: str) -> tuple[int, int]:
    """The owner that `--chown user[:group]` means in `root`: a bare number is both, a bare name brings its group.

    NotFound when the tree does not know a name; a number never needs to be known.
    """
    name, colon, _ = text.partition(":")
    user = resolve_user(root, text if colon or name else "0")
    if not colon and name.isascii() and name.isdigit():
        return user.uid, user.uid
    return user.uid, user.gid
