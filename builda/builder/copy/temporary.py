"""Temporary directories in the store: on its disk rather than in memory, removed by `prune` after a killed process."""

from __future__ import annotations

import os

from builda.fs import paths
from builda.store import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.store.store import Store


class TemporaryDirectory:
    """An empty private directory for the time of a `with` block, which gets a descriptor of it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> int:
        self._path = layout.temporary(self._store.layout)
        with layout.translated(self._store.root):
            os.mkdir(self._path, 0o700)
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        paths.discard(self._path)

    @property
    def path(self) -> str:
        """Its path, for programs that take no descriptor."""
        return self._path
