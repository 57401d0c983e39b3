"""`image inspect`, `history`, `tree`, `diff`, `check` and `df`: what is known of images, wherever they are."""

from __future__ import annotations

from builda.cli.core import shared_options
from builda.cli.core.options import argument, switch, text
from builda.cli.core.output import print_json, print_line, print_table, print_template, write
from builda.cli.core.verb import verb
from builda.cli.format.table import human_age, human_size
from builda.cli.guide import complete
from builda.cli.verbs import images
from builda.errors import BuildaError, InvalidValue
from builda.oci.reference import in_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.builder.image.describe import Seen
    from builda.builder.imageoptions import RegistryAccess
    from builda.cli.core.verbsession import Session

_JSON = switch("--json", help="Print JSON.")
_TREE_LINE = {False: "├── ", True: "└── "}


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

    Of a list it is the image for this machine, or for the one that --platform names, with the digest of the list; --raw
    prints the list. What is attached to the image, such as an SBOM, is named by its type.
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
    platform, ctx = shared_options.platform_here(values), session.builder.context
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
        print_template(template, Struct(found), example="{{.Digest}}", in_lines=True)


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

    platform = shared_options.platform_here(values)
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

    platform, ctx = shared_options.platform_here(values), session.builder.context
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
        "Digest": str(seen.given),
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
    """The age of a time in RFC 3339, in words; N/A if it is malformed."""
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
