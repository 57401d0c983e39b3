"""The build cache: step key to result. What a result names may be gone; then the step is done again."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builda.errors import InvalidValue, StoreUnavailable
from builda.oci.digest import Digest
from builda.store import layout
from builda.store.layout import Layout
from builda.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


ELSEWHERE = ""
"""The snapshot of a layer that has none in this store, or none any more: only its blob, here or in a registry."""


class StepResult(NamedTuple):
    """What a step led to: the frozen snapshot, and once it is computed the layer's identities."""

    snapshot: str
    diff_id: Digest | None
    blob: dict[str, Any] | None  # its descriptor as JSON
    empty: bool
    explained: str  # the key's inputs, readable
    created: float


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
        """The result under `key` when it is still there and whole; its snapshot ELSEWHERE if only the blob is."""
        try:
            value = layout.read_json(self._layout.path("steps", key.encoded))
        except (FileNotFoundError, StoreUnavailable):  # never written, or emptied by a power cut: nothing syncs a cache
            return None
        try:
            result = _parsed(value)
        except (KeyError, TypeError, InvalidValue):
            return None
        if not self._is_trusted(result.snapshot):
            if not (result.empty or self._is_stored(result)):
                return None
            result = result._replace(snapshot=ELSEWHERE)
        layout.touch(self._layout.path("steps", key.encoded))
        return result

    def _is_stored(self, result: StepResult) -> bool:
        if result.blob is None or result.diff_id is None:
            return False
        return self._has_blob(Digest.parse(result.blob["digest"]), int(result.blob["size"]))

    def put(self, key: Digest, result: StepResult) -> None:
        """Remember the result under `key`."""
        value = {**result._asdict(), "diff_id": None if result.diff_id is None else str(result.diff_id)}
        layout.publish(self._layout, self._layout.path("steps", key.encoded), json.dumps(value).encode())

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

    def iter(self) -> Iterator[tuple[Digest, StepResult]]:
        """Every remembered step."""
        for name in layout.iter_names(self._layout.path("steps")):
            if name.startswith("image-"):
                continue
            with suppress(FileNotFoundError, StoreUnavailable, KeyError, TypeError, InvalidValue):
                yield Digest("sha256", name), _parsed(layout.read_json(self._layout.path("steps", name)))


def _parsed(value: dict[str, Any]) -> StepResult:
    diff_id = value["diff_id"]
    return StepResult(**{**value, "diff_id": None if diff_id is None else Digest.parse(diff_id)})
