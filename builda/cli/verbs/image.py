"""`image copy`, `inspect`, `list-tags` and the like: images wherever they are, without a container."""

from __future__ import annotations

import sys

from builda.cli.core import shared_options
from builda.cli.core.options import Params, argument, duration, many, number, switch, text
from builda.cli.core.output import check_files, print_json, print_line, print_table, print_template, write, write_file
from builda.cli.core.verb import verb
from builda.cli.format.table import human_age, human_size
from builda.cli.guide import complete
from builda.cli.main import each
from builda.cli.verbs import images, pull_push
from builda.cli.verbs.containers import check_can_stay
from builda.errors import BuildaError, InvalidValue, Unsupported
from builda.events import Warned
from builda.oci.reference import in_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from builda.builder.image.describe import Seen
    from builda.builder.image.search import Found
    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.session import Session
    from builda.oci.descriptor import Platform
    from builda.store.store import Image
    from builda.transfer.copyimage import Select

_JSON = switch("--json", help="Print JSON.")
_TREE_LINE = {False: "├── ", True: "└── "}
_SAVED = {"docker-archive": "docker-archive", "oci-archive": "oci-archive", "oci-dir": "oci", "docker-dir": "dir"}
"""Formats of podman save, and the transports that write them."""
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
    many("--additional-tag", metavar="NAME", help="Give the image this name at the destination, too."),
    text("--digestfile", metavar="FILE", help="Write the digest of what was copied into this file."),
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
def copy(session: Session, *, source: str, destination: str, **values: Any) -> None:
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
        platform=_platform(values),
        select=_selection(values),
        format=None if said is None else parse_format(said),
        compression=kind,
        compression_level=level,
        force_compression=values.pop("dest_force_compress_format"),
        preserve_digests=values.pop("preserve_digests"),
        signatures=not values.pop("remove_signatures"),
        additional=values.pop("additional_tag"),
        destination=_side(session, values, "dest"),
    )
    check_files(digestfile)
    written = between.copy(session.builder.context, source, destination, _side(session, values, "src"), options)
    if digestfile is not None:
        write_file(digestfile, str(written.digest))


@verb(
    argument("image", complete=complete.images),
    switch("--raw", help="Print the manifest or list as it is; with --config the configuration."),
    switch("--config", help="Print the configuration of the image."),
    switch("--provenance", help="Print how the image was made, if that is attached to it."),
    text("--format", "-f", "template", metavar="TEMPLATE", help="Print through a Go template, as in '{{.Digest}}'."),
    switch("--no-tags", "-n", help="Do not ask the registry for the tags of the repository."),
    switch("--json", help="Print JSON, as is done without --format."),
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-inspect",
    interspersed=True,
    example="builda image inspect --format '{{.Digest}}' docker://docker.io/library/debian:bookworm",
)
def inspect(
    session: Session, *, image: str, raw: bool, config: bool, template: str | None, no_tags: bool, **values: Any
) -> None:
    """Print what an image is: one of the store, or any place written with its transport. No layer is fetched.

    Of a list it is the image for this machine, or for the one that --platform names; --raw prints the list. What is
    attached to the image, such as an SBOM, is named by its type.
    """
    from builda.builder.image import describe
    from builda.cli.format.gofuncs import Struct
    from builda.oci.document import decode_any

    if template is not None and (raw or config):
        raise InvalidValue("--format cannot be used with --raw or --config")
    values.pop("json")
    provenance: bool = values.pop("provenance")
    if provenance and (raw or config or template is not None):
        raise InvalidValue("--provenance cannot be used with --raw, --config or --format")
    platform, ctx = _platform(values), session.builder.context
    access = shared_options.registry_access(values, session.environ)
    if raw and not config:
        write(describe.raw(ctx, image, access).decode())
        return
    seen = describe.seen(ctx, image, access, platform)
    if config:
        write(seen.raw_config.decode()) if raw else print_json(decode_any(seen.raw_config, "configuration"))
        return
    from builda.builder.image import statements

    if provenance:
        write(statements.provenance_of(seen, image).decode())
        return
    found = _summary(session, image, seen, () if no_tags else _tags_beside(session, image, seen, access))
    if types := statements.types_of(seen):
        found["Attestations"] = sorted(types)
    if template is None:
        print_json(found)
    else:
        print_template(template, Struct(found), example="{{.Digest}}")


