"""`pull`, and the first half of `from`: what a name means, and when it is fetched."""

from __future__ import annotations

import os
from contextlib import suppress

from builda.errors import BuildaError, InvalidReference, InvalidValue, NotFound, PolicyRejected, RegistryError
from builda.events import SourceUsed, Warned
from builda.oci.digest import is_sha256
from builda.oci.reference import LOCAL_REGISTRY, Reference, parse_short
from builda.transfer.locate import Location, parse_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from builda.builder.context import Context
    from builda.builder.imageoptions import PullOptions, RegistryAccess
    from builda.oci.descriptor import Descriptor, Platform
    from builda.store.store import Image, Store
    from builda.transfer.copyimage import ImageSource

    T = TypeVar("T")

_ABSENT = (404, 401, 403)
"""What registries answer for a repository that they do not have, or do not show to strangers."""


def pull(ctx: Context, name: str, options: PullOptions) -> Image:
    """The image that `name` means, in the store."""
    location = parse_location(name)
    if location is None:
        return _by_name(ctx, name, options)
    if location.in_store:
        return _for_platform(ctx, ctx.store.image(location.where), options)
    if not location.in_registry:
        return from_file(ctx, location, options)
    reference = Reference.parse(location.where)
    local = _fitting(ctx, _name_of(reference), options)
    ctx.decided("image", lambda: _said(name, local, options))
    return _by_policy(ctx, name, local, (reference,), options)


def tagged(ctx: Context, name: str, access: RegistryAccess) -> tuple[str, ...]:
    """The full names of all tags of a repository; InvalidValue for a name with a tag or of another transport."""
    location = parse_location(name)
    if location is not None and not location.in_registry:
        raise InvalidValue(f"only a repository has tags: {name}")
    text = name if location is None else location.where
    if (short := parse_short(text)).tag or short.digest:
        raise InvalidValue(f"a name with a tag means one image: {name}", hint="leave out the tag, or --all-tags")
    reference = ctx.remote.candidates(text)[0]
    return tuple(f"{reference.registry}/{reference.repository}:{tag}" for tag in ctx.remote.tags(reference, access))


def _by_name(ctx: Context, name: str, options: PullOptions) -> Image:
    local = _fitting(ctx, name, options)
    ctx.decided("image", lambda: _said(name, local, options))
    if local is not None and _is_identity(ctx.store, name, local):
        return local
    if local is not None and options.policy == "missing":
        return local
    try:
        references = () if options.policy == "never" else ctx.remote.candidates(name)
        ctx.decided("name", lambda: f"{name} may be {' or '.join(map(str, references)) or 'in the store only'}")
    except InvalidReference as error:
        if local is not None:
            raise
        try:
            return ctx.store.image(name)
        except NotFound as missing:  # its hint says what was meant, when something near it exists
            raise NotFound(str(missing), hint=missing.hint or str(error)) from error
    if local is None and references and all(reference.registry == LOCAL_REGISTRY for reference in references):
        raise _unfit(ctx, name, options)  # localhost is what images of the store are called, no registry
    return _by_policy(ctx, name, local, references, options)


def pull_for_build(ctx: Context, name: str, options: PullOptions) -> Image:
    """Pull like `pull`, and emit an event that names the image as an input of the build."""
    image = pull(ctx, name, options)
    digest, platform = image.digest, str(options.platform or machine_platform())
    named = ctx.store.images.full_name(name) or name
    ctx.emit(SourceUsed(kind="image", name=named, algorithm=digest.algorithm, digest=digest.encoded, platform=platform))
    return image


