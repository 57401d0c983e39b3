"""Blobs: the bytes their name promises, or nothing; downloads that go on where they ended."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

import pytest

from builda.errors import CorruptContent, NotFound
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.store.store import Store
from tests.support.stores import files

DATA = os.urandom(100_000)
DIGEST = Digest.of(DATA)


def described(data: bytes = DATA, size: int | None = None) -> Descriptor:
    return Descriptor(media_type="application/x-test", digest=Digest.of(data), size=len(data) if size is None else size)


class Offered:
    """A place that has some bytes; it notes from where they were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offsets: list[int] = []

    def __call__(self, offset: int) -> io.BytesIO:
        self.offsets.append(offset)
        return io.BytesIO(self.data[offset:])


def ingest(store: Store, offered: Offered, descriptor: Descriptor | None = None) -> int:
    told: list[int] = []
    store.lease()
    store.blobs.ingest(descriptor or described(), offered, told.append)
    return sum(told)


def partial(store: Store, data: bytes, digest: Digest = DIGEST) -> Path:
    path = Path(store.layout.path("ingest", f"blob-{digest.encoded}"))
    path.write_bytes(data)
    return path


def test_bytes_put_are_read_back_under_their_digest(store: Store) -> None:
    descriptor = store.put_bytes(DATA, "application/x-test")
    assert descriptor == described()
    assert store.blobs.read(DIGEST) == DATA
    assert store.blobs.has(DIGEST)


def test_putting_twice_writes_once(store: Store) -> None:
    store.put_bytes(DATA, "a")
    inode = os.stat(store.blobs.path(DIGEST)).st_ino
    store.put_bytes(DATA, "a")
    assert os.stat(store.blobs.path(DIGEST)).st_ino == inode


def test_missing_blob_is_not_found(store: Store) -> None:
    assert not store.blobs.has(DIGEST)
    with pytest.raises(NotFound, match=DIGEST.encoded):
        store.blobs.open(DIGEST)


def test_damaged_blob_is_noticed_when_it_is_read(store: Store) -> None:
    store.put_bytes(DATA, "a")
    Path(store.blobs.path(DIGEST)).write_bytes(DATA[:-1] + b"?")
    with pytest.raises(CorruptContent, match="damaged"):
        store.blobs.read(DIGEST)


def test_sha512_content_is_refused(store: Store) -> None:
    with pytest.raises(CorruptContent, match="sha256"):
        store.blobs.path(Digest("sha512", "0" * 128))


def test_ingested_content_is_there_and_told_of(store: Store) -> None:
    assert ingest(store, Offered(DATA)) == len(DATA)
    assert store.blobs.read(DIGEST) == DATA
    assert os.listdir(store.layout.path("ingest")) == []


def test_content_that_is_there_is_not_asked_for(store: Store) -> None:
    store.put_bytes(DATA, "a")
    offered = Offered(DATA)
    assert ingest(store, offered) == len(DATA)
    assert offered.offsets == []


def test_empty_blob_can_be_ingested(store: Store) -> None:
    ingest(store, Offered(b""), described(b""))
    assert store.blobs.read(Digest.of(b"")) == b""


def test_partial_download_is_continued(store: Store) -> None:
    partial(store, DATA[:40_000])
    offered = Offered(DATA)
    assert ingest(store, offered) == len(DATA)
    assert offered.offsets == [40_000]
    assert store.blobs.read(DIGEST) == DATA


def test_complete_partial_download_is_only_published(store: Store) -> None:
    partial(store, DATA)
    offered = Offered(DATA)
    ingest(store, offered)
    assert offered.offsets == []
    assert store.blobs.read(DIGEST) == DATA


def test_partial_download_longer_than_the_content_starts_over(store: Store) -> None:
    partial(store, DATA + b"more")
    offered = Offered(DATA)
    assert ingest(store, offered) == len(DATA)
    assert offered.offsets == [0]
    assert store.blobs.read(DIGEST) == DATA


def test_content_that_ends_early_is_kept_for_the_next_attempt(store: Store) -> None:
    with pytest.raises(CorruptContent, match="ends after 50000 of 100000"):
        ingest(store, Offered(DATA[:50_000]))
    assert not store.blobs.has(DIGEST)
    offered = Offered(DATA)
    ingest(store, offered)
    assert offered.offsets == [50_000]


@pytest.mark.parametrize("wrong", [DATA[:-1] + b"?", DATA + b"?"], ids=["other bytes", "too long"])
def test_wrong_content_leaves_nothing(store: Store, wrong: bytes) -> None:
    before = files(store)
    with pytest.raises(CorruptContent):
        ingest(store, Offered(wrong), described(size=len(DATA)) if wrong[:-1] == DATA else None)
    assert files(store) == before


def test_wrong_partial_download_does_not_stand_in_the_way(store: Store) -> None:
    partial(store, b"?" * 1000)
    with pytest.raises(CorruptContent):
        ingest(store, Offered(DATA))
    ingest(store, Offered(DATA))
    assert store.blobs.read(DIGEST) == DATA


def test_blob_cut_short_by_a_power_cut_is_fetched_again(store: Store) -> None:
    store.put_bytes(DATA, "a")
    Path(store.blobs.path(DIGEST)).write_bytes(b"")
    ingest(store, Offered(DATA))
    assert store.blobs.read(DIGEST) == DATA


def test_descriptor_that_lies_about_the_size_of_content_that_is_there_is_refused(store: Store) -> None:
    store.put_bytes(DATA, "a")
    with pytest.raises(CorruptContent):
        ingest(store, Offered(DATA), described(size=len(DATA) + 1))
    assert store.blobs.read(DIGEST) == DATA


def test_failing_source_is_its_own_error_and_the_next_attempt_goes_on(store: Store) -> None:
    def fail(offset: int) -> io.BytesIO:
        raise ConnectionResetError("gone")

    partial(store, DATA[:10])
    with pytest.raises(ConnectionResetError):
        store.blobs.ingest(described(), fail, lambda _: None)
    offered = Offered(DATA)
    ingest(store, offered)
    assert offered.offsets == [10]


def test_written_blob_appears_when_it_is_published(store: Store) -> None:
    with store.new_blob() as writer:
        writer.file.write(DATA)
        assert not store.blobs.has(DIGEST)
        writer.publish(DIGEST)
    assert store.blobs.read(DIGEST) == DATA
    assert os.listdir(store.layout.path("ingest")) == []


def test_blob_that_is_not_published_vanishes(store: Store) -> None:
    before = files(store)
    with suppress(RuntimeError), store.new_blob() as writer:
        writer.file.write(DATA)
        raise RuntimeError
    assert files(store) == before


def test_put_blob_reads_from_where_a_partial_download_ends(store: Store) -> None:
    partial(store, DATA[:10])
    store.put_blob(io.BytesIO(DATA), described())
    assert store.blobs.read(DIGEST) == DATA


def test_content_another_process_published_is_synced_with_the_image_that_relies_on_it(store: Store) -> None:
    store.put_bytes(DATA, "a")
    store.blobs.unsynced.clear()
    assert store.blobs.has(DIGEST)
    assert store.blobs.path(DIGEST) in store.blobs.unsynced
    store.blobs.sync()
    assert not store.blobs.unsynced