@verb(
    argument("repository"),
    _JSON._replace(help="Print JSON, as is always done."),
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-list-tags",
    interspersed=True,
    example="builda image list-tags docker://docker.io/library/debian",
)
def list_tags(session: Session, *, repository: str, **values: Any) -> None:
    """Print the tags of a repository as JSON; of a docker-archive: the names of its images."""
    from builda.builder.image import between
    from builda.transfer.locate import parse_location

    values.pop("json")
    access = shared_options.registry_access(values, session.environ)
    location = parse_location(repository)
    if location is not None and location.transport == "docker-archive":
        from builda.transfer.dockerarchive import names_in

        print_json({"Tags": list(names_in(location.where))})
        return
    reference = between.repository(repository)
    if reference.digest is not None or ":" in repository.rpartition("/")[2]:
        raise InvalidValue(f"a name with a tag means one image: {repository}", hint="leave out the tag")
    tags = session.builder.context.remote.tags(reference, access)
    print_json({"Repository": reference.name, "Tags": list(tags)})


@verb(
    argument("term"),
    number("--limit", help="Print at most so many (default: all; of docker.io 25)."),
    _JSON,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-search",
    interspersed=True,
    example="builda image search pull_push.example.org/app",
)
def search(session: Session, *, term: str, json: bool, limit: int | None, **values: Any) -> None:
    """Print the repositories of a registry whose names hold a word.

    TERM is HOST/WORD, or HOST for all repositories. The registry has to show its catalog. docker.io shows none and is
    asked for the word; --json has the descriptions and stars that it tells.
    """
    from builda.builder.image import search as searching

    access = shared_options.registry_access(values, session.environ)
    found = searching.search(session.builder.context, term, access, limit)
    if json:
        print_json([_as_told(one) for one in found])
        return
    for one in found:
        print_line(one.name)


def _as_told(found: Found) -> dict[str, Any]:
    if not found.name.startswith("docker.io/"):
        return {"name": found.name}
    return {
        "name": found.name,
        "description": found.description,
        "stars": found.stars,
        "official": found.is_official,
    }


@verb(
    argument("image"),
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-delete",
    interspersed=True,
    example="builda image delete docker://pull_push.example.org/app:old",
)
def delete(session: Session, *, image: str, **values: Any) -> None:
    """Delete an image in a registry, with all its tags, and print its digest.

    A tag is looked up first: what is deleted is the manifest that it means, so that every tag of it is gone.
    """
    from builda.builder.image import between

    access = shared_options.registry_access(values, session.environ)
    print_line(str(between.delete(session.builder.context, image, access).digest))


@verb(
    argument("image", complete=complete.images),
    _JSON,
    switch("--no-trunc", help="Print whole commands and IDs."),
    switch("--quiet", "-q", help="Print the digests of layers only."),
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-history",
    interspersed=True,
    example="builda image history --no-trunc app:1",
)
def history(session: Session, *, image: str, json: bool, no_trunc: bool, quiet: bool, **values: Any) -> None:
    """Print how an image was made, the last step first, with the size of the layer that each step made.

    SIZE is what a layer takes in a registry, compressed.
    """
    from builda.builder.image import describe

    platform = _platform(values)
    seen = describe.seen(
        session.builder.context, image, shared_options.registry_access(values, session.environ), platform
    )
    steps = describe.history_of(seen)[::-1]
    if json:
        print_json(
            [
                {
                    "created": step.history.created,
                    "createdBy": step.history.created_by or "",
                    "comment": step.history.comment or "",
                    "layer": None if step.layer is None else str(step.layer.digest),
                    "size": 0 if step.layer is None else step.layer.size,
                }
                for step in steps
            ]
        )
        return
    if quiet:
        for step in steps:
            if step.layer is not None:
                print_line(str(step.layer.digest))
        return
    lines = ["LAYER\tCREATED\tCREATED BY\tSIZE\tCOMMENT"]
    for step in steps:
        layer = "<none>" if step.layer is None else step.layer.digest.encoded[: None if no_trunc else images.SHORT]
        made = " ".join((step.history.created_by or "").split())
        size = human_size(0 if step.layer is None else step.layer.size)
        shown = made if no_trunc or len(made) <= 60 else made[:59] + "…"
        lines.append(f"{layer}\t{_age(step.history.created)}\t{shown}\t{size}\t{step.history.comment or ''}")
    print_table(lines)


