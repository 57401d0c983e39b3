"""`copy`, `add` and WORKDIR's directory where there are no trees: layers composed of rows (`store.composed`)."""

from __future__ import annotations

import hashlib
import os
import posixpath
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from builda.builder.mounting import occupied
from builda.builder.records import remembered
from builda.builder.sources import downloads, gather
from builda.errors import ContainerfileError, InvalidValue, Unsupported
from builda.events import Warned
from builda.fs import paths
from builda.fs.compose import Changer, Known, Spool, Unpacking, compose_tree
from builda.fs.index import directory_row
from builda.isolation.users import resolve_user
from builda.oci.digest import Digest
from builda.plan import Run
from builda.store.composed import ACCOUNTS, ComposedSnapshots, no_trees

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.builder import Builder
    from builda.builder.options import Inputs
    from builda.fs.index import Tree
    from builda.fs.sources import Top
    from builda.fs.tree import CopyRequest
    from builda.plan import Copy, MakeDirectory, Plan
    from builda.store.store import WorkingContainer


def check_no_runs(builder: Builder, plan: Plan) -> None:
    """ContainerfileError for the first command that a build would run, where the store can run none."""
    if not isinstance(builder.store.snapshots, ComposedSnapshots):
        return
    for index in plan.needed():
        for step in plan.stages[index].steps:
            if isinstance(step, Run):
                at = step.at or plan.stages[index].at
                lacking = builder.store.no_run or no_trees()
                raise ContainerfileError(
                    f"no command can be run here: {lacking}",
                    file="" if at is None else at.file,
                    line=0 if at is None else at.line,
                    hint=lacking.hint,
                )


def copy(
    builder: Builder, container: WorkingContainer, step: Copy, inputs: Inputs
) -> tuple[WorkingContainer, Digest | None]:
    """As `copying.copy`, which calls this."""
    from builda.builder.copying import joined, request_of, target_of, without_archives

    with ExitStack() as stack:
        tree, spool, current = stack.enter_context(_changed(builder, container))
        root = stack.enter_context(_accounts(builder, tree))
        gathered = gather(builder, current, root, step, inputs, stack)
        plain = request_of(step, gathered, root, target_of(current, step))
        request, archives = without_archives(plain, step, gathered) if step.extract else (plain, ())
        digests = []
        now = int(builder.now())
        if request.sources:
            snapshots = _snapshots(builder)
            known = Known(gathered.known, snapshots.content_file, snapshots.layer)
            result = compose_tree(request, tree, spool, now, known, remembered=None if known else inputs.remembered)
            for path in result.skipped:
                builder.emit(Warned(message=f"socket is not copied: {path}"))
            digests.append(result.digest)
        digests += [_unpack(top, request, step, tree, spool, now) for top in archives]
        digest = joined(digests)
    return remembered(builder, current, step.created_by), digest


def make_directory(builder: Builder, container: WorkingContainer, step: MakeDirectory) -> WorkingContainer:
    """As `copying.make_directory`, which calls this."""
    with _changed(builder, container) as (tree, _, current):
        with _accounts(builder, tree) as root:
            user = resolve_user(root, step.user or "")
        path = posixpath.join("/", current.config.working_dir, step.path)
        now = int(builder.now())
        row = directory_row(uid=user.uid, gid=user.gid, mtime=now)
        try:
            Changer(tree, now).make_directories(os.fsencode(path), row)
        except NotADirectoryError as error:
            raise InvalidValue(f"not a directory in the container: {path}") from error
    return remembered(builder, current, step.created_by)


@contextmanager
def _changed(builder: Builder, container: WorkingContainer) -> Iterator[tuple[Tree, Spool, WorkingContainer]]:
    """The container's tree, which is saved when the block ends well."""
    snapshots = _snapshots(builder)
    with occupied(builder, container) as current:
        tree = snapshots.tree(current.snapshot)
        with Spool(snapshots.upper(current.snapshot)) as spool:
            yield tree, spool, current
        snapshots.save(current.snapshot, tree)


def _snapshots(builder: Builder) -> ComposedSnapshots:
    snapshots = builder.store.snapshots
    assert isinstance(snapshots, ComposedSnapshots)
    return snapshots


@contextmanager
def _accounts(builder: Builder, tree: Tree) -> Iterator[int]:
    """A root directory that holds the tree's /etc/passwd and /etc/group, and nothing else."""
    with downloads(builder) as root:
        os.mkdir("etc", 0o700, dir_fd=root)
        for path in ACCOUNTS:
            node = tree.find(path)
            if node is None or not node.row.file:
                continue
            where = builder.store.snapshots.path(node.place or "", "fs", node.row.file)
            with open(where, "rb") as file:
                file.seek(node.row.at)
                data = file.read(node.row.size)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root), "wb") as out:
                out.write(data)
        yield root


def _unpack(top: Top, request: CopyRequest, step: Copy, tree: Tree, spool: Spool, now: int) -> Digest:
    from builda.fs.compress import decompressing, sniff

    if step.chmod is not None:
        raise Unsupported(
            f"chmod does not reach into an archive: {top.name}", hint="set modes in the archive, or unpack it before"
        )
    owners = request.owner if step.chown is not None else None
    uid, gid = owners or (0, 0)
    fd = paths.open_in_root(top.source.root, top.path, os.O_RDONLY | os.O_NONBLOCK)
    with open(fd, "rb", buffering=0) as file:
        compression = sniff(file.read(8))
        file.seek(0)
        destination = os.fsencode(request.destination)
        unpacking = Unpacking(tree, spool, now, destination, owners, step.timestamp)
        try:
            unpacking.make_directories(destination, directory_row(uid=uid, gid=gid, mtime=now))
        except NotADirectoryError as error:
            raise InvalidValue(f"archives are unpacked into directories: {request.destination}") from error
        unpacking.run(decompressing(file, compression))
        file.seek(0)
        return Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
