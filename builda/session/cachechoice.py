"""The cache options of a session for its commands: a file in the session's directory in the run root."""

from __future__ import annotations

import json
import os

from builda.values import NamedTuple

_FILE = "cache.json"


class SessionCache(NamedTuple):
    """The cache options of the working containers of a session."""

    sources: tuple[str, ...] = ()  # as --cache-from names them
    targets: tuple[str, ...] = ()  # as --cache-to names them
    tls_verify: bool | None = None
    authfile: str | None = None
    explains: bool = False
    logs: tuple[tuple[int, int], ...] = ()  # device and inode of the session's own standard output and error


def own_streams() -> tuple[tuple[int, int], ...]:
    """Device and inode of this process's standard output and error, as far as they are open."""
    found = []
    for number in (1, 2):
        try:
            info = os.fstat(number)
        except OSError:
            continue
        found.append((info.st_dev, info.st_ino))
    return tuple(found)


def tell(place: str, cache: SessionCache) -> None:
    """Have the commands of the session whose directory is `place` use the cache."""
    with open(os.path.join(place, _FILE), "x", encoding="utf-8") as file:
        json.dump(cache._asdict(), file)


def told(place: str) -> SessionCache | None:
    """Read the cache options of a session; None if its steps are not looked up."""
    try:
        with open(os.path.join(place, _FILE), encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return None
    lists = {name: tuple(value[name]) for name in ("sources", "targets")}
    logs = tuple((device, inode) for device, inode in value["logs"])
    return SessionCache(**{**value, **lists, "logs": logs})