@verb(
    argument("image", complete=complete.images),
    switch("--whatrequires", help="Show the images that stand on this one."),
    _JSON,
    name="image-tree",
    interspersed=True,
    example="builda image tree app:1",
)
def tree(session: Session, *, image: str, whatrequires: bool, json: bool) -> None:
    """Show the layers of a stored image with their sizes, and which other images share each."""
    from builda.builder.image import sharing

    found = session.store.image(in_store(image))
    names = " ".join(found.names) or images.NO_NAME
    head = [
        f"Image ID: {found.id.encoded[: images.SHORT]}",
        f"Tags:     {names}",
        f"Size:     {human_size(found.size)}",
    ]
    if whatrequires:
        others = sharing.built_on(session.store, found)
        if json:
            print_json([{"id": one.id.encoded, "names": list(one.names), "layers": more} for one, more in others])
            return
        lines = [f"{one.id.encoded[: images.SHORT]} +{more} {' '.join(one.names)}".rstrip() for one, more in others]
        _print_tree([*head, "Images on it"], lines)
        return
    layers = sharing.layers_of(session.store, found)
    if json:
        print_json(
            {
                "id": found.id.encoded,
                "names": list(found.names),
                "size": found.size,
                "layers": [
                    {
                        "chainID": str(layer.chain),
                        "digest": str(layer.descriptor.digest),
                        "size": layer.descriptor.size,
                        "topOf": list(layer.tops),
                        "sharedWith": list(layer.sharers),
                    }
                    for layer in layers
                ],
            }
        )
        return
    lines = []
    for layer in layers:
        top = f" Top Layer of: [{', '.join(layer.tops)}]" if layer.tops else ""
        shared = f" Shared with: [{', '.join(layer.sharers)}]" if layer.sharers else ""
        size = human_size(layer.descriptor.size)
        lines.append(f"ID: {layer.descriptor.digest.encoded[: images.SHORT]} Size: {size}{top}{shared}")
    _print_tree([*head, "Image Layers"], lines)


@verb(
    argument("before", complete=complete.images),
    argument("after", complete=complete.images),
    _JSON,
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-diff",
    interspersed=True,
    example="builda image diff app:1 app:2",
)
def diff(session: Session, *, before: str, after: str, json: bool, **values: Any) -> None:
    """Print in what two images differ: files that were added (A), changed (C) or deleted (D), and the configuration.

    The images may be anywhere. Layers are read as they come and unpacked nowhere; layers that both have are read once.
    """
    from builda.builder.image import describe

    platform, ctx = _platform(values), session.builder.context
    access = shared_options.registry_access(values, session.environ)
    one, other = (describe.seen(ctx, name, access, platform) for name in (before, after))
    files = tuple(describe.changes(one, other))
    config = describe.config_changes(one.config, other.config)
    if json:
        kinds = {"A": "added", "C": "changed", "D": "deleted"}
        print_json(
            {
                **{
                    name: [
                        {"path": file.path, "before": file.before, "after": file.after}
                        for file in files
                        if file.kind == kind
                    ]
                    for kind, name in kinds.items()
                },
                "config": {key: {"before": old, "after": new} for key, (old, new) in config.items()},
            }
        )
        return
    for file in files:
        size = file.after - file.before
        print_line(f"{file.kind} {file.path}" + (f" {'+' if size > 0 else '-'}{human_size(abs(size))}" if size else ""))
    for key, (old, new) in config.items():
        print_line(f"C {key}: {_value(old)} -> {_value(new)}")


