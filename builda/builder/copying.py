"""`copy`, `add` and the directory that WORKDIR makes: files into a working container, by descriptor, never by path."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from builda.builder.mounting import occupied, opened_alone
from builda.builder.moving import moving, words
from builda.builder.records import remembered
from builda.builder.sources import Gathered, gather, is_archive
from builda.builder.users import directory_owner, owner
from builda.errors import InvalidValue
from builda.events import Warned
from builda.fs import paths
from builda.fs.modes import octal_mode, parse_mode
from builda.fs.sources import names_something, no_match, resolve
from builda.fs.tree import CopyRequest, Source, content_size, copy_tree
from builda.oci.digest import Digest
from builda.store import layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from builda.builder.builder import Builder
    from builda.builder.moving import Moved
    from builda.builder.options import Inputs
    from builda.events import Emit
    from builda.fs.sources import Top
    from builda.oci.digest import Readable
    from builda.plan import Copy, MakeDirectory
    from builda.store.store import WorkingContainer


def copy(
    builder: Builder, container: WorkingContainer, step: Copy, inputs: Inputs
) -> tuple[WorkingContainer, Digest | None]:
    """Copy what the step names; the digest of the content, None when it named nothing.

    TreeNeeded, with nothing copied, in a container that was composed so far and cannot take this without a tree.
    """
    with ExitStack() as stack:
        stack.enter_context(_named(builder, step))
        current = stack.enter_context(occupied(builder, container))
        if builder.store.is_list(current.snapshot):
            from builda.builder import composing

            return composing.copy(builder, current, step, inputs)
        root, current = stack.enter_context(opened_alone(builder, current))
        gathered = gather(builder, current, root, step, inputs, stack)
        plain = request_of(step, gathered, root, target_of(current, step))
        request, archives = without_archives(plain, step, gathered) if step.extract else (plain, ())
        digests = [_copied(builder, step, request, root, inputs)] if request.sources else []
        digests += [_unpack(top, request, root, step, builder.emit) for top in archives]
        digest = joined(digests)
        if digest is None and step.as_containerfile:
            warn_of_nothing(builder.emit, plain)
        return remembered(builder, current, step.created_by), digest


def warn_of_nothing(emit: Emit, request: CopyRequest) -> None:
    """No pattern of a Containerfile's COPY or ADD matches anything: BuildKit says nothing, but it may be a mistake."""
    if request.sources and not names_something(request.sources[0]):
        reason = no_match(request.sources[0])
        emit(Warned(message=f"nothing is copied: {reason}", hint=reason.hint))


def _copied(builder: Builder, step: Copy, request: CopyRequest, root: int, inputs: Inputs) -> Digest:
    with told(builder, step, request) as moved:
        result = copy_tree(request, root, remembered=inputs.remembered, moved=moved)
    for path in result.skipped:
        builder.emit(Warned(message=f"socket is not copied: {path}"))
    return result.digest


def told(builder: Builder, step: Copy, request: CopyRequest) -> AbstractContextManager[Moved | None]:
    """What is told of bytes that are copied, for the time of a `with` block; None when nobody watches."""
    name = words(step.sources or (step.destination,))
    return moving(builder.emit, "copy", name, partial(content_size, request))


