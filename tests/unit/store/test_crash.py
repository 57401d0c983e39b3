"""Processes killed at any moment: readers work at once, and after a prune nothing is left of them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builda.errors import BuildaError
from builda.oci.digest import Digest
from builda.store.pruning import prune
from builda.store.steps import StepResult, Tree
from builda.store.store import Store
from tests.support import images
from tests.support.stores import another, container, files

pytestmark = pytest.mark.root

BASE = images.simple(0, layers=3)
OTHERS = tuple(images.simple(number, layers=3) for number in range(1, 4))


@contextmanager
def forked(store: Store, work: object, *arguments: object) -> Iterator[int]:
    """A child that runs `work(store, *arguments)` on the same store, again and again until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                with another(store) as mine:
                    work(mine, *arguments)  # type: ignore[operator]  # a function of this module
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the child failed before it was killed"


def whole_day(store: Store, seed: float) -> None:
    """All that changes a store, in the order of some build."""
    chance = random.Random(seed + time.monotonic_ns())
    number = chance.randrange(len(OTHERS))
    image = images.put(store, OTHERS[number], f"localhost/other{number}:latest", f"localhost/{chance.random()}:latest")
    made = container(store, image)
    Path(store.snapshots.new.upper(made.snapshot), "file").write_text("x")
    with store.containers.locked(made) as current:
        frozen = store.snapshots.freeze(current.snapshot)
        fresh = store.snapshots.prepare(frozen)
        import dataclasses

        made = store.update(dataclasses.replace(current, snapshot=fresh, comment="frozen"))
    store.steps.put(Digest.of(frozen.encode()), StepResult(Tree(frozen), "", 0.0))
    store.snapshots.bind_chain(Digest.of(frozen.encode()), frozen)
    made = store.rename(made, f"name-{chance.randrange(1 << 40)}")
    if chance.random() < 0.5:
        store.remove_container(made)
    if chance.random() < 0.3:
        store.images.untag(f"localhost/other{number}:latest")
    if chance.random() < 0.3:
        store.sweep()


def read_everything(store: Store) -> None:
    """Every reader works, and finds only what is whole."""
    for image in store.images.iter():
        assert Digest.of(image.raw) == image.digest
        for part in (image.manifest.config, *image.manifest.layers):
            with store.blobs.open(part.digest) as file:
                assert Digest.of(file.read()) == part.digest
    for name, target in store.images.names().items():
        assert str(store.image(name).digest) == target
    for one in store.containers.iter():
        store.snapshots.rootfs(one.snapshot)
        assert store.container(one.id) == one
    for key, _ in store.steps.iter():
        store.steps.find(key)
    assert store.fsck() == ()


def empty_again(store: Store) -> set[str]:
    """The store's files after all that can go went."""
    with another(store) as last:
        for one in last.containers.iter():
            last.remove_container(one)
        for image in last.images.iter():
            if "localhost/base:latest" not in image.names:
                for name in image.names:
                    last.images.untag(name)
        prune(last)
    return files(store)


def test_killed_writers_leave_a_store_that_works_and_is_cleaned(store: Store) -> None:
    base = images.put(store, BASE, "localhost/base:latest")
    store.snapshots.unpack(base)
    store.close()
    before = empty_again(store)
    for number in range(30):
        delay = random.Random(number).uniform(0, 0.12)
        with forked(store, whole_day, number):
            time.sleep(delay)
        with another(store) as reader:
            read_everything(reader)
            base = reader.image("localhost/base:latest")
            container(reader, base, name=f"after-{number}")
        assert empty_again(store) == before, f"round {number}, killed after {delay:.3f} s"


def test_killed_sweeps_take_nothing_that_is_needed(store: Store) -> None:
    base = images.put(store, BASE, "localhost/base:latest")
    store.snapshots.unpack(base)
    store.close()
    before = empty_again(store)
    for number in range(15):
        with another(store) as maker:
            for other in OTHERS:
                maker.snapshots.unpack(images.put(maker, other))
        with forked(store, lambda mine: prune(mine)):
            time.sleep(random.Random(number).uniform(0.002, 0.02))
        with another(store) as reader:
            read_everything(reader)
            for image in reader.images.iter():
                reader.snapshots.rootfs(container(reader, image).snapshot)
        assert empty_again(store) == before


def test_writers_next_to_sweeps_lose_nothing(store: Store) -> None:
    base = images.put(store, BASE, "localhost/base:latest")
    store.close()
    with forked(store, lambda mine: prune(mine)), forked(store, lambda mine: prune(mine)):
        end = time.monotonic() + 5
        count = 0
        while time.monotonic() < end:
            with another(store) as writer:
                image = images.put(writer, OTHERS[count % 3], f"localhost/x{count % 3}:latest")
                one = container(writer, image)
                assert len(writer.snapshots.new.lineage(one.base)) == 3
                frozen = writer.snapshots.freeze(writer.snapshots.prepare(one.base))
                assert len(writer.snapshots.new.lineage(writer.snapshots.prepare(frozen))) == 5
                assert writer.snapshots.unpack(base) is not None
                writer.remove_container(one)
                writer.remove_image(f"localhost/x{count % 3}:latest")
                count += 1
    assert count > 3
    another(store).sweep()
    assert another(store).fsck() == ()


def test_killed_downloads_are_continued(store: Store) -> None:
    import io

    from builda.oci.descriptor import Descriptor

    data = os.urandom(1 << 22)
    descriptor = Descriptor(media_type="m", digest=Digest.of(data), size=len(data))

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.001)
            return super().read(min(size or 0, 1 << 14))

    partial = Path(store.layout.path("ingest", f"blob-{descriptor.digest.encoded}"))
    seen = [0]
    for _ in range(4):
        with forked(store, lambda mine: mine.put_blob(Slow(data), descriptor)):
            time.sleep(0.06)
        if not partial.exists():
            break
        seen.append(partial.stat().st_size)
    assert seen == sorted(seen)
    store.put_blob(io.BytesIO(data), descriptor)
    assert store.blobs.read(descriptor.digest) == data
    with pytest.raises(BuildaError):
        store.image("nothing")