@verb(
    argument("place", complete=complete.images),
    _JSON,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-check",
    interspersed=True,
    example="builda image check oci-archive:app.tar",
)
def check(session: Session, *, place: str, json: bool, **values: Any) -> None:
    """Read an image whole, wherever it is, and compute every digest, size and DiffID that it states.

    Each fault is a line, and the exit status is then 125. Nothing is written.
    """
    from builda.builder.image import between
    from builda.builder.image.listmembers import Places, opened
    from builda.transfer.validate import validate

    ctx, access = session.builder.context, shared_options.registry_access(values, session.environ)
    source = between.source_of(ctx, opened(Places(ctx.store, ctx.remote, access, ctx.emit), place), access)
    faults = validate(source)
    if json:
        print_json({"image": place, "faults": list(faults)})
    else:
        for fault in faults:
            print_line(fault)
    if faults:
        raise BuildaError(f"image is damaged, {len(faults)} faults: {place}")


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
    shared_options.HIDDEN,
    name="image-load",
    interspersed=True,
    example="builda image load -i app.tar",
)
def load(session: Session, *, file: str | None, given: str | None, quiet: bool, **values: Any) -> None:
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
    for image in between.load(session.builder.context, path, access):
        print_line(f"Loaded image: {image.names[0] if image.names else image.id}")


@verb(
    argument("image", complete=complete.images),
    name="image-exists",
    interspersed=True,
    example="builda image exists app:1 || builda image pull app:1",
)
def exists(session: Session, *, image: str) -> None:
    """Say by the exit status whether the store has an image or list of this name or ID.

    0 means yes, 1 no, 125 that this could not be found out. Nothing is printed."""
    if session.store.find_image(in_store(image)) is None:
        raise SystemExit(1)


@verb(
    argument("label"),
    argument("image", complete=complete.images),
    argument("arguments", nargs=-1),
    switch("--run", help="Run the command on this machine, with the rights of builda's caller."),
    switch("--display", hidden=True, help="Print the command, as is done without --run."),
    text("--name", "called", metavar="NAME", help="What NAME stands for (default: the image's name)."),
    _JSON,
    shared_options.PLATFORM,
    shared_options.REGISTRY,
    shared_options.RETRY,
    shared_options.HIDDEN,
    name="image-runlabel",
    checks_order=False,
    example="builda image runlabel install pull_push.example.org/app:1",
)
def runlabel(
    session: Session, *, label: str, image: str, arguments: tuple[str, ...], run: bool, json: bool, **values: Any
) -> None:
    """Print the command that a label of an image holds, with IMAGE, NAME and PWD filled in and ARGUMENTS behind it.

    With --run it is run, on this machine and not in a container: only for images that may do what their caller may. No
    shell reads it.
    """
    import shlex
    import subprocess

    from builda.builder.image import describe

    values.pop("display")
    called, platform, ctx = values.pop("called"), _platform(values), session.builder.context
    seen = describe.seen(ctx, image, shared_options.registry_access(values, session.environ), platform)
    command = [*describe.command_of(seen, label, image, called), *arguments]
    if not run:
        print_json(command) if json else print_line(shlex.join(command))
        return
    if not command:
        raise InvalidValue(f"label is empty: {label}")
    raise SystemExit(subprocess.run(command, check=False).returncode)


