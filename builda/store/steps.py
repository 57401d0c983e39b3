"""The build cache: step key to result. What a result names may be gone; then the step is done again."""

from __future__ import annotations

import os
from contextlib import suppress

from builda import jsontext
from builda.errors import CorruptContent, InvalidValue, StoreUnavailable
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.store import layout
from builda.store.layout import Layout
from builda.values import NamedTuple, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Tree:
    """The step's layer is a frozen snapshot of this store: a tree, or a list where it was made without trees.

    `diff_id` and `blob` are None until the layer's bytes are made.
    """

    snapshot: str
    diff_id: Digest | None = None
    blob: Descriptor | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """Only the bytes of the step's layer are in this store."""

    diff_id: Digest
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Remote:
    """Only a registry has the step's layer."""

    diff_id: Digest
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Empty:
    """The step changed no file. `snapshot` has the files after it; None if that is unknown or not in this store."""

    snapshot: str | None = None


Content: TypeAlias = Tree | Blob | Remote | Empty
"""What a step led to, by where its files are."""


def snapshot_of(content: Content) -> str | None:
    """The snapshot in this store that has the step's files; None if there is none."""
    return content.snapshot if isinstance(content, Tree | Empty) else None


def blob_of(content: Content) -> Descriptor | None:
    """The bytes of the step's layer; None if it has none, or they are not made yet."""
    return None if isinstance(content, Empty) else content.blob


class Told(NamedTuple):
    """The answer of a step to its caller; no part of a key."""

    text: str = ""  # what users know the step by
    digest: Digest | None = None  # of what a copy copied
    output: bytes | None = None  # what a command wrote to a pipe or file; None if that was not taken down


class StepResult(NamedTuple):
    """A remembered step: what it led to, its key's inputs in readable form, and when (seconds since the epoch)."""

    content: Content
    explained: str
    created: float
    told: Told = Told()


class Steps:
    """The remembered steps of one store."""

    def __init__(
        self, where: Layout, is_trusted: Callable[[str], bool], has_blob: Callable[[Digest, int], bool]
    ) -> None:
        """`is_trusted` says whether a snapshot is there and whole, `has_blob` whether a blob of this size is."""
        self._layout = where
        self._is_trusted = is_trusted
        self._has_blob = has_blob

    def find(self, key: Digest) -> StepResult | None:
        """The result under `key`, with a snapshot or blob that still exists and is whole; None without one."""
        try:
            value = layout.read_json(self._layout.path("steps", key.encoded))
        except (FileNotFoundError, StoreUnavailable):  # never written, or emptied by a power cut: nothing syncs a cache
            return None
        try:
            result = _parsed(value)
        except (KeyError, TypeError, InvalidValue, CorruptContent):
            return None
        content = self._still_here(result.content)
        if content is None:
            return None
        layout.touch(self._layout.path("steps", key.encoded))
        return result._replace(content=content)

    def _still_here(self, content: Content) -> Content | None:
        """The usable part of a result: its snapshot, else its blob; None if both are gone."""
        snapshot = snapshot_of(content)
        if snapshot is not None and self._is_trusted(snapshot):
            return content
        if isinstance(content, Empty):
            return Empty()
        diff_id, blob = content.diff_id, content.blob
        if diff_id is None or blob is None or not self._has_blob(blob.digest, blob.size):
            return None
        return Blob(diff_id, blob)

    def put(self, key: Digest, result: StepResult) -> None:
        """Remember the result under `key`."""
        content = result.content
        diff_id = None if isinstance(content, Empty) else content.diff_id
        blob = blob_of(content)
        value = {
            "snapshot": snapshot_of(content) or "",
            "diff_id": None if diff_id is None else str(diff_id),
            "blob": None if blob is None else blob.to_json(),
            "empty": isinstance(content, Empty),
            "explained": result.explained,
            "created": result.created,
            **_told_to_json(result.told),
        }
        layout.publish(self._layout, self._layout.path("steps", key.encoded), jsontext.dumps(value).encode())

    def put_image(self, key: Digest, manifest: Digest) -> None:
        """Remember the image that a whole build made under `key`."""
        layout.publish(self._layout, self._layout.path("steps", f"image-{key.encoded}"), str(manifest).encode())

    def find_image(self, key: Digest) -> Digest | None:
        """The manifest digest of the image remembered under `key`; it may be gone."""
        try:
            with open(self._layout.path("steps", f"image-{key.encoded}"), encoding="ascii") as file:
                return Digest.parse(file.read())
        except (FileNotFoundError, InvalidValue):  # as for steps
            return None

    def forget(self, key: Digest) -> None:
        """Have the step performed again when it is looked for."""
        layout.unlink(self._layout, self._layout.path("steps", key.encoded))

    def last_used(self, key: Digest) -> float:
        """When the step was remembered or found last, in seconds since the epoch; 0 if it is forgotten."""
        try:
            return os.stat(self._layout.path("steps", key.encoded)).st_mtime
        except FileNotFoundError:
            return 0.0

    def iter(self) -> Iterator[tuple[Digest, StepResult]]:
        """Every remembered step."""
        for name in layout.iter_names(self._layout.path("steps")):
            if name.startswith("image-"):
                continue
            with suppress(FileNotFoundError, StoreUnavailable, KeyError, TypeError, InvalidValue, CorruptContent):
                yield Digest("sha256", name), _parsed(layout.read_json(self._layout.path("steps", name)))


def _parsed(value: dict[str, Any]) -> StepResult:
    return StepResult(_content(value), value["explained"], value["created"], _told(value))


def _told_to_json(told: Told) -> dict[str, Any]:
    """The fields that are set."""
    output = None if told.output is None else told.output.decode("latin-1")
    digest = None if told.digest is None else str(told.digest)
    found = {"text": told.text or None, "digest": digest, "output": output}
    return {name: value for name, value in found.items() if value is not None}


def _told(value: dict[str, Any]) -> Told:
    digest, output = value.get("digest"), value.get("output")
    try:
        encoded = None if output is None else output.encode("latin-1")
    except (AttributeError, UnicodeEncodeError) as error:
        raise InvalidValue("output of a remembered step is damaged") from error
    return Told(str(value.get("text", "")), None if digest is None else Digest.parse(digest), encoded)


def _content(value: dict[str, Any]) -> Content:
    snapshot, blob = value["snapshot"], value["blob"]
    if value["empty"]:
        return Empty(snapshot or None)
    diff_id = None if value["diff_id"] is None else Digest.parse(value["diff_id"])
    layer = None if blob is None else Descriptor.from_json(blob, where="remembered step")
    if snapshot:
        return Tree(snapshot, diff_id, layer)
    if diff_id is None or layer is None:
        raise InvalidValue("a remembered step has neither a snapshot nor a layer")
    return Blob(diff_id, layer)
