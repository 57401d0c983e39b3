"""Mounts that a command may write to without changing what they show: its writes are thrown away after the run."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

from builda.builder.run.clone_tree import duplicate
from builda.builder.run.mountowners import chown_shown, chown_tree, has_other_owners
from builda.builder.run.subtree import is_directory, shown, writable
from builda.errors import Unsupported
from builda.fs import paths
from builda.linux.detached import split_part
from builda.linux.mount import Mount
from builda.linux.userns import in_user_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context


class Throwaway:
    """Makes such mounts for one run. The files are in the store, as /run may be small, until `stack` is left."""

    def __init__(self, ctx: Context, stack: ExitStack) -> None:
        self._ctx = ctx
        self._stack = stack

    def over(self, mount: Mount) -> Mount:
        """The mount made writable."""
        store = self._ctx.store
        source = (mount.lower or (mount.source,))[0]
        if not store.can_mount:  # what is read-only is put into the tree as a copy
            return mount if mount.lower else mount._replace(type="bind", options=("ro", *part_option(mount)))
        place = self.directory()
        if is_directory(mount) and store.snapshots.new.driver.stacks:
            stacked = store.snapshots.new.stacked(mount.lower or (source,), place)
            _start_upper(stacked, source)
            return writable(mount, stacked)
        return Mount("bind", self._copied(mount, place), mount.target, ("rw", *_limits(mount.options)))

    def owned(self, made: Mount, owner: tuple[int, int], *, read_only: bool) -> Mount:
        """A mount that `over` made, with all its files given to `owner`."""
        if not self._ctx.store.can_mount:
            raise Unsupported(f"mount option U needs a mode that can mount: {made.target}")
        if made.type == "bind":
            chown_tree(made.source, *owner)
        else:
            chown_shown(made, *owner)
        return read_only_mount(made) if read_only else made

    def of_root(self, found: Mount) -> Mount | None:
        """The mount of a context with all files owned by root, as BuildKit has it.

        None if they are root's already, or if only a copy could be.
        """
        store = self._ctx.store
        if not store.can_mount or in_user_namespace() or not has_other_owners(found):
            return None
        if not is_directory(found):
            return self.owned(self.over(found), (0, 0), read_only=False)
        if not store.snapshots.new.driver.stacks:
            return None
        made = self.over(found)
        if "userxattr" in made.options:
            return None
        words = {"metacopy=off": "metacopy=on", "redirect_dir=off": "redirect_dir=on"}  # owners change, data stays
        try:
            return self.owned(
                made._replace(options=tuple(words.get(word, word) for word in made.options)), (0, 0), read_only=False
            )
        except OSError:  # a file system that cannot be below such an overlay
            return None

    def directory(self) -> str:
        """A new private directory on the store's file system, gone after the run."""
        from builda.store.layout import temporary

        store = self._ctx.store
        store.lease()
        path = temporary(store.layout)
        os.mkdir(path, 0o700)
        self._stack.callback(paths.discard, path)
        return path

    def _copied(self, mount: Mount, place: str) -> str:
        """Copy what a mount shows into the directory `place`; the path of the copy."""
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with shown(mount) as source:
                duplicate(f"/proc/self/fd/{source}", directory, "copy")
        finally:
            os.close(directory)
        return f"{place}/copy"


def read_only_mount(mount: Mount) -> Mount:
    """The same mount, not to be written to."""
    return mount._replace(options=("ro", *(word for word in mount.options if word != "rw")))


def part_option(mount: Mount) -> tuple[str, ...]:
    """The option for the part of its source that a mount shows; () if it shows all."""
    part, _ = split_part(mount.options)
    return () if part is None else (part,)


def _start_upper(stacked: Mount, source: str) -> None:
    """Give the upper directory of an overlay the owner, mode and times of the one below, whose place it takes."""
    from builda.fs.trees.directory import look_like

    (upper,) = (word.partition("=")[2] for word in stacked.options if word.startswith("upperdir="))
    with ExitStack() as stack:
        fds = []
        for path in (upper, source):
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        with suppress(Unsupported):  # an owner that this user namespace does not have
            look_like(*fds)


def _limits(options: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in options if word in ("nosuid", "nodev", "noexec"))
