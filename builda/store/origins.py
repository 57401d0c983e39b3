"""Where the content of a manifest is, while the store has only the manifest.

A list may name images in registries: the store keeps their manifests and configurations, and for each manifest a file
in `origins/` that says which repository has the layers. A file outlives its manifest until the next sweep.
"""

from __future__ import annotations

import os

from builda import jsontext
from builda.linux import private
from builda.oci.digest import Digest
from builda.store import layout
from builda.store.layout import Damaged, Layout
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Origin(NamedTuple):
    """A place of content: `name` is `registry/repository@digest`; `tls_verify` is what the user said, or None."""

    name: str
    tls_verify: bool | None = None


class Origins:
    """The origins of the manifests of one store. `report` is told of files that cannot be read; they count as none."""

    def __init__(self, where: Layout, report: Callable[[Damaged], None]) -> None:
        self._layout = where
        self._report = report

    def put(self, manifest: Digest, origin: Origin) -> None:
        """Record the origin of the content that a manifest lists. Survives a power cut."""
        path = self._path(manifest)
        private.make(os.path.dirname(path))  # a store of an earlier version has none
        body = jsontext.dumps({"name": origin.name, "tls_verify": origin.tls_verify}).encode()
        layout.publish(self._layout, path, body, durable=True)

    def get(self, manifest: Digest) -> Origin | None:
        """The origin of the content that the manifest lists; None if unknown."""
        return layout.if_whole(lambda: self._read(self._path(manifest)), self._report)

    def _read(self, path: str) -> Origin:
        value = layout.read_json(path)
        name, tls_verify = value.get("name"), value.get("tls_verify")
        if not isinstance(name, str) or not isinstance(tls_verify, bool | None):
            raise Damaged(path)
        return Origin(name, tls_verify)

    def manifests(self) -> Iterator[Digest]:
        """The manifests that have an origin."""
        for name in layout.iter_names(self._layout.path("origins")):
            yield Digest("sha256", name)

    def remove(self, manifest: Digest) -> None:
        """Forget the origin of a manifest."""
        layout.unlink(self._layout, self._path(manifest))

    def _path(self, manifest: Digest) -> str:
        return self._layout.path("origins", manifest.encoded)
