"""`commit`: a working container to an image."""

from __future__ import annotations

import os

from builda.cli.building import scanning
from builda.cli.core import shared_options
from builda.cli.core.options import argument, listed, many, refused, switch, text
from builda.cli.core.output import check_files, print_line, write_file
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.cli.verbs import scriptcache
from builda.errors import InvalidValue
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.imageoptions import CommitOptions
    from builda.cli.core.verbsession import Session
    from builda.oci.edits import ConfigEdit
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image, Store


@verb(
    argument("container", complete=complete.containers),
    argument("image", required=False, complete=complete.images),
    text("--format", "-f", metavar="FORMAT", help="oci or docker.  [env: BUILDA_FORMAT, BUILDAH_FORMAT]"),
    switch("--squash", help="Make one layer of everything, the base included."),
    switch("--rm", help="Remove the working container afterwards."),
    text("--iidfile", metavar="FILE", help="Write the image ID into this file instead of printing it."),
    text("--metadata-file", metavar="FILE", help="Write the digests as JSON into this file."),
    text("--manifest", metavar="LIST", help="Append the image to this list, which is made when missing."),
    switch("--quiet", "-q", help="Show no progress."),
    many("--change", "-c", metavar="INSTRUCTION", help="Apply a Containerfile instruction to the configuration."),
    text("--config", metavar="FILE", help="Lay the JSON configuration in this file over the image's."),
    many("--add-file", metavar="SRC[:DST]", help="Add this file of the host, root's and mode 0644."),
    many("--annotation", metavar="NAME=VALUE", help="Set an annotation of the manifest."),
    listed("--unsetannotation", metavar="NAME,…", help="Drop annotations of the base."),
    listed("--unsetenv", metavar="NAME,…", help="Drop variables."),
    switch("--omit-history", help="Write no history."),
    switch("--identity-label", default=True, help="Write the label io.builda.version (default)."),
    switch("--omit-timestamp", hidden=True, help="As --timestamp 0."),
    text("--reference-time", metavar="FILE", hidden=True, help="As --timestamp with the time of this file."),
    refused(
        "--force-compression", reason="commit writes new layers only; --compression-format says how", takes_value=False
    ),
    refused("--pull", reason="nothing is pulled, as builda runs no scanner for SBOMs"),
    scanning.OPTIONS,
    shared_options.COMPRESSION,
    shared_options.TIME,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.ENCRYPTION,
    shared_options.SIGNING,
    shared_options.CONFIDENTIAL,
    shared_options.SBOM,
    shared_options.HIDDEN,
    example="builda commit --rm $c registry.example.org/app:1",
)
def commit(
    session: Session,
    *,
    container: str,
    image: str | None,
    iidfile: str | None,
    metadata_file: str | None,
    **values: Any,
) -> None:
    """Make an image of a working container and print its ID.

    IMAGE is a name in the store, or carries a transport (docker://, oci:, oci-archive:, docker-archive:, dir:,
    docker-daemon:). A name without a registry is localhost's. The digest committed here is the digest
    that push will write.
    """
    session.quiet = values.pop("quiet")
    check_files(metadata_file, iidfile)
    target = session.container(container)
    made = _committed(session, target, _options(session, target, image, values))
    if metadata_file is not None:
        write_file(metadata_file, metadata(session.store, made))
    if iidfile is not None:
        write_file(iidfile, str(made.id))
    else:
        print_line(made.id.encoded)


def _committed(session: Session, target: WorkingContainer, options: CommitOptions) -> Image:
    """The image; the steps that led to it are pushed to the caches that the container names."""
    if target.cache is None or not target.cache.targets:
        return session.builder.commit(target, options)
    made = session.builder.commit(target, replace(options, remove=False))
    scriptcache.push(session, session.container(target.id))
    if options.remove:
        session.builder.remove(target)
    return made


def _options(session: Session, target: WorkingContainer, image: str | None, values: dict[str, Any]) -> CommitOptions:
    from builda.builder.imageoptions import CommitOptions
    from builda.cli.building.attesting import attest_of

    timestamp = _timestamp(values)
    kind, level = shared_options.configured_compression(values, session)
    return CommitOptions(
        destination=image,
        manifest=values.pop("manifest"),
        format=shared_options.image_format(values.pop("format"), session.environ),
        squash=values.pop("squash"),
        remove=values.pop("rm"),
        timestamp=timestamp,
        source_date_epoch=shared_options.epoch(values.pop("source_date_epoch"), timestamp, session.environ),
        rewrite_timestamp=values.pop("rewrite_timestamp"),
        created_annotation=values.pop("created_annotation"),
        identity_label=values.pop("identity_label"),
        changes=_changes(target, values.pop("change")),
        config=_bytes_of(values.pop("config")),
        add_files=values.pop("add_file"),
        annotations=tuple(map(shared_options.annotation, values.pop("annotation"))),
        unset_annotations=values.pop("unsetannotation"),
        unset_env=values.pop("unsetenv"),
        omit_history=values.pop("omit_history"),
        compression=kind or "gzip",
        compression_level=level,
        attest=attest_of(values),
        access=shared_options.registry_access(values, session.environ),
        check=scanning.check(session, values),
    )


def _changes(target: WorkingContainer, texts: tuple[str, ...]) -> tuple[ConfigEdit, ...]:
    if not texts:
        return ()
    from builda.containerfile import edits_of

    return edits_of(target.config, texts)


def _timestamp(values: dict[str, Any]) -> int | None:
    """--timestamp, or what its two hidden forms mean."""
    said: int | None = values.pop("timestamp")
    reference = values.pop("reference_time")
    if values.pop("omit_timestamp"):
        if said is not None:
            raise InvalidValue("--omit-timestamp cannot be used with --timestamp")
        said = 0
    if reference is not None:
        if said is not None:
            raise InvalidValue("--reference-time cannot be used with --timestamp")
        said = int(os.stat(reference).st_mtime)
    return said


def _bytes_of(path: str | None) -> bytes | None:
    if path is None:
        return None
    from builda.inputfile import read_input
    from builda.oci.document import decode_any

    data = read_input(path, "configuration to merge")
    decode_any(data, f"configuration to merge, {path},")  # what is wrong with it is said with its name
    return data


def metadata(store: Store, image: Image) -> str:
    """The content of --metadata-file."""
    import json

    from builda.builder.image.manifestlist import first_image

    return json.dumps(
        {
            "containerimage.config.digest": str(first_image(store, image).id),
            "containerimage.descriptor": image.descriptor.to_json(),
            "containerimage.digest": str(image.digest),
        },
        indent=4,
    )
