"""commit: a working container to an image.

Every layer's bytes are made once, compressed, and are what is pushed later. What is decided (configuration, history,
manifest) are pure functions; the image appears when the store is given its manifest, its name last.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from builda import __version__
from builda.errors import InvalidValue, NotFound, Unsupported
from builda.oci import edits, mediatype
from builda.oci.config import History, ImageConfig, chain_ids, dump_config
from builda.oci.descriptor import Descriptor
from builda.oci.manifest import Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from builda.builder.options import CommitOptions, ImageFormat
    from builda.events import Emit
    from builda.fs.layer import Clamp
    from builda.fs.pipeline import WrittenLayer
    from builda.fs.tar import Writable
    from builda.oci.digest import Digest
    from builda.store.containers import FrozenLayer
    from builda.store.store import Image, Store, WorkingContainer

IDENTITY_LABEL = "io.builda.version"
CREATED = "org.opencontainers.image.created"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"


class Made(NamedTuple):
    """A layer of the new image: its blob, its DiffID and what history says of it; no blob means only history."""

    history: History
    blob: Descriptor | None = None
    diff_id: Digest | None = None


def write_image(store: Store, container: WorkingContainer, options: CommitOptions, *, now: float, emit: Emit) -> Image:
    """The image of `container`, in the store and without a name.

    Nothing of it is visible before it is whole; on any error the store is as before, and what was written is garbage.
    """
    store.lease()
    moment = timestamp(now if options.epoch is None else options.epoch)
    base = None if container.image_digest is None else store.image(str(container.image_digest))
    layers = _squashed(store, container, options) if options.squash else _layers(store, container, options, emit)
    if options.add_files:
        layers = (*layers, _added_files(store, options))
    image_format = options.format or container.format
    config = _config(container, options, layers, moment)
    inherited = () if base is None or options.squash else base.manifest.layers
    blobs = tuple(layer.blob for layer in layers if layer.blob is not None)
    kind = mediatype.DOCKER_CONFIG if image_format == "docker" else mediatype.CONFIG
    manifest = Manifest(
        media_type=mediatype.DOCKER_MANIFEST if image_format == "docker" else mediatype.MANIFEST,
        config=store.put_bytes(dump_config(config), kind),
        layers=tuple(_typed(layer, image_format) for layer in (*inherited, *blobs)),
        annotations={} if image_format == "docker" else _annotations(container, options, moment),
    )
    return store.put_image(store.put_bytes(manifest.dump(), manifest.media_type))


def keep_unpacked(store: Store, container: WorkingContainer, image: Image) -> bool:
    """Give the container's own tree to the image as its unpacked layer, by rename; whether that was possible.

    The container has no tree afterwards: only for one that is removed next.
    """
    chains = chain_ids(image.config.diff_ids)
    below = 0 if container.image_digest is None else len(store.image(str(container.image_digest)).config.diff_ids)
    if (
        store.driver != "overlay"
        or container.layers
        or len(chains) != below + 1
        or store.snapshots.find_chain(chains[-1])
    ):
        return False
    if container.mount_point is not None or (below and store.snapshots.find_chain(chains[-2]) != container.base):
        return False
    store.bind_chain(chains[-1], store.freeze(container.snapshot))
    return True


def append_to_index(store: Store, name: str, image: Image) -> Image:
    """The index called `name` lists the image as well, in place of one for the same platform."""
    known = store.find_image(name)
    entries: tuple[Descriptor, ...] = ()
    if known is not None:
        if not known.is_index or not isinstance(known.document, Index):
            raise InvalidValue(f"not an index, so nothing can be added to it: {name}")
        entries = known.document.manifests
    added = replace(image.descriptor, platform=image.config.platform)
    kept = tuple(entry for entry in entries if entry.platform != added.platform)
    index = Index(manifests=(*kept, added))
    return store.put_image(store.put_bytes(index.dump(), index.media_type), names=(name,))


def timestamp(seconds: float) -> str:
    """RFC 3339, UTC, with as many digits as it takes."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def _config(container: WorkingContainer, options: CommitOptions, layers: tuple[Made, ...], moment: str) -> ImageConfig:
    from builda.builder.changes import change, merge_config

    config = container.config
    if options.config is not None:
        config = merge_config(config, options.config)
    config = reduce(change, options.changes, config)
    for name in options.unset_env:
        config = edits.apply(config, edits.UnsetEnv(name))
    for name in options.unset_labels:
        config = edits.apply(config, edits.UnsetLabel(name))
    if options.identity_label and options.epoch is None:
        config = edits.apply(config, edits.SetLabel(IDENTITY_LABEL, __version__))
    diff_ids = tuple(layer.diff_id for layer in layers if layer.diff_id is not None)
    history = tuple(
        replace(layer.history, created=moment, empty_layer=layer.blob is None)
        if options.epoch is not None or layer.history.created is None
        else replace(layer.history, empty_layer=layer.blob is None)
        for layer in layers
    )
    base_history, base_diff_ids = ((), ()) if options.squash else (config.history, config.diff_ids)
    return replace(
        config,
        created=moment,
        diff_ids=(*base_diff_ids, *diff_ids),
        history=() if options.omit_history else (*base_history, *history),
    )


