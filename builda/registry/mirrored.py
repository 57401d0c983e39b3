"""One blob from the first of several repositories that has it; when that one fails midway, the next one goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from builda.errors import CorruptContent, RegistryError
from builda.events import Emit, Warned
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Readable
from builda.registry.repository import Repository


class MirroredBlob:
    """The bytes from `offset` on, unverified. Mirrors come first, and a warning tells of each that failed."""

    def __init__(self, repositories: Sequence[Repository], descriptor: Descriptor, offset: int, emit: Emit) -> None:
        self._left = list(repositories)
        self._descriptor = descriptor
        self._position = offset
        self._emit = emit
        self._open = ExitStack()
        self._reader: Readable | None = None

    def __enter__(self) -> MirroredBlob:
        try:
            self._current()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._open.close()

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, b"" at the end; the last repository's error if all of them fail."""
        while True:
            reader = self._current()
            try:
                data = reader.read(size)
            except (RegistryError, CorruptContent) as error:
                self._next(error)
            else:
                self._position += len(data)
                return data

    def _current(self) -> Readable:
        while self._reader is None:
            repository = self._left[0]
            self._open.enter_context(repository.endpoint.reading)
            try:
                self._reader = self._open.enter_context(repository.open_blob(self._descriptor, self._position))
            except (RegistryError, CorruptContent) as error:
                self._next(error)
        return self._reader

    def _next(self, error: RegistryError | CorruptContent) -> None:
        self._open.close()
        self._reader = None
        if len(self._left) == 1 or self._left[0].ending.has_come:
            raise error
        del self._left[0]
        self._emit(Warned(message=f"mirror failed: {error}", hint=error.hint))
