"""`commit`: a working container to an image.

Every layer's bytes are made once, compressed, and are what is pushed later. What the image says of itself (`compose`)
is pure; the image appears when the store is given its manifest, its names after that.
"""

from __future__ import annotations

import os
from functools import partial

from builda.builder.byteprogress import moving
from builda.builder.image import layers
from builda.builder.image.configbytes import config_bytes, stored
from builda.builder.image.layers import LayerOptions, StoredLayer
from builda.builder.image.merging import whole
from builda.builder.image.push import local_name, write_to
from builda.builder.materialize import treed
from builda.builder.mountpoint_cleanup import settle
from builda.builder.records import timestamp
from builda.builder.removal import remove
from builda.builder.working_tree import occupied, rootfs
from builda.display import without_passwords
from builda.errors import NotFound, Unsupported
from builda.events import LayerStored, Warned
from builda.oci import edits, mediatype
from builda.oci.config import History, ImageConfig, chain_ids
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import Manifest
from builda.store.steps import Tree
from builda.transfer.locate import parse_location
from builda.values import NamedTuple, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builda.builder.context import Context
    from builda.builder.imageoptions import CommitOptions
    from builda.fs.tar import Writable
    from builda.store.containers import FrozenLayer, WorkingContainer
    from builda.store.store import Image, Store
    from builda.transfer.locate import Location

IDENTITY_LABELS = ("io.builda.version", "io.buildah.version")
"""What scanners look for, too, has builda's version."""
CREATED = "org.opencontainers.image.created"
DEFAULT_HISTORY = "/bin/sh"
"""What Buildah writes into the history for a layer without a description."""


class Part(NamedTuple):
    """One entry of the new image's history, and its layer if it has one."""

    history: History
    layer: StoredLayer = StoredLayer(None, None)


def commit(ctx: Context, container: WorkingContainer, options: CommitOptions, *, tells: bool = False) -> Image:
    """The image; with `remove` the container is gone afterwards, and its tree has become the image's unpacked layer.

    With `tells` there is an event for each new layer.
    Of an image that only goes to a location the store makes no record, and it keeps the one that it may have.
    """
    location, names = _targets(options)
    ctx.store.lease()
    with occupied(ctx, container) as current, ctx.store.containers.running(current):
        settle(ctx, current)
        own = None
        if options.squash:
            current = treed(ctx, current)
        else:
            current, own = whole(ctx, current, LayerOptions.of(options))
        parts = _parts(ctx, current, own, options)
        if tells:
            _tell(ctx, parts)
        config, manifest = compose(current, parts, _base(ctx.store, current), options, ctx.version, ctx.now())
        made = stored(ctx.store, config, manifest)
        plain = ctx.store.images.unrecorded(made)
        if options.check is not None:
            options.check(plain)
        if options.attest is not None:
            from builda.builder.image.attest import attested, script_build

            name = (names or (options.destination or "image",))[0]
            build = partial(script_build, ctx, current, plain, options)
            made = attested(ctx, plain, options.attest, build, options, name)
        if location is None:
            result = ctx.store.put_image(made, names=names)
        else:
            result = _sent(ctx, made, location, names, options)
        if options.manifest is not None:
            from builda.builder.image import manifestlist

            manifestlist.appended(ctx.store, local_name(options.manifest), result)
        _keep_frozen(ctx, current, own, parts, plain, options)
        if options.remove and own is not None:
            remove(ctx, current)
        elif options.remove:
            _retire(ctx, current, parts, plain, options)
        return result


def _tell(ctx: Context, parts: tuple[Part, ...]) -> None:
    """Emit that the layers of a new image are stored."""
    blobs = [part.layer for part in parts if part.layer.blob is not None]
    for number, layer in enumerate(blobs, 1):
        blob = layer.blob
        assert blob is not None
        ctx.emit(
            LayerStored(index=number, total=len(blobs), digest=blob.digest, bytes=blob.size, diff_id=layer.diff_id)
        )