def _annotations(container: WorkingContainer, options: CommitOptions, moment: str) -> Mapping[str, str]:
    annotations = dict(container.annotations)
    if container.image and container.image_digest is not None and options.identity_label:
        annotations.setdefault(BASE_NAME, container.image)
        annotations[BASE_DIGEST] = str(container.image_digest)
    if options.created_annotation:
        annotations[CREATED] = moment
    annotations.update(options.annotations)
    return {name: value for name, value in annotations.items() if name not in options.unset_annotations}


def _typed(layer: Descriptor, image_format: ImageFormat) -> Descriptor:
    """The layer with the media type that it has in a manifest of this format; its bytes stay."""
    kind = mediatype.layer_media_type(image_format, mediatype.compression_of(layer.media_type))
    return replace(layer, media_type=kind)


def _clamp(options: CommitOptions) -> Clamp:
    from builda.fs.layer import Clamp

    return Clamp(latest=options.clamp, exact=options.timestamp)


def _layers(store: Store, container: WorkingContainer, options: CommitOptions, emit: Emit) -> tuple[Made, ...]:
    """The frozen layers, then the pending history, then what was changed since."""
    frozen = tuple(_frozen(store, layer, options) for layer in container.layers)
    pending = tuple(Made(entry) for entry in container.history)
    created_by = container.created_by or "/bin/sh"
    history = History(created_by=created_by, comment=container.comment, author=container.config.author)
    own = _stored(store, lambda sink: _changes(store, container.snapshot, sink, options), options)
    return (*frozen, *pending, Made(history, *own))


def _changes(store: Store, snapshot: str, sink: Writable, options: CommitOptions) -> None:
    store.snapshots.write_changes(snapshot, sink, clamp=_clamp(options))


def _frozen(store: Store, layer: FrozenLayer, options: CommitOptions) -> Made:
    if layer.empty:
        return Made(layer.history)
    if layer.blob is not None and layer.diff_id is not None and store.has_blob(layer.blob.digest):
        return Made(layer.history, layer.blob, layer.diff_id)
    return Made(layer.history, *_stored(store, lambda sink: _changes(store, layer.snapshot, sink, options), options))


def _squashed(store: Store, container: WorkingContainer, options: CommitOptions) -> tuple[Made, ...]:
    from builda.fs.layer import write_tree
    from builda.linux.mount import mounted

    def produce(sink: Writable) -> None:
        with mounted(store.rootfs(container.snapshot)) as root:
            write_tree(root, sink, clamp=_clamp(options))

    history = History(created_by=container.created_by or "/bin/sh", comment=container.comment)
    return (Made(history, *_stored(store, produce, options)),)


def _stored(
    store: Store, produce: Callable[[Writable], object], options: CommitOptions
) -> tuple[Descriptor | None, Digest | None]:
    """Write a layer's tar into the store; no blob when it holds no entry."""
    from builda.fs.pipeline import write_layer

    with store.new_blob() as blob:
        written = write_layer(
            produce,
            blob.file,
            compression=options.compression,
            level=options.compression_level,
        )
        if written.uncompressed_size <= 1024:  # the two records that end an archive
            return None, None
        blob.publish(written.digest)
    return descriptor_of(written), written.diff_id


def descriptor_of(written: WrittenLayer) -> Descriptor:
    """The descriptor of a layer that was written."""
    kind = mediatype.layer_media_type("oci", written.compression)
    return Descriptor(media_type=kind, digest=written.digest, size=written.size)


def _added_files(store: Store, options: CommitOptions) -> Made:
    """A layer of the host's files that `--add-file` names: root's, mode 0644, or as executable as they are."""

    def produce(sink: Writable) -> None:
        from builda.fs.tar import TarWriter

        tar = TarWriter(sink)
        for text in sorted(options.add_files, key=lambda item: _destination(item).encode()):
            _add_file(tar, text, options)
        tar.close()

    history = History(created_by=f"/bin/sh -c #(nop) ADD {' '.join(options.add_files)}")
    return Made(history, *_stored(store, produce, options))


def _destination(text: str) -> str:
    source, _, destination = text.partition(":")
    return (destination or source).lstrip("/")


def _add_file(tar: object, text: str, options: CommitOptions) -> None:
    from builda.fs.tar import REGULAR, TarEntry, TarWriter

    assert isinstance(tar, TarWriter)
    source = text.partition(":")[0]
    try:
        with open(source, "rb") as file:
            info = os.fstat(file.fileno())
            mtime = _clamp(options)(int(info.st_mtime))
            mode = 0o755 if info.st_mode & 0o111 else 0o644
            tar.add(TarEntry(_destination(text).encode(), REGULAR, size=info.st_size, mode=mode, mtime=mtime))
            while data := file.read(1 << 20):
                tar.data(data)
            tar.pad(info.st_size)
    except FileNotFoundError as error:
        raise NotFound(f"no such file to add: {source}") from error
    except IsADirectoryError as error:
        raise Unsupported(f"a directory cannot be added: {source}", hint="use builda copy before the commit") from error
