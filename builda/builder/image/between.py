"""Images from any place to any other, and what can be asked of an image wherever it is."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builda.builder.image.listmembers import Outside, Places, opened
from builda.builder.image.push import sink_at
from builda.errors import InvalidReference, InvalidValue, NotFound, Unsupported
from builda.events import Warned
from builda.oci import mediatype
from builda.oci.manifest import Index, parse
from builda.oci.reference import Reference, in_store
from builda.transfer.converting import Chosen, Recompressed, Retyped
from builda.transfer.copyimage import copy_image
from builda.transfer.locate import Location, locations_in, parse_location
from builda.values import dataclass, field, replace

if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import ImageFormat, PushOptions, RegistryAccess
    from builda.builder.remote import Carrier
    from builda.oci.descriptor import Descriptor, Platform
    from builda.oci.digest import Digest
    from builda.oci.mediatype import Compression
    from builda.store.store import Image
    from builda.transfer.copyimage import ImageSink, ImageSource, Select


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """`image copy`: what is copied and what may be changed on the way. The defaults change nothing."""

    platform: Platform
    select: Select = "one"
    format: ImageFormat | None = None  # None: as it is
    compression: Compression | None = None  # None: as it is
    compression_level: int | None = None
    force_compression: bool = False
    preserve_digests: bool = False
    signatures: bool = True  # those of the source come along
    attachments: bool = False  # and all else that is attached to the image in its registry
    additional: tuple[str, ...] = ()  # further names at the destination
    destination: RegistryAccess = field(default_factory=lambda: _access())


def copy(ctx: Context, text: str, destination: str, source_access: RegistryAccess, options: CopyOptions) -> Descriptor:
    """The image that `text` means is at the destination; its descriptor there."""
    location = located(destination)
    _check(location, options)
    ctx.store.lease()
    found = opened(Places(ctx.store, ctx.remote, source_access, ctx.emit), text)
    source = source_of(ctx, found, options.destination, location)
    if options.select == "one":
        source = Chosen(source, options.platform)
    signed = _digests(source, options)
    image_format = _format(location, source, options)
    if image_format is not None:
        source = Retyped(source, image_format)
    if options.attachments:
        _copy_attached(ctx, _in_registry(found, text), source_access, location, options, signed)
    carrier = _carrier(ctx, found, source_access, signed) if options.signatures else None
    sink = sink_at(ctx, location, options.destination, _relatives(found), options.additional)
    written = _copied(ctx, source, sink, location, options, carrier)
    if carrier is not None:
        _tell_lost(ctx, signed[0], written, location)
    return written


def _digests(source: ImageSource, options: CopyOptions) -> tuple[Digest, ...]:
    """The manifests that are copied, as far as the first one says."""
    descriptor, data = source.manifest()
    document = parse(data, descriptor.media_type)
    inner = document.manifests if options.select == "all" and isinstance(document, Index) else ()
    return (descriptor.digest, *(entry.digest for entry in inner))


def _carrier(
    ctx: Context, found: Image | Outside, access: RegistryAccess, digests: tuple[Digest, ...]
) -> Carrier | None:
    """An object that copies the signatures of an image; None if it has none, like all images of the store."""
    if not isinstance(found, Outside):
        return None
    try:
        carrier = ctx.remote.carrier(found.place, access)
        return carrier if any(map(carrier.has, digests)) else None
    except Unsupported as error:  # a file of YAML, and no package that reads it
        ctx.emit(Warned(message=f"signatures are not copied: {error}", hint=error.hint))
        return None


def _in_registry(found: Image | Outside, text: str) -> Reference:
    if isinstance(found, Outside) and isinstance(found.place, Reference):
        return found.place
    raise Unsupported(f"only images in registries have attachments: {text}", hint="copy it without --attachments")


def _copy_attached(
    ctx: Context,
    source: Reference,
    access: RegistryAccess,
    location: Location,
    options: CopyOptions,
    digests: tuple[Digest, ...],
) -> None:
    """Each repository of the destination has what is attached to the manifests, before it has these."""
    names = (location.where, *options.additional)
    for repository in dict.fromkeys(Reference.parse(name)._replace(tag=None, digest=None) for name in names):
        copy_to = ctx.remote.attached(source, access, repository, replace(options.destination, signing=None))
        for digest in digests:
            copy_to(digest)


def _carried(carrier: Carrier, sink: ImageSink, location: Location, options: CopyOptions) -> ImageSink | None:
    place = Reference.parse(location.where) if location.in_registry else location
    return carrier.over(sink, place, options.destination)


def _tell_lost(ctx: Context, signed: Digest, written: Descriptor, location: Location) -> None:
    """Warn that signatures stayed behind."""
    if written.digest != signed:
        why = f"they are for {signed}, which was changed"
    elif location.in_store or not (location.in_registry or location.transport == "dir"):
        why = f"{'the store' if location.in_store else f'{location.transport}:'} holds none"
    else:
        return
    ctx.emit(Warned(message=f"signatures are not copied: {why}", hint="--remove-signatures asks for that"))


def located(text: str) -> Location:
    """The place that is written with its transport; InvalidValue for a name without one."""
    location = parse_location(text)
    if location is None:
        raise InvalidValue(
            f"destination has no transport: {text}", hint="write docker://…, containers-storage:…, oci:… or another"
        )
    return location


def source_of(
    ctx: Context, found: Image | Outside, access: RegistryAccess, destination: Location | None = None
) -> ImageSource:
    """The image as a source. What the store lacks of a list comes from registries, by `access` from `destination`'s."""
    from builda.builder.image.convert import source_of as stored
    from builda.builder.imageoptions import PushOptions

    if isinstance(found, Outside):
        return found.source
    registry = Reference.parse(destination.where).registry if destination and destination.in_registry else ""
    return stored(ctx, found, PushOptions(access=access), registry)


