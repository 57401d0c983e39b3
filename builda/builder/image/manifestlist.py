"""Lists of images in the store: pure edits of an index, and moving a name to the edited list.

A name points at content, so a changed list is another list: the name moves, and other names stay at the old one.
Changes of one name wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from builda.attestations import attached as attestations
from builda.errors import AlreadyExists, InvalidValue, NotFound
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest
from builda.oci.manifest import Index, parse
from builda.oci.reference import in_store
from builda.transfer.converting import is_other
from builda.values import dataclass, field, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Literal, TypeAlias

    from builda.store.store import Image, Store

Duplicates: TypeAlias = "Literal['refuse', 'replace', 'keep']"
"""What happens to an entry for the platform of a new entry."""
Present: TypeAlias = "Literal['refuse', 'change', 'replace']"
"""What happens to a list or image that already has the name of a new list."""
_COMPRESSED = "io.github.containers.compression.zstd"
"""Annotation of an entry that has the same image as another one, compressed by zstd."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryEdit:
    """The changes to one entry of a list; None and empty values change nothing."""

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def names_platform(self) -> bool:
        """Whether it says something of the platform."""
        said = (self.os, self.architecture, self.variant, self.os_version)
        return any(item is not None for item in said) or bool(self.os_features or self.features)

    def applied(self, entry: Descriptor) -> Descriptor:
        """The entry as it is with this edit; InvalidValue for a platform that would lack system or architecture."""
        platform = self._platform(entry) if self.names_platform else entry.platform
        return replace(entry, platform=platform, annotations={**entry.annotations, **self.annotations})

    def _platform(self, entry: Descriptor) -> Platform:
        system, architecture = self.os, self.architecture
        before = entry.platform
        if before is None:
            if not (system and architecture):
                raise InvalidValue(f"entry of the list has no platform: {entry.digest}", hint="give --os and --arch")
            before = Platform(os=system, architecture=architecture)
        moved = architecture is not None and architecture != before.architecture
        return replace(
            before,
            os=system or before.os,
            architecture=architecture or before.architecture,
            variant=self.variant or (None if moved else before.variant),
            os_version=self.os_version or before.os_version,
            os_features=self.os_features or before.os_features,
            extra={**before.extra, "features": list(self.features)} if self.features else before.extra,
        )


def with_entry(index: Index, entry: Descriptor, duplicates: Duplicates, edit: EntryEdit | None = None) -> Index:
    """The index with the entry added once. An entry of the same digest keeps its fields, except those in `edit`.

    Raises InvalidValue if the index has another image for the same platform and `duplicates` says to refuse.
    """
    change = edit or EntryEdit()
    present = find_entry(index, entry.digest)
    added = change.applied(present or entry)
    rivals = [other for other in index.manifests if other.digest != entry.digest and _same_place(other, added)]
    if rivals and duplicates == "refuse":
        raise InvalidValue(
            f"list has another image for {added.platform}: {rivals[0].digest}",
            hint="--replace puts the new one in its place, --allow-duplicate keeps both",
        )
    gone = {rival.digest for rival in rivals} if duplicates == "replace" else set()
    if present is None:
        return replace(index, manifests=(*(one for one in index.manifests if one.digest not in gone), added))
    kept = (added if one.digest == added.digest else one for one in index.manifests if one.digest not in gone)
    return replace(index, manifests=tuple(kept))


def with_edit(index: Index, digest: Digest, edit: EntryEdit) -> Index:
    """The index with another entry for this digest; NotFound if it has none."""
    entry = entry_of(index, digest)
    changed = edit.applied(entry)
    return replace(index, manifests=tuple(changed if one is entry else one for one in index.manifests))


def without_entry(index: Index, digest: Digest) -> Index:
    """The index without the entry of this digest; NotFound if it has none."""
    entry_of(index, digest)
    return replace(index, manifests=tuple(one for one in index.manifests if one.digest != digest))


def with_annotations(index: Index, annotations: Mapping[str, str], subject: Descriptor | None = None) -> Index:
    """The index with these annotations and this subject, as an OCI one if it was Docker's: those have neither."""
    if not annotations and subject is None:
        return index
    return replace(
        index,
        media_type=mediatype.INDEX,
        annotations={**index.annotations, **annotations},
        subject=subject or index.subject,
    )


def find_entry(index: Index, digest: Digest) -> Descriptor | None:
    """The entry of this digest."""
    return next((entry for entry in index.manifests if entry.digest == digest), None)


def entry_of(index: Index, digest: Digest) -> Descriptor:
    """The entry of this digest; NotFound naming those that there are."""
    found = find_entry(index, digest)
    if found is None:
        there = " ".join(str(entry.digest) for entry in index.manifests[:8])
        raise NotFound(f"list has no such image: {digest}", hint=f"it has: {there}" if there else "it is empty")
    return found


