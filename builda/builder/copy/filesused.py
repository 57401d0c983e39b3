"""The files of a context, or of this machine, that a step used, in the words of provenance."""

from __future__ import annotations

from builda.events import SourceUsed
from builda.oci.digest import CONTENT
from builda.plan import Context, Copy, NamedContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.oci.digest import Digest
    from builda.plan import Source


def files_used(source: Source, names: tuple[str, ...], digest: Digest, *, has_context: bool) -> SourceUsed:
    """The event that names the files. `digest` is their content digest.

    Files of this machine are called by the last part of their names, as the others are of no concern to others.
    """
    match source:
        case NamedContext(name):
            place = f"context({name})"
        case Context() if has_context:
            place = "context"
        case _:
            place, names = "files", tuple(name.rstrip("/").rpartition("/")[2] for name in names)
    return SourceUsed(kind="files", name=f"{place}:{' '.join(names)}", algorithm=CONTENT, digest=digest.encoded)


def noted(step: Copy, digest: Digest | None, *, has_context: bool) -> tuple[tuple[str, str, str], ...]:
    """The entry in a container's record for the files that a copy used; () if it used anything but contexts."""
    is_remote = any("://" in name or name.startswith("git@") for name in step.sources)
    if digest is None or is_remote or not step.sources or not isinstance(step.source, Context | NamedContext):
        return ()
    files = files_used(step.source, step.sources, digest, has_context=has_context)
    return ((files.name, files.algorithm, files.digest),)
