"""Images: records by manifest digest, names that point at them, and the `index.json` that follows from both.

`refs/` is the truth about names. `index.json` is rewritten by rename after each change; a writer that sees the names
change meanwhile writes again, so that the last one always leaves it right.
"""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from builda.errors import CorruptContent, InUse, NotFound, StoreUnavailable
from builda.oci.digest import Digest
from builda.oci.reference import LOCAL_REGISTRY, Reference, ShortReference, parse_short
from builda.store import layout
from builda.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from builda.oci.config import ImageConfig
    from builda.oci.descriptor import Descriptor
    from builda.oci.manifest import Document, Manifest
    from builda.store.blobs import Blobs

REF_NAME = "org.opencontainers.image.ref.name"


class Image:
    """A stored image or index. `id` is the digest of its configuration (of the index itself for an index)."""

    def __init__(self, blobs: Blobs, record: dict[str, Any], names: tuple[str, ...]) -> None:
        self._blobs = blobs
        self._record = record
        self.names = names
        self.id = Digest.parse(record["id"])
        self.digest = Digest.parse(record["manifest"]["digest"])
        self.media_type: str = record["manifest"]["mediaType"]
        self.size: int = record["size"]  # bytes of all that belongs to it, as stored
        self.created: float = record["created"]  # seconds since the epoch, by the configuration
        self.is_index: bool = record["index"]

    @cached_property
    def descriptor(self) -> Descriptor:
        """Its manifest's (or index's) descriptor."""
        from builda.oci.descriptor import Descriptor

        return Descriptor.from_json(self._record["manifest"], where="image record")

    @cached_property
    def raw(self) -> bytes:
        """The manifest's bytes as they arrived or were made."""
        return self._blobs.read(self.digest)

    @cached_property
    def document(self) -> Document:
        """The manifest or index."""
        from builda.oci.manifest import parse

        return parse(self.raw, self.media_type)

    @property
    def manifest(self) -> Manifest:
        """The manifest; CorruptContent for an index, which has none of its own."""
        from builda.oci.manifest import Manifest

        if not isinstance(self.document, Manifest):
            raise CorruptContent(f"is an index, not an image: {self.digest}", hint="name one of its platforms")
        return self.document

    @cached_property
    def config(self) -> ImageConfig:
        """The image configuration."""
        from builda.oci.config import parse_config

        return parse_config(self.raw_config)

    @property
    def raw_config(self) -> bytes:
        """The configuration's bytes."""
        return self._blobs.read(self.manifest.config.digest if self.is_index else self.id)


