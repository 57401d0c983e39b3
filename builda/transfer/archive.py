"""`oci-archive:` and `docker-archive:`: an image in one tar file.

No name in an archive is ever used as a path on disk: members are found in an index of the archive and read by offset.
What is written is deterministic: members sorted as they are needed, all times zero.
"""

from __future__ import annotations

import json
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from builda.errors import CorruptContent, InvalidReference, NotFound, Unsupported
from builda.fs.tar import REGULAR, TarEntry, TarWriter
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, parse_config
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest, VerifyingReader
from builda.oci.manifest import MANIFEST_LIMIT, Manifest, parse
from builda.oci.reference import Reference
from builda.transfer.layout import MARKER, REF_NAME

if TYPE_CHECKING:
    from builda.oci.digest import Readable
    from builda.transfer.copy import ImageSource

PIECE = 1 << 20
MEMBER_LIMIT = 100_000


class _Members:
    """The members of a tar file: name to offset and size, links between members resolved."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[str, tuple[int, int]] = {}
        links: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for count, member in enumerate(archive):
                    if count > MEMBER_LIMIT:
                        raise CorruptContent(f"archive has more than {MEMBER_LIMIT} members: {path}")
                    name = posixpath.normpath(member.name)
                    if member.isreg():
                        self._found[name] = (member.offset_data, member.size)
                    elif member.issym():
                        links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                    elif member.islnk():
                        links[name] = posixpath.normpath(member.linkname)
        except FileNotFoundError as error:
            raise NotFound(f"no such archive: {path}") from error
        except tarfile.TarError as error:
            raise CorruptContent(
                f"not a tar archive: {path}", hint="a compressed one must be unpacked first"
            ) from error
        for name, target in links.items():
            if target in self._found:
                self._found.setdefault(name, self._found[target])

    def __contains__(self, name: str) -> bool:
        return posixpath.normpath(name) in self._found

    def size(self, name: str) -> int:
        return self._entry(name)[1]

    def _entry(self, name: str) -> tuple[int, int]:
        try:
            return self._found[posixpath.normpath(name)]
        except KeyError:
            raise NotFound(f"archive has no member {name}: {self._path}") from None

    def read(self, name: str, limit: int) -> bytes:
        """A small member whole."""
        offset, size = self._entry(name)
        if size > limit:
            raise CorruptContent(f"member {name} has {size} bytes, more than the limit of {limit}: {self._path}")
        with open(self._path, "rb") as file:
            return os.pread(file.fileno(), size, offset)

    @contextmanager
    def open(self, name: str, skip: int = 0) -> Iterator[Readable]:
        """A member's bytes from `skip` on."""
        offset, size = self._entry(name)
        with open(self._path, "rb", buffering=0) as file:
            file.seek(offset + skip)
            yield _Part(file, size - skip)


class _Part:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


class _OciArchiveSource:
    """An image layout in a tar file."""

    def __init__(self, path: str, name: str | None) -> None:
        self._members = _Members(path)
        self._path = path
        self._name = name

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to."""
        value = _json(self._members.read("index.json", MANIFEST_LIMIT), f"index.json of {self._path}")
        entries = value.get("manifests") if isinstance(value, dict) else None
        if not isinstance(entries, list):
            raise CorruptContent(f"index.json lists no manifests: {self._path}")
        found = [Descriptor.from_json(item, where="index.json") for item in entries]
        if self._name is not None:
            found = [entry for entry in found if entry.annotations.get(REF_NAME) == self._name]
        if len(found) != 1:
            raise NotFound(f"archive has {len(found)} images {self._name or ''}: {self._path}", hint="name one of them")
        plain = Descriptor(media_type=found[0].media_type, digest=found[0].digest, size=found[0].size)
        return plain, self.child(plain)

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest, verified."""
        data = self._members.read(_blob_name(descriptor.digest), MANIFEST_LIMIT)
        with VerifyingReader(BytesIO(data), descriptor.digest, descriptor.size) as reader:
            return reader.read()

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Any:
        """The blob from `offset` on."""
        return self._members.open(_blob_name(descriptor.digest), offset)

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """None: the archive is one file."""
        return None


