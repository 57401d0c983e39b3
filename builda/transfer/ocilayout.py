"""`oci:PATH[:name]`: an OCI image layout directory (image-spec, image-layout.md)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builda.errors import CorruptContent, NotFound, Unsupported
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.document import decode, encode
from builda.oci.manifest import MANIFEST_LIMIT
from builda.transfer import blobfile
from builda.values import replace

if TYPE_CHECKING:
    from builda.oci.digest import Readable
    from builda.transfer.copyimage import ImageSource

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
MARKER = b'{"imageLayoutVersion":"1.0.0"}'
MARKER_LIMIT = 1 << 16


class LayoutSource:
    """The image called `name` in a layout, or at `@N` in it; without a name the only one there."""

    def __init__(self, path: str, name: str | None) -> None:
        self._root = Path(path)
        try:
            check_marker(blobfile.read_small(self._root / "oci-layout", MARKER_LIMIT), path)
            index = blobfile.read_small(self._root / "index.json", MANIFEST_LIMIT)
        except (NotFound, NotADirectoryError) as error:
            raise NotFound(f"not an OCI image layout: {path}", hint="it lacks oci-layout or index.json") from error
        entry = chosen(entries_of(index, path), name, path)
        self.names = names_of(entry)
        self._descriptor = replace(entry, annotations={})

    def own_names(self) -> tuple[str, ...]:
        """The one name that the store takes over."""
        return best_name(self.names)

    def manifest(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the name points to."""
        return self._descriptor, self.child(self._descriptor)

    def child(self, descriptor: Descriptor) -> bytes:
        """A manifest of the layout, verified."""
        return blobfile.verified(blobfile.read_small(self._blob(descriptor), MANIFEST_LIMIT), descriptor)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> AbstractContextManager[Readable]:
        """The blob from `offset` on."""
        return blobfile.open_at(self._blob(descriptor), offset)

    def local_path(self, descriptor: Descriptor) -> Path | None:
        """The blob's file."""
        return self._blob(descriptor)

    def _blob(self, descriptor: Descriptor) -> Path:
        return self._root / blob_name(descriptor.digest)


class LayoutSink:
    """A layout to which an image is added under `name`, replacing the one of that name. Made when it is not there."""

    def __init__(self, path: str, name: str | None) -> None:
        self._root = Path(path)
        self._name = name

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there."""
        return has_file(self._root / blob_name(descriptor.digest), descriptor)

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Callable[[int], None]) -> None:
        """Fetch the blob."""
        blobfile.fetch(self._made(descriptor.digest), descriptor, source, progress)

    def put_manifest(self, descriptor: Descriptor, data: bytes, *, top: bool) -> None:
        """Keep the manifest; the top one gets the name."""
        blobfile.write_whole(self._made(descriptor.digest), data)
        if not top:
            return
        with _locked(self._root):
            marker, path = self._root / "oci-layout", self._root / "index.json"
            if marker.exists():
                check_marker(blobfile.read_small(marker, MARKER_LIMIT), str(self._root))
            else:
                blobfile.write_whole(marker, MARKER)
            index = blobfile.read_small(path, MANIFEST_LIMIT) if path.exists() else index_of()
            blobfile.write_whole(path, with_entry(index, descriptor, self._name, str(self._root)))

    def _made(self, digest: Digest) -> Path:
        path = self._root / blob_name(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def blob_name(digest: Digest) -> str:
    """The path of a blob in a layout."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def has_file(path: Path, descriptor: Descriptor) -> bool:
    """Whether the file is there with the size it should have."""
    return path.is_file() and path.stat().st_size == descriptor.size


def check_marker(data: bytes, where: str) -> None:
    """Unsupported if the file `oci-layout` says another version than builda knows."""
    version = decode(data, f"oci-layout of {where}", MARKER_LIMIT).get("imageLayoutVersion")
    if not isinstance(version, str):
        raise CorruptContent(f"oci-layout names no version: {where}")
    if version.partition(".")[0] != "1":
        raise Unsupported(f"image layout is of version {version}, builda reads version 1: {where}")


def entries_of(index: bytes, where: str) -> tuple[Descriptor, ...]:
    """The entries of `index.json`."""
    return tuple(Descriptor.from_json(item, where="index.json") for item in _manifests(_decoded(index, where), where))


