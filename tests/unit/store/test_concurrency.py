"""Eight processes on one store: nobody's change is lost and nobody sees half of one."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from builda.store.pruning import prune
from builda.store.store import Store
from tests.support import images, needs
from tests.support.stores import another, container, files

pytestmark = pytest.mark.root

PROCESSES = 8


def in_processes(store: Store, work: Callable[[Store, int], None], count: int = PROCESSES) -> None:
    """Run `work(store, number)` in as many processes at once; all must succeed."""
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                with another(store) as mine:
                    work(mine, number)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * count


def test_no_tag_is_lost(store: Store) -> None:
    image = images.put(store, images.simple())

    def tag(mine: Store, number: int) -> None:
        for other in range(10):
            mine.images.tag(image, f"localhost/n{number}:t{other}")

    in_processes(store, tag)
    names = {f"localhost/n{number}:t{other}" for number in range(PROCESSES) for other in range(10)}
    assert set(store.images.names()) == names
    listed = Path(store.layout.path("index.json")).read_text()
    assert all(f'"{name}"' in listed for name in names)


def test_no_two_containers_have_one_name(store: Store) -> None:
    def create(mine: Store, number: int) -> None:
        for _ in range(5):
            container(mine)

    in_processes(store, create)
    found = list(store.containers.iter())
    assert len(found) == len({one.name for one in found}) == 5 * PROCESSES
    assert all(store.container(one.name).id == one.id for one in found)


def test_one_of_all_gets_the_name_that_all_want(store: Store) -> None:
    from builda.errors import AlreadyExists

    Path(store.layout.path("names", "mine")).write_text("f" * 64)  # of a killed creator, long ago
    os.utime(store.layout.path("names", "mine"), (0, 0))

    def create(mine: Store, number: int) -> None:
        try:
            container(mine, name="mine")
        except AlreadyExists:
            Path(store.root, f"lost-{number}").touch()

    in_processes(store, create)
    assert len(list(store.containers.iter())) == 1
    assert len([name for name in os.listdir(store.root) if name.startswith("lost-")]) == PROCESSES - 1


def test_image_is_unpacked_once_for_all(store: Store) -> None:
    image = images.put(store, images.simple(layers=4))

    def unpack(mine: Store, number: int) -> None:
        one = container(mine, mine.image(image.id.encoded))
        assert len(mine.snapshots.new.lineage(one.base)) == 4

    in_processes(store, unpack)
    assert len({one.base for one in store.containers.iter()}) == 1
    assert len(os.listdir(store.layout.path("snapshots"))) == 4 + PROCESSES


def test_images_that_share_layers_are_unpacked_side_by_side(store: Store) -> None:
    shared = [images.layer({f"shared{number}": b"x" * 5000}) for number in range(3)]
    made = [images.image(*shared, images.layer({"own": bytes([number])})) for number in range(PROCESSES)]

    def unpack(mine: Store, number: int) -> None:
        image = images.put(mine, made[number], f"localhost/i{number}:latest")
        assert len(mine.snapshots.new.lineage(mine.snapshots.unpack(image))) == 4

    in_processes(store, unpack)
    for number in range(PROCESSES):
        assert len(store.snapshots.new.lineage(store.snapshots.unpack(store.image(f"i{number}")))) == 4
    another(store).sweep()
    assert store.fsck() == ()


def test_one_download_serves_all(store: Store) -> None:
    data = os.urandom(1 << 20)
    asked = Path(store.root, "asked")
    asked.mkdir()
    import io

    from builda.oci.descriptor import Descriptor
    from builda.oci.digest import Digest

    descriptor = Descriptor(media_type="m", digest=Digest.of(data), size=len(data))

    def ingest(mine: Store, number: int) -> None:
        def offered(offset: int) -> io.BytesIO:
            (asked / str(number)).touch()
            return io.BytesIO(data[offset:])

        mine.lease()
        told: list[int] = []
        mine.blobs.ingest(descriptor, offered, told.append)
        assert sum(told) == len(data)

    in_processes(store, ingest)
    assert len(list(asked.iterdir())) == 1


def test_all_together_and_a_prune_leave_what_was(store: Store) -> None:
    image = images.put(store, images.simple(), "localhost/base:latest")
    store.snapshots.unpack(image)
    store.close()
    before = files(store)

    def work(mine: Store, number: int) -> None:
        for turn in range(4):
            made = images.simple(number + 1, layers=2)
            other = images.put(mine, made, f"localhost/w{number}:latest")
            one = container(mine, other if turn % 2 else mine.image("base"))
            mine.rename(one, f"worker-{number}-{turn}")
            mine.remove_container(one)
            mine.remove_image(f"localhost/w{number}:latest")
            if number == 0:
                prune(mine)

    in_processes(store, work)
    prune(another(store))
    assert files(store) == before


@needs.program("skopeo")
def test_other_tools_read_the_store_while_it_is_written(store: Store) -> None:
    image = images.put(store, images.simple(), "localhost/base:latest")
    seen = Path(store.root, "seen")

    def work(mine: Store, number: int) -> None:
        if number:
            while not seen.exists():
                mine.images.tag(image, f"localhost/w{number}:latest")
                images.put(mine, images.simple(number), f"localhost/i{number}:latest")
                mine.images.untag(f"localhost/w{number}:latest")
            return
        try:
            for _ in range(10):
                command = ["skopeo", "inspect", "--raw", f"oci:{mine.root}:localhost/base:latest"]
                assert subprocess.check_output(command) == image.raw
        finally:
            seen.touch()

    in_processes(store, work, 4)