def oci_archive_source(path: str, name: str | None) -> ImageSource:
    """The image in an OCI archive; an unpacked layout directory is read as well."""
    if os.path.isdir(path):
        from builda.transfer.layout import LayoutSource

        return LayoutSource(path, name)
    return _OciArchiveSource(path, name)


class DockerArchiveSource:
    """An image that `docker save` wrote: `manifest.json`, configurations and plain or compressed layer tars.

    The archive has no manifest; one is made of what it lists, its layers by their digests as they lie there.
    """

    def __init__(self, path: str, name: str | None) -> None:
        self._members = _Members(path)
        self._path = path
        entry = self._entry(name)
        self._config = self._members.read(_text(entry, "Config", path), CONFIG_LIMIT)
        layers = entry.get("Layers")
        if not isinstance(layers, list) or not all(isinstance(item, str) for item in layers):
            raise CorruptContent(f"manifest.json lists no layers: {path}")
        self._names: dict[Digest, str] = {}
        described = tuple(self._layer(item) for item in layers)
        config = Descriptor(media_type=mediatype.DOCKER_CONFIG, digest=Digest.of(self._config), size=len(self._config))
        self._manifest = Manifest(media_type=mediatype.DOCKER_MANIFEST, config=config, layers=described).dump()
        if len(parse_config(self._config).diff_ids) != len(described):
            raise CorruptContent(f"archive's layers and configuration do not agree: {path}")

    def _entry(self, name: str | None) -> dict[str, Any]:
        entries = _json(self._members.read("manifest.json", MANIFEST_LIMIT), f"manifest.json of {self._path}")
        if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
            raise CorruptContent(f"manifest.json is not a list of images: {self._path}")
        if name is None:
            if len(entries) == 1:
                return dict(entries[0])
            raise NotFound(f"archive has {len(entries)} images, name one: {self._path}", hint=_tags(entries))
        if name.startswith("@") and name[1:].isdigit() and int(name[1:]) < len(entries):
            return dict(entries[int(name[1:])])
        wanted = str(Reference.parse(name))
        for item in entries:
            if any(str(Reference.parse(tag)) == wanted for tag in item.get("RepoTags") or ()):
                return dict(item)
        raise NotFound(f"archive has no image {name}: {self._path}", hint=_tags(entries))

    def _layer(self, name: str) -> Descriptor:
        import hashlib

        from builda.fs.compress import sniff

        hasher = hashlib.sha256()
        head = b""
        with self._members.open(name) as file:
            while data := file.read(PIECE):
                head = head or data[:16]
                hasher.update(data)
        kinds = {
            "gzip": mediatype.DOCKER_LAYER_GZIP,
            "zstd": mediatype.DOCKER_LAYER_ZSTD,
            "none": mediatype.DOCKER_LAYER,
        }
        kind = sniff(head)
        if kind not in kinds:
            raise Unsupported(f"layer is compressed with {kind}: {name}")
        digest = Digest("sha256", hasher.hexdigest())
        self._names[digest] = name
        return Descriptor(media_type=kinds[kind], digest=digest, size=self._members.size(name))

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest made of what the archive lists."""
        data = self._manifest
        return Descriptor(media_type=mediatype.DOCKER_MANIFEST, digest=Digest.of(data), size=len(data)), data

    def child(self, descriptor: Descriptor) -> bytes:
        """None is ever listed."""
        raise NotFound(f"no such manifest in the archive: {descriptor.digest}")

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        """The configuration, or a layer from `offset` on."""
        if descriptor.digest == Digest.of(self._config):
            yield BytesIO(self._config[offset:])
            return
        if descriptor.digest not in self._names:
            raise NotFound(f"no such blob in the archive: {descriptor.digest}")
        with self._members.open(self._names[descriptor.digest], offset) as file:
            yield file

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """None: the archive is one file."""
        return None


class _ArchiveSink:
    """Collects blobs beside the archive's place and writes the archive when the top manifest comes."""

    def __init__(self, path: str, name: str | None) -> None:
        self._path = Path(path)
        self._name = name
        self._temp = self._path.with_name(f".{self._path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        self._sources: dict[Digest, tuple[Descriptor, ImageSource]] = {}
        self._manifests: dict[Digest, bytes] = {}

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Always False: the archive is written anew."""
        return False

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Remember where the blob comes from; it is read when the archive is written."""
        self._sources[descriptor.digest] = (descriptor, source)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """The top manifest completes the archive, which appears whole or not at all."""
        self._manifests[descriptor.digest] = data
        if not top:
            return
        try:
            with open(self._temp, "xb") as file:
                tar = TarWriter(file)
                self.write(tar, descriptor, data)
                tar.close()
                file.flush()
                os.fsync(file.fileno())
            os.rename(self._temp, self._path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(self._temp)
            raise

    def write(self, tar: TarWriter, descriptor: Descriptor, data: bytes) -> None:
        """The members."""
        raise NotImplementedError

    def blob(self, tar: TarWriter, name: str, digest: Digest, *, plain: bool = False) -> None:
        """One blob as a member, verified; `plain` uncompressed."""
        descriptor, source = self._sources[digest]
        tar.add(TarEntry(name.encode(), REGULAR, size=descriptor.size))
        with source.open_blob(descriptor) as raw:
            reader = VerifyingReader(raw, descriptor.digest, descriptor.size)
            while piece := reader.read(PIECE):
                tar.data(piece)
        tar.pad(descriptor.size)


class OciArchiveSink(_ArchiveSink):
    """An OCI archive."""

    def write(self, tar: TarWriter, descriptor: Descriptor, data: bytes) -> None:
        """`oci-layout`, `index.json`, then all blobs by digest."""
        entry = descriptor.to_json()
        if self._name is not None:
            entry["annotations"] = {REF_NAME: self._name}
        index = {"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": [entry]}
        _member(tar, "oci-layout", MARKER)
        _member(tar, "index.json", json.dumps(index, separators=(",", ":")).encode())
        for digest in sorted([*self._sources, *self._manifests]):
            if digest in self._manifests:
                _member(tar, _blob_name(digest), self._manifests[digest])
            else:
                self.blob(tar, _blob_name(digest), digest)


class DockerArchiveSink(_ArchiveSink):
    """An archive that `docker load` and `podman load` read. Layers stay compressed, as both allow."""

    def __init__(self, path: str, name: str | None) -> None:
        super().__init__(path, name)
        if self._path.exists() and self._path.stat().st_size:
            raise InvalidReference(f"docker-archive cannot be added to: {path}", hint="remove it first")

    def write(self, tar: TarWriter, descriptor: Descriptor, data: bytes) -> None:
        """Layers, the configuration, `manifest.json`."""
        document = parse(data, descriptor.media_type)
        if not isinstance(document, Manifest):
            raise Unsupported("a docker-archive holds single images, not an index", hint="use oci-archive:")
        layers = []
        for number, layer in enumerate(document.layers):
            compression = mediatype.compression_of(layer.media_type)
            name = f"{number:04}-{layer.digest.encoded}.tar{'.gz' if compression == 'gzip' else ''}"
            self.blob(tar, name, layer.digest)
            layers.append(name)
        config = f"{document.config.digest.encoded}.json"
        self.blob(tar, config, document.config.digest)
        tags = [] if self._name is None else [_docker_name(self._name)]
        _member(tar, "manifest.json", json.dumps([{"Config": config, "RepoTags": tags, "Layers": layers}]).encode())


def _docker_name(name: str) -> str:
    return str(Reference.parse(name)._replace(digest=None))


def _member(tar: TarWriter, name: str, data: bytes) -> None:
    tar.add(TarEntry(name.encode(), REGULAR, size=len(data)))
    tar.data(data)
    tar.pad(len(data))


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _json(data: bytes, what: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptContent(f"not JSON: {what}") from error


def _text(entry: dict[str, Any], key: str, path: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise CorruptContent(f"manifest.json has no {key}: {path}")
    return value


def _tags(entries: list[dict[str, Any]]) -> str:
    tags = [str(tag) for entry in entries for tag in entry.get("RepoTags") or ()]
    return f"it has: {', '.join(tags)}" if tags else "its images have no names; use @0, @1 …"
