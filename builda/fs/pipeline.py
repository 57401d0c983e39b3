"""Tar bytes to a stored layer on several threads: hash, compress, hash, write.

Hashing, compressing and writing release the GIL, so a layer takes about as long as its slowest stage. Whatever sizes
the producer writes, each stage sees blocks of BLOCK bytes, so the result depends on the bytes alone.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from builda.fs.compress import BLOCK, compressor
from builda.oci.digest import Digest

if TYPE_CHECKING:
    from builda.fs.tar import Writable
    from builda.oci.mediatype import Compression

DEPTH = 4
"""Blocks that may wait between two stages: memory stays flat whatever the size of a layer."""


class WrittenLayer(NamedTuple):
    """Both identities of a layer: `diff_id` of the tar, `digest` and `size` of the stored bytes."""

    diff_id: Digest
    digest: Digest
    size: int
    uncompressed_size: int
    compression: Compression


class Stage:
    """A thread that takes blocks in order. The first error of `consume` comes out of `put` or `close`."""

    def __init__(self, consume: Callable[[bytes], object], name: str) -> None:
        self._consume = consume
        self._queue: queue.Queue[bytes | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, block: bytes) -> None:
        """Hand over a block; waits while DEPTH of them are waiting."""
        if self._error is not None:
            raise self._error
        self._queue.put(block)

    def close(self) -> None:
        """Wait until everything is consumed; raises what went wrong."""
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (block := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep taking, so that the producer never waits for a dead stage
            try:
                self._consume(block)
            except BaseException as error:  # handed to the producer, whoever it is
                self._error = error


def write_layer(
    produce: Callable[[Writable], object], out: BinaryIO, *, compression: Compression, level: int | None = None
) -> WrittenLayer:
    """Write the tar that `produce` makes to `out`, compressed; both its identities.

    Nothing but `out` is touched, and on any error `out` holds an unfinished layer that the caller throws away.
    """
    with _Layer(out, compression, level) as layer:
        produce(layer)
        return layer.finish()


class _Layer:
    def __init__(self, out: BinaryIO, compression: Compression, level: int | None) -> None:
        self._compression = compression
        self._compressor = compressor(compression, level)
        self._out = out
        self._plain, self._stored = hashlib.sha256(), hashlib.sha256()
        self._plain_size = self._stored_size = 0
        self._parts: list[bytes] = []
        self._held = 0
        self._write_stage = Stage(self._write_out, "builda-write")
        self._hash_stage = Stage(self._plain.update, "builda-diff-id")
        self._compress_stage = Stage(self._compress, "builda-compress")

    def __enter__(self) -> _Layer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stage in (self._compress_stage, self._hash_stage, self._write_stage):
            stage.stop()

    def write(self, data: bytes) -> None:
        """Take tar bytes in any sizes."""
        self._plain_size += len(data)
        self._parts.append(data)
        self._held += len(data)
        if self._held < BLOCK:
            return
        joined = b"".join(self._parts)
        whole = len(joined) - len(joined) % BLOCK
        for at in range(0, whole, BLOCK):
            self._put(joined[at : at + BLOCK])
        self._parts = [joined[whole:]]
        self._held = len(joined) - whole

    def finish(self) -> WrittenLayer:
        """Everything written and hashed."""
        if self._held:
            self._put(b"".join(self._parts))
        self._hash_stage.close()
        self._compress_stage.close()
        self._write_stage.put(self._compressor.flush())
        self._write_stage.close()
        return WrittenLayer(
            diff_id=Digest("sha256", self._plain.hexdigest()),
            digest=Digest("sha256", self._stored.hexdigest()),
            size=self._stored_size,
            uncompressed_size=self._plain_size,
            compression=self._compression,
        )

    def _put(self, block: bytes) -> None:
        self._hash_stage.put(block)
        self._compress_stage.put(block)

    def _compress(self, block: bytes) -> None:
        self._write_stage.put(self._compressor.compress(block))

    def _write_out(self, data: bytes) -> None:
        self._stored.update(data)
        self._stored_size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]


class Hashing:
    """A reader that hashes what passes, on a thread of its own."""

    def __init__(self, source: _Reads) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self._stage = Stage(self._hash.update, "builda-diff-id")

    def read(self, size: int = -1, /) -> bytes:
        """What the source gives."""
        data = self._source.read(size)
        if data:
            self._stage.put(data)
        return data

    def digest(self) -> Digest:
        """The digest of everything that was read; ends the thread."""
        self._stage.close()
        return Digest("sha256", self._hash.hexdigest())

    def stop(self) -> None:
        """End the thread."""
        self._stage.stop()


class Ahead:
    """A reader that reads its source on a thread of its own, DEPTH blocks ahead."""

    def __init__(self, source: _Reads) -> None:
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(DEPTH)
        self._stopped = threading.Event()
        self._rest = b""
        self._ended = False
        self._thread = threading.Thread(target=self._work, args=(source,), name="builda-read", daemon=True)
        self._thread.start()

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, b"" at the end; raises what reading the source raised."""
        if not self._rest and not self._ended:
            item = self._queue.get()
            if isinstance(item, BaseException):
                self._ended = True
                raise item
            self._rest = item
            self._ended = not item
        if size < 0 or size >= len(self._rest):
            data, self._rest = self._rest, b""
            return data
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def stop(self) -> None:
        """End the thread, whatever is left unread."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue
        self._thread.join()

    def _work(self, source: _Reads) -> None:
        try:
            while not self._stopped.is_set():
                data = source.read(BLOCK)
                self._queue.put(data)
                if not data:
                    return
        except BaseException as error:  # handed to the reader
            self._queue.put(error)


if TYPE_CHECKING:
    from builda.oci.digest import Readable as _Reads