@verb(
    argument("names", nargs=-1, complete=complete.images),
    switch("--all", "-a", "everything", help="Mount every image of the store."),
    text("--format", metavar="FORMAT", help="json prints JSON."),
    _JSON,
    name="image-mount",
    interspersed=True,
    example="m=$(builda image mount app:1)",
)
def mount(session: Session, *, names: tuple[str, ...], everything: bool, json: bool, **values: Any) -> None:
    """Mount stored images read-only, and print where.

    An image stays mounted until it is unmounted as often as it was mounted, or a reboot; no prune or rmi removes it
    meanwhile. Without a name, list what is mounted. Without root, this works inside `builda unshare` only, and mounts
    end with it. Where nothing can be mounted, the path is that of a copy.
    """
    if everything and names:
        raise InvalidValue("--all cannot be used with names of images")
    if values["format"] not in (None, "json"):
        raise InvalidValue(f"unknown format: {values['format']}", hint="json is the only one")
    if names or everything:
        check_can_stay(session, "image mount IMAGE")
        chosen = [_stored_for_machine(session, name) for name in names] if names else list(_mountable(session))
        mounted = [(image, str(session.builder.mount_image(image))) for image in chosen]
    else:
        store = session.store
        mounted = [
            (image, one.place) for one in store.image_mounts.seen() if (image := store.find_image(str(one.image)))
        ]
    if json or values["format"] == "json":
        print_json(
            [{"id": image.id.encoded, "names": list(image.names), "mountpoint": path} for image, path in mounted]
        )
        return
    for image, path in mounted:
        print_line(path if len(names) == 1 else f"{image.names[0] if image.names else image.id.encoded} {path}")


def _stored_for_machine(session: Session, name: str) -> Image:
    """The stored image of this name; of a list, the one for this machine."""
    from builda.builder.imageoptions import PullOptions

    found = session.store.image(in_store(name))
    return session.builder.pull(str(found.digest), PullOptions(policy="never")) if found.is_index else found


def _mountable(session: Session) -> Iterator[Image]:
    """The images of the store, without lists and artifacts."""
    from builda.oci import mediatype

    for image in session.store.images.iter():
        if not image.is_index and image.manifest.config.media_type in mediatype.CONFIGS:
            yield image


@verb(
    argument("names", nargs=-1, complete=complete.images),
    switch("--all", "-a", "everything", help="Unmount every image."),
    switch("--force", "-f", help="Unmount images however often they were mounted."),
    name="image-umount",
    interspersed=True,
    example="builda image umount app:1",
)
def umount(session: Session, *, names: tuple[str, ...], everything: bool, force: bool) -> None:
    """Undo one `image mount` of each image, and print the IDs of what was mounted."""
    if everything and names:
        raise InvalidValue("--all cannot be used with names of images")
    if not everything and not names:
        raise InvalidValue("no image to be unmounted was named", hint="name some, or use --all")
    store = session.store
    mounted = [str(one.image) for one in store.image_mounts.seen()] if everything else []

    def unmount(name: str) -> None:
        image = store.image(name) if everything else _stored_for_machine(session, name)
        if session.builder.umount_image(image, force=force):
            print_line(image.id.encoded)

    each(names or mounted, unmount)


