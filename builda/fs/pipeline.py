"""Tar bytes to a stored layer on several threads: hash, compress, hash, write.

Hashing, compressing and writing release the GIL, and blocks are compressed side by side, so a layer takes about as long
as its work divided by the processors. Whatever sizes the producer writes, each stage sees blocks of BLOCK bytes in
their order, so the result depends on the bytes alone.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable
from types import TracebackType

from builda.fs.compress import BLOCK, compressor
from builda.fs.tar import ZERO_BLOCK
from builda.oci.digest import Digest
from builda.values import Generic, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, TypeVar

    from builda.fs.compress import Buffer
    from builda.fs.tar import Writable
    from builda.oci.digest import Readable
    from builda.oci.mediatype import Compression

    Item = TypeVar("Item")

DEPTH = 4
"""Blocks that may wait between two stages: memory stays flat whatever the size of a layer."""


class WrittenLayer(NamedTuple):
    """Both identities of a layer: `diff_id` of the tar, `digest` and `size` of the stored bytes."""

    diff_id: Digest
    digest: Digest
    size: int
    uncompressed_size: int
    compression: Compression


class Stage(Generic["Item"]):
    """A thread that takes items in order. The first error of `consume` comes out of `put` or `close`."""

    def __init__(self, consume: Callable[[Item], object], name: str) -> None:
        self._consume = consume
        self._queue: queue.Queue[Item | None] = queue.Queue(DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand over an item; waits while DEPTH of them are waiting."""
        if self._error is not None:
            raise self._error
        self._queue.put(item)

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
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep taking, so that the producer never waits for a dead stage
            try:
                self._consume(item)
            except BaseException as error:  # raised again in the producer's thread
                self._error = error


def write_layer(
    produce: Callable[[Writable], object],
    out: BinaryIO,
    *,
    compression: Compression,
    level: int | None = None,
    moved: Callable[[int], None] | None = None,
) -> WrittenLayer:
    """Write the tar that `produce` makes to `out`, compressed; both its identities. `moved` is told of its bytes.

    Nothing but `out` is touched, and on any error `out` holds an unfinished layer that the caller throws away.
    """
    with _Layer(out, compression, level, moved) as layer:
        produce(layer)
        return layer.finish()


class _Job:
    """A block and, once a compressing thread is done with it, what it became."""

    __slots__ = ("block", "done", "result")

    def __init__(self, block: Buffer) -> None:
        self.block = block
        self.result: bytes | BaseException = b""
        self.done = threading.Lock()
        self.done.acquire()


class _Layer:
    """The producer's side. Blocks go to the compressing threads, the hashing one, and the writer, which keeps order."""

    def __init__(
        self, out: BinaryIO, compression: Compression, level: int | None, moved: Callable[[int], None] | None
    ) -> None:
        self._moved = moved
        self._compression = compression
        self._compressor = compressor(compression, level)
        self._out = out
        self._plain, self._stored = hashlib.sha256(), hashlib.sha256()
        self._plain_size = self._stored_size = 0
        self._parts: list[Buffer] = []
        self._held = 0
        self._zeros: bytes | None = None  # what a block of zeros becomes: sparse files are full of them
        self._writing: Stage[_Job] = Stage(self._write_job, "builda-write")
        self._hashing: Stage[Buffer] = Stage(self._hash, "builda-diff-id")
        workers = 0 if compression == "none" else min(4, len(os.sched_getaffinity(0)))
        self._jobs: queue.Queue[_Job | None] = queue.Queue(DEPTH)
        self._workers = [
            threading.Thread(target=self._work, name="builda-compress", daemon=True) for _ in range(workers)
        ]
        for worker in self._workers:
            worker.start()
        self._write_out(self._compressor.header())

    def __enter__(self) -> _Layer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_workers()
        self._hashing.stop()
        self._writing.stop()

    def write(self, data: Buffer) -> None:
        """Take tar bytes in any sizes."""
        if len(data) == BLOCK and not self._held:
            self._put(data)
            return
        self._parts.append(bytes(data))
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
        self._stop_workers()
        self._hashing.close()
        self._writing.close()
        self._write_out(self._compressor.trailer())
        stored = self._plain if self._compression == "none" else self._stored
        return WrittenLayer(
            diff_id=Digest("sha256", self._plain.hexdigest()),
            digest=Digest("sha256", stored.hexdigest()),
            size=self._stored_size,
            uncompressed_size=self._plain_size,
            compression=self._compression,
        )

    def _put(self, block: Buffer) -> None:
        self._plain_size += len(block)
        if self._moved is not None:
            self._moved(len(block))
        self._hashing.put(block)
        job = _Job(block)
        if block is ZERO_BLOCK and self._zeros is not None:
            job.result = self._zeros
            job.done.release()
        elif self._workers:
            self._jobs.put(job)
        else:
            job.done.release()
        self._writing.put(job)

    def _hash(self, block: Buffer) -> None:
        self._plain.update(block)
        self._compressor.checked(block)

    def _stop_workers(self) -> None:
        for _ in self._workers:
            self._jobs.put(None)
        for worker in self._workers:
            worker.join()
        self._workers = []

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.result = self._compressor.block(job.block)
                if job.block is ZERO_BLOCK:
                    self._zeros = job.result
            except BaseException as error:  # handed on by the writer
                job.result = error
            job.done.release()

    def _write_job(self, job: _Job) -> None:
        job.done.acquire()
        if isinstance(job.result, BaseException):
            raise job.result
        self._write_out(job.block if self._compression == "none" else job.result)

    def _write_out(self, data: Buffer) -> None:
        if self._compression != "none":
            self._stored.update(data)
        self._stored_size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]


class Hashing:
    """A reader that hashes what passes, on a thread of its own."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self._stage: Stage[bytes] = Stage(self._hash.update, "builda-diff-id")

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

    def __init__(self, source: Readable) -> None:
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

    def _work(self, source: Readable) -> None:
        try:
            while not self._stopped.is_set():
                data = source.read(BLOCK)
                self._queue.put(data)
                if not data:
                    return
        except BaseException as error:  # handed to the reader
            self._queue.put(error)