def _by_policy(
    ctx: Context, name: str, local: Image | None, references: tuple[Reference, ...], options: PullOptions
) -> Image:
    match options.policy:
        case "never":
            if local is None and ctx.store.find_image(name) is not None:
                raise _unfit(ctx, name, options)
            if local is None:
                raise NotFound(f"image not known, and pulling is off: {name}", hint="pull it first, or --pull")
            return local
        case _ if local is None and is_sha256(name):  # it would be read as a repository `sha256`
            raise NotFound(f"image not known: {name}", hint="an ID names no registry; write NAME@sha256:…")
        case "missing" if local is not None:
            return local
        case "newer" if local is not None:
            try:
                return first(references, lambda reference: _pull_one(ctx, reference, options, local))
            except RegistryError as error:
                ctx.emit(Warned(message=f"not updated, the registry cannot be asked: {error}"))
                return local
        case _:
            return first(references, lambda reference: _pull_one(ctx, reference, options, None))


def _said(name: str, local: Image | None, options: PullOptions) -> str:
    stored = "not in the store" if local is None else f"in the store as {local.digest}"
    return f"{name} for {options.platform or machine_platform()}: {stored}; pull policy {options.policy}"


def _is_identity(store: Store, name: str, image: Image) -> bool:
    """Whether `name` is (the beginning of) an ID or a digest: content that no registry has another version of."""
    text = name.removeprefix("sha256:").lower()
    if image.id.encoded.startswith(text):
        return store.images.full_name(name) is None  # a name may be made of hexadecimal digits
    return image.digest.encoded == text or image.digest.encoded in name


def _fitting(ctx: Context, name: str, options: PullOptions) -> Image | None:
    """The stored image of this name, if it is for the platform asked for."""
    found = ctx.store.find_image(name)
    if found is None:
        return None
    try:
        image = _for_platform(ctx, found, options)
    except NotFound:
        return None
    if options.platform is not None and not options.platform.runs(image.config.platform):
        return None
    return image


def _unfit(ctx: Context, name: str, options: PullOptions) -> NotFound:
    """The error for a name without a usable stored image: there is none, or it is for another platform."""
    wanted = options.platform or machine_platform()
    try:
        image = ctx.store.image(name)
    except NotFound as error:
        return error
    if image.is_index:
        return NotFound(f"list names no stored image for {wanted}: {name}")
    return NotFound(f"image is for {image.config.platform}, not for {wanted}: {name}")


def _for_platform(ctx: Context, image: Image, options: PullOptions) -> Image:
    """The image itself, or the one for the platform in a stored index."""
    from builda.oci.manifest import Index, choose

    if not image.is_index:
        return image
    assert isinstance(image.document, Index)
    chosen = choose(image.document, options.platform or machine_platform())
    if not ctx.store.blobs.has(chosen.digest):
        raise NotFound(f"stored index lacks its image for {chosen.platform}: {image.digest}", hint="pull it again")
    try:
        return ctx.store.put_image(chosen)
    except NotFound:
        return _from_origin(ctx, chosen, options)


def _from_origin(ctx: Context, entry: Descriptor, options: PullOptions) -> Image:
    """The image that a list names and whose layers are in a registry, in the store; NotFound if that is not wanted."""
    from builda.builder.image.indexsource import open_origin

    origin = ctx.store.images.origins.get(entry.digest)
    if origin is None or options.policy == "never":
        where = "" if origin is None else f", which {origin.name} has"
        raise NotFound(f"list names an image whose layers are not in the store{where}: {entry.digest}")
    return copied(ctx, open_origin(ctx.remote, origin, options.access), (), options.platform)


def machine_platform() -> Platform:
    """The platform of this machine."""
    from builda.oci.descriptor import Platform

    return Platform.of_machine(os.uname().machine)


def first(references: tuple[Reference, ...], action: Callable[[Reference], T]) -> T:
    """The result of `action` for the first reference that exists in its registry; NotFound if none does."""
    failures: list[BuildaError] = []
    for reference in references:
        try:
            return action(reference)
        except (NotFound, RegistryError, PolicyRejected) as error:
            if len(references) == 1 or (isinstance(error, RegistryError) and error.status not in _ABSENT):
                raise
            failures.append(error)
    raise NotFound(f"no registry has the image: {'; '.join(map(str, failures))}", hint=failures[0].hint)