@verb(_JSON, name="image-df", example="builda image df --json")
def df(session: Session, *, json: bool) -> None:
    """Show what the store holds, how many bytes that takes, and how many of these go with prune --all.

    Images are counted as their layers are stored, each once; trees are what is unpacked of them and of containers.
    """
    from builda.store.usage import usage

    found = usage(session.store)
    if json:
        print_json([row._asdict() for row in found])
        return
    lines = ["TYPE\tTOTAL\tSIZE\tRECLAIMABLE"]
    lines += [f"{row.type}\t{row.total}\t{human_size(row.size)}\t{human_size(row.reclaimable)}" for row in found]
    print_table(lines)


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
    example="builda image sync --src yaml --dest docker images.yaml pull_push.example.org/mirror",
)
def sync(session: Session, *, source: str, destination: str, json: bool, **values: Any) -> None:
    """Copy many images: all tags of a repository, all images of a directory, or what a YAML file lists.

    The file and the names at the destination are those of skopeo sync. Each source is printed with its destination.
    """
    from builda.builder.image import between, sync
    from builda.builder.imageoptions import parse_format

    kinds = values.pop("kind"), values.pop("place")
    if kinds[0] not in ("docker", "dir", "yaml") or kinds[1] not in ("docker", "dir") or kinds == ("dir", "dir"):
        raise InvalidValue("--src is docker, dir or yaml, --dest docker or dir, and one of them is not dir")
    session.quiet = values.pop("quiet")
    ctx, access = session.builder.context, _side(session, values, "src")
    naming = sync.Naming(kinds[1], destination, values.pop("scoped"), values.pop("append_suffix"))
    said, keeps, digestfile = values.pop("format"), values.pop("keep_going"), values.pop("digestfile")
    check_files(digestfile)
    options = between.CopyOptions(
        platform=_platform(values),
        select="all" if values.pop("every") else "one",
        format=None if said is None else parse_format(said),
        preserve_digests=values.pop("preserve_digests"),
        signatures=not values.pop("remove_signatures"),
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


listing = images.images._replace(name="image-list", example="builda image list --digests")
pull = pull_push.pull._replace(name="image-pull", example="builda image pull docker.io/library/debian:bookworm")
push = pull_push.push._replace(name="image-push", example="builda image push app:1 pull_push.example.org/app:1")
rm = images.rmi._replace(name="image-rm", example="builda image rm app:1")
tag = images.tag._replace(name="image-tag", example="builda image tag app:1 pull_push.example.org/app:1")
untag = images.untag._replace(name="image-untag", example="builda image untag app:1 pull_push.example.org/app:1")


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


def _platform(values: dict[str, Any]) -> Platform:
    from builda.builder.image.pull import machine_platform

    return shared_options.platform(values) or machine_platform()


def _side(session: Session, values: dict[str, Any], side: str) -> RegistryAccess:
    """How the registry of the source or of the destination is reached."""
    shared = {name: values[name] for name in ("authfile", "retry", "retry_delay", "signature_policy")}
    if side == "dest":
        shared.update({row.name: values.pop(row.name) for row in shared_options.SIGNING_TEXTS})
    own = {name: values.pop(f"{side}_{name}") for name in ("authfile", "creds", "no_creds", "cert_dir", "tls_verify")}
    if own["no_creds"] and own["creds"] is not None:
        raise InvalidValue(f"--{side}-no-creds cannot be used with --{side}-creds")
    return shared_options.registry_access(
        {**shared, **{name: value for name, value in own.items() if value is not None}}, session.environ
    )


def _tags_beside(session: Session, image: str, seen: Seen, access: RegistryAccess) -> tuple[str, ...]:
    """The tags of the image's repository; of a stored image its names."""
    from builda.transfer.locate import parse_location

    location = parse_location(image)
    if location is None or not location.in_registry:
        return seen.names
    from builda.builder.image import between

    return session.builder.context.remote.tags(between.repository(image), access)


def _summary(session: Session, image: str, seen: Seen, tags: tuple[str, ...]) -> dict[str, Any]:
    """The keys that skopeo inspect has."""
    from builda.transfer.locate import parse_location

    location = parse_location(image)
    config = seen.config
    name = seen.names[0].rpartition(":")[0] if seen.names else ""
    if location is not None and location.in_registry:
        from builda.builder.image import between

        name = between.repository(image).name
    return {
        "Name": name,
        "Digest": str(seen.descriptor.digest),
        "RepoTags": list(tags),
        "Created": config.created,
        "DockerVersion": config.extra.get("docker_version", ""),
        "Labels": dict(config.labels) or None,
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Layers": [str(layer.digest) for layer in seen.manifest.layers],
        "LayersData": [
            {
                "MIMEType": layer.media_type,
                "Digest": str(layer.digest),
                "Size": layer.size,
                "Annotations": dict(layer.annotations) or None,
            }
            for layer in seen.manifest.layers
        ],
        "Env": [f"{name}={value}" for name, value in config.env],
    }


def _print_tree(head: list[str], lines: list[str]) -> None:
    for line in head:
        print_line(line)
    for place, line in enumerate(lines, 1):
        print_line(_TREE_LINE[place == len(lines)] + line)


def _age(created: str | None) -> str:
    """How long ago a time in RFC 3339 was; N/A if it is none."""
    import time
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(created or "")
    except ValueError:
        return "N/A"
    return human_age(time.time() - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _value(value: Any) -> str:
    import json

    return "-" if value is None else json.dumps(value, ensure_ascii=False)