def _targets(options: CommitOptions) -> tuple[Location | None, tuple[str, ...]]:
    """The location outside of the store that the image is sent to, if any, and its names in the store."""
    further = tuple(map(local_name, options.names))
    location = None if options.destination is None else parse_location(options.destination)
    if location is not None and not location.in_store:
        return location, further
    if options.access.signing is not None:
        raise Unsupported("images have no signatures in the store", hint="push them with --sign-by")
    if options.destination is None:
        return None, further
    return None, (local_name(options.destination if location is None else location.where), *further)


def compose(
    container: WorkingContainer,
    parts: tuple[Part, ...],
    base: Manifest | None,
    options: CommitOptions,
    version: str,
    now: float,
) -> tuple[ImageConfig, Manifest]:
    """What the image says of itself. The manifest's configuration descriptor is yet to be put in."""
    moment = timestamp(now if options.epoch is None else options.epoch)
    config = _config(container, parts, options, moment, version)
    docker = (options.format or container.format) == "docker"
    inherited = () if base is None or options.squash else base.layers
    added = tuple(part.layer.blob for part in parts if part.layer.blob is not None)
    kind = mediatype.DOCKER_CONFIG if docker else mediatype.CONFIG
    data = config_bytes(config, kind)
    manifest = Manifest(
        media_type=mediatype.DOCKER_MANIFEST if docker else mediatype.MANIFEST,
        config=Descriptor(media_type=kind, digest=Digest.of(data), size=len(data)),
        layers=tuple(_typed(layer, docker=docker) for layer in (*inherited, *added)),
        annotations={} if docker else _annotations(container, options, moment),
    )
    return config, manifest


def _config(
    container: WorkingContainer, parts: tuple[Part, ...], options: CommitOptions, moment: str, version: str
) -> ImageConfig:
    config = _changed(container.config, options)
    for name in IDENTITY_LABELS:
        if options.identity_label and options.epoch is None and name not in options.unset_labels:
            config = edits.apply(config, edits.SetLabel(name, version))
    diff_ids = tuple(part.layer.diff_id for part in parts if part.layer.diff_id is not None)
    history = tuple(_dated(part, options, moment) for part in parts)
    before = ((), ()) if options.squash else (config.diff_ids, config.history)
    return replace(
        config,
        created=moment,
        diff_ids=(*before[0], *diff_ids),
        history=() if options.omit_history else (*before[1], *history),
    )


def _changed(config: ImageConfig, options: CommitOptions) -> ImageConfig:
    from builda.builder.image.merge_config import merge_config

    if options.config is not None:
        config = merge_config(config, options.config)
    unset: list[edits.ConfigEdit] = [edits.UnsetEnv(name) for name in options.unset_env]
    unset += [edits.UnsetLabel(name) for name in options.unset_labels]
    return edits.apply_all(config, (*options.changes, *unset))


def _dated(part: Part, options: CommitOptions, moment: str) -> History:
    """The entry as the image gets it: with its time, and without passwords of URLs, which its readers need not know."""
    entry = part.history
    created = entry.created if options.epoch is None and entry.created else moment
    return replace(
        entry,
        created=created,
        created_by=entry.created_by and without_passwords(entry.created_by),
        comment=entry.comment and without_passwords(entry.comment),
        empty_layer=part.layer.blob is None,
    )


def _typed(layer: Descriptor, *, docker: bool) -> Descriptor:
    """The layer with the media type that it has in such a manifest; its bytes stay, builda's own notes do not."""
    kind = mediatype.layer_media_type("docker" if docker else "oci", mediatype.compression_of(layer.media_type))
    notes = {name: value for name, value in layer.annotations.items() if name != layers.TIMES}
    return replace(layer, media_type=kind, annotations=notes)


def _annotations(container: WorkingContainer, options: CommitOptions, moment: str) -> Mapping[str, str]:
    inherited = container.annotations.items() if options.inherit_annotations else ()
    annotations = {name: value for name, value in inherited if name != CREATED}
    if options.created_annotation:
        annotations[CREATED] = moment
    for name in options.unset_annotations:
        annotations.pop(name, None)
    return {**annotations, **dict(options.annotations)}


