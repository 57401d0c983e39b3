"""Attaches SBOMs and provenance to an image that was just made, in its index, and writes SBOMs to files."""

from __future__ import annotations

from builda.attestations import attached as attestations
from builda.attestations import provenance
from builda.attestations.provenance import Used, image_uri
from builda.attestations.statement import OF_FORMAT, Predicate, predicate_of, statement
from builda.builder.image.configbytes import config_bytes, stored
from builda.builder.image.contents import contents_of, made, name_of
from builda.builder.image.layers import LayerOptions, write
from builda.builder.records import timestamp
from builda.contents.subject import Subject
from builda.events import Warned
from builda.oci import mediatype
from builda.oci.config import History, parse_config
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import Index, Manifest, parse
from builda.transfer.stored import StoreSource
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from builda.attestations.provenance import Build
    from builda.builder.context import Context
    from builda.builder.imageoptions import Attest, CommitOptions
    from builda.contents.scan import Contents
    from builda.fs.tar import Writable
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image

_CREATED_BY = "builda: SBOM"


def attested(
    ctx: Context, image: Image, attest: Attest, build: Callable[[], Build], options: CommitOptions, name: str
) -> Descriptor:
    """The image with all that `attest` asks for, in the store: the descriptor of an index, or of an image.

    `name` is what the user calls it; `build` is asked how it was made. Files of this machine are written, too.
    """
    name = name_of(name)
    contents = _contents(ctx, image) if attest.wants_contents else None
    if contents is not None:
        image = _with_files(ctx, image, contents, attest, options, name)
    if not attest.is_attached:
        return image.descriptor
    predicates = [*_sboms(ctx, image, contents, attest, options, name)]
    if attest.provenance is not None:
        predicates.append(provenance.predicate(build(), attest.provenance))
    digest = image.digest
    kept = attestations.kept(tuple((one, statement(one, digest)) for one in predicates), digest)
    for blob in kept.blobs:
        ctx.store.put_bytes(blob, mediatype.MANIFEST)
    entry = replace(image.descriptor, platform=image.config.platform)
    index = Index(manifests=(entry, kept.entry)).dump()
    return ctx.store.put_bytes(index, mediatype.INDEX)


def script_build(ctx: Context, container: WorkingContainer, image: Image, options: CommitOptions) -> provenance.Build:
    """The facts for provenance about the image of a script: its base image, and the steps in its history."""
    from builda.builder.image.pull import machine_platform

    platform = str(image.config.platform)
    before = _steps_below(ctx, container)
    name = ctx.store.images.full_name(container.image) or container.image
    digest = container.image_digest
    used = [] if digest is None else [Used(image_uri(name, platform), digest.algorithm, digest.encoded)]
    return provenance.Build(
        type=provenance.SCRIPT,
        platform=platform,
        builder_platform=str(machine_platform()),
        version=ctx.version,
        started=container.created if options.epoch is None else options.epoch,
        finished=ctx.now() if options.epoch is None else options.epoch,
        invocation=invocation(image.digest, options),
        builder=(options.attest and options.attest.builder) or provenance.BUILDER,
        used=(*used, *(Used(*one) for one in container.used)),
        steps=steps_of(image)[before:],
    )


def invocation(image: Digest, options: CommitOptions) -> str:
    """An id of the build; with a time that is given, the same for the same image."""
    import uuid

    return str(uuid.uuid4() if options.epoch is None else uuid.uuid5(uuid.NAMESPACE_URL, f"builda:{image}"))


def steps_of(image: Image) -> tuple[provenance.Step, ...]:
    """The steps in an image's history, with their layers."""
    layers = iter(zip(image.manifest.layers, image.config.diff_ids, strict=False))
    found = []
    for entry in image.config.history:
        layer = None if entry.empty_layer else next(layers, None)
        digests = ("", "") if layer is None else (str(layer[0].digest), str(layer[1]))
        found.append(provenance.Step(entry.created_by or "", "", *digests))
    return tuple(found)


def _steps_below(ctx: Context, container: WorkingContainer) -> int:
    """The number of history entries that an image of the container inherits from the base image."""
    if container.image_digest is None:
        return 0
    base = parse(ctx.store.blobs.read(container.image_digest))
    assert isinstance(base, Manifest), "a container is of one image"
    return len(parse_config(ctx.store.blobs.read(base.config.digest)).history)


def _contents(ctx: Context, image: Image) -> Contents:
    found = contents_of(StoreSource(ctx.store, image), image.manifest.layers)
    for missing in found.warnings:
        ctx.emit(Warned(message=f"packages may be missing: {missing}"))
    return found


def _subject(ctx: Context, image: Image, options: CommitOptions, name: str) -> Subject:
    return Subject(
        name=name,
        digest=str(image.digest),
        architecture=image.config.platform.architecture,
        created=ctx.now() if options.epoch is None else options.epoch,
        version=ctx.version,
    )


def _sboms(
    ctx: Context, image: Image, contents: Contents | None, attest: Attest, options: CommitOptions, name: str
) -> Iterator[Predicate]:
    if contents is None:
        return
    subject = _subject(ctx, image, options, name)
    for form in attest.sboms:
        yield predicate_of(made(form, subject, contents), OF_FORMAT[form])


def _with_files(
    ctx: Context, image: Image, contents: Contents, attest: Attest, options: CommitOptions, name: str
) -> Image:
    """The image with the files that it is to hold; those of this machine are written."""
    wanted = (
        (attest.form, attest.output, attest.image_output),
        ("purl", attest.purl_output, attest.image_purl_output),
    )
    inside: dict[str, bytes] = {}
    for form, outside, path in wanted:
        if outside is None and path is None:
            continue
        data = made(form, _subject(ctx, image, options, name), contents)
        if outside is not None:
            with open(outside, "wb") as file:
                file.write(data)
        if path is not None:
            inside[path] = data
    return _with_layer(ctx, image, inside, options) if inside else image


def _with_layer(ctx: Context, image: Image, files: dict[str, bytes], options: CommitOptions) -> Image:
    """The image with one layer more, in which these files are root's; the store makes no record of it."""
    from builda.fs.tar import REGULAR, TarEntry, TarWriter, clean

    how = LayerOptions.of(options)
    moment = ctx.now() if options.epoch is None else options.epoch

    def produce(sink: Writable) -> tuple[str, ...]:
        tar = TarWriter(sink)
        for path, data in sorted(files.items()):
            time = how.clamp(int(moment))
            tar.add(TarEntry(clean(path.encode(errors="surrogateescape")), REGULAR, size=len(data), mtime=time))
            tar.data(data)
            tar.pad(len(data))
        tar.close()
        return ()

    layer = write(ctx.store, produce, how)
    assert layer.blob is not None
    assert layer.diff_id is not None
    before = image.manifest
    docker = before.media_type == mediatype.DOCKER_MANIFEST
    kind = mediatype.layer_media_type("docker" if docker else "oci", options.compression)
    entry = History(created=timestamp(moment), created_by=_CREATED_BY)
    config = replace(
        image.config,
        diff_ids=(*image.config.diff_ids, layer.diff_id),
        history=() if options.omit_history else (*image.config.history, entry),
    )
    data = config_bytes(config, before.config.media_type)
    manifest = replace(
        before,
        config=replace(before.config, digest=Digest.of(data), size=len(data)),
        layers=(*before.layers, replace(layer.blob, media_type=kind, annotations={})),
    )
    return ctx.store.images.unrecorded(stored(ctx.store, config, manifest))
