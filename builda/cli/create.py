"""`from`: a new working container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from builda.cli import complete, groups
from builda.cli.options import argument, switch, text
from builda.cli.output import check_files, print_line, write_file
from builda.cli.verb import verb

if TYPE_CHECKING:
    from builda.cli.session import Session


@verb(
    argument("image", complete=complete.images),
    text("--name", metavar="NAME", help="Name the working container."),
    text("--cidfile", metavar="FILE", help="Write the ID of the working container into this file."),
    text(
        "--format",
        "-f",
        metavar="FORMAT",
        help="The format that commit will write: oci or docker.  [env: BUILDA_FORMAT, BUILDAH_FORMAT]",
    ),
    text(
        "--pull",
        metavar="POLICY",
        bare="true",
        help="When to pull: missing (default), always (also when written bare), never or newer.",
    ),
    switch("--quiet", "-q", help="Show no progress."),
    text("--suffix", metavar="TEXT", default="working-container", hidden=True, help="The end of the generated name."),
    groups.PULL_FLAGS,
    groups.REGISTRY,
    groups.RETRY,
    groups.PLATFORM,
    groups.NAMESPACES,
    groups.USERNS,
    groups.RESOURCES,
    groups.HOST,
    groups.PROCESS,
    groups.SECURITY,
    groups.DECRYPTION,
    groups.HIDDEN,
    example="c=$(builda from --pull=newer docker.io/library/debian:bookworm)",
)
def from_(session: Session, *, image: str, name: str | None, cidfile: str | None, quiet: bool, **values: Any) -> None:
    """Make a working container, and print its name.

    IMAGE is scratch, which is empty, or a name, an ID, a digest, or a transport with its argument (docker://,
    oci:, oci-archive:, docker-archive:, dir:). container:NAME begins where a working container stands, all of whose
    changes are layers (--layer of run, copy and add). What is said here of isolation, namespaces, limits, volumes and
    hosts holds for each later run in it.
    """
    from builda.builder.options import FromOptions, PullOptions

    session.quiet = quiet
    options = FromOptions(
        name=name,
        suffix=values.pop("suffix"),
        format=groups.image_format(values.pop("format"), session.environ) or "oci",
        pull=PullOptions(
            policy=groups.pull_policy(values, values.pop("pull")),
            platform=groups.platform(values),
            access=groups.registry_access(values, session.environ),
        ),
        run=groups.with_maps(groups.run_options(values, session.environ), session.settings),
    )
    check_files(cidfile)
    container = session.builder.from_image(image, options)
    if cidfile is not None:
        write_file(cidfile, container.id)
    print_line(container.name)
