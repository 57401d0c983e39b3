"""Source images: the sources that an image was built from, as layers of an artifact in an OCI layout.

The form is Buildah's: a manifest whose configuration says author and time only, and one gzip-compressed tar for each
artifact.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from builda.builder.records import timestamp
from builda.errors import AlreadyExists, CorruptContent, InvalidReference, InvalidValue, NotFound, Unsupported
from builda.fs import paths
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.document import encode
from builda.oci.manifest import Manifest, parse
from builda.oci.reference import Reference, parse_short
from builda.transfer import blobfile
from builda.transfer.copyimage import copy_image
from builda.transfer.locate import parse_location
from builda.transfer.ocilayout import LayoutSink, blob_name, change_manifest, manifest_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.builder.context import Context
    from builda.builder.imageoptions import RegistryAccess
    from builda.fs.tar import Writable
    from builda.transfer.locate import Location

CONFIG = "application/vnd.oci.source.image.config.v1+json"


def create(path: str, *, author: str, created: float | None) -> Descriptor:
    """A new source image without artifacts in the layout `path`, which may end in `:NAME`; its manifest.

    AlreadyExists if the directory is there.
    """
    root, name = _place(path)
    if os.path.lexists(root):
        raise AlreadyExists(f"creating source image: {root} already exists", hint="source add adds to it")
    times = {} if created is None else {"created": timestamp(created)}
    config = encode({**times, **({"author": author} if author else {})})
    described = Descriptor(media_type=CONFIG, digest=Digest.of(config), size=len(config))
    # without layers Buildah writes null, and the same image should have the same digest
    value = {"schemaVersion": 2, "mediaType": mediatype.MANIFEST, "config": described.to_json(), "layers": None}
    manifest = encode(value)
    made = Descriptor(media_type=mediatype.MANIFEST, digest=Digest.of(manifest), size=len(manifest))
    try:
        (Path(root) / blob_name(described.digest)).parent.mkdir(parents=True)
        blobfile.write_whole(Path(root) / blob_name(described.digest), config)
        LayoutSink(root, name).put_manifest(made, manifest, top=True)
    except BaseException:
        paths.discard(root)
        raise
    return made


def add(path: str, artifact: str, annotations: Mapping[str, str]) -> Descriptor:
    """Add a file or a directory to a source image as a layer; the new manifest.

    NotFound if one of them is not there, Unsupported for a layout of something else. Nothing has changed then.
    """
    root, name = _place(path)
    _check(manifest_in(root, name), path)
    layer = _layer(Path(root), artifact)
    entry = Descriptor(
        media_type=mediatype.LAYER_GZIP, digest=layer.digest, size=layer.size, annotations=dict(annotations)
    ).to_json()
    return change_manifest(root, name, lambda value: {**value, "layers": [*(value.get("layers") or ()), entry]})


def push(ctx: Context, path: str, name: str, access: RegistryAccess) -> Descriptor:
    """Copy a source image from its layout to a registry; what was written there."""
    source = ctx.remote.source(_location(path), access)
    _check(source.manifest(), path)
    return copy_image(source, ctx.remote.sink(_full(name), access), action="push", emit=ctx.emit)


def pull(ctx: Context, name: str, path: str, access: RegistryAccess) -> Descriptor:
    """Copy a source image from a registry to a new layout. Unsupported for what is none; nothing is made then."""
    root, tag = _place(path)
    if os.path.lexists(root):
        raise AlreadyExists(f"{root} already exists", hint="name another directory")
    source = ctx.remote.source(_full(name), access)
    _check(source.manifest(), name)
    try:
        Path(root).mkdir()
        return copy_image(source, LayoutSink(root, tag), emit=ctx.emit)
    except BaseException:
        paths.discard(root)
        raise


def _place(path: str) -> tuple[str, str | None]:
    """The directory of a layout and the name in it, which may stand behind a colon."""
    location = _location(path)
    return location.where, location.name


def _location(path: str) -> Location:
    location = parse_location(f"oci:{path}")
    assert location is not None
    return location


def _full(name: str) -> Reference:
    if parse_short(name).registry is None:
        raise InvalidReference(f"short name is not supported for source images: {name}", hint="write the registry, too")
    return Reference.parse(name)


def _check(manifest: tuple[Descriptor, bytes], what: str) -> None:
    """Raise Unsupported if the manifest is not that of a source image."""
    descriptor, data = manifest
    document = parse(data, descriptor.media_type)
    found = document.config.media_type if isinstance(document, Manifest) else document.media_type
    if found != CONFIG:
        raise Unsupported(f"invalid media type of image config, {found} instead of {CONFIG}: {what}")


def _layer(root: Path, artifact: str) -> Descriptor:
    """The artifact as a blob of the layout."""
    from builda.fs.pipeline import write_layer

    try:
        fd = os.open(artifact, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"no such file or directory for the artifact: {artifact}") from error
    blobs = root / "blobs/sha256"
    try:
        temporary, path = tempfile.mkstemp(prefix=".builda-", dir=blobs)
        try:
            with open(temporary, "r+b") as out:
                made = write_layer(lambda sink: _write(fd, artifact, sink), out, compression="gzip")
                out.flush()
                os.fchmod(temporary, 0o644)
                os.fsync(temporary)
                os.replace(path, blobs / made.digest.encoded)
        except BaseException:
            if os.path.lexists(path):
                os.unlink(path)
            raise
    finally:
        os.close(fd)
    return Descriptor(media_type=mediatype.LAYER_GZIP, digest=made.digest, size=made.size)


def _write(fd: int, artifact: str, sink: Writable) -> None:
    """The tar of a directory's content, or of one file under its own name."""
    from builda.fs.tar import REGULAR, TarEntry, TarWriter
    from builda.fs.trees.diff import add_file, write_tree

    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        write_tree(fd, sink)
        return
    if not stat.S_ISREG(info.st_mode):
        raise InvalidValue(f"artifact is neither a file nor a directory: {artifact}")
    tar = TarWriter(sink)
    name = os.fsencode(os.path.basename(os.path.abspath(artifact)))
    tar.add(
        TarEntry(
            name,
            REGULAR,
            size=info.st_size,
            mode=stat.S_IMODE(info.st_mode),
            uid=info.st_uid,
            gid=info.st_gid,
            mtime=int(info.st_mtime),
        )
    )
    if not add_file(tar, fd, info):
        raise CorruptContent(f"artifact became shorter while it was read: {artifact}")
    tar.pad(info.st_size)
    tar.close()
