"""`copy`, `add` and WORKDIR's directory in containers without trees: layers composed of rows (`store.composed`)."""

from __future__ import annotations

import os
import posixpath
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from builda.builder.records import remembered
from builda.builder.sources import downloads, gather
from builda.builder.users import directory_owner
from builda.errors import InvalidValue
from builda.events import Warned
from builda.fs import paths
from builda.fs.compose import Changer, Known, Spool, Unpacking, compose_tree
from builda.fs.index import directory_row
from builda.oci.digest import Digest
from builda.store.drivers.lists import ACCOUNTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.builder import Builder
    from builda.builder.options import Inputs
    from builda.events import Emit
    from builda.fs.index import Tree
    from builda.fs.sources import Top
    from builda.fs.tree import CopyRequest
    from builda.plan import Copy, MakeDirectory
    from builda.store.store import WorkingContainer


def copy(
    builder: Builder, container: WorkingContainer, step: Copy, inputs: Inputs
) -> tuple[WorkingContainer, Digest | None]:
    """As `copying.copy`, which calls this and has the tree's lock."""
    from builda.builder.copying import joined, request_of, target_of, told, warn_of_nothing, without_archives

    with ExitStack() as stack:
        tree, spool, current = stack.enter_context(_changed(builder, container))
        snapshots = builder.store.lists
        root = stack.enter_context(_accounts(builder, tree))
        gathered = gather(builder, current, root, step, inputs, stack)
        plain = request_of(step, gathered, root, target_of(current, step))
        request, archives = without_archives(plain, step, gathered) if step.extract else (plain, ())
        digests = []
        now = int(builder.now())
        if request.sources:
            known = Known(gathered.known, snapshots.content_file, snapshots.layer)
            found = None if known else inputs.remembered
            with told(builder, step, request) as moved:
                result = compose_tree(request, tree, spool, now, known, remembered=found, moved=moved)
            for path in result.skipped:
                builder.emit(Warned(message=f"socket is not copied: {path}"))
            digests.append(result.digest)
        digests += [_unpack(top, request, step, tree, spool, now, builder.emit) for top in archives]
        digest = joined(digests)
        if digest is None and step.as_containerfile:
            warn_of_nothing(builder.emit, plain)
    return remembered(builder, current, step.created_by), digest


def make_directory(builder: Builder, container: WorkingContainer, step: MakeDirectory) -> WorkingContainer:
    """As `copying.make_directory`, which calls this and has the tree's lock."""
    with _changed(builder, container) as (tree, _, current):
        with _accounts(builder, tree) as root:
            uid, gid = directory_owner(root, step.user or "")
        path = posixpath.join("/", current.config.working_dir, step.path)
        now = int(builder.now())
        row = directory_row(uid=uid, gid=gid, mtime=now)
        try:
            Changer(tree, now).make_directories(os.fsencode(path), row)
        except NotADirectoryError as error:
            raise InvalidValue(f"not a directory in the container: {path}") from error
    return remembered(builder, current, step.created_by)


@contextmanager
def _changed(builder: Builder, container: WorkingContainer) -> Iterator[tuple[Tree, Spool, WorkingContainer]]:
    """The container's tree, which is saved when the block ends well."""
    snapshots, current = builder.store.lists, on_base(builder, container)
    tree = snapshots.tree(current.snapshot)
    with Spool(snapshots.upper(current.snapshot)) as spool:
        yield tree, spool, current
    snapshots.save(current.snapshot, tree)


def on_base(builder: Builder, container: WorkingContainer) -> WorkingContainer:
    """The container standing on the list of its base image, which is read now if it was not."""
    if container.image_digest is None or container.base is not None:
        return container
    store = builder.store
    store.lease()
    base = store.lists.stand_on(container.snapshot, store.image(str(container.image_digest)), builder.emit)
    if base is None:
        return container
    with store.locked(container) as current:
        return store.update(replace(current, base=base))


@contextmanager
def _accounts(builder: Builder, tree: Tree) -> Iterator[int]:
    """A root directory that holds the tree's /etc/passwd and /etc/group, and nothing else."""
    with downloads(builder) as root:
        os.mkdir("etc", 0o700, dir_fd=root)
        for path in ACCOUNTS:
            node = tree.find(path)
            if node is None or not node.row.file:
                continue
            where = builder.store.lists.path(node.place or "", "fs", node.row.file)
            with open(where, "rb") as file:
                file.seek(node.row.at)
                data = file.read(node.row.size)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root), "wb") as out:
                out.write(data)
        yield root


def _unpack(top: Top, request: CopyRequest, step: Copy, tree: Tree, spool: Spool, now: int, emit: Emit) -> Digest:
    from builda.builder.copying import Hashing, warn_of_modes
    from builda.builder.moving import moving
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
            raise InvalidValue(f"archives are unpacked into directories: {request.destination}") from error
        size = os.fstat(fd).st_size
        with moving(emit, "extract", top.name, lambda: size) as moved:
            reader = Hashing(file, moved)
            unpacking.run(decompressing(reader, compression))
            return reader.digest()