def _same_place(one: Descriptor, other: Descriptor) -> bool:
    """Whether both are images that the same machines would take."""
    if one.platform is None or other.platform is None or is_other(one) or is_other(other):
        return False
    compressed = one.annotations.get(_COMPRESSED) == other.annotations.get(_COMPRESSED)
    return compressed and one.platform.canonical == other.platform.canonical


# In the store


def list_image(store: Store, name: str) -> Image:
    """The stored list that a user means; NotFound, or InvalidValue for an image that is no list."""
    image = store.image(in_store(name))
    if not image.is_index:
        raise InvalidValue(f"is an image, not a list: {name}", hint="manifest create makes a list")
    return image


def index_of(image: Image) -> Index:
    """The index of a stored list."""
    assert isinstance(image.document, Index)
    return image.document


def changed(store: Store, name: str, change: Callable[[Index], Index]) -> Image:
    """The list that `name` means after the change, in the store under the name; NotFound without the list.

    An ID means the one name of its list. What the change raises leaves everything as it was.
    """
    full = _name_meant(store, name)
    with _alone(store, full or name):
        image = list_image(store, full or name)
        return _put(store, change(index_of(image)), full, image)


def created(store: Store, full: str, change: Callable[[Index], Index], *, present: Present) -> Image:
    """A list called `full`, in the store. `present` says what becomes of what has the name already: it stays, and
    AlreadyExists is raised; it is changed, an image becoming the first of the list; or the name is taken from it."""
    with _alone(store, full):
        known = store.images.names().get(full)
        before = None if known is None else store.find_image(full)
        if before is not None and present == "refuse":
            raise AlreadyExists(
                f"name is taken: {full}", hint="--amend changes the list, --replace takes the name from it"
            )
        return _put(store, change(_start(before if present == "change" else None)), full, before)


def appended(store: Store, full: str, image: Image) -> Image:
    """The list called `full`, made if missing, names the image too, in place of one for the same platform."""

    added = entries_of(image)
    about = {entry.annotations.get(attestations.IMAGE) for entry in added} - {None}

    def change(index: Index) -> Index:
        kept = (one for one in index.manifests if one.annotations.get(attestations.IMAGE) not in about)
        index = replace(index, manifests=tuple(kept))
        for entry in added:
            index = with_entry(index, entry, "replace")
        return replace(index, manifests=attestations.in_order(index.manifests))

    with _alone(store, full):
        known = store.images.names().get(full)
        before = None if known is None else store.find_image(full)
        if before is not None and not before.is_index:
            raise InvalidValue(f"not an index, so no image can be added to it: {full}", hint="choose another name")
        return _put(store, change(_start(before)), full, before)


def made_of(store: Store, images: tuple[Image, ...]) -> Image:
    """A list of exactly these images, with what is attached to them, in the store without a name."""
    entries = tuple(entry for image in images for entry in entries_of(image))
    return _put(store, Index(manifests=attestations.in_order(entries)), None, None)


def first_image(store: Store, image: Image) -> Image:
    """The image itself, of a list its first image: the only one of a list that was made for attestations."""
    return store.images.unrecorded(index_of(image).manifests[0]) if image.is_index else image


def entries_of(image: Image) -> tuple[Descriptor, ...]:
    """The entries for a list of an image; for an index (as an image with attestations is) all its entries."""
    return index_of(image).manifests if image.is_index else (described(image),)


def described(image: Image) -> Descriptor:
    """A stored image as a list names it."""
    manifest = image.manifest
    if manifest.config.media_type in mediatype.CONFIGS and manifest.artifact_type is None:
        return replace(image.descriptor, platform=image.config.platform)
    return replace(image.descriptor, artifact_type=manifest.artifact_type or manifest.config.media_type)


def _start(before: Image | None) -> Index:
    """The entries of the list or image that the name means now; an empty index if it means none."""
    if before is None:
        return Index(manifests=())
    return index_of(before) if before.is_index else Index(manifests=(described(before),))


def _name_meant(store: Store, name: str) -> str | None:
    """The full name that moves with a change; None for a list without one."""
    full = store.images.full_name(in_store(name))
    if full is not None:
        return full
    image = list_image(store, name)
    if len(image.names) > 1:
        raise InvalidValue(f"list has several names: {name}", hint=f"name one: {' '.join(image.names)}")
    return image.names[0] if image.names else None


def _put(store: Store, index: Index, full: str | None, before: Image | None) -> Image:
    """The index in the store under the name; a list that was `before` and has no other name is gone."""
    data = index.dump()
    parse(data, index.media_type)  # within the limits of those who will read it
    names = () if full is None else (full,)
    image = store.put_image(store.put_bytes(data, index.media_type), names=names)
    if before is not None and before.is_index and before.digest != image.digest:
        store.images.discard(before.digest, named=False, horizon=math.inf)
    return image


def _alone(store: Store, name: str) -> AbstractContextManager[None]:
    from builda.store import locks

    return locks.exclusive(locks.bucket(store.layout.path("locks"), Digest.of(name.encode()).encoded))
