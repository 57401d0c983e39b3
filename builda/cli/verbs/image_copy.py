"""`image copy` and `image sync`: images from any place to any other."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import Params, argument, duration, many, number, switch, text
from builda.cli.core.output import check_files, print_json, print_line, write_file
from builda.cli.core.verb import verb
from builda.cli.guide import complete
from builda.errors import BuildaError, InvalidValue
from builda.events import Warned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verbsession import Session
    from builda.transfer.copyimage import Select

_JSON = switch("--json", help="Print JSON.")
_SELECTIONS: dict[str, Select] = {"system": "one", "all": "all", "index-only": "index-only"}


def _sides() -> Params:
    """The options of one registry, for the source and for the destination."""
    rows: list[Any] = []
    for side, name in (("src", "source"), ("dest", "destination")):
        rows += [
            text(f"--{side}-authfile", metavar="FILE", help=f"Take credentials for the {name} from this file."),
            text(f"--{side}-creds", metavar="USER[:PASSWORD]", help=f"Use these credentials for the {name}."),
            switch(f"--{side}-no-creds", help=f"Use no credentials for the {name}, whatever the files have."),
            text(f"--{side}-cert-dir", metavar="DIR", help=f"Use the certificates in this directory for the {name}."),
            switch(
                f"--{side}-tls-verify",
                default=None,
                is_on=True,
                help=f"Require HTTPS with a valid certificate of the {name} (the default).",
            ),
        ]
    return tuple(rows)


@verb(
    argument("source", complete=complete.images),
    argument("destination"),
    switch("--all", "-a", "every", help="Of a list, copy every image that it names."),
    text("--multi-arch", metavar="SELECTION", help="Of a list, copy: system (default), all or index-only."),
    shared_options.PLATFORM,
    text("--format", "-f", metavar="FORMAT", help="Convert the manifest to oci or v2s2."),
    switch("--dest-compress", help="As --dest-compress-format gzip."),
    switch("--dest-decompress", help="Leave layers uncompressed."),
    text("--dest-compress-format", metavar="FORMAT", help="Compress layers with gzip or zstd."),
    number("--dest-compress-level", help="gzip 1-9, zstd 1-20."),
    switch("--dest-force-compress-format", help="Compress again what is compressed otherwise."),
    switch("--preserve-digests", help="Fail rather than change a digest."),
    switch(
        "--attachments",
        help="Copy what is attached to images in registries, too: attestations, SBOMs and all that refers to them.",
    ),
    many("--additional-tag", metavar="NAME", help="Give the image this name at the destination, too."),
    text("--digestfile", metavar="FILE", help="Write the digest of what was copied into this file."),
    switch("--json", help="Print where the image came from and went to, with its digest, as JSON."),
    switch("--quiet", "-q", help="Show no progress."),
    text("--authfile", metavar="FILE", help="Take credentials from this file.  [env: REGISTRY_AUTH_FILE]"),
    _sides(),
    number("--retry-times", "--retry", "retry", help="Try again this often after a network failure.  [default: 3]"),
    duration("--retry-delay", help="Wait this long between tries (default: longer each time)."),
    shared_options.COPIED_SIGNATURES,
    shared_options.SIGNING,
    shared_options.ENCRYPTION,
    shared_options.DECRYPTION,
    shared_options.HIDDEN,
    name="image-copy",
    interspersed=True,
    example="builda image copy --all docker://docker.io/library/debian:bookworm oci:mirror:debian",
)
def copy(session: Session, *, source: str, destination: str, json: bool, **values: Any) -> None:
    """Copy an image from any place to any other, layer by layer, without unpacking it.

    SOURCE is an image of the store, or a place written with its transport; DESTINATION is a place with its transport.
    What arrives is what was there, byte for byte, unless --format or a compression asks for something else; image
    layouts get manifests of the OCI format, as other programs find no others in them.
    """
    from builda.builder.image import between
    from builda.builder.imageoptions import parse_format

    session.quiet = values.pop("quiet")
    said, digestfile = values.pop("format"), values.pop("digestfile")
    kind, level = _compression(values)
    options = between.CopyOptions(
        platform=shared_options.platform_here(values),
        select=_selection(values),
        format=None if said is None else parse_format(said),
        compression=kind,
        compression_level=level,
        force_compression=values.pop("dest_force_compress_format"),
        preserve_digests=values.pop("preserve_digests"),
        signatures=not values.pop("remove_signatures"),
        attachments=values.pop("attachments"),
        additional=values.pop("additional_tag"),
        destination=_side(session, values, "dest"),
    )
    check_files(digestfile)
    written = between.copy(session.builder.context, source, destination, _side(session, values, "src"), options)
    write_file(digestfile, str(written.digest))
    if json:
        told = {"digest": str(written.digest), "mediaType": written.media_type, "size": written.size}
        print_json({"source": source, "destination": destination, **told})


@verb(
    argument("source"),
    argument("destination"),
    text("--src", "-s", "kind", metavar="KIND", help="What SOURCE is: docker, dir or yaml."),
    text("--dest", "-d", "place", metavar="KIND", help="What DESTINATION is: docker or dir."),
    switch("--all", "-a", "every", help="Of a list, copy every image that it names."),
    switch("--scoped", help="Call images by their whole names, with the registry."),
    text("--append-suffix", metavar="TEXT", default="", help="Add this to every tag."),
    switch("--dry-run", help="Print what would be copied, and copy nothing."),
    switch("--keep-going", help="Go on after a failure."),
    text("--format", "-f", metavar="FORMAT", help="Convert manifests to oci or v2s2."),
    switch("--preserve-digests", help="Fail rather than change a digest."),
    switch(
        "--attachments",
        help="Copy what is attached to images in registries, too: attestations, SBOMs and all that refers to them.",
    ),
    text("--digestfile", metavar="FILE", help="Write the digest and the name of each image into this file."),
    text("--authfile", metavar="FILE", help="Take credentials from this file.  [env: REGISTRY_AUTH_FILE]"),
    _sides(),
    number("--retry-times", "--retry", "retry", help="Try again this often after a network failure.  [default: 3]"),
    duration("--retry-delay", help="Wait this long between tries (default: longer each time)."),
    switch("--quiet", "-q", help="Show no progress."),
    _JSON,
    shared_options.PLATFORM,
    shared_options.COPIED_SIGNATURES,
    shared_options.SIGNING,
    shared_options.HIDDEN,
    name="image-sync",
    interspersed=True,
    example="builda image sync --src yaml --dest docker images.yaml registry.example.org/mirror",
)
def sync(session: Session, *, source: str, destination: str, json: bool, **values: Any) -> None:
    """Copy many images: all tags of a repository, all images of a directory, or what a YAML file lists.

    The file and the names at the destination are those of skopeo sync. Each source is printed with its destination.
    """
    from builda.builder.image import between, sync
    from builda.builder.imageoptions import parse_format

    kinds = values.pop("kind"), values.pop("place")
    if kinds[0] not in ("docker", "dir", "yaml") or kinds[1] not in ("docker", "dir") or kinds == ("dir", "dir"):
        raise InvalidValue("--src must be docker, dir or yaml, --dest docker or dir, and not both dir")
    session.quiet = values.pop("quiet")
    ctx, access = session.builder.context, _side(session, values, "src")
    naming = sync.Naming(kinds[1], destination, values.pop("scoped"), values.pop("append_suffix"))
    said, keeps, digestfile = values.pop("format"), values.pop("keep_going"), values.pop("digestfile")
    check_files(digestfile)
    options = between.CopyOptions(
        platform=shared_options.platform_here(values),
        select="all" if values.pop("every") else "one",
        format=None if said is None else parse_format(said),
        preserve_digests=values.pop("preserve_digests"),
        signatures=not values.pop("remove_signatures"),
        attachments=values.pop("attachments"),
        destination=_side(session, values, "dest"),
    )
    jobs = tuple(
        sync.from_file(ctx, source, access, naming)
        if kinds[0] == "yaml"
        else sync.from_directory(source, access, naming)
        if kinds[0] == "dir"
        else sync.from_registry(ctx, source, access, naming)
    )
    if values.pop("dry_run"):
        _print_jobs([{"source": job.source, "destination": job.destination} for job in jobs], json)
        return
    rows, digests, failures = [], [], []
    for job, result in sync.run(ctx, jobs, options, keep_going=keeps):
        if isinstance(result, BuildaError):
            failures.append(result)
            session.emit(Warned(message=str(result), hint=result.hint))
            continue
        rows.append({"source": job.source, "destination": job.destination, "digest": str(result.digest)})
        digests.append(f"{result.digest} {job.source.removeprefix('docker://')}\n")
    _print_jobs(rows, json)
    if digestfile is not None:
        write_file(digestfile, "".join(digests))
    if failures:
        raise BuildaError(f"{len(failures)} of {len(jobs)} images were not copied: {failures[-1]}")


def _print_jobs(rows: list[dict[str, str]], json: bool) -> None:
    if json:
        print_json(rows)
        return
    for row in rows:
        print_line(f"{row['source']} -> {row['destination']}")


def _compression(values: dict[str, Any]) -> tuple[Any, int | None]:
    """Compression and level of the --dest-… options; (None, None) when they say nothing."""
    gzip = values.pop("dest_compress")
    said = {
        "compression_format": values.pop("dest_compress_format") or ("gzip" if gzip else None),
        "compression_level": values.pop("dest_compress_level"),
        "disable_compression": values.pop("dest_decompress"),
    }
    if values["dest_force_compress_format"] and said["compression_format"] is None:
        raise InvalidValue("--dest-force-compress-format needs --dest-compress-format")
    return shared_options.compression(said)


def _selection(values: dict[str, Any]) -> Select:
    every, said = values.pop("every"), values.pop("multi_arch")
    if said is not None and said not in _SELECTIONS:
        raise InvalidValue(f"unknown selection: {said}", hint=f"it is {', '.join(_SELECTIONS)}")
    if every and said not in (None, "all"):
        raise InvalidValue("--all cannot be used with another --multi-arch")
    return "all" if every else _SELECTIONS[said or "system"]


def _side(session: Session, values: dict[str, Any], side: str) -> RegistryAccess:
    """The options for reaching the registry of the source or of the destination."""
    shared = {name: values[name] for name in ("authfile", "retry", "retry_delay", "signature_policy")}
    if side == "dest":
        shared.update({row.name: values.pop(row.name) for row in shared_options.SIGNING_TEXTS})
    own = {name: values.pop(f"{side}_{name}") for name in ("authfile", "creds", "no_creds", "cert_dir", "tls_verify")}
    if own["no_creds"] and own["creds"] is not None:
        raise InvalidValue(f"--{side}-no-creds cannot be used with --{side}-creds")
    return shared_options.registry_access(
        {**shared, **{name: value for name, value in own.items() if value is not None}}, session.environ
    )