def _parts(
    ctx: Context, container: WorkingContainer, above: FrozenLayer | None, options: CommitOptions
) -> tuple[Part, ...]:
    """The frozen layers, the history since, and what was changed since; or all of it squashed into one layer.

    `above` is the layer of what was changed since, if it is not in the working tree.
    """
    how = LayerOptions.of(options)
    own = History(
        created_by=container.created_by or DEFAULT_HISTORY, comment=container.comment, author=container.config.author
    )
    pending = tuple(Part(entry) for entry in container.history)
    if options.squash:
        steps = tuple(Part(layer.history) for layer in container.layers if not layer.partial)
        return (*steps, *pending, Part(own, _own_layer(ctx, container, None, options, how)))
    frozen = tuple(Part(layer.history, _result(ctx, layer, how)) for layer in container.layers)
    if above is not None and not options.add_files:
        last = _result(ctx, above, how)
    else:
        last = _own_layer(ctx, container, above, options, how)
    if last.blob is None and container.layers and container.created_by is None:
        return (*frozen, *pending)
    return (*frozen, *pending, Part(own, last))


def _result(ctx: Context, layer: FrozenLayer, how: LayerOptions) -> StoredLayer:
    """The layer's bytes, which are noted with the remembered step that it comes from."""
    found = ctx.layers().result(layer, how, ctx.emit)
    known = None if layer.key is None or found.blob is None else ctx.store.steps.find(layer.key)
    if layer.key is not None and known is not None and known.content == Tree(layer.snapshot):
        content = Tree(layer.snapshot, found.diff_id, found.blob)
        ctx.store.steps.put(layer.key, known._replace(content=content))
    return found


def _own_layer(
    ctx: Context, container: WorkingContainer, above: FrozenLayer | None, options: CommitOptions, how: LayerOptions
) -> StoredLayer:
    """The layer of what no frozen layer has: the changes, or the whole tree; and the host's files to add."""

    def tree(sink: Writable) -> tuple[str, ...]:
        if above is not None:
            return _copied(ctx, _result(ctx, above, how), sink)
        if not options.squash:
            snapshots = ctx.store.snapshots.kind_of(container.snapshot)
            return snapshots.write_changes(container.snapshot, sink, clamp=how.clamp, below=container.top)
        from builda.fs.layer import write_tree
        from builda.linux.mount import mounted

        with mounted(rootfs(ctx, container)) as root:
            return write_tree(root, sink, clamp=how.clamp)

    def size() -> int | None:
        return (
            None if options.squash else ctx.store.snapshots.kind_of(container.snapshot).changed_size(container.snapshot)
        )

    produce = _with_files(tree, options.add_files, how) if options.add_files else tree
    with moving(ctx.emit, "store", container.name, size) as moved:
        layer = layers.write(ctx.store, produce, how, moved)
    for path in layer.skipped:
        ctx.emit(Warned(message=f"socket is left out of the layer: /{path.lstrip('/')}"))
    return layer


def _copied(ctx: Context, layer: StoredLayer, sink: Writable) -> tuple[str, ...]:
    """Write the tar of a stored layer."""
    if layer.blob is not None:
        from builda.store.drivers.layerblob import decompressed

        with decompressed(ctx.store.blobs, layer.blob) as archive:
            while data := archive.read(1 << 20):
                sink.write(data)
    return layer.skipped


def _with_files(
    produce: Callable[[Writable], tuple[str, ...]], texts: tuple[str, ...], how: LayerOptions
) -> Callable[[Writable], tuple[str, ...]]:
    """The tar that `produce` writes, and behind its entries the files that `--add-file source[:destination]` names."""
    from builda.fs.tar import TarWriter

    files = sorted((_destination(text), text.partition(":")[0]) for text in texts)
    for _, source in files:
        if not os.path.isfile(source):
            raise NotFound(
                f"no such file or directory to add: {source}",
                hint="add-file takes files; builda copy takes directories",
            )

    def both(sink: Writable) -> tuple[str, ...]:
        open_end = _WithoutEnd(sink)
        skipped = produce(open_end)
        tar = TarWriter(sink)
        for destination, source in files:
            _add_file(tar, source, destination, how)
        tar.close()
        return skipped

    return both


