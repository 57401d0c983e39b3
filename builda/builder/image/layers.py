"""Layers as stored: a changed tree to a compressed blob, at once or by threads in the background.

How a blob was made (compression, times) is noted in its descriptor, so that it is only reused where the same is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from builda.events import Warned
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from builda.builder.imageoptions import CommitOptions
    from builda.events import Emit
    from builda.fs.layer import Clamp
    from builda.fs.tar import Writable
    from builda.oci.digest import Digest
    from builda.oci.mediatype import Compression
    from builda.store.containers import FrozenLayer
    from builda.store.store import Store

TIMES = "io.builda.layer.times"
"""Annotation of a stored layer's descriptor: what was made of its times. It is in no manifest."""


class LayerOptions(NamedTuple):
    """The options that a layer's bytes depend on, besides its files."""

    compression: Compression = "gzip"
    level: int | None = None
    latest: int | None = None  # no time is later than this
    exact: int | None = None  # all times are this

    @classmethod
    def of(cls, options: CommitOptions) -> LayerOptions:
        """The layer options among those of a commit."""
        return cls(options.compression, options.compression_level, options.clamp, options.timestamp)

    @property
    def clamp(self) -> Clamp:
        """The times that the layer records."""
        from builda.fs.layer import Clamp

        return Clamp(self.latest, self.exact)

    @property
    def keeps_times(self) -> bool:
        """Whether files keep their times, so that the layer unpacks to the same tree."""
        return self.latest is None and self.exact is None

    def made(self, blob: Descriptor) -> bool:
        """Whether a stored layer was made with these options."""
        same = mediatype.compression_of(blob.media_type) == self.compression
        return same and self.level is None and blob.annotations.get(TIMES, "") == self._times()

    def _times(self) -> str:
        return "" if self.keeps_times else f"{self.latest}:{self.exact}"

    def descriptor(self, digest: Digest, size: int) -> Descriptor:
        """The descriptor of a layer made with these options."""
        kind = mediatype.layer_media_type("oci", self.compression)
        notes = {} if self.keeps_times else {TIMES: self._times()}
        return Descriptor(media_type=kind, digest=digest, size=size, annotations=notes)


class StoredLayer(NamedTuple):
    """Descriptor and DiffID of a stored layer; None if nothing was changed. `skipped` are sockets, in no layer."""

    blob: Descriptor | None
    diff_id: Digest | None
    skipped: tuple[str, ...] = ()


def write(
    store: Store,
    produce: Callable[[Writable], tuple[str, ...]],
    options: LayerOptions,
    moved: Callable[[int], None] | None = None,
) -> StoredLayer:
    """Store the tar that `produce` writes (and returns the paths it had to skip of) as a layer.

    `moved` is told of the tar's bytes.
    """
    from builda.fs.pipeline import write_layer
    from builda.fs.tar import EMPTY_SIZE

    skipped: list[str] = []
    with store.new_blob() as blob:
        written = write_layer(
            lambda sink: skipped.extend(produce(sink)),
            blob.file,
            compression=options.compression,
            level=options.level,
            moved=moved,
        )
        if written.uncompressed_size <= EMPTY_SIZE:
            return StoredLayer(None, None, tuple(skipped))
        blob.publish(written.digest, written.diff_id)
    return StoredLayer(options.descriptor(written.digest, written.size), written.diff_id, tuple(skipped))


class Layers:
    """Frozen layers being stored by two threads while work goes on. Leaving its `with` drops what is not wanted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool: ThreadPoolExecutor | None = None
        self._closing = False
        self._lock = threading.Lock()
        self._futures: dict[tuple[str, LayerOptions], Future[StoredLayer]] = {}

    def close(self) -> None:
        """End the threads; layers that are not finished are dropped."""
        with self._lock:
            pool, self._pool = self._pool, None
            self._futures.clear()
        if pool is not None:
            self._closing = True
            pool.shutdown(cancel_futures=True)
            self._closing = False

    def start(
        self,
        snapshot: str,
        options: LayerOptions,
        emit: Emit,
        tell: Callable[[StoredLayer], None] | None = None,
        *,
        name: str | None = None,
    ) -> Future[StoredLayer]:
        """The layer of a frozen snapshot, being stored; `tell` is called by its thread, before others know.

        `emit` gets its progress, where it is called `name`.
        """
        with self._lock:
            key = snapshot, options
            if key not in self._futures:
                if self._pool is None:
                    from concurrent.futures import ThreadPoolExecutor  # brings logging

                    self._pool = ThreadPoolExecutor(2, thread_name_prefix="builda-layer")
                self._futures[key] = self._pool.submit(self._write, snapshot, options, emit, tell, name)
            return self._futures[key]

    def result(self, layer: FrozenLayer, options: LayerOptions, emit: Emit) -> StoredLayer:
        """The stored layer of a frozen one; waits if a thread is storing it."""
        if layer.empty:
            return StoredLayer(None, None)
        if layer.blob is not None and options.made(layer.blob) and self._store.blobs.has(layer.blob.digest):
            return StoredLayer(layer.blob, layer.diff_id)
        return self.start(layer.snapshot, options, emit).result()

    def _write(
        self,
        snapshot: str,
        options: LayerOptions,
        emit: Emit,
        tell: Callable[[StoredLayer], None] | None,
        name: str | None,
    ) -> StoredLayer:
        stored = self.write(snapshot, options, emit, name)
        if tell is not None:
            tell(stored)
        return stored

    def write(self, snapshot: str, options: LayerOptions, emit: Emit, name: str | None = None) -> StoredLayer:
        """Store what was changed in a snapshot."""
        from builda.builder.byteprogress import moving

        snapshots = self._store.snapshots.kind_of(snapshot)

        def produce(sink: Writable) -> tuple[str, ...]:
            return snapshots.write_changes(snapshot, _Given(sink, self._check), clamp=options.clamp)

        subject = name or f"layer {snapshot[:12]}"
        with moving(emit, "store", subject, lambda: snapshots.changed_size(snapshot)) as moved:
            stored = write(self._store, produce, options, moved)
        for path in stored.skipped:
            emit(Warned(message=f"socket is left out of the layer: /{path.lstrip('/')}"))
        return stored

    def _check(self) -> None:
        if self._closing:
            from builda.linux.stopping import Stopped

            raise Stopped


class _Given:
    """Passes a tar on to `sink`, unless `check` raises something."""

    def __init__(self, sink: Writable, check: Callable[[], None]) -> None:
        self._sink = sink
        self._check = check

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Pass on the next bytes."""
        self._check()
        self._sink.write(data)