class Removal(NamedTuple):
    """What a removal did: names taken off, IDs of images deleted."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]


class Images:
    """The images of one store."""

    def __init__(self, where: Layout, blobs: Blobs) -> None:
        self._layout = where
        self._blobs = blobs

    def put(self, descriptor: Descriptor, names: tuple[str, ...] = (), *, free_only: bool = False) -> Image:
        """The image that `descriptor` names is published, and `names` point at it, last of all.

        With `free_only` names that other images have stay theirs. Everything it consists of must be in the store;
        NotFound names what is not. Survives a power cut.
        """
        record = self._record_of(descriptor)
        self._blobs.sync()
        with layout.translated(self._layout.root), self._locked():
            layout.publish(self._layout, self._path(descriptor.digest), json.dumps(record).encode(), durable=True)
            for name in names:
                if not (free_only and self._is_taken(name)):
                    self._point(name, descriptor.digest)
        self._write_index()
        return Image(self._blobs, record, self.names_of(descriptor.digest))

    def unrecorded(self, descriptor: Descriptor) -> Image:
        """The image that `descriptor` names, whose content is in the store; no record of it is made or changed."""
        return Image(self._blobs, self._record_of(descriptor), ())

    def _path(self, digest: Digest) -> str:
        return self._layout.path("images", f"{digest.encoded}.json")

    def _locked(self) -> AbstractContextManager[None]:
        """No name comes to an image that goes meanwhile."""
        from builda.store import locks

        return locks.brief(self._layout.path("locks", "images.lock"))

    def _record_of(self, descriptor: Descriptor) -> dict[str, Any]:
        from builda.oci.manifest import Manifest, parse

        raw = self._blobs.read(descriptor.digest)
        document = parse(raw, descriptor.media_type)
        plain = {"mediaType": document.media_type, "digest": str(descriptor.digest), "size": len(raw)}
        if isinstance(document, Manifest):
            return self._manifest_record(document, plain)
        sizes = [self._record_of(child)["size"] for child in document.manifests if self._blobs.has(child.digest)]
        return {
            "manifest": plain,
            "id": str(descriptor.digest),
            "index": True,
            "size": sum(sizes),
            "created": self._blobs_time(descriptor.digest),
        }

    def _manifest_record(self, manifest: Manifest, plain: dict[str, Any]) -> dict[str, Any]:
        from builda.oci.config import parse_config
        from builda.oci.mediatype import CONFIGS

        missing = [part for part in (manifest.config, *manifest.layers) if not self._blobs.has(part.digest, part.size)]
        if missing:
            raise NotFound(f"image is incomplete, the store has no {missing[0].digest}")
        is_image = manifest.config.media_type in CONFIGS  # an index may list signatures and the like
        created = parse_config(self._blobs.read(manifest.config.digest)).created if is_image else None
        return {
            "manifest": plain,
            "id": str(manifest.config.digest),
            "index": False,
            "size": plain["size"] + manifest.config.size + sum(layer.size for layer in manifest.layers),
            "created": _seconds(created),
        }

    def _blobs_time(self, digest: Digest) -> float:
        return os.stat(self._blobs.path(digest)).st_mtime

    def _point(self, name: str, digest: Digest) -> None:
        body = json.dumps({"name": name, "manifest": str(digest)}).encode()
        layout.publish(self._layout, self._layout.path("refs", layout.quote(name)), body, durable=True)

    def _is_taken(self, name: str) -> bool:
        """Whether an image has this name."""
        try:
            target = layout.read_json(self._layout.path("refs", layout.quote(name)))["manifest"]
        except FileNotFoundError:
            return False
        return os.path.exists(self._path(Digest.parse(target)))

    def tag(self, image: Image, name: str) -> None:
        """`name` points at the image; NotFound when it was removed meanwhile."""
        with layout.translated(self._layout.root), self._locked():
            if not layout.touch(self._path(image.digest)):
                raise NotFound(f"image not known: {image.id}", hint="it was removed meanwhile")
            self._point(name, image.digest)
        self._write_index()

    def untag(self, name: str) -> bool:
        """Nothing is called `name` any more; whether something was."""
        if not layout.unlink(self._layout, self._layout.path("refs", layout.quote(name))):
            return False
        self._write_index(after_removal=True)
        return True

    def discard(self, digest: Digest, *, named: bool, horizon: float) -> tuple[str, ...] | None:
        """Remove an image with all its names; those names. None, and nothing done, when it has names but may not be
        removed with them (`named`), or when somebody made or named it after `horizon`.
        """
        with layout.translated(self._layout.root), self._locked():
            names = self.names_of(digest)
            try:
                if (names and not named) or os.stat(self._path(digest)).st_mtime >= horizon:
                    return None
            except FileNotFoundError:
                return None
            for name in names:
                layout.unlink(self._layout, self._layout.path("refs", layout.quote(name)))
            layout.unlink(self._layout, self._path(digest))
        self._write_index(after_removal=True)
        return names

    def names(self) -> dict[str, str]:
        """All names, sorted, and the manifest digests they point at."""
        found: dict[str, str] = {}
        for file_name in layout.iter_names(self._layout.path("refs")):
            try:
                value = layout.read_json(self._layout.path("refs", file_name))
            except FileNotFoundError:
                continue
            found[value["name"]] = value["manifest"]
        return dict(sorted(found.items()))

    def names_of(self, digest: Digest) -> tuple[str, ...]:
        """The names that point at this manifest."""
        return tuple(name for name, target in self.names().items() if target == str(digest))

    def iter(self) -> Iterator[Image]:
        """Every image, newest first. One that vanishes meanwhile is left out."""
        by_digest: dict[str, list[str]] = {}
        for name, target in self.names().items():
            by_digest.setdefault(target, []).append(name)
        found = [
            self._load(name.removesuffix(".json"), by_digest) for name in layout.iter_names(self._layout.path("images"))
        ]
        yield from sorted((image for image in found if image), key=lambda image: (-image.created, str(image.digest)))

    def _load(self, encoded: str, by_digest: dict[str, list[str]]) -> Image | None:
        try:
            record = layout.read_json(self._layout.path("images", f"{encoded}.json"))
        except FileNotFoundError:
            return None
        return Image(self._blobs, record, tuple(by_digest.get(f"sha256:{encoded}", ())))

    def find(self, text: str) -> Image | None:
        """The image that a user means by a name, short name, `name@digest`, ID or ID prefix; None when there is none.

        As in Buildah a short name is looked for as localhost's, then docker.io's, then as the end of any one name.
        """
        names = self.names()
        digest = self._named(text, names) or self._identified(text)
        if digest is None:
            return None
        by_digest: dict[str, list[str]] = {}
        for name, target in names.items():
            by_digest.setdefault(target, []).append(name)
        return self._load(digest.removeprefix("sha256:"), by_digest)

    def _named(self, text: str, names: dict[str, str]) -> str | None:
        from builda.errors import InvalidReference

        try:
            short = parse_short(text)
        except InvalidReference:
            return None
        if short.digest is not None:
            path = self._layout.path("images", f"{short.digest.encoded}.json")
            return str(short.digest) if os.path.exists(path) else None
        full = self._full_name(text, short, names)
        return None if full is None else names[full]

    def _full_name(self, text: str, short: ShortReference, names: dict[str, str]) -> str | None:
        for registry in [short.registry] if short.registry else [LOCAL_REGISTRY, None]:
            full = str(Reference.parse(text, default_registry=registry) if registry else Reference.parse(text))
            if full in names:
                return full
        if short.registry is not None:
            return None
        tail = f"/{short.repository}:{short.tag or 'latest'}"
        found = [name for name in names if name.endswith(tail)]
        return found[0] if len({names[name] for name in found}) == 1 else None

    def full_name(self, text: str) -> str | None:
        """The name in the store that a user means by `text`; None for an ID, a digest, and what is not there."""
        from builda.errors import InvalidReference

        try:
            short = parse_short(text)
        except InvalidReference:
            return None
        return None if short.digest is not None else self._full_name(text, short, self.names())

    def _identified(self, text: str) -> str | None:
        """The manifest digest of the image whose ID, or manifest digest, begins with `text`."""
        prefix = text.removeprefix("sha256:").lower()
        if not prefix or not all(char in "0123456789abcdef" for char in prefix):
            return None
        by_id: dict[str, str] = {}
        for name in layout.iter_names(self._layout.path("images")):
            encoded = name.removesuffix(".json")
            if encoded == prefix:
                return f"sha256:{encoded}"
            try:
                record = layout.read_json(self._layout.path("images", name))
            except FileNotFoundError:
                continue
            if record["id"].startswith(f"sha256:{prefix}"):
                by_id[record["id"]] = f"sha256:{encoded}"
        if len(by_id) > 1:
            raise NotFound(f"image ID is ambiguous, {len(by_id)} begin with it: {text}", hint="give more of its digits")
        return next(iter(by_id.values()), None)

    def get(self, text: str) -> Image:
        """As `find`; NotFound with the nearest name when there is none."""
        found = self.find(text)
        if found is not None:
            return found
        import difflib

        names = list(self.names())
        known = {
            part: name
            for name in names
            for part in (name, name.rpartition("/")[2], name.rpartition("/")[2].partition(":")[0])
        }
        near = difflib.get_close_matches(text, known, 1, 0.7)
        raise NotFound(f"image not known: {text}", hint=f"did you mean {known[near[0]]}?" if near else None)

    def remove(self, text: str, *, force: bool, in_use: dict[str, str]) -> Removal:
        """Take the name off, or all names when an ID is given, and delete the image when it was the last.

        InUse when a working container (`in_use`: manifest digest to container name) stands on it, or when an ID has
        several names, unless `force`.
        """
        image = self.get(text)
        name = self._name_meant(text, image)
        if name is None and len(image.names) > 1 and not force:
            raise InUse(f"image has several names: {text}", hint=f"name one, or use --force: {' '.join(image.names)}")
        going = (name,) if name is not None else image.names
        last = set(image.names) <= set(going)
        if last and not force and str(image.digest) in in_use:
            raise InUse(
                f"image is used by working container {in_use[str(image.digest)]}: {text}",
                hint="remove the container first, or use --force",
            )
        with layout.translated(self._layout.root), self._locked():
            for gone in going:
                layout.unlink(self._layout, self._layout.path("refs", layout.quote(gone)))
            if last := not self.names_of(image.digest):
                layout.unlink(self._layout, self._path(image.digest))
        self._write_index(after_removal=True)
        return Removal(tuple(going), (image.id.encoded,) if last else ())

    def _name_meant(self, text: str, image: Image) -> str | None:
        if text in image.names:
            return text
        hexadecimal = text.removeprefix("sha256:").lower()
        if image.id.encoded.startswith(hexadecimal) or image.digest.encoded == hexadecimal:
            return None
        if "@" in text:
            return None
        wanted = text if ":" in text.rpartition("/")[2] else f"{text}:latest"
        return next((name for name in image.names if name == wanted or name.endswith(f"/{wanted}")), None)

    def refresh_index(self) -> None:
        """`index.json` says what records and names do, even if a writer was killed before it did."""
        try:
            found = layout.read_json(self._layout.path("index.json")).get("manifests")
        except (FileNotFoundError, StoreUnavailable):
            found = None
        if found != self._index_entries():
            self._write_index(after_removal=True)

    def _write_index(self, *, after_removal: bool = False) -> None:
        """`index.json` says what records and names do. On a full disk a removal goes on without: the next change, or
        prune, writes it."""
        try:
            self._publish_index()
        except StoreUnavailable as error:
            if not (after_removal and layout.is_full(error)):
                raise

    def _publish_index(self) -> None:
        while True:
            entries = self._index_entries()
            body = json.dumps({"schemaVersion": 2, "manifests": entries}, separators=(",", ":")).encode()
            layout.publish(self._layout, self._layout.path("index.json"), body)
            if entries == self._index_entries():
                return

    def _index_entries(self) -> list[dict[str, Any]]:
        records: dict[str, dict[str, Any]] = {}
        for name in layout.iter_names(self._layout.path("images")):
            try:
                record = layout.read_json(self._layout.path("images", name))
            except FileNotFoundError:
                continue
            records[record["manifest"]["digest"]] = record["manifest"]
        names = self.names()
        entries = [
            {**records[target], "annotations": {REF_NAME: name}} for name, target in names.items() if target in records
        ]
        named = set(names.values())
        return entries + [record for target, record in sorted(records.items()) if target not in named]


def _seconds(created: str | None) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 when there is none or it is none."""
    if not created:
        return 0.0
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(created)  # which cuts nanoseconds to microseconds
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
