"""`docker-archive:PATH[:name:tag]`: what `docker save` writes and `docker load` and `podman load` read.

`manifest.json` lists the images of the archive, each with the members that are its configuration and its layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builda.errors import AlreadyExists, CorruptContent, InvalidReference, NotFound, Unsupported
from builda.fs.tar import TarWriter
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, parse_config
from builda.oci.descriptor import Descriptor, string_tuple
from builda.oci.digest import Digest
from builda.oci.document import decode_any, encode
from builda.oci.manifest import ENTRY_LIMIT, MANIFEST_LIMIT, Manifest, parse
from builda.oci.reference import Reference
from builda.transfer.archive import PIECE, ArchiveSink, add_member, is_special
from builda.transfer.members import Members
from builda.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from builda.oci.digest import Readable
    from builda.transfer.copyimage import ImageSource

_SUFFIXES = {"none": ".tar", "gzip": ".tar.gz", "zstd": ".tar.zst"}
_TYPES = {
    "none": mediatype.DOCKER_LAYER,
    "gzip": mediatype.DOCKER_LAYER_GZIP,
    "zstd": mediatype.DOCKER_LAYER_ZSTD,
}


class DockerArchiveSource:
    """The image called `name`, or at `@N`, in an archive; without a name the only one there. `names` are all its names.

    Such an archive has no manifest. The source makes one from its list, with the layers as they are in the archive.
    """

    def __init__(self, path: str, name: str | None, members: Members | None = None) -> None:
        self._members = members or Members(path)
        self._path = path
        entry = self._chosen(name)
        self.names = _tags(entry)
        self._layers = _texts(entry.get("Layers"), f"Layers in manifest.json of {path}")
        if not isinstance(entry.get("Config"), str):
            raise CorruptContent(f"manifest.json names no Config: {path}")
        self._config = self._members.read(entry["Config"], CONFIG_LIMIT)
        self._config_digest = Digest.of(self._config)
        self._diff_ids = parse_config(self._config).diff_ids
        if len(self._diff_ids) != len(self._layers):
            raise CorruptContent(
                f"archive lists {len(self._layers)} layers, its configuration {len(self._diff_ids)} diff_ids: {path}"
            )

    def _chosen(self, name: str | None) -> dict[str, Any]:
        entries = entries_in(self._path, self._members)
        if name is None:
            found = entries
        elif name.startswith("@") and name[1:].isdecimal():
            found = entries[int(name[1:]) :][:1]
        else:
            wanted = str(Reference.parse(name))
            found = [entry for entry in entries if any(_is_called(tag, wanted) for tag in _tags(entry))]
        if len(found) == 1:
            return found[0]
        tags = ", ".join(tag for entry in entries for tag in _tags(entry))
        hint = f"it has: {tags}" if tags else "its images have no names; use @0, @1 …"
        if not found:
            raise NotFound(f"no image {name or ''} in: {self._path}".replace("  ", " "), hint=hint)
        raise NotFound(f"{len(found)} images to choose from in: {self._path}", hint=hint)

    @cached_property
    def _blobs(self) -> tuple[tuple[str, Descriptor], ...]:
        """Each layer's member and descriptor."""
        return tuple(
            (name, self._described(name, diff_id)) for name, diff_id in zip(self._layers, self._diff_ids, strict=True)
        )

    def _described(self, name: str, diff_id: Digest) -> Descriptor:
        import hashlib

        from builda.fs.compress import sniff

        size = self._members.size(name)
        with self._members.open(name) as file:
            head = file.read(PIECE)
            kind = sniff(head)
            if kind == "none":  # its digest must be the diff_id, which is verified when it is read
                return Descriptor(media_type=_TYPES[kind], digest=diff_id, size=size)
            if kind not in _TYPES:
                raise Unsupported(f"layer {name} is compressed with {kind}: {self._path}")
            hasher = hashlib.sha256(head)
            while data := file.read(PIECE):
                hasher.update(data)
        return Descriptor(media_type=_TYPES[kind], digest=Digest("sha256", hasher.hexdigest()), size=size)

    def own_names(self) -> tuple[str, ...]:
        """All of the image's names in the archive that are valid."""
        return tuple(str(reference) for tag in self.names if (reference := _reference(tag)) is not None)

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest made of what the archive lists."""
        config = Descriptor(media_type=mediatype.DOCKER_CONFIG, digest=self._config_digest, size=len(self._config))
        layers = tuple(descriptor for _, descriptor in self._blobs)
        data = Manifest(media_type=mediatype.DOCKER_MANIFEST, config=config, layers=layers).dump()
        return Descriptor(media_type=mediatype.DOCKER_MANIFEST, digest=Digest.of(data), size=len(data)), data

    def child(self, descriptor: Descriptor) -> bytes:
        """NotFound: such an archive has no index."""
        raise NotFound(f"no such manifest in the archive: {descriptor.digest}")

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """The configuration, or a layer, from `offset` on."""
        if descriptor.digest == self._config_digest:
            yield BytesIO(self._config[offset:])
            return
        for name, layer in self._blobs:
            if layer.digest == descriptor.digest:
                with self._members.open(name, offset) as file:
                    yield file
                return
        raise NotFound(f"no such blob in the archive: {descriptor.digest}")

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """None: the archive is one file."""
        return None


def names_in(path: str) -> tuple[str, ...]:
    """The names of all images in an archive, in their order."""
    return tuple(tag for entry in entries_in(path, Members(path)) for tag in _tags(entry))


def entries_in(path: str, members: Members) -> list[dict[str, Any]]:
    """The entries of `manifest.json` in an archive."""
    if "manifest.json" not in members:
        other = "use oci-archive:" if "index.json" in members else "it has no manifest.json"
        raise NotFound(f"not an archive of docker save: {path}", hint=other)
    what = f"manifest.json of {path}"
    entries = decode_any(members.read("manifest.json", MANIFEST_LIMIT), what)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CorruptContent(f"{what} is not a list of images")
    return entries


class DockerArchiveSink(ArchiveSink):
    """An archive with one image under `name`, with its layers as they are. AlreadyExists when there is a file."""

    def __init__(self, path: str, name: str | None) -> None:
        super().__init__(path)
        self._tags: list[str] = []
        self.call(() if name is None else (name,))
        if self.path.exists() and not is_special(self.path) and self.path.stat().st_size:
            raise AlreadyExists(f"docker-archive cannot be added to: {path}", hint="remove it first")

    def call(self, names: tuple[str, ...]) -> None:
        """The image has these names, too."""
        self._tags += [str(Reference.parse(name)._replace(digest=None)) for name in names]

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Like in any archive; Unsupported for an index, before anything is written."""
        _check_image(descriptor, data, top=top)
        super().put_manifest(descriptor, data, top=top)

    def write(self, tar: TarWriter, descriptor: Descriptor, data: bytes) -> None:
        """The configuration and the layers by name, then `manifest.json`."""
        self.write_images(tar, [_Listed(_image(descriptor, data), self._tags)])

    def write_images(self, tar: TarWriter, images: list[_Listed]) -> None:
        """The configurations and layers of all images, each blob once, then `manifest.json`."""
        members = {name: digest for image in images for name, digest in image.members()}
        for name in sorted(members):
            self.add_blob(tar, name, members[name])
        add_member(tar, "manifest.json", b"[" + b",".join(image.entry() for image in images) + b"]")


