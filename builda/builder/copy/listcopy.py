"""`copy`, `add` and WORKDIR's directory in containers without trees: rows of a list (`store.drivers.lists`)."""

from __future__ import annotations

import os
import posixpath
from contextlib import ExitStack, contextmanager

from builda.builder.copy.copyrequest import (
    Hashing,
    joined,
    request_of,
    target_of,
    told,
    warn_of_modes,
    warn_of_nothing,
    without_archives,
)
from builda.builder.copy.copysources import gather
from builda.builder.copy.listsource import on_base
from builda.builder.copy.ownernames import directory_owner
from builda.builder.copy.temporary import TemporaryDirectory
from builda.builder.records import remembered
from builda.errors import InvalidValue
from builda.events import Warned
from builda.fs import paths
from builda.fs.lists.layertree import directory_row
from builda.fs.lists.listwriter import Changer, Known, Spool, Unpacking, compose_tree
from builda.oci.digest import Digest
from builda.store.drivers.lists import ACCOUNTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.context import Context
    from builda.builder.options import Inputs
    from builda.events import Emit
    from builda.fs.lists.layertree import Tree
    from builda.fs.sources import Top
    from builda.fs.trees.copytree import CopyRequest
    from builda.plan import Copy, MakeDirectory
    from builda.store.store import WorkingContainer


def copy(
    ctx: Context, container: WorkingContainer, step: Copy, inputs: Inputs
) -> tuple[WorkingContainer, Digest | None]:
    """As `copying.copy`, which calls this and has the tree's lock."""
    with ExitStack() as stack:
        tree, spool, current = stack.enter_context(_changed(ctx, container))
        snapshots = ctx.store.lists
        root = stack.enter_context(_accounts(ctx, tree))
        gathered = gather(ctx, current, root, step, inputs, stack)
        plain = request_of(step, gathered, root, target_of(current, step))
        request, archives = without_archives(plain, step, gathered) if step.extract else (plain, ())
        digests = []
        now = int(ctx.now())
        if request.sources:
            known = Known(gathered.known, snapshots.content_file, snapshots.layer)
            found = None if known else inputs.remembered
            with told(ctx, step, request) as moved:
                result = compose_tree(request, tree, spool, now, known, remembered=found, moved=moved)
            for path in result.skipped:
                ctx.emit(Warned(message=f"socket is not copied: {path}"))
            digests.append(result.digest)
        digests += [_unpack(top, request, step, tree, spool, now, ctx.emit) for top in archives]
        digest = joined(digests)
        if digest is None and step.as_containerfile:
            warn_of_nothing(ctx.emit, plain)
    return remembered(ctx, current, step.created_by), digest


def make_directory(ctx: Context, container: WorkingContainer, step: MakeDirectory) -> WorkingContainer:
    """As `copying.make_directory`, which calls this and has the tree's lock."""
    with _changed(ctx, container) as (tree, _, current):
        with _accounts(ctx, tree) as root:
            uid, gid = directory_owner(root, step.user or "")
        path = posixpath.join("/", current.config.working_dir, step.path)
        now = int(ctx.now())
        row = directory_row(uid=uid, gid=gid, mtime=now)
        try:
            Changer(tree, now).make_directories(os.fsencode(path), row)
        except NotADirectoryError as error:
            raise InvalidValue(f"not a directory in the container: {path}") from error
    return remembered(ctx, current, step.created_by)


@contextmanager
def _changed(ctx: Context, container: WorkingContainer) -> Iterator[tuple[Tree, Spool, WorkingContainer]]:
    """The container's tree, which is saved when the block ends well."""
    snapshots, current = ctx.store.lists, on_base(ctx, container)
    tree = snapshots.tree(current.snapshot)
    with Spool(snapshots.upper(current.snapshot)) as spool:
        yield tree, spool, current
    snapshots.save(current.snapshot, tree)


@contextmanager
def _accounts(ctx: Context, tree: Tree) -> Iterator[int]:
    """A root directory that holds the tree's /etc/passwd and /etc/group, and nothing else."""
    with TemporaryDirectory(ctx.store) as root:
        os.mkdir("etc", 0o700, dir_fd=root)
        for path in ACCOUNTS:
            node = tree.find(path)
            if node is None or not node.row.file:
                continue
            where = ctx.store.lists.path(node.place or "", "fs", node.row.file)
            with open(where, "rb") as file:
                file.seek(node.row.at)
                data = file.read(node.row.size)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root), "wb") as out:
                out.write(data)
        yield root


def _unpack(top: Top, request: CopyRequest, step: Copy, tree: Tree, spool: Spool, now: int, emit: Emit) -> Digest:
    from builda.builder.byteprogress import moving
    from builda.fs.compress import decompressing, sniff

    warn_of_modes(emit, step, top)
    owners = request.owner if step.chown is not None else None
    uid, gid = owners or (0, 0)
    fd = paths.open_regular(top.source.root, top.path)
    with open(fd, "rb", buffering=0) as file:
        compression = sniff(file.read(8))
        file.seek(0)
        destination = os.fsencode(request.destination)
        unpacking = Unpacking(tree, spool, now, destination, owners, step.timestamp, keep_top=step.as_containerfile)
        try:
            unpacking.make_directories(destination, directory_row(uid=uid, gid=gid, mtime=now))
        except NotADirectoryError as error:
            raise InvalidValue(f"destination of an archive is not a directory: {request.destination}") from error
        size = os.fstat(fd).st_size
        with moving(emit, "extract", top.name, lambda: size) as moved:
            reader = Hashing(file, moved)
            unpacking.run(decompressing(reader, compression))
            return reader.digest()
