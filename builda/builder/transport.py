"""pull and push: images between the store and everywhere else, by the policy asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from builda.errors import InvalidReference, NotFound, RegistryError, Unsupported
from builda.oci.descriptor import Platform
from builda.oci.reference import LOCAL_REGISTRY, Reference
from builda.transfer.locate import Location, open_sink, open_source, parse_location

if TYPE_CHECKING:
    from builda.builder.options import PullOptions, PushOptions
    from builda.builder.remote import Remote
    from builda.events import Emit
    from builda.oci.descriptor import Descriptor
    from builda.store.store import Image, Store
    from builda.transfer.copy import ImageSink, ImageSource


def pull(store: Store, remote: Remote, name: str, options: PullOptions, emit: Emit) -> Image:
    """The image that `name` means, in the store, fetched as the policy says."""
    location = parse_location(name)
    if location is not None and location.transport == "store":
        return _fitting(store, store.image(location.where), options)
    if location is not None and location.transport != "registry":
        return _fetched(store, open_source(location), _names_of(location), options, emit)
    text = name if location is None else location.where
    known = None if location is not None else store.find_image(text)
    if known is not None and not _is_wanted(known, options):
        known = None
    if known is not None and (options.policy in ("missing", "never") or not _may_be_remote(text, known)):
        return _fitting(store, known, options)
    if options.policy == "never":
        raise NotFound(f"no such image in the store, and pulling is off: {text}", hint=_near(store, text))
    return _from_candidates(store, remote, text, known, options, emit)


def _from_candidates(
    store: Store, remote: Remote, text: str, known: Image | None, options: PullOptions, emit: Emit
) -> Image:
    """Ask the registries that `text` may mean, in order; the first that has it wins."""
    failures: list[RegistryError | NotFound] = []
    for reference in remote.candidates(text):
        source = remote.source(reference, options.access)
        try:
            if known is not None and options.policy == "newer" and source.manifest()[0].digest == known.digest:
                return _fitting(store, known, options)
            return _fetched(store, source, (_stored_name(reference),), options, emit)
        except (RegistryError, NotFound) as error:
            failures.append(error)
    if known is not None and options.policy == "newer":
        return _fitting(store, known, options)
    if not failures:
        raise NotFound(f"no such image: {text}", hint=_near(store, text))
    if len(failures) == 1:
        raise failures[0]
    tried = "; ".join(str(failure) for failure in failures)
    raise NotFound(f"no registry has the image {text}: {tried}", hint=_near(store, text))


def _fetched(store: Store, source: ImageSource, names: tuple[str, ...], options: PullOptions, emit: Emit) -> Image:
    from builda.transfer.copy import copy_image
    from builda.transfer.stored import StoreSink

    sink = StoreSink(store, names)
    copy_image(source, sink, platform=options.platform or this_machine(), emit=emit)
    assert sink.image is not None
    return sink.image


def this_machine() -> Platform:
    """The platform that this machine runs."""
    return Platform.of_machine(os.uname().machine)


def _is_wanted(image: Image, options: PullOptions) -> bool:
    """Whether a stored image is for the platform asked for; an index may have it."""
    return options.platform is None or image.is_index or options.platform.runs(image.config.platform)


def _fitting(store: Store, image: Image, options: PullOptions) -> Image:
    """The image itself, or of an index the one for the platform."""
    if not image.is_index:
        return image
    from builda.oci.manifest import Index, choose

    assert isinstance(image.document, Index)
    entry = choose(image.document, options.platform or this_machine())
    stored = store.find_image(str(entry.digest))
    if stored is not None:
        return stored
    from dataclasses import replace

    return store.put_image(replace(entry, platform=None, annotations={}))


def _may_be_remote(text: str, known: Image) -> bool:
    """Whether a registry can be asked about it: not for IDs and not for what is called localhost's."""
    names = [name for name in known.names if not name.startswith(f"{LOCAL_REGISTRY}/")]
    return bool(names) and not known.id.encoded.startswith(text.removeprefix("sha256:"))


def _stored_name(reference: Reference) -> str:
    """What a pulled image is called; one pulled by digest alone keeps the digest in its name."""
    return str(reference._replace(digest=None) if reference.tag is not None else reference)


def _names_of(location: Location) -> tuple[str, ...]:
    """What an image from a file is called in the store: what the file calls it, if that is a name at all."""
    if location.name is None or location.name.startswith("@"):
        return ()
    try:
        return (local_name(location.name),)
    except InvalidReference:
        return ()


def _near(store: Store, text: str) -> str | None:
    try:
        store.image(text)
    except NotFound as error:
        return error.hint
    return None


def push(
    store: Store, remote: Remote, image: Image, destination: str | None, options: PushOptions, emit: Emit
) -> Descriptor:
    """Copy a stored image to `destination`, by default to the registry of its own name; what was written.

    Nothing is encoded anew unless a format or compression is asked for that the image does not have.
    """
    from builda.transfer.copy import copy_image
    from builda.transfer.stored import StoreSource

    image = _converted(store, image, options)
    sink = sink_for(store, remote, _target(image, destination), options)
    return copy_image(StoreSource(store, image), sink, all_platforms=options.all, emit=emit)


def _target(image: Image, destination: str | None) -> Location:
    if destination is None:
        names = [name for name in image.names if not name.startswith(f"{LOCAL_REGISTRY}/")]
        if not names:
            raise InvalidReference(f"image has no registry in its name: {image.id}", hint="say where to push it")
        return Location("registry", names[0])
    return parse_location(destination) or Location("registry", destination)


def sink_for(store: Store, remote: Remote, location: Location, options: PushOptions) -> ImageSink:
    """Where an image becomes the one at `location`."""
    if location.transport == "registry":
        return remote.sink(Reference.parse(location.where), options.access)
    if location.transport == "store":
        from builda.transfer.stored import StoreSink

        return StoreSink(store, (local_name(location.where),))
    return open_sink(location)


def _converted(store: Store, image: Image, options: PushOptions) -> Image:
    """The image in the format and compression asked for: itself, when it is so already."""
    if image.is_index:
        if options.format is not None or options.compression is not None:
            raise Unsupported("an index is pushed as it is", hint="push its images one by one to convert them")
        return image
    from builda.oci import mediatype

    has: Literal["oci", "docker"] = "docker" if image.media_type == mediatype.DOCKER_MANIFEST else "oci"
    wanted = options.format or has
    kinds = {mediatype.compression_of(layer.media_type) for layer in image.manifest.layers}
    compress = options.compression is not None and kinds not in (set(), {options.compression})
    if wanted == has and not compress and not (options.force_compression and options.compression is not None):
        return image
    from builda.builder.convert import convert

    return convert(store, image, wanted, options)


def local_name(text: str) -> str:
    """The full name of an image in the store: localhost's when it names no registry."""
    return str(Reference.parse(text, default_registry=LOCAL_REGISTRY))
