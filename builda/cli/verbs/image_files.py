"""`image save` and `load`: images of the store as files."""

from __future__ import annotations

import sys

from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.errors import InvalidValue, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session

_SAVED = {"docker-archive": "docker-archive", "oci-archive": "oci-archive", "oci-dir": "oci", "docker-dir": "dir"}
"""Formats of podman save, and the transports that write them."""


@verb(
    argument("names", nargs=-1, required=True, complete=complete.images),
    text("--output", "-o", metavar="FILE", help="Write this file or directory (default: standard output)."),
    text("--format", metavar="FORMAT", help="docker-archive (default), oci-archive, oci-dir or docker-dir."),
    switch("--multi-image-archive", "-m", "together", help="Put several images into one docker-archive."),
    switch("--quiet", "-q", help="Show no progress."),
    name="image-save",
    interspersed=True,
    example="builda image save -o app.tar app:1",
)
def save(
    session: Session, *, names: tuple[str, ...], output: str | None, together: bool, quiet: bool, **values: Any
) -> None:
    """Write stored images into a file or directory, for docker load, podman load and builda image load.

    An oci-dir takes several images, each by its name, and so does a docker-archive with -m; without it, several names
    of one image. The other formats hold one.
    """
    from builda.builder.image import between
    from builda.builder.imageoptions import PushOptions

    session.quiet = quiet
    said = values["format"] or "docker-archive"
    if said not in _SAVED:
        raise InvalidValue(f"unknown format: {said}", hint=f"it is {', '.join(_SAVED)}")
    ctx = session.builder.context
    if together and said != "docker-archive":
        raise InvalidValue(f"--multi-image-archive is for a docker-archive: {said}")
    together = together or (said == "docker-archive" and len(names) > 1 and between.are_one(ctx, names))
    if len(names) > 1 and said != "oci-dir" and not together:
        hint = "-m puts them all into one" if said == "docker-archive" else "--format oci-dir holds them all"
        raise Unsupported(f"several images cannot be saved in a {said}", hint=hint)
    if output is None and (said.endswith("dir") or sys.stdout.isatty()):
        raise InvalidValue("an image is not written to a terminal or as a directory to standard output", hint="use -o")
    if together:
        between.save_together(ctx, names, output or "/dev/stdout")
        return
    for name in names:
        between.save(ctx, name, _SAVED[said], output or "/dev/stdout", PushOptions())


@verb(
    argument("file", required=False),
    text("--input", "-i", "given", metavar="FILE", help="Read this file or directory (default: standard input)."),
    switch("--quiet", "-q", help="Show no progress."),
    switch("--json", help="Print JSON."),
    shared_options.HIDDEN,
    name="image-load",
    interspersed=True,
    example="builda image load -i app.tar",
)
def load(session: Session, *, file: str | None, given: str | None, quiet: bool, json: bool, **values: Any) -> None:
    """Put the images of a file or directory into the store: of docker save, podman save, an image layout or a dir:.

    The names that images have there are given to them unless other images have these. The file may be compressed.
    """
    from builda.builder.image import between

    if file is not None and given is not None:
        raise InvalidValue("an input is named twice", hint="write one FILE, or --input FILE")
    session.quiet = quiet
    path = given or file or "/dev/stdin"
    if path == "/dev/stdin" and sys.stdin.isatty():
        raise InvalidValue("no archive on standard input", hint="builda image load -i FILE")
    access = shared_options.registry_access(values, session.environ)
    found = between.load(session.builder.context, path, access)
    if json:
        print_json(
            [{"id": image.id.encoded, "digest": str(image.digest), "names": list(image.names)} for image in found]
        )
        return
    for image in found:
        print_line(f"Loaded image: {image.names[0] if image.names else image.id}")