class _WithoutEnd:
    """Passes a tar on without the two zero records that end it."""

    SIZE = 1024

    def __init__(self, sink: Writable) -> None:
        self._sink = sink
        self._held = b""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Pass on all but the last records."""
        joined = self._held + bytes(data)
        self._held = joined[-self.SIZE :]
        self._sink.write(joined[: -self.SIZE])


def _destination(text: str) -> bytes:
    source, _, destination = text.partition(":")
    path = os.path.normpath(f"/{destination or source}")
    if destination.endswith("/"):
        path = os.path.join(path, os.path.basename(source))
    return os.fsencode(path.lstrip("/"))


def _add_file(tar: object, source: str, destination: bytes, how: LayerOptions) -> None:
    from builda.errors import CorruptContent
    from builda.fs.tar import REGULAR, TarEntry, TarWriter

    assert isinstance(tar, TarWriter)
    with open(source, "rb", buffering=0) as file:
        info = os.fstat(file.fileno())
        mtime = how.clamp(int(info.st_mtime))
        tar.add(TarEntry(destination, REGULAR, size=info.st_size, mode=0o644, mtime=mtime))
        if tar.read_from(file.fileno(), info.st_size) != info.st_size:
            raise CorruptContent(f"file changed while it was added: {source}")
        tar.pad(info.st_size)


def _base(store: Store, container: WorkingContainer) -> Manifest | None:
    """The manifest of the base, whose layers the image has too. The container keeps it from being swept."""
    if container.image_digest is None:
        return None
    from builda.oci.manifest import parse

    document = parse(store.blobs.read(container.image_digest))
    assert isinstance(document, Manifest)
    return document


def _sent(ctx: Context, made: Descriptor, location: Location, names: tuple[str, ...], options: CommitOptions) -> Image:
    """The image, which is at the location; the store has it too if it gets names."""
    image = ctx.store.images.unrecorded(made)
    write_to(ctx, image, location, options.access)
    return ctx.store.put_image(made, names=names) if names else image


def _keep_frozen(
    ctx: Context,
    container: WorkingContainer,
    above: FrozenLayer | None,
    parts: tuple[Part, ...],
    image: Image,
    options: CommitOptions,
) -> None:
    """The frozen trees are found under the image's ChainIDs, so that the next `from` unpacks nothing."""
    if options.squash or not LayerOptions.of(options).keeps_times or not _becomes_layer(ctx.store, container):
        return
    chains = chain_ids(image.config.diff_ids)[len(container.config.diff_ids) :]
    frozen = [layer for layer, part in zip(container.layers, parts, strict=False) if part.layer.blob is not None]
    if above is not None and not options.add_files and parts[-1].layer.blob is not None:
        frozen.append(above)
    for layer, chain in zip(frozen, chains, strict=False):
        if layer.snapshot:  # else there are only its bytes
            ctx.store.snapshots.bind_chain(chain, layer.snapshot)


def _becomes_layer(store: Store, container: WorkingContainer) -> bool:
    """Whether what was changed in the container is a tree of its own, as those of unpacked layers are, and lasts."""
    kind = store.snapshots.kind_of(container.snapshot)
    return kind.driver.stacks and kind.driver.lasts


def _retire(
    ctx: Context, container: WorkingContainer, parts: tuple[Part, ...], image: Image, options: CommitOptions
) -> None:
    """Remove the container; its tree becomes the unpacked top layer of the image where it is just that."""
    store = ctx.store
    last = parts[-1].layer if parts else StoredLayer(None, None)
    is_layer = last.blob is not None and not last.skipped and not (options.squash or options.add_files)
    keeps = is_layer and LayerOptions.of(options).keeps_times and _becomes_layer(store, container)
    if not keeps or container.mount_point is not None:
        remove(ctx, container)
        return
    # The record goes first: a kill in between leaves a tree that nobody works in, for the next prune. A prune of this
    # moment leaves it alone, since it was just touched.
    store.snapshots.new.exists(container.snapshot)
    store.containers.delete(container)
    chain = chain_ids(image.config.diff_ids)[-1]
    if store.snapshots.bind_chain(chain, store.snapshots.freeze(container.snapshot)) != container.snapshot:
        store.snapshots.remove(container.snapshot)
