"""`source create`, `add`, `push` and `pull`: the sources of an image as an artifact beside it."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, many, switch, text
from builda.cli.core.output import check_files, write_file
from builda.cli.core.verb import verb
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session


@verb(
    argument("path"),
    text("--author", metavar="NAME", default="", help="Set the author of the source image."),
    switch("--time-stamp", default=True, help="Say when it was made (default)."),
    name="source-create",
    example="builda source create app-sources",
)
def create(session: Session, *, path: str, author: str, time_stamp: bool) -> None:
    """Make a source image without artifacts in the directory PATH, which must not exist.

    A source image is an artifact in an OCI image layout. It holds what an image was built from: packages of sources,
    trees, texts. PATH may end in :NAME, the image's name in the layout.
    """
    from builda.builder.image import sourceimages

    sourceimages.create(path, author=author, created=session.builder.context.now() if time_stamp else None)


@verb(
    argument("path"),
    argument("artifact"),
    many("--annotation", metavar="NAME=VALUE", help="Add an annotation to the layer of the artifact."),
    name="source-add",
    example="builda source add --annotation license=MIT app-sources src/",
)
def add(session: Session, *, path: str, artifact: str, annotation: tuple[str, ...]) -> None:
    """Add ARTIFACT, a file or the content of a directory, to a source image as a compressed archive."""
    from builda.builder.image import sourceimages

    annotations: dict[str, str] = {}
    for item in annotation:
        name, value = shared_options.annotation(item)
        if name in annotations:
            raise InvalidValue(f"annotation is given twice: {name}")
        annotations[name] = value
    sourceimages.add(path, artifact, annotations)


@verb(
    argument("path"),
    argument("image"),
    text("--digestfile", metavar="FILE", help="Write the digest of what was pushed into this file."),
    switch("--quiet", "-q", help="Show no progress."),
    shared_options.REGISTRY,
    shared_options.RETRY,
    name="source-push",
    interspersed=True,
    example="builda source push app-sources registry.example.org/app-sources:1",
)
def push(session: Session, *, path: str, image: str, digestfile: str | None, quiet: bool, **values: Any) -> None:
    """Copy a source image to a registry. IMAGE is its full name there."""
    from builda.builder.image import sourceimages

    session.quiet = quiet
    check_files(digestfile)
    access = shared_options.registry_access(values, session.environ)
    written = sourceimages.push(session.builder.context, path, image, access)
    write_file(digestfile, str(written.digest))


@verb(
    argument("image"),
    argument("path"),
    switch("--quiet", "-q", help="Show no progress."),
    shared_options.REGISTRY,
    shared_options.RETRY,
    name="source-pull",
    interspersed=True,
    example="builda source pull registry.example.org/app-sources:1 app-sources",
)
def pull(session: Session, *, image: str, path: str, quiet: bool, **values: Any) -> None:
    """Copy a source image from a registry to the directory PATH, which must not exist. IMAGE is its full name."""
    from builda.builder.image import sourceimages

    session.quiet = quiet
    access = shared_options.registry_access(values, session.environ)
    sourceimages.pull(session.builder.context, image, path, access)
