"""Opens the target of a copy: the tree of a working container, or its list."""

from __future__ import annotations

import os
from contextlib import contextmanager

from builda.builder.mounting import opened_alone
from builda.fs.trees.directory import TreeTarget
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from builda.builder.context import Context
    from builda.fs.lists.layertree import Node, Tree
    from builda.fs.trees.target import Inode, Target
    from builda.store.containers import WorkingContainer


class Destination(NamedTuple):
    """A container whose files are written to. `root` is a directory that has its accounts, of a tree all its files.

    `shadows` maps device and inode of a shadow's files to what they stand for; `copysources` adds to it when it makes a
    shadow to copy from (`builder.copy.listsource`). There are shadows for lists only.
    """

    container: WorkingContainer
    root: int
    target: Target[Any]
    shadows: dict[Inode, Node]


@contextmanager
def opened_for_copies(ctx: Context, container: WorkingContainer) -> Iterator[Destination]:
    """The destination in a container, whose tree lock the caller has. A list is saved if the block ends well."""
    if ctx.store.snapshots.is_list(container.snapshot):
        with _opened_list(ctx, container) as found:
            yield found
        return
    with opened_alone(ctx, container) as (root, current):
        yield Destination(current, root, TreeTarget(root), {})


@contextmanager
def _opened_list(ctx: Context, container: WorkingContainer) -> Iterator[Destination]:
    from builda.builder.copy.listsource import on_base
    from builda.builder.copy.temporary import TemporaryDirectory
    from builda.fs.lists.listwriter import ListTarget, Shadowed
    from builda.fs.lists.spool import Spool

    lists, current = ctx.store.snapshots.lists, on_base(ctx, container)
    tree = lists.tree(current.snapshot)
    shadows: dict[Inode, Node] = {}
    shadowed = Shadowed(shadows, lists.content_file, lists.layer)
    with Spool(lists.upper(current.snapshot)) as spool, TemporaryDirectory(ctx.store) as root:
        _write_accounts(ctx, tree, root)
        target = ListTarget(tree, spool, int(ctx.now()), shadowed)
        yield Destination(current, root, target, shadows)
        target.fetch()
    lists.save(current.snapshot, tree)


def _write_accounts(ctx: Context, tree: Tree, root: int) -> None:
    """Put the tree's /etc/passwd and /etc/group into the empty directory `root`."""
    from builda.store.drivers.lists import ACCOUNTS

    os.mkdir("etc", 0o700, dir_fd=root)
    for path in ACCOUNTS:
        node = tree.find(path)
        if node is None or not node.row.file:
            continue
        with open(ctx.store.snapshots.lists.content_file(node.place, node.row.file), "rb") as file:
            file.seek(node.row.at)
            data = file.read(node.row.size)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root), "wb") as out:
            out.write(data)
