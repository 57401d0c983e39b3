"""Images: records by manifest digest, names that point at them, and the `index.json` that follows from both.

`refs/` is the truth about names. `index.json` is rewritten by rename with each change, under the lock of all changes.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cached_property, partial

from builda import jsontext
from builda.errors import CorruptContent, InUse, NotFound, StoreUnavailable
from builda.oci.digest import Digest, is_sha256
from builda.oci.reference import LOCAL_REGISTRY, Reference, ShortReference, parse_short
from builda.store import layout
from builda.store.layout import Damaged, Layout
from builda.store.names import Names
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from builda.oci.config import ImageConfig
    from builda.oci.descriptor import Descriptor
    from builda.oci.manifest import Document, Manifest
    from builda.store.blobs import Blobs
    from builda.store.origins import Origins
    from builda.store.sessions import Membership

REF_NAME = "org.opencontainers.image.ref.name"


class Image:
    """A stored image or index. `id` is the digest of its configuration (of the index itself for an index)."""

    def __init__(self, blobs: Blobs, record: dict[str, Any], names: Callable[[], tuple[str, ...]]) -> None:
        self._blobs = blobs
        self._record = record
        self._find_names = names
        self.id = Digest.parse(record["id"])
        self.digest = Digest.parse(record["manifest"]["digest"])
        self.media_type: str = record["manifest"]["mediaType"]
        self.size: int = record["size"]  # bytes of all that belongs to it, as stored
        self.created: float = record["created"]  # seconds since the epoch, by the configuration
        self.is_index: bool = record["index"]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Its names, sorted, as they were when this was first asked."""
        return self._find_names()

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
    """The effects of a removal: removed names, IDs of deleted images, freed bytes of blobs, trees and caches."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    freed: int = 0


class Images:
    """The images of one store. `report` is told of records that cannot be read; they count as missing."""

    def __init__(self, where: Layout, blobs: Blobs, report: Callable[[Damaged], None]) -> None:
        self._layout = where
        self._blobs = blobs
        self._report = report
        self.named = Names(where, report)
        self.session: Membership | None = None
        """The session that images are made in, which has those without a name removed when it ends."""

    @cached_property
    def origins(self) -> Origins:
        """The places of content that the store lacks, by manifest."""
        from builda.store.origins import Origins

        return Origins(self._layout, self._report)

    def put(
        self, descriptor: Descriptor, names: tuple[str, ...] = (), *, free_only: bool = False, at_once: bool = False
    ) -> Image:
        """Publish the image that `descriptor` names, and then its `names`, last of all.

        In a session others see the names when it ends, or `at_once`. With `free_only` names that other images have are
        not moved. All content of the image must be in the store, except (for an index) that of manifests that have an
        origin; NotFound names what is missing. Survives a power cut.
        """
        record = self._record_of(descriptor)
        self._blobs.sync()
        with self._changing() as change:
            if self.session is not None and not os.path.exists(self._path(descriptor.digest)):
                self.session.note("images", descriptor.digest.encoded)
            layout.publish(self._layout, self._path(descriptor.digest), jsontext.dumps(record).encode(), durable=True)
            change.record(record["manifest"])
            for name in names:
                if not (free_only and self._is_taken(name)):
                    self.named.point(name, str(descriptor.digest), change.names, at_once=at_once)
            if self.named.pending is not None:
                self.named.pending.show(str(descriptor.digest))
        return self._image(record)

    def unrecorded(self, descriptor: Descriptor) -> Image:
        """The image that `descriptor` names, whose content is in the store; no record of it is made or changed."""
        return Image(self._blobs, self._record_of(descriptor), tuple)

    def _image(self, record: dict[str, Any]) -> Image:
        return Image(self._blobs, record, lambda: self.names_of(Digest.parse(record["manifest"]["digest"])))

    def _path(self, digest: Digest) -> str:
        return self._layout.path("images", f"{digest.encoded}.json")

    def _record_of(self, descriptor: Descriptor, *, may_lack: bool = False) -> dict[str, Any]:
        """The record of an image; with `may_lack`, layers of one that has an origin may be there only."""
        from builda.oci.manifest import Manifest, parse

        raw = self._blobs.read(descriptor.digest)
        document = parse(raw, descriptor.media_type)
        plain = {"mediaType": document.media_type, "digest": str(descriptor.digest), "size": len(raw)}
        if isinstance(document, Manifest):
            is_elsewhere = may_lack and self.origins.get(descriptor.digest) is not None
            return self._manifest_record(document, plain, whole=not is_elsewhere)
        stored = [child for child in document.manifests if self._blobs.has(child.digest)]
        sizes = [self._record_of(child, may_lack=True)["size"] for child in stored]
        return {
            "manifest": plain,
            "id": str(descriptor.digest),
            "index": True,
            "size": sum(sizes),
            "created": self._blobs_time(descriptor.digest),
        }

    def _manifest_record(self, manifest: Manifest, plain: dict[str, Any], *, whole: bool) -> dict[str, Any]:
        from builda.oci.config import parse_config
        from builda.oci.mediatype import CONFIGS

        missing = [part for part in (manifest.config, *manifest.layers) if not self._blobs.has(part.digest, part.size)]
        if missing and whole:
            raise NotFound(f"image is incomplete, the store has no {missing[0].digest}")
        is_image = manifest.config.media_type in CONFIGS  # an index may list signatures and the like
        is_read = is_image and manifest.config not in missing
        created = parse_config(self._blobs.read(manifest.config.digest)).created if is_read else None
        return {
            "manifest": plain,
            "id": str(manifest.config.digest),
            "index": False,
            "size": plain["size"] + manifest.config.size + sum(layer.size for layer in manifest.layers),
            "created": _seconds(created),
        }

    def _blobs_time(self, digest: Digest) -> float:
        return os.stat(self._blobs.path(digest)).st_mtime

    def _is_taken(self, name: str) -> bool:
        """Whether an image has this name."""
        target = self.named.target(name)
        return target is not None and os.path.exists(self._path(Digest.parse(target)))

    def tag(self, image: Image, name: str) -> None:
        """Point `name` at the image; NotFound if it was removed meanwhile."""
        with self._changing() as change:
            if not layout.touch(self._path(image.digest)):
                raise NotFound(f"image not known: {image.id}", hint="it was removed meanwhile")
            self.named.point(name, str(image.digest), change.names)

    def untag(self, name: str) -> bool:
        """Remove a name; returns whether there was one."""
        with self._changing(removal=True) as change:
            return self.named.take_off(name, change.names)

    def discard(self, digest: Digest, *, named: bool, horizon: float) -> tuple[str, ...] | None:
        """Remove an image with all its names; returns the names.

        None, and nothing is done, if it has names and `named` is false, or if it was made or named after `horizon`.
        """
        with self._changing(removal=True) as change:
            names = self.names_of(digest)
            try:
                if (names and not named) or os.stat(self._path(digest)).st_mtime >= horizon:
                    return None
            except FileNotFoundError:
                return None
            self._unlink(change, names, digest)
        return names

    def _unlink(self, change: Listing, names: Iterable[str], digest: Digest | None) -> None:
        for name in names:
            self.named.take_off(name, change.names)
        pending = self.named.pending
        if digest is not None and pending is not None and str(digest) in change.names.values():
            pending.hide(str(digest))  # others see its names until the session ends
        elif digest is not None:
            layout.unlink(self._layout, self._path(digest))
            change.records.pop(str(digest), None)

    def names(self) -> dict[str, str]:
        """All names, sorted, and the manifest digests they point at."""
        return self.named.all()

    def names_of(self, digest: Digest) -> tuple[str, ...]:
        """The names that point at this manifest."""
        return tuple(name for name, target in self.names().items() if target == str(digest))

    def publish(self, changes: Mapping[str, str | None], removed: Iterable[str]) -> None:
        """Change many names in one step (None: taken off), then delete the images in `removed` that have none left.

        NotFound, and nothing is changed, if an image is gone that a name is to point at.
        """
        with self._changing() as change:
            for name, target in changes.items():
                if target is not None and not layout.touch(self._path(Digest.parse(target))):
                    raise NotFound(f"image was removed meanwhile, so no name was given: {name}")
            self.named.publish(changes, change.names)
            for encoded in removed:
                if f"sha256:{encoded}" not in change.names.values():
                    self._unlink(change, (), Digest("sha256", encoded))

    def iter(self, *, hidden: bool = False) -> Iterator[Image]:
        """Every image, newest first. One that vanishes meanwhile is left out.

        With `hidden` also those that this session removed and others still have.
        """
        by_digest: dict[str, list[str]] = {}
        for name, target in self.names().items():
            by_digest.setdefault(target, []).append(name)
        found = [
            Image(self._blobs, record, partial(tuple, by_digest.get(record["manifest"]["digest"], ())))
            for record in self._records(hidden=hidden)
        ]
        yield from sorted(found, key=lambda image: (-image.created, str(image.digest)))

    def _records(self, *, hidden: bool = False) -> Iterator[dict[str, Any]]:
        """The records of all images, with `hidden` also of those that this session removed."""
        for name in layout.iter_names(self._layout.path("images")):
            read = partial(self._read, name.removesuffix(".json"), hidden=hidden)
            if (record := layout.if_whole(read, self._report)) is not None:
                yield record

    def _read(self, encoded: str, *, hidden: bool = False) -> dict[str, Any]:
        """The record of the image whose manifest has this digest; FileNotFoundError or Damaged."""
        path = self._layout.path("images", f"{encoded}.json")
        if not hidden and self.named.pending is not None and encoded in self.named.pending.hidden():
            raise FileNotFoundError(path)
        record = layout.read_json(path)
        if not _is_record(record, f"sha256:{encoded}"):
            raise Damaged(path)
        return record

    def find(self, text: str) -> Image | None:
        """The image that a user means by a name, short name, `name@digest`, ID or ID prefix; None when there is none.

        As in Buildah a short name is looked for as localhost's, then docker.io's, then as the end of any one name.
        """
        digest = self._named(text) or self._identified(text)
        if digest is None:
            return None
        try:
            return self._image(self._read(digest.removeprefix("sha256:")))
        except FileNotFoundError:
            return None

    def _named(self, text: str) -> str | None:
        from builda.errors import InvalidReference

        try:
            short = parse_short(text)
        except InvalidReference:
            return None
        if short.digest is not None:
            path = self._layout.path("images", f"{short.digest.encoded}.json")
            pulled = str(Reference.parse(text)._replace(tag=None))  # of an index: the name of the image taken from it
            return str(short.digest) if os.path.exists(path) else self.named.target(pulled)
        full = self._full_name(text, short)
        return None if full is None else self.named.target(full)

    def _full_name(self, text: str, short: ShortReference) -> str | None:
        for registry in [short.registry] if short.registry else [LOCAL_REGISTRY, None]:
            full = str(Reference.parse(text, default_registry=registry) if registry else Reference.parse(text))
            if self.named.target(full) is not None:
                return full
        if short.registry is not None:
            return None
        tail = f"/{short.repository}:{short.tag or 'latest'}"
        names = self.names()
        found = [name for name in names if name.endswith(tail)]
        return found[0] if len({names[name] for name in found}) == 1 else None

    def full_name(self, text: str) -> str | None:
        """The name in the store that a user means by `text`; None for an ID, a digest, and what is not there."""
        from builda.errors import InvalidReference

        try:
            short = parse_short(text)
        except InvalidReference:
            return None
        return None if short.digest is not None else self._full_name(text, short)

    def _identified(self, text: str) -> str | None:
        """The manifest digest of the image whose ID, or manifest digest, begins with `text`."""
        prefix = text.removeprefix("sha256:").lower()
        if not prefix or not all(char in "0123456789abcdef" for char in prefix):
            return None
        if len(prefix) == 64 and os.path.exists(self._layout.path("images", f"{prefix}.json")):
            return f"sha256:{prefix}"
        by_id = {
            record["id"]: str(record["manifest"]["digest"])
            for record in self._records()
            if record["id"].startswith(f"sha256:{prefix}")
        }
        if len(by_id) > 1:
            raise NotFound(f"image ID is ambiguous, {len(by_id)} begin with it: {text}", hint="give more of its digits")
        return next(iter(by_id.values()), None)

    def get(self, text: str) -> Image:
        """Same as `find`, but NotFound, with the nearest name, instead of None."""
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

    def remove(self, text: str, *, force: bool, in_use: Callable[[], Mapping[str, str]]) -> Removal:
        """Take the name off, or all names when an ID is given, and delete the image when it was the last.

        InUse when something uses it (`in_use`: manifest digest to what does), or when an ID has several names, unless
        `force`.
        """
        image = self.get(text)
        name = self._name_meant(text, image)
        going = (name,) if name is not None else image.names
        last = set(image.names) <= set(going)
        if last and not force and (user := in_use().get(str(image.digest))) is not None:
            raise InUse(f"image is {user}: {text}", hint="end that first, or use --force")
        if len(going) > 1 and not force:
            raise InUse(f"image has several names: {text}", hint=f"name one, or use --force: {' '.join(image.names)}")
        with self._changing(removal=True) as change:
            self._unlink(change, going, None)
            if last := not self.names_of(image.digest):
                self._unlink(change, (), image.digest)
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

    @contextmanager
    def _changing(self, *, removal: bool = False) -> Iterator[Listing]:
        """Lock records and names against other processes; write the listing to `index.json` after the block.

        A removal goes on without it where the disk is full. The lock file is not empty while `index.json` may be
        behind, so that the process after a killed one reads everything again.
        """
        from builda.store import locks

        with layout.translated(self._layout.root), locks.noted(self._layout.path("locks", "images.lock")) as notes:
            was_cut_off = self.named.finish() or notes.is_dirty
            listed = None if was_cut_off else self._listed()
            before = None if listed is None else listed.entries()
            listing = listed or self._listing()
            notes.dirty()
            yield listing
            if listing.entries() == before:
                notes.clean()
                return
            try:
                self._publish_index(listing)
            except StoreUnavailable as error:
                if not (removal and layout.is_full(error)):
                    raise
            else:
                notes.clean()

    def refresh_index(self) -> None:
        """Make `index.json` agree with records and names, even if a writer was killed before it did."""
        with self._changing(removal=True) as change:
            found = self._listing()
            change.records, change.names = found.records, found.names

    def _publish_index(self, listing: Listing) -> None:
        body = jsontext.dumps({"schemaVersion": 2, "manifests": listing.entries()}, separators=(",", ":")).encode()
        layout.publish(self._layout, self._layout.path("index.json"), body)

    def _listing(self) -> Listing:
        """The listing by records and names."""
        return Listing(
            {record["manifest"]["digest"]: record["manifest"] for record in self._records(hidden=True)},
            self.named.published(),
        )

    def _listed(self) -> Listing | None:
        """The listing of `index.json`, which is quicker to read; None if it cannot be read."""
        try:
            manifests = layout.read_json(self._layout.path("index.json"))["manifests"]
            return Listing.parse(manifests)
        except (FileNotFoundError, Damaged, KeyError, TypeError, AttributeError):
            return None


class Listing:
    """The content of `index.json`: descriptors by digest, and digests by name."""

    def __init__(self, records: dict[str, dict[str, Any]], names: dict[str, str]) -> None:
        self.records = records
        self.names = names

    @classmethod
    def parse(cls, manifests: list[dict[str, Any]]) -> Listing:
        """The listing whose `entries` these are."""
        names = {entry["annotations"][REF_NAME]: entry["digest"] for entry in manifests if "annotations" in entry}
        records = {
            entry["digest"]: {key: value for key, value in entry.items() if key != "annotations"} for entry in manifests
        }
        return cls(records, names)

    def record(self, manifest: dict[str, Any]) -> None:
        """List an image."""
        self.records[manifest["digest"]] = manifest

    def entries(self) -> list[dict[str, Any]]:
        """One for each name, and one for each image without a name."""
        named = [
            {**self.records[target], "annotations": {REF_NAME: name}}
            for name, target in sorted(self.names.items())
            if target in self.records
        ]
        targets = set(self.names.values())
        return named + [record for digest, record in sorted(self.records.items()) if digest not in targets]


def _is_record(record: dict[str, Any], digest: str) -> bool:
    manifest, image_id = record.get("manifest"), record.get("id")
    return (
        isinstance(manifest, dict)
        and manifest.get("digest") == digest
        and isinstance(manifest.get("mediaType"), str)
        and isinstance(manifest.get("size"), int)
        and isinstance(image_id, str)
        and is_sha256(image_id)
        and isinstance(record.get("size"), int)
        and isinstance(record.get("created"), int | float)
        and isinstance(record.get("index"), bool)
    )


def _seconds(created: str | None) -> float:
    """Seconds since the epoch of an RFC 3339 time; 0 if missing or malformed."""
    if not created:
        return 0.0
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(created)  # which cuts nanoseconds to microseconds
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