def chosen(entries: tuple[Descriptor, ...], name: str | None, where: str) -> Descriptor:
    """The entry that `name` means; NotFound with the names there are."""
    found = entries
    if name is not None and name.startswith("@") and name[1:].isdecimal():
        found = entries[int(name[1:]) :][:1]
    elif name is not None:
        found = tuple(entry for entry in entries if entry.annotations.get(REF_NAME) == name)
        found = found or tuple(entry for entry in entries if entry.annotations.get(CONTAINERD_NAME) == name)
    if len({entry.digest for entry in found}) == 1:
        return found[0]
    names = ", ".join(sorted(text for entry in entries for text in names_of(entry)))
    hint = f"it has: {names}" if names else "its images have no names; use @0, @1 …"
    if not found:
        raise NotFound(f"no image {name or ''} in: {where}".replace("  ", " "), hint=hint if entries else None)
    raise NotFound(f"{len(found)} images to choose from in: {where}", hint=hint)


def best_name(names: tuple[str, ...]) -> tuple[str, ...]:
    """One of an image's names, with a registry or repository if there is one; the others are tags of a layout."""
    return tuple(sorted(names, key=lambda name: "/" not in name)[:1])


def names_of(entry: Descriptor) -> tuple[str, ...]:
    """The names of an entry of `index.json`."""
    names = (entry.annotations.get(REF_NAME), entry.annotations.get(CONTAINERD_NAME))
    return tuple(dict.fromkeys(name for name in names if name))


def index_of(*entries: dict[str, Any]) -> bytes:
    """An `index.json`."""
    return encode({"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": list(entries)})


def named_entry(descriptor: Descriptor, name: str | None) -> dict[str, Any]:
    """An entry of `index.json`."""
    return replace(descriptor, annotations={} if name is None else {REF_NAME: name}).to_json()


def with_entry(index: bytes, descriptor: Descriptor, name: str | None, where: str) -> bytes:
    """The `index.json` with one more entry, in place of the one of that name; all else in it stays."""
    value = _decoded(index, where)
    others = [item for item in _manifests(value, where) if not _is_replaced(item, str(descriptor.digest), name)]
    return encode({**value, "manifests": [*others, named_entry(descriptor, name)]})


def _is_replaced(item: dict[str, Any], digest: str, name: str | None) -> bool:
    annotations = item.get("annotations") or {}
    if name is not None:
        return bool(annotations.get(REF_NAME) == name)
    return item.get("digest") == digest and REF_NAME not in annotations


def _decoded(index: bytes, where: str) -> dict[str, Any]:
    return decode(index, f"index.json of {where}", MANIFEST_LIMIT)


def _manifests(value: dict[str, Any], where: str) -> list[dict[str, Any]]:
    manifests = value.get("manifests", ())
    if manifests is None:  # how Go writes an empty list
        return []
    if not isinstance(manifests, list) or not all(isinstance(item, dict) for item in manifests):
        raise CorruptContent(f"index.json lists no manifests: {where}")
    return manifests


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Lock `index.json` during the block, by the directory itself: a lock file would stay in a user's layout."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def manifest_in(path: str, name: str | None) -> tuple[Descriptor, bytes]:
    """The manifest of an image in a layout that is about to be changed; nothing of it becomes an image elsewhere."""
    return LayoutSource(path, name).manifest()


def change_manifest(path: str, name: str | None, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Descriptor:
    """Put what `change` makes of a layout's manifest in its place; its descriptor. The old manifest is removed.

    Processes may do so at the same time. Blobs that the new manifest names must be there.
    """
    root = Path(path)
    with _locked(root):
        old, data = manifest_in(path, name)
        changed = encode(change(decode(data, f"manifest in {path}", MANIFEST_LIMIT)))
        new = replace(old, digest=Digest.of(changed), size=len(changed))
        blobfile.write_whole(root / blob_name(new.digest), changed)
        index = blobfile.read_small(root / "index.json", MANIFEST_LIMIT)
        value = _decoded(index, path)
        listed = [
            {**item, **new.to_json()} if item.get("digest") == str(old.digest) else item
            for item in _manifests(value, path)
        ]
        blobfile.write_whole(root / "index.json", encode({**value, "manifests": listed}))
        if new.digest != old.digest:
            (root / blob_name(old.digest)).unlink(missing_ok=True)
    return new
