"""`workdir`: the directory where commands start, made if it has to be."""

from __future__ import annotations

import posixpath

from builda.cli.core.options import argument, switch, text
from builda.cli.core.verb import verb
from builda.cli.guide import complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cli.core.verbsession import Session


@verb(
    argument("container", complete=complete.containers),
    argument("path"),
    switch("--layer", help="Make a layer of the directory, as a build does."),
    text("--created-by", metavar="TEXT", help="What the history says of it."),
    example="builda workdir $c /srv/app",
)
def workdir(session: Session, *, container: str, path: str, layer: bool, created_by: str | None) -> None:
    """Make a directory and let commands start there, as WORKDIR does.

    A relative path begins at the working directory there was. A new directory belongs to the configured user. `config
    --workingdir` only writes the path down.
    """
    from builda.oci import edits
    from builda.plan import Configure, MakeDirectory

    builder, target = session.builder, session.container(container)
    place = "/" + posixpath.normpath(posixpath.join("/", target.config.working_dir, path)).lstrip("/")
    shown = created_by or (f"/bin/sh -c #(nop) WORKDIR {place}" if layer else None)
    step = MakeDirectory(path=place, user=target.config.user or None, created_by=None if layer else shown)
    builder.make_directory(target, step)
    if layer:
        builder.freeze(target, created_by=shown, background=False)
    builder.config(target, Configure(edits=(edits.SetText("working_dir", place),)))
