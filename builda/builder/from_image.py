"""`from`: a new working container."""

from __future__ import annotations

from builda.builder.image.pull import container_prefix, machine_platform, pull
from builda.errors import InvalidReference, InvalidValue
from builda.events import Warned
from builda.oci.config import ImageConfig
from builda.oci.docker import without_bookkeeping
from builda.oci.reference import DEFAULT_TAG, LOCAL_REGISTRY, parse_short
from builda.plan import RunOptions
from builda.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from builda.builder.context import Context
    from builda.builder.imageoptions import FromOptions
    from builda.store.containers import WorkingContainer
    from builda.store.store import Image, Store

SCRATCH = "scratch"
CONTAINER = "container:"
"""What stands before the name of a working container that a new one begins as a copy of."""


def from_image(ctx: Context, name: str, options: FromOptions) -> WorkingContainer:
    """A new working container; nothing of it is left when it cannot be made."""
    ctx.store.lease()
    if options.run != RunOptions():
        from builda.builder.run.runcheck import check

        check(options.run)
        if options.run.names_a_user_namespace:
            from builda.builder.run.usernamespace import checked

            checked(ctx, options.run)
    if name.startswith(CONTAINER):
        return _from_container(ctx, ctx.store.container(name.removeprefix(CONTAINER)), options)
    image = None if name == SCRATCH else pull(ctx, name, options.pull)
    if image is not None and image.config.onbuild:
        count = len(image.config.onbuild)
        message = f"{count} ONBUILD instruction{'s' * (count > 1)} of the image only act in a build"
        ctx.emit(Warned(message=message, note=True))
    cached = options.cache is not None and ctx.store.snapshots.driver.has_trees
    as_list = not cached and _begins_as_list(ctx.store, image)
    base, key = ctx.store.snapshots.prepare_for(image, ctx.emit, as_list=as_list)
    try:
        prefix = options.suffix if image is None else f"{container_prefix(ctx.store, name, image)}-{options.suffix}"
        container = _record(ctx, name, image, options, base, key)
        return ctx.store.create_container(container, name=options.name, prefix=prefix)
    except BaseException:
        ctx.store.snapshots.remove(key)
        raise


def _begins_as_list(store: Store, image: Image | None) -> bool:
    """Whether the container does without a tree until it needs one: where making one takes unpacking."""
    if not store.snapshots.driver.has_trees:
        return True
    return store.snapshots.composes and image is not None and not store.snapshots.new.is_unpacked(image)


def _from_container(ctx: Context, other: WorkingContainer, options: FromOptions) -> WorkingContainer:
    """A container that stands where `other` does: base, frozen layers, configuration and history."""
    from builda.builder.mountpoint_cleanup import settle
    from builda.builder.working_tree import occupied

    with occupied(ctx, other) as current:
        settle(ctx, current)
        if ctx.store.snapshots.kind_of(current.snapshot).is_changed(current.snapshot, current.top):
            raise InvalidValue(
                f"working container has changes that are not in a layer: {other.name}",
                hint="run, copy and add make layers with --layer",
            )
    image = None if current.image_digest is None else ctx.store.image(str(current.image_digest))
    key = ctx.store.snapshots.prepare_on(image, current.top, as_list=ctx.store.snapshots.is_list(current.snapshot))
    made = replace(
        current,
        id=new_container_id(),
        name="",
        snapshot=key,
        options=options.run.over(current.options),
        created=ctx.now(),
        mount_point=None,
        cache=None if options.cache is None else current.cache,
    )
    try:
        prefix = f"{other.name.removesuffix(f'-{options.suffix}')}-{options.suffix}"
        return ctx.store.create_container(made, name=options.name, prefix=prefix)
    except BaseException:
        ctx.store.snapshots.remove(key)
        raise


def new_container_id() -> str:
    """An ID that no other container has."""
    from builda.store.containers import new_id

    return new_id()


def _record(
    ctx: Context, name: str, image: Image | None, options: FromOptions, base: str | None, key: str
) -> WorkingContainer:
    from builda.store.containers import WorkingContainer

    return WorkingContainer(
        id=new_container_id(),
        name="",
        image=image_name(name, image),
        image_id=None if image is None else image.id,
        image_digest=None if image is None else image.digest,
        base=base,
        snapshot=key,
        config=_config(image, options),
        annotations=base_annotations(name, image),
        options=options.run,
        format=options.format,
        created=ctx.now(),
    )


def image_name(name: str, image: Image | None) -> str:
    """The base image's name as Buildah records it: the full name; for an ID any of its names; else the user's text."""
    if image is None:
        return ""
    names = sorted(image.names, key=lambda known: not known.startswith(f"{LOCAL_REGISTRY}/"))  # looked for there first
    try:
        short = parse_short(name)
    except InvalidReference:  # a file, or docker://
        return image.names[0] if names else name
    tail = f"{short.repository}:{short.tag or DEFAULT_TAG}"
    meant = f"{short.registry}/{tail}" if short.registry else f"/{tail}"
    fits = (known for known in names if known == meant or (short.registry is None and known.endswith(meant)))
    return next(fits, image.names[0] if names else name)


def base_annotations(name: str, image: Image | None) -> Mapping[str, str]:
    """The annotations of a new container: those of its base, and the digest and name of that base.

    `name` is how the base was asked for. An image that was named by its ID has no base name.
    """
    from builda.builder.image.push import BASE_DIGEST, BASE_NAME

    if image is None:
        return {}
    annotations = {key: value for key, value in image.manifest.annotations.items() if key != BASE_NAME}
    full = _pinned_name(name) or image_name(name, image)
    named = {BASE_NAME: full} if full in image.names or _pinned_name(name) else {}
    return {**annotations, **named, BASE_DIGEST: str(image.digest)}


def _pinned_name(name: str) -> str | None:
    """The name with its tag of a full name that has a digest, too; None for others."""
    try:
        short = parse_short(name)
    except InvalidReference:
        return None
    if None in (short.registry, short.tag, short.digest):
        return None
    return f"{short.registry}/{short.repository}:{short.tag}"


def _config(image: Image | None, options: FromOptions) -> ImageConfig:
    if image is None:
        return ImageConfig(platform=options.pull.platform or machine_platform())
    return without_bookkeeping(image.config)
