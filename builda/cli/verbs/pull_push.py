"""`pull` and `push`: images between the store and registries, layouts and archives."""

from __future__ import annotations

from builda.cli.building import lockfiles
from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import check_files, print_line, write_file
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.verbs import deferred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cli.core.verbsession import Session


@verb(
    argument("image"),
    text("--policy", metavar="POLICY", help="missing (default), always, never or newer."),
    switch("--quiet", "-q", help="Show no progress."),
    switch("--all-tags", "-a", help="Fetch every tag of the repository, and print the ID of each image."),
    shared_options.PLATFORM,
    shared_options.PULL_FLAGS,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.SIGNATURES,
    shared_options.DECRYPTION,
    shared_options.HIDDEN,
    example="builda pull --platform linux/arm64 docker.io/library/alpine:3.20",
)
def pull(session: Session, *, image: str, policy: str | None, all_tags: bool, quiet: bool, **values: Any) -> None:
    """Fetch an image into the store, and print its ID.

    IMAGE is a name, or a transport with its argument: docker://, oci:, oci-archive:, docker-archive:, dir:,
    docker-daemon:.

    The names that an archive has itself are given to the image unless another image has them; a name that is written
    behind its path is given in any case.
    """
    from builda.builder.imageoptions import PullOptions

    session.quiet = quiet
    options = PullOptions(
        policy=shared_options.pull_policy(values, policy),
        platform=shared_options.platform(values),
        access=shared_options.registry_access(values, session.environ),
        moves_names=True,
    )
    names = session.builder.tagged(image, options.access) if all_tags else (image,)
    for name in names:
        taken = lockfiles.image(session, name, options.platform, options.access)
        print_line(session.builder.pull(taken, options).id.encoded)


@verb(
    argument("image", complete=complete.images),
    argument("destination", required=False),
    switch("--all", help="Of a list, push every image that it names, as is always done."),
    text("--digestfile", metavar="FILE", help="Write the digest of what was pushed into this file."),
    text("--format", "-f", metavar="FORMAT", help="Convert the manifest to oci or v2s2."),
    switch("--quiet", "-q", help="Show no progress."),
    switch("--rm", help="Remove the list from the store afterwards."),
    switch("--force-compression", help="Compress again what is compressed otherwise."),
    shared_options.COMPRESSION,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.SIGNATURES,
    shared_options.ENCRYPTION,
    shared_options.SIGNING,
    shared_options.HIDDEN,
    example="builda push --digestfile digest app:1 registry.example.org/app:1",
)
def push(session: Session, *, image: str, destination: str | None, digestfile: str | None, **values: Any) -> None:
    """Copy an image to a registry, a layout or an archive.

    DESTINATION is the image's own name when left out; without a transport it is a registry's. What is pushed is what is
    stored, byte for byte, unless --format or a compression asks for something else.
    """
    session.quiet = values.pop("quiet")
    values.pop("all")  # as is always done
    options = shared_options.push_options(values, session.environ)
    check_files(digestfile)
    if deferred.put_off(session, image, destination, options, digestfile):
        return
    written = session.builder.push(*deferred.target(session, image, destination), options)
    write_file(digestfile, str(written.digest))
    if values.pop("rm") and session.store.image(image).is_index:
        session.store.remove_image(image, force=False)
