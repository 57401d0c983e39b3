"""`copy`, `add` and the directory that WORKDIR makes: files into a working container, by descriptor, never by path."""

from __future__ import annotations

import errno
import os
import posixpath
from contextlib import ExitStack, contextmanager

from builda.builder.byteprogress import moving
from builda.builder.copy.copyrequest import (
    joined,
    request_of,
    target_of,
    told,
    warn_of_modes,
    warn_of_nothing,
    without_archives,
)
from builda.builder.copy.copysources import gather
from builda.builder.copy.destination import opened_for_copies
from builda.builder.copy.filesused import noted
from builda.builder.copy.ownernames import directory_owner
from builda.builder.materialize import with_tree
from builda.builder.records import remembered
from builda.builder.working_tree import occupied
from builda.errors import InvalidValue, TreeNeeded
from builda.events import SourceUsed, Warned
from builda.fs import paths
from builda.fs.trees.copytree import copy_tree
from builda.fs.trees.target import Looks, make_directories
from builda.oci.digest import Digest, HashingReader
from builda.store import layout
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from builda.builder.context import Context
    from builda.builder.copy.destination import Destination
    from builda.builder.imageoptions import Inputs
    from builda.events import Emit, Event
    from builda.fs.sources import Top
    from builda.fs.trees.walk import CopyRequest
    from builda.plan import Copy, MakeDirectory
    from builda.store.containers import WorkingContainer


def copy(
    ctx: Context, container: WorkingContainer, step: Copy, inputs: Inputs, *, may_make_tree: bool = True
) -> tuple[WorkingContainer, Digest | None]:
    """Copy what the step names; the digest of the content, None if nothing was copied.

    A container whose layers are lists gets a tree if the copy needs one; without `may_make_tree`, TreeNeeded is raised
    and nothing was copied.
    """
    try:
        return _copy(ctx, container, step, inputs)
    except TreeNeeded:
        if not may_make_tree or not ctx.store.snapshots.driver.has_trees:
            raise
    return _copy(ctx, with_tree(ctx, container), step, inputs)


def _copy(
    ctx: Context, container: WorkingContainer, step: Copy, inputs: Inputs
) -> tuple[WorkingContainer, Digest | None]:
    used: list[tuple[str, str, str]] = []

    def noting(event: Event) -> None:
        if isinstance(event, SourceUsed):
            from builda.attestations.provenance import image_uri
            from builda.display import without_passwords

            uri = image_uri(event.name, event.platform or "") if event.kind == "image" else event.name
            used.append((without_passwords(uri), event.algorithm, event.digest))
        ctx.emit(event)

    with _named(ctx, step), occupied(ctx, container) as current:
        with opened_for_copies(ctx, current) as place:
            digest = _written(replace(ctx, emit=noting), place, step, inputs)
            used += noted(step, digest, has_context=inputs.context is not None)
        return remembered(ctx, place.container, step.created_by, used=tuple(used)), digest


def _written(ctx: Context, place: Destination, step: Copy, inputs: Inputs) -> Digest | None:
    with ExitStack() as stack:
        gathered = gather(ctx, place, step, inputs, stack)
        target = target_of(place.container, step)
        plain = request_of(step, gathered, place.root, target, ctx.store.layout.inodes())
        request, archives = without_archives(plain, step, gathered) if step.extract else (plain, ())
        digests = [_copied(ctx, step, request, place, inputs)] if request.sources else []
        digests += [_unpack(top, request, place, step, ctx.emit) for top in archives]
        digest = joined(digests)
        if digest is None and step.as_containerfile:
            warn_of_nothing(ctx.emit, plain)
        return digest


def _copied(ctx: Context, step: Copy, request: CopyRequest, place: Destination, inputs: Inputs) -> Digest:
    known = None if place.shadows else inputs.remembered  # the files of a shadow hold nothing
    with told(ctx, step, request) as moved:
        result = copy_tree(request, place.target, remembered=known, moved=moved)
    for path in result.skipped:
        ctx.emit(Warned(message=f"socket is not copied: {path}"))
    for path in result.left_out:
        ctx.emit(
            Warned(
                message=f"the store lies in the source and is not copied: {path}",
                hint="name it in the ignore file, or keep the store elsewhere",
            )
        )
    return result.digest


@contextmanager
def _named(ctx: Context, step: Copy) -> Iterator[None]:
    """Errors of the system name the files that are copied; a full disk becomes an error of the store."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise (
                ctx.store.snapshots.full_memory(did_not_fit=True) or layout.unavailable(error, ctx.store.root)
            ) from error
        if error.filename is None and step.sources:
            error.filename = " ".join(step.sources)
        raise


def make_directory(ctx: Context, container: WorkingContainer, step: MakeDirectory) -> WorkingContainer:
    """Make the directory, and missing directories above it."""
    with occupied(ctx, container) as current:
        with opened_for_copies(ctx, current) as place:
            looks = Looks(directory_owner(place.root, step.user or ""))
            path = posixpath.join("/", current.config.working_dir, step.path)
            try:
                make_directories(place.target, path, looks)
            except NotADirectoryError as error:
                raise InvalidValue(f"not a directory in the container: {path}") from error
        return remembered(ctx, place.container, step.created_by)


def _unpack(top: Top, request: CopyRequest, place: Destination, step: Copy, emit: Emit) -> Digest:
    """Unpack an archive into the destination directory; the digest of its bytes."""
    from builda.fs.compress import decompressing, sniff
    from builda.fs.trees.unpack import extract

    warn_of_modes(emit, step, top)
    owner = request.owner if step.chown is not None else None
    with open(paths.open_regular(top.source.root, top.path), "rb", buffering=0) as file:
        compression = sniff(file.read(8))
        file.seek(0)
        try:
            make_directories(place.target, request.destination, Looks(owner or (0, 0)))
        except NotADirectoryError as error:
            raise InvalidValue(f"destination of an archive is not a directory: {request.destination}") from error
        size = os.fstat(file.fileno()).st_size
        with moving(emit, "extract", top.name, lambda: size) as moved:
            reader = HashingReader(file, passed=moved)
            extract(
                decompressing(reader, compression),
                place.target,
                request.destination,
                owner=owner,
                timestamp=step.timestamp,
                keep_top=step.as_containerfile,
            )
            return reader.digest_of_all()
