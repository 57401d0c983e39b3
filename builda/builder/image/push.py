"""`push`: a stored image to a registry, a layout or an archive; and where a `commit` with a transport goes."""

from __future__ import annotations

from builda.errors import InvalidReference, InvalidValue
from builda.oci.reference import Reference, in_store, parse_short
from builda.transfer.locate import Location, parse_location
from builda.values import replace

BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import PushOptions, RegistryAccess
    from builda.oci.descriptor import Descriptor
    from builda.store.store import Image, Store
    from builda.transfer.copyimage import ImageSink, Select


def push(ctx: Context, name: str, destination: str | None, options: PushOptions) -> Descriptor:
    """Copy the image to where `destination` says; its descriptor there."""
    name = in_store(name)
    image = ctx.store.image(name)
    return push_to(ctx, image, _named(ctx, _destination(image, name, destination), name), options)


def destination_of(ctx: Context, name: str, destination: str | None) -> tuple[Image, Location]:
    """The stored image that `push` would copy, and where to."""
    image = ctx.store.image(in_store(name))
    return image, _destination(image, in_store(name), destination)


def push_to(ctx: Context, image: Image, location: Location, options: PushOptions) -> Descriptor:
    """Copy the image to the location; its descriptor there."""
    from builda.builder.image.convert import source_of
    from builda.transfer.copyimage import copy_image

    ctx.store.lease()
    source = source_of(ctx, image, _fitting(location, image, options), _registry_of(location))
    sink = _sink(ctx, image, location, options.access)
    if image.is_index and options.compression is not None:
        from builda.transfer.converting import Recompressed

        force = options.force_compression
        source = Recompressed(source, sink, options.compression, options.compression_level, force=force)
    if options.added_compressions:
        from builda.transfer.converting import Supplemented

        source = Supplemented(source, sink, options.added_compressions)
    select: Select = "index-only" if options.alone else "all"
    return copy_image(source, sink, select=select, action="push", emit=ctx.emit)


def _registry_of(location: Location) -> str | None:
    return Reference.parse(location.where).registry if location.in_registry else None


def _named(ctx: Context, location: Location, name: str) -> Location:
    """The location with a name: an archive without one gets the name that was pushed, to be loaded under."""
    if location.row is None or not location.row.is_archive or location.name is not None:
        return location
    full = ctx.store.images.full_name(name)
    return location if full is None or "@" in full else location._replace(name=full)


def write_to(ctx: Context, image: Image, location: Location, access: RegistryAccess) -> Descriptor:
    """Copy the image as it is to `location`."""
    from builda.builder.imageoptions import PushOptions

    return push_to(ctx, image, location, PushOptions(access=access))


def _fitting(location: Location, image: Image, options: PushOptions) -> PushOptions:
    """`options` with the OCI format for image layouts: others find no Docker manifest in them, as Buildah knows."""
    if location.row is not None and location.row.wants_oci and options.format is None and not image.is_index:
        return replace(options, format="oci")
    return options


def _sink(ctx: Context, image: Image, location: Location, access: RegistryAccess) -> ImageSink:
    return sink_at(ctx, location, access, _relatives(ctx.store, image))


def sink_at(
    ctx: Context,
    location: Location,
    access: RegistryAccess,
    relatives: tuple[Reference, ...] = (),
    also: tuple[str, ...] = (),
) -> ImageSink:
    """The sink that makes an image the one at a location; a registry may have its layers under `relatives` already.

    `also` are further names, which the store and transports with many names take.
    """
    if access.signing is not None:
        place = Reference.parse(location.where) if location.in_registry else location
        signed = ctx.remote.signing(place, access)  # which refuses before anything is written
        return signed(sink_at(ctx, location, replace(access, signing=None), relatives, also))
    if location.in_registry:
        return ctx.remote.sink(Reference.parse(location.where), access, relatives)
    if location.in_store:
        from builda.transfer.stored import StoreSink

        return StoreSink(ctx.store, tuple(map(local_name, (location.where, *also))))
    from builda.transfer.locate import open_sink

    sink = open_sink(location)
    if also:
        from builda.transfer.copyimage import NamedSink

        assert isinstance(sink, NamedSink), "the others have one name"
        sink.call(also)
    return sink


def _relatives(store: Store, image: Image) -> tuple[Reference, ...]:
    """Names under which a registry may have the layers already: the image's own, its base's, for a list its images'."""
    base: tuple[str, ...] = ()
    found: list[Reference] = []
    if image.is_index:
        from builda.builder.image.indexsource import origins_of

        found += origins_of(store, image)
    else:
        base = (image.manifest.annotations.get(BASE_NAME, ""),)
    for name in (*image.names, *base):
        try:
            found.append(Reference.parse(name))
        except InvalidReference:
            continue
    return tuple(found)


def local_name(text: str) -> str:
    """The full name in the store for `text`: on localhost without a registry, `:latest` without a tag."""
    reference = Reference.parse(text, default_registry="localhost")
    if reference.digest is not None:
        raise InvalidReference(f"cannot name an image by a digest: {text}", hint="name it by a tag")
    return str(reference)


def _destination(image: Image, name: str, destination: str | None) -> Location:
    if destination is not None:
        return parse_location(destination) or Location.at_registry(destination)
    try:
        if parse_short(name).registry is not None:
            return Location.at_registry(name)
    except InvalidReference:
        pass
    if not image.names:
        raise InvalidValue(f"image has no name to push it to: {name}", hint="say where: builda push IMAGE DESTINATION")
    return Location.at_registry(next((full for full in image.names if _short_of(full) == name), image.names[0]))


def _short_of(full: str) -> str:
    return full.rpartition("/")[2].removesuffix(":latest")
