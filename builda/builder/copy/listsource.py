"""Copying from a layer that is a list: a shadow of its tree on disk, and a map from its files to rows of the list.

A shadow has the names, links and sizes of a tree, but not its contents and owners, so that the same code as for trees
resolves wildcards, links and rules. The copy finds the row of a file by device and inode. Only what the copy can reach
is made: an image is large, and often one program is copied from it.
"""

from __future__ import annotations

import os

from builda.builder.copy.temporary import TemporaryDirectory
from builda.fs.patterns import has_wildcards
from builda.fs.sources import clean
from builda.fs.tar import SYMBOLIC_LINK
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from contextlib import ExitStack

    from builda.builder.context import Context
    from builda.fs.lists.layertree import Node, Tree
    from builda.store.containers import WorkingContainer

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def shadow(
    ctx: Context,
    snapshot: str | None,
    sources: tuple[str, ...],
    known: MutableMapping[tuple[int, int], Node],
    stack: ExitStack,
) -> int:
    """A descriptor of the root of a shadow that has what `sources`, perhaps patterns, name; it is gone after `stack`.

    `known` gets what its files stand for.
    """
    root = stack.enter_context(TemporaryDirectory(ctx.store))
    if snapshot is not None:
        lists = ctx.store.snapshots.lists
        tree = lists.tree(snapshot)
        stack.callback(lists.give_back, snapshot, tree)
        fill(root, tree.root, looked_at(tree, sources), known)
    return root


def on_base(ctx: Context, container: WorkingContainer) -> WorkingContainer:
    """The container standing on the list of its base image, which is read now if it was not."""
    if container.image_digest is None or container.base is not None:
        return container
    store = ctx.store
    store.lease()
    base = store.snapshots.lists.stand_on(container.snapshot, store.image(str(container.image_digest)), ctx.emit)
    if base is None:
        return container
    with store.containers.locked(container) as current:
        return store.update(replace(current, base=base))


class Part(NamedTuple):
    """The part of a tree that a copy can reach, by id() of its nodes: nodes on the way, and whole directories."""

    passed: frozenset[int]
    whole: frozenset[int]


def looked_at(tree: Tree, sources: tuple[str, ...]) -> Part:
    """The part that `sources` name: all for patterns, as a link that fits one may lead anywhere.

    All too when something is missing: errors name what may have been meant.
    """
    passed: list[Node] = []
    whole = [tree.find(os.fsencode(clean(source)), passed=passed) for source in sources]
    if None in whole or any(has_wildcards(source) for source in sources):
        return Part(frozenset(), frozenset((id(tree.root),)))
    return Part(frozenset(map(id, passed)), frozenset(map(id, whole)))


def fill(root: int, top: Node, part: Part, known: MutableMapping[tuple[int, int], Node]) -> None:
    """Make a part of a tree in the empty directory `root`; `known` gets what its files stand for."""
    first: dict[int, bytes] = {}
    pending = [(b"", top, id(top) in part.whole)]  # ours: trees may be deeper than Python recurses
    while pending:
        prefix, directory, whole = pending.pop()
        fd = os.open(prefix or b".", _DIRECTORY, dir_fd=root)
        try:
            _note(known, os.fstat(fd), directory)
            for name, node in directory.children.items():
                if not (whole or id(node) in part.passed):
                    continue
                if node.is_directory:
                    os.mkdir(name, 0o700, dir_fd=fd)
                    pending.append((prefix + name + b"/", node, whole or id(node) in part.whole))
                elif (before := first.setdefault(id(node), prefix + name)) != prefix + name:
                    os.link(before, name, src_dir_fd=root, dst_dir_fd=fd, follow_symlinks=False)
                else:
                    _make(fd, name, node, known)
        finally:
            os.close(fd)


def _make(parent: int, name: bytes, node: Node, known: MutableMapping[tuple[int, int], Node]) -> None:
    if node.row.kind == SYMBOLIC_LINK:
        os.symlink(node.row.link, name, dir_fd=parent)
        _note(known, os.stat(name, dir_fd=parent, follow_symlinks=False), node)
        return
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
    try:
        os.ftruncate(fd, node.row.size)
        _note(known, os.fstat(fd), node)
    finally:
        os.close(fd)


def _note(known: MutableMapping[tuple[int, int], Node], info: os.stat_result, node: Node) -> None:
    known[info.st_dev, info.st_ino] = node