class ManyImagesSink(DockerArchiveSink):
    """An archive of several images. Each comes by a copy of its own, after `call`; `finish` writes the archive."""

    def __init__(self, path: str) -> None:
        super().__init__(path, None)
        self._listed: list[_Listed] = []

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Remember the blob. It is read after its copy has ended, so `progress` is not called."""
        super().put_blob(descriptor, source, lambda _: None)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Remember the image with its names; Unsupported for an index."""
        _check_image(descriptor, data, top=top)
        self._listed.append(_Listed(_image(descriptor, data), self._tags))
        self._tags = []

    def finish(self) -> None:
        """Write the archive."""
        with self.written() as file:
            tar = TarWriter(file)
            self.write_images(tar, self._listed)
            tar.close()


class _Listed(NamedTuple):
    """An image and its names, as `manifest.json` lists it."""

    manifest: Manifest
    tags: list[str]

    def _layers(self) -> list[str]:
        return [
            layer.digest.encoded + _SUFFIXES[mediatype.compression_of(layer.media_type)]
            for layer in self.manifest.layers
        ]

    def _config(self) -> str:
        return f"{self.manifest.config.digest.encoded}.json"

    def members(self) -> Iterator[tuple[str, Digest]]:
        """The names of members, and their content."""
        yield self._config(), self.manifest.config.digest
        for name, layer in zip(self._layers(), self.manifest.layers, strict=True):
            yield name, layer.digest

    def entry(self) -> bytes:
        """Its entry in `manifest.json`."""
        return encode({"Config": self._config(), "RepoTags": self.tags, "Layers": self._layers()})


def _check_image(descriptor: Descriptor, data: bytes, *, top: bool) -> None:
    if not top or not isinstance(parse(data, descriptor.media_type), Manifest):
        raise Unsupported("a docker-archive holds single images, not an index", hint="use oci-archive:")


def _image(descriptor: Descriptor, data: bytes) -> Manifest:
    manifest = parse(data, descriptor.media_type)
    assert isinstance(manifest, Manifest), "seen before"
    return manifest


def _tags(entry: dict[str, Any]) -> tuple[str, ...]:
    return _texts(entry.get("RepoTags"), "RepoTags of manifest.json")


def _texts(value: object, what: str) -> tuple[str, ...]:
    texts = string_tuple(value, where=what)
    if len(texts) > ENTRY_LIMIT:
        raise CorruptContent(f"more than {ENTRY_LIMIT} texts: {what}")
    return texts


def _is_called(tag: str, wanted: str) -> bool:
    return str(_reference(tag)) == wanted


def _reference(tag: str) -> Reference | None:
    try:
        return Reference.parse(tag)
    except InvalidReference:  # no name that can be asked for
        return None