@contextmanager
def _named(builder: Builder, step: Copy) -> Iterator[None]:
    """A full disk is the store's; whatever else fails is about the files copied, and names them."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise (
                builder.store.full_memory(did_not_fit=True) or layout.unavailable(error, builder.store.root)
            ) from error
        if error.filename is None and step.sources:
            error.filename = " ".join(step.sources)
        raise


def make_directory(builder: Builder, container: WorkingContainer, step: MakeDirectory) -> WorkingContainer:
    """Make the directory and what is missing above it."""
    with ExitStack() as stack:
        current = stack.enter_context(occupied(builder, container))
        if builder.store.is_list(current.snapshot):
            from builda.builder import composing

            return composing.make_directory(builder, current, step)
        root, current = stack.enter_context(opened_alone(builder, current))
        uid, gid = directory_owner(root, step.user or "")
        path = posixpath.join("/", current.config.working_dir, step.path)
        try:
            paths.make_directories(root, path, uid=uid, gid=gid)
        except NotADirectoryError as error:
            raise InvalidValue(f"not a directory in the container: {path}") from error
        return remembered(builder, current, step.created_by)


def target_of(container: WorkingContainer, step: Copy) -> str:
    """The destination as an absolute path, with a slash at its end where it must be a directory."""
    path = posixpath.join("/", container.config.working_dir, step.destination)
    is_directory = path.endswith("/") or posixpath.basename(path) in (".", "..") or not step.destination
    clean = posixpath.normpath(path)
    return f"{clean.rstrip('/')}/" if is_directory else clean


def request_of(step: Copy, gathered: Gathered, root: int, destination: str) -> CopyRequest:
    if step.chown is not None:
        owners: tuple[int, int] | None = owner(root, step.chown)
    else:
        owners = None if gathered.keeps_owners else (0, 0)
    return CopyRequest(
        sources=gathered.sources,
        destination=destination,
        owner=owners,
        mode=None if step.chmod is None else parse_mode(step.chmod),
        made_mode=made_mode(step),
        timestamp=step.timestamp,
        excludes=step.excludes,
        parents=step.parents,
        link=step.link,
        follow_symlinks=step.follow_symlinks,
        wildcards=step.allow_wildcard,
        allow_empty_wildcard=step.allow_empty_wildcard or step.as_containerfile,
    )


def made_mode(step: Copy) -> int:
    """The mode of directories that have to be made on the way: BuildKit's are those of an octal --chmod."""
    octal = octal_mode(step.chmod) if step.chmod is not None and step.as_containerfile else None
    return 0o755 if octal is None else octal


def without_archives(request: CopyRequest, step: Copy, gathered: Gathered) -> tuple[CopyRequest, tuple[Top, ...]]:
    """The request without the archives among its sources, and those: ADD unpacks them instead.

    A URL's file is only unpacked when the step says so.
    """
    if step.unpack is False:
        return request, ()
    tops = resolve(request.sources, request.rules)
    candidates = [top for top in tops if step.unpack or top.source.root not in gathered.downloads]
    archives = tuple(top for top in candidates if is_archive(top))
    if not archives:
        return request, ()
    others = tuple(
        Source(top.source.root, top.path or ".", top.source.name, top.source.ignore)
        for top in tops
        if top not in archives
    )
    destination = request.destination if len(tops) == 1 else f"{request.destination.rstrip('/')}/"
    return request._replace(sources=others, destination=destination, wildcards=False), archives


def _unpack(top: Top, request: CopyRequest, root: int, step: Copy, emit: Emit) -> Digest:
    """Unpack an archive into the destination directory; the digest of its bytes."""
    from builda.fs.compress import decompressing, sniff
    from builda.fs.layer import extract

    warn_of_modes(emit, step, top)
    owners = request.owner if step.chown is not None else None
    uid, gid = owners or (0, 0)
    with ExitStack() as stack:
        fd = paths.open_regular(top.source.root, top.path)
        file = stack.enter_context(open(fd, "rb", buffering=0))
        compression = sniff(file.read(8))
        file.seek(0)
        try:
            paths.make_directories(root, request.destination, uid=uid, gid=gid)
        except NotADirectoryError as error:
            raise InvalidValue(f"archives are unpacked into directories: {request.destination}") from error
        size = os.fstat(fd).st_size
        with moving(emit, "extract", top.name, lambda: size) as moved:
            reader = Hashing(file, moved)
            extract(
                decompressing(reader, compression),
                root,
                request.destination,
                owner=owners,
                timestamp=step.timestamp,
                keep_top=step.as_containerfile,
            )
            return reader.digest()


def warn_of_modes(emit: Emit, step: Copy, archive: Top) -> None:
    """Files in an archive have the modes that it says, as with BuildKit and Buildah."""
    if step.chmod is not None:
        emit(
            Warned(
                message=f"chmod does not reach into an archive: {archive.name}",
                hint="set modes in the archive, or change them with run",
            )
        )


class Hashing:
    """A reader that hashes what passes."""

    def __init__(self, source: Readable, moved: Moved | None) -> None:
        self._source = source
        self._moved = moved
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._hash.update(data)
        if self._moved is not None:
            self._moved(len(data))
        return data

    def digest(self) -> Digest:
        """Of the whole source, whatever was not read yet included."""
        while self.read(1 << 20):
            pass
        return Digest("sha256", self._hash.hexdigest())


def joined(digests: list[Digest]) -> Digest | None:
    """One digest for all that was added."""
    found = [digest for digest in digests if digest != Digest.of(b"")]
    if len(found) < 2:
        return found[0] if found else None
    return Digest.of("\n".join(map(str, found)).encode())