def _check(location: Location, options: CopyOptions) -> None:
    """Refuse contradictory or unsupported options before any registry is asked."""
    changes = options.format is not None or options.compression is not None
    if options.preserve_digests and changes:
        raise InvalidValue("--preserve-digests cannot be used with another format or compression")
    if options.attachments and changes:
        raise InvalidValue("--attachments cannot be used with another format or compression: they are about a digest")
    if options.attachments and not location.in_registry:
        raise Unsupported("only images in registries have attachments", hint="copy it without --attachments")
    if options.attachments and not options.signatures:
        raise InvalidValue("--attachments cannot be used with --remove-signatures")
    if options.select == "index-only" and (changes or location.in_store):
        where = "in the store" if location.in_store else "in another format or compression"
        raise InvalidValue(f"a list without its images cannot be {where}", hint="--all copies them, too")
    if options.additional and location.row is not None and not location.row.many_names:
        raise Unsupported(f"an image has one name in {location.transport}:", hint="copy it once for each name")
    if location.in_registry and Reference.parse(location.where).digest and options.additional:
        raise InvalidReference("an image that is pushed by its digest has no further names")


def _format(location: Location, source: ImageSource, options: CopyOptions) -> ImageFormat | None:
    """The format to convert to; None where the source has it. Unsupported for an index where there can be none."""
    descriptor, data = source.manifest()
    document = parse(data, descriptor.media_type)
    if isinstance(document, Index) and location.row is not None and not location.row.has_indexes:
        raise Unsupported(f"{location.transport}: holds single images, no list", hint="copy one image: --platform")
    is_docker = document.media_type in (mediatype.DOCKER_MANIFEST, mediatype.DOCKER_LIST)
    wanted = options.format
    if wanted is None and location.row is not None and location.row.wants_oci and is_docker:
        if isinstance(document, Index):
            return None
        if options.preserve_digests:
            raise Unsupported(
                f"an image of Docker's format gets another digest in {location.transport}:",
                hint="copy it without --preserve-digests, or to dir:",
            )
        wanted = "oci"
    return None if wanted is None or (wanted == "docker") == is_docker else wanted


def _copied(
    ctx: Context,
    source: ImageSource,
    sink: ImageSink,
    location: Location,
    options: CopyOptions,
    carrier: Carrier | None,
) -> Descriptor:
    if options.compression is not None:
        level, force = options.compression_level, options.force_compression
        source = Recompressed(source, sink, options.compression, level, force=force)
    if carrier is not None:
        sink = _carried(carrier, sink, location, options) or sink
    written = copy_image(source, sink, select=options.select, action="push", emit=ctx.emit)
    if location.in_registry:
        first = Reference.parse(location.where)
        for name in options.additional:
            place = Location.at_registry(name)
            other = sink_at(ctx, place, options.destination, (first,))
            if carrier is not None:
                other = _carried(carrier, other, place, options) or other
            copy_image(source, other, select=options.select, action="push", emit=ctx.emit)
    return written


