"""`from`: a new working container."""

from __future__ import annotations

from builda.cli.building import lockfiles
from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import check_files, print_line, write_file
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.verbs import scriptcache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session


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
    switch("--cache", help="Look up the steps in the container, and remember their results, as a build does."),
    switch("--no-cache", help="Perform all steps in the container, also in a session."),
    scriptcache.PLACES,
    text("--suffix", metavar="TEXT", default="working-container", hidden=True, help="The end of the generated name."),
    shared_options.PULL_FLAGS,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.PLATFORM,
    shared_options.NAMESPACES,
    shared_options.USERNS,
    shared_options.RESOURCES,
    shared_options.HOST,
    shared_options.PROCESS,
    shared_options.SECURITY,
    shared_options.DECRYPTION,
    shared_options.HIDDEN,
    example="c=$(builda from --pull=newer docker.io/library/debian:bookworm)",
)
def from_(session: Session, *, image: str, name: str | None, cidfile: str | None, quiet: bool, **values: Any) -> None:
    """Make a working container, and print its name.

    IMAGE is scratch, which is empty, or a name, an ID, a digest, or a transport with its argument (docker://,
    oci:, oci-archive:, docker-archive:, dir:). container:NAME begins where a working container stands, all of whose
    changes are layers (--layer of run, copy and add). What is said here of isolation, namespaces, limits, volumes and
    hosts holds for each later run in it.
    """
    from builda.builder.imageoptions import FromOptions, PullOptions

    session.quiet = quiet
    access = shared_options.registry_access(values, session.environ)
    chosen = scriptcache.choice(session, values, access)
    options = FromOptions(
        name=name,
        cache=None if chosen is None else chosen[0],
        suffix=values.pop("suffix"),
        format=shared_options.image_format(values.pop("format"), session.environ) or "oci",
        pull=PullOptions(
            policy=shared_options.pull_policy(values, values.pop("pull")),
            platform=shared_options.platform(values),
            access=access if chosen is None else chosen[1],
        ),
        run=shared_options.with_maps(shared_options.run_options(values, session.environ), session.settings),
    )
    check_files(cidfile)
    image = lockfiles.image(session, image, options.pull.platform, options.pull.access)
    container = session.builder.from_image(image, options)
    write_file(cidfile, container.id)
    print_line(container.name)