def _pull_one(ctx: Context, reference: Reference, options: PullOptions, local: Image | None) -> Image:
    source = ctx.remote.source(reference, options.access)
    if local is not None and _is_current(source, local, options):
        return local
    return copied(ctx, source, (_name_of(reference),), options.platform, at_once=True)  # it says what the registry says


def _is_current(source: ImageSource, local: Image, options: PullOptions) -> bool:
    """Whether the registry's name still means the stored image."""
    from builda.oci.manifest import Index, choose, parse
    from builda.transfer.copyimage import outline

    descriptor, data = outline(source)
    document = parse(data, descriptor.media_type)
    if isinstance(document, Index):
        descriptor = choose(document, options.platform or machine_platform())
    return descriptor.digest == local.digest


def copied(
    ctx: Context,
    source: ImageSource,
    names: tuple[str, ...],
    platform: Platform | None,
    *,
    free_only: bool = False,
    at_once: bool = False,
) -> Image:
    """Copy the image of `source` for the platform (None: this machine's) into the store, under `names`.

    With `free_only` names that other images have are not moved, and a warning says so. In a session others see the
    names when it ends, or `at_once`.
    """
    from builda.transfer.copyimage import copy_image
    from builda.transfer.stored import StoreSink

    sink = StoreSink(ctx.store, names, free_only=free_only, at_once=at_once)
    copy_image(source, sink, platform=platform or machine_platform(), emit=ctx.emit)
    assert sink.image is not None
    for name in names:
        if name not in sink.image.names and ctx.store.image(name).id != sink.image.id:
            hint = f"builda tag {sink.image.id.encoded[:12]} {name}"
            ctx.emit(Warned(message=f"name was not moved, as another image has it: {name}", hint=hint))
    return sink.image


def from_file(ctx: Context, location: Location, options: PullOptions) -> Image:
    """The image at a location outside registries. An archive is untrusted, so it takes no name from another image."""
    source = ctx.remote.source(location, options.access)
    by_name = location.row is not None and location.row.by_name
    asked = options.moves_names and (location.is_named or by_name)
    return copied(ctx, source, _names_of(source, location), options.platform, free_only=not asked)


def _names_of(source: ImageSource, location: Location) -> tuple[str, ...]:
    """The names in the store of an image from a file: the one that the user gave, else those in the file."""
    from builda.transfer.copyimage import NamedSource

    if location.is_named:
        return _full_names((location.name or "",), location)
    return _full_names(source.own_names(), location) if isinstance(source, NamedSource) else ()


def _full_names(names: tuple[str, ...], location: Location) -> tuple[str, ...]:
    """Names as the store writes them, on localhost if they name no registry; a bare tag is one of the file's name."""
    base = os.path.basename(location.where.rstrip("/")).partition(".")[0].lower()
    found = []
    for name in names:
        with suppress(InvalidReference):
            text = name if "/" in name or ":" in name else f"{base}:{name}"
            found.append(str(Reference.parse(text, default_registry=LOCAL_REGISTRY)))
    return tuple(found)


def _name_of(reference: Reference) -> str:
    """The name in the store; a tag beside a digest is left out, as the digest decides."""
    return str(reference._replace(tag=None)) if reference.digest is not None else str(reference)


def container_prefix(store: Store, name: str, image: Image) -> str:
    """The default name of a working container on this image: the last part of the image's name.

    For an ID or a file it is taken from the image's own name; without one, 12 digits of the ID, or the transport.
    """
    location = parse_location(name)
    text = name
    if location is not None:
        is_name = location.in_registry or location.in_store
        said = location.where if is_name else location.name if location.is_named else None
        text = said or (image.names[0] if image.names else location.transport)
    elif "@" not in name and _is_identity(store, name, image):
        text = image.names[0] if image.names else image.id.encoded[:12]
    try:
        return parse_short(text).repository.rpartition("/")[2]
    except InvalidReference:
        return os.path.basename(text.rstrip("/")).partition(".")[0].partition(":")[0] or image.id.encoded[:12]