def _relatives(found: Image | Outside) -> tuple[Reference, ...]:
    """Names that a registry may have the image's layers under."""
    if isinstance(found, Outside):
        return (found.place,) if isinstance(found.place, Reference) else ()
    names = []
    for name in found.names:
        try:
            names.append(Reference.parse(name))
        except InvalidReference:
            continue
    return tuple(names)


def repository(text: str) -> Reference:
    """The repository, or the image in a registry, that a user writes with or without `docker://`."""
    location = parse_location(text)
    if location is not None and not location.in_registry:
        raise InvalidValue(f"not in a registry: {text}", hint="write docker://HOST/NAME")
    return Reference.parse(text if location is None else location.where)


def delete(ctx: Context, text: str, access: RegistryAccess) -> Descriptor:
    """Delete the image of a tag or digest from a registry, with all its tags; its descriptor.

    NotFound if the registry does not have it.
    """
    location = parse_location(text)
    if location is None or not location.in_registry:
        raise InvalidValue(
            f"only images in registries can be deleted: {text}",
            hint="builda rmi removes images of the store",
        )
    reference = Reference.parse(location.where)
    gone = ctx.remote.delete(reference, access)
    if gone is None:
        raise NotFound(f"registry has no such image: {reference}")
    return gone


def _access() -> RegistryAccess:
    from builda.builder.imageoptions import RegistryAccess

    return RegistryAccess()


def save(ctx: Context, name: str, transport: str, path: str, options: PushOptions) -> Descriptor:
    """The stored image is in a file or directory, by its name where the transport has names."""
    from builda.builder.image.push import push_to
    from builda.transfer.locate import TRANSPORTS

    full = ctx.store.images.full_name(in_store(name))
    named = full is not None and "@" not in full and TRANSPORTS[transport].has_names
    return push_to(ctx, ctx.store.image(in_store(name)), Location(transport, path, full if named else None), options)


def save_together(ctx: Context, names: tuple[str, ...], path: str) -> None:
    """The stored images are in one docker-archive, each once, with the names by which it is called here."""
    from builda.builder.imageoptions import PushOptions
    from builda.transfer.dockerarchive import ManyImagesSink

    images: dict[Digest, tuple[Image, list[str]]] = {}
    for name in map(in_store, names):
        image, full = ctx.store.image(name), ctx.store.images.full_name(name)
        images.setdefault(image.digest, (image, []))[1].extend([full] if full is not None and "@" not in full else ())
    sink = ManyImagesSink(path)
    for image, called in images.values():
        sink.call(tuple(dict.fromkeys(called)))
        copy_image(source_of(ctx, image, PushOptions().access), sink, action="push", emit=ctx.emit)
    sink.finish()


def are_one(ctx: Context, names: tuple[str, ...]) -> bool:
    """Whether all these names mean the same image of the store."""
    return len({ctx.store.image(in_store(name)).digest for name in names}) == 1


def load(ctx: Context, path: str, access: RegistryAccess) -> Iterator[Image]:
    """Store the images of an archive, layout or directory, and yield each. Names of other images are not moved."""
    from builda.builder.image.pull import from_file
    from builda.builder.imageoptions import PullOptions

    with _readable_again(path) as file:
        for location in locations_in(file):
            yield from_file(ctx, location, PullOptions(access=access))


@contextmanager
def _readable_again(path: str) -> Iterator[str]:
    """The path of the same content, which can be read more than once: what comes through a pipe is put into a file."""
    if os.path.isdir(path) or os.path.isfile(path):
        yield path
        return
    if not os.path.exists(path):
        raise NotFound(f"no such file or directory: {path}")
    with tempfile.NamedTemporaryFile(prefix="builda-") as file, open(path, "rb") as pipe:
        shutil.copyfileobj(pipe, file, 1 << 20)
        file.flush()
        yield file.name
