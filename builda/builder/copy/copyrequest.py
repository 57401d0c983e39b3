"""The request that `copying` performs, made from a Copy.

A flag of COPY becomes a field of `CopyRequest` here; one that says which files are read does so in `copyflags`, because
it counts for the step's key too.
"""

from __future__ import annotations

import posixpath
from functools import partial

from builda.builder.byteprogress import moving, words
from builda.builder.copy.copyflags import reading
from builda.builder.copy.copysources import Gathered, is_archive
from builda.builder.copy.ownernames import owner
from builda.events import Warned
from builda.fs.chmod import octal_mode, parse_mode
from builda.fs.sources import Source, names_something, no_match, resolve
from builda.fs.trees.walk import CopyRequest, content_size
from builda.oci.digest import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from builda.builder.byteprogress import Moved
    from builda.builder.context import Context
    from builda.events import Emit
    from builda.fs.sources import Top
    from builda.fs.trees.target import Inode
    from builda.plan import Copy
    from builda.store.containers import WorkingContainer


def target_of(container: WorkingContainer, step: Copy) -> str:
    """The destination as an absolute path, with a slash at its end where it must be a directory."""
    path = posixpath.join("/", container.config.working_dir, step.destination)
    is_directory = path.endswith("/") or posixpath.basename(path) in (".", "..") or not step.destination
    clean = posixpath.normpath(path)
    return f"{clean.rstrip('/')}/" if is_directory else clean


def request_of(step: Copy, gathered: Gathered, root: int, destination: str, never: frozenset[Inode]) -> CopyRequest:
    """The sources, the destination, and the owner and mode of the copies. Names of owners are looked up in `root`.

    `root` is the container's own root directory. `never` are directories that no copy may contain: the store's own.
    """
    if step.chown is not None:
        owners: tuple[int, int] | None = owner(root, step.chown)
    else:
        owners = None if gathered.keeps_owners else (0, 0)
    return reading(gathered.sources, step, never)._replace(
        destination=destination,
        owner=owners,
        mode=None if step.chmod is None else parse_mode(step.chmod),
        made_mode=made_mode(step),
        timestamp=step.timestamp,
        link=step.link,
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


def told(ctx: Context, step: Copy, request: CopyRequest) -> AbstractContextManager[Moved | None]:
    """A function to report copied bytes to, for the time of a `with` block; None if no one listens to events."""
    name = words(step.sources or (step.destination,))
    return moving(ctx.emit, "copy", name, partial(content_size, request))


def warn_of_nothing(emit: Emit, request: CopyRequest) -> None:
    """Warn if no pattern matched: BuildKit copies nothing without a word, but it may be a mistake."""
    if request.sources and not names_something(request.sources[0]):
        reason = no_match(request.sources[0])
        emit(Warned(message=f"nothing is copied: {reason}", hint=reason.hint))


def warn_of_modes(emit: Emit, step: Copy, archive: Top) -> None:
    """Warn that --chmod does not apply to files in an archive, as with BuildKit and Buildah."""
    if step.chmod is not None:
        emit(
            Warned(
                message=f"chmod does not reach into an archive: {archive.name}",
                hint="set modes in the archive, or change them with run",
            )
        )


def joined(digests: list[Digest]) -> Digest | None:
    """One digest for several; None if nothing was added."""
    found = [digest for digest in digests if digest != Digest.of(b"")]
    if len(found) < 2:
        return found[0] if found else None
    return Digest.of("\n".join(map(str, found)).encode())
