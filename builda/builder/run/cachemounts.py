"""Cache mounts: directories of the store that live on between runs, the same one for the same id and owner."""

from __future__ import annotations

import os
import posixpath
from contextlib import ExitStack, suppress

from builda.builder.run.subtree import is_directory, part_of, shown
from builda.errors import InvalidValue, NotFound, Unsupported
from builda.fs import owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.builder.context import Context
    from builda.builder.imageoptions import Travel
    from builda.linux.mount import Mount
    from builda.plan import RunMount


class Caches:
    """The caches of one run; their locks are held until `stack` is left."""

    def __init__(self, ctx: Context, stack: ExitStack, travel: Travel | None = None) -> None:
        self._ctx = ctx
        self._travel = travel
        self._stack = stack
        self._taken: dict[str, str] = {}

    def take(self, mounts: tuple[RunMount, ...]) -> None:
        """Wait for the caches that have one user at a time: those that are `locked`, and, where they are moved to where
        they are used, all but private ones.

        All runs take their locks in the same order, which rules out a deadlock.
        """
        store = self._ctx.store
        found = [mount for mount in mounts if mount.type == "cache" and mount.sharing != "private"]
        locked = {_identity(mount) for mount in found if mount.sharing == "locked"}
        named = {_identity(mount): _named(mount) for mount in found}
        for identity in sorted(locked if store.can_mount else set(map(_identity, found))):
            if self._travel is not None and identity in locked:
                self._stack.enter_context(self._travel.turn(identity))
            place = store.cache_mount(identity, "locked", what=named[identity])
            self._taken[identity] = self._stack.enter_context(place)

    def directory(self, mount: RunMount) -> str:
        """The directory of a cache, locked as its `sharing` says; with what another machine left in it."""
        path, identity = self._directory(mount), _identity(mount)
        if self._travel is not None and mount.sharing != "private":
            self._travel.arrive(identity, path)
        return path

    def _directory(self, mount: RunMount) -> str:
        store, identity = self._ctx.store, _identity(mount)
        if store.can_mount and mount.sharing != "private" and identity in self._taken:
            return self._taken[identity]
        if store.can_mount or mount.sharing == "private":
            return self._stack.enter_context(store.cache_mount(identity, mount.sharing, what=_named(mount)))
        if identity not in self._taken:
            raise Unsupported(
                f"without mounts a cache can be at one path only: {mount.target}",
                hint="sharing=private gives it a directory of its own",
            )
        return self._taken.pop(identity)

    def part(self, path: str, mount: RunMount, owner: tuple[int, int]) -> tuple[str, ...]:
        """The `source` of a cache that starts empty is a part of the cache; the directory is made if it is missing."""
        from builda.fs.trees.directory import TreeTarget
        from builda.fs.trees.target import Looks, make_directories

        source = posixpath.normpath(f"/{mount.source}")
        if source == "/":
            return ()
        if not self._ctx.store.can_mount:
            raise Unsupported(
                f"a part of a cache needs a mode that can mount: {mount.target}", hint="leave out source="
            )
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with suppress(NotFound):
                return part_of(root, source, "the cache")
            make_directories(TreeTarget(root), source, Looks(owner))
            return part_of(root, source, "the cache")
        finally:
            os.close(root)


def fill(path: str, mount: RunMount, owner: tuple[int, int], first: Callable[[], Mount] | None) -> None:
    """Give a cache directory its owner and mode the first time it is used, and what `first` shows."""
    if os.listdir(path):
        return
    if first is not None:
        shows = first()
        if not is_directory(shows):
            raise InvalidValue(f"a cache starts from a directory: {mount.source}")
        _copy_content(shows, path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        owners.fchown(fd, *owner)
        os.fchmod(fd, 0o755 if mount.mode is None else mount.mode)
    finally:
        os.close(fd)


def _named(mount: RunMount) -> str:
    return f"cache mount {mount.id or posixpath.normpath(mount.target)}"


def _identity(mount: RunMount) -> str:
    """The name of a cache: its id, by default the target, and its owner."""
    name = mount.id or posixpath.normpath(mount.target)
    return f"{name}\0{mount.uid or 0}\0{mount.gid or 0}"


def _copy_content(source: Mount, path: str) -> None:
    from builda.fs.sources import Source
    from builda.fs.trees.copytree import copy_tree
    from builda.fs.trees.directory import TreeTarget
    from builda.fs.trees.walk import CopyRequest

    with shown(source) as root:
        target = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            copy_tree(CopyRequest((Source(root, "."),), "/"), TreeTarget(target))
        finally:
            os.close(target)
