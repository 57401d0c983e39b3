"""Garbage: the sweep takes what nothing refers to and nothing that a living process counts on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builda.linux.process import process_identity
from builda.oci.config import History
from builda.oci.digest import Digest
from builda.store import gc, leases, locks
from builda.store.containers import FrozenLayer
from builda.store.fsck import examine
from builda.store.locks import is_held
from builda.store.pruning import prune
from builda.store.steps import StepResult, Tree
from builda.store.store import Store
from tests.support import images
from tests.support.stores import age, another, container, files, forget

pytestmark = pytest.mark.root

DEAD = "tmp-1-999999999-dead"


HOLDING = "import os, sys; from builda.store import locks; locks.hold(sys.argv[1]); os.write(1, b'.'); sys.stdin.read()"


@contextmanager
def living_process(store: Store, *prefix: str) -> Iterator[None]:
    """Another process that has a lease."""
    path = store.layout.path("leases", "lease-1-1-0")
    command = [*prefix, sys.executable, "-c", HOLDING, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        try:
            yield
        finally:
            process.kill()


def sweep(store: Store) -> None:
    """Sweep as a process that comes later does."""
    store.close()
    age(store, 60)
    another(store).sweep()


def test_what_nothing_refers_to_is_removed(store: Store) -> None:
    before = files(store)
    made = images.simple()
    image = images.put(store, made)
    store.snapshots.unpack(image)
    store.snapshots.prepare(None)
    forget(store, image)
    sweep(store)
    assert files(store) == before


def test_everything_that_is_referred_to_stays(store: Store) -> None:
    image = images.put(store, images.simple(1), "localhost/a:latest")
    images.put(store, images.index(images.simple(2), images.simple(3)), "localhost/b:latest")
    store.snapshots.unpack(image)
    container(store, image, name="mine")
    store.steps.put(Digest.of(b"k"), StepResult(Tree(store.snapshots.freeze(store.snapshots.prepare(None))), "", 0.0))
    age(store)
    before = files(store)
    sweep(store)
    assert files(store) == before
    assert store.fsck() == ()


def test_frozen_layers_of_a_container_stay_with_their_blobs(store: Store) -> None:
    frozen = store.snapshots.freeze(store.snapshots.prepare(None))
    blob = store.put_bytes(b"layer", "m")
    layers = (FrozenLayer(snapshot=frozen, history=History(), diff_id=blob.digest, blob=blob),)
    container(store, layers=layers)
    sweep(store)
    assert store.snapshots.new.exists(frozen)
    assert store.blobs.has(blob.digest)


def test_image_that_only_a_container_needs_keeps_its_content(store: Store) -> None:
    made = images.simple()
    image = images.put(store, made)
    container(store, image)
    forget(store, image)
    sweep(store)
    assert all(store.blobs.has(digest) for digest in made.blobs)


def test_what_a_living_process_made_or_reused_stays(store: Store) -> None:
    old = store.put_bytes(b"old", "m").digest
    unused = store.put_bytes(b"unused", "m").digest
    snapshot = store.snapshots.prepare(None)
    store.close()
    age(store)
    with living_process(store):
        user = another(store)
        assert user.blobs.has(old)
        assert user.snapshots.new.exists(snapshot)
        new = user.put_bytes(b"new", "m").digest
        user.close()
        another(store).sweep()
        assert os.path.exists(store.blobs.path(old))
        assert os.path.exists(store.blobs.path(new))
        assert os.path.exists(store.snapshots.new.path(snapshot))
        assert not os.path.exists(store.blobs.path(unused))
    another(store).sweep()
    assert not os.path.exists(store.blobs.path(old))


def test_snapshot_that_a_living_process_uses_keeps_all_below(store: Store) -> None:
    lineage = [store.snapshots.freeze(store.snapshots.prepare(None))]
    for _ in range(5):
        lineage.append(store.snapshots.freeze(store.snapshots.prepare(lineage[-1])))
    store.close()
    age(store)
    with living_process(store):
        assert another(store).snapshots.new.exists(lineage[4])
        another(store).sweep()
        assert store.snapshots.new.lineage(lineage[4]) == tuple(reversed(lineage[:5]))
        assert not os.path.exists(store.snapshots.new.path(lineage[5]))


def test_object_touched_between_look_and_removal_is_put_back(store: Store) -> None:
    blob = store.put_bytes(b"x", "m").digest
    horizon = os.stat(store.blobs.path(blob)).st_mtime
    assert not gc._take(store.layout, store.blobs.path(blob), horizon)
    assert os.path.exists(store.blobs.path(blob))


def test_a_process_of_another_pid_namespace_is_known_to_live(store: Store) -> None:
    with living_process(store, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"):
        blob = store.put_bytes(b"x", "m").digest
        made = Path(store.layout.path("ingest", DEAD))
        made.write_text("written by a process that is known there only")
        store.close()
        another(store).sweep()
        assert os.path.exists(store.blobs.path(blob))
        assert made.exists()
    sweep(store)
    assert not os.path.exists(store.blobs.path(blob))
    assert not made.exists()


def test_leases_of_the_dead_do_not_count(store: Store) -> None:
    blob = store.put_bytes(b"x", "m").digest
    store.close()
    age(store)
    Path(store.layout.path("leases", "lease-1-999999999-dead")).touch()
    os.utime(store.layout.path("leases", "lease-1-999999999-dead"), (0, 0))
    another(store).sweep()
    assert not os.path.exists(store.blobs.path(blob))
    assert os.listdir(store.layout.path("leases")) == []


def test_horizon_is_the_beginning_of_the_oldest_living_lease(store: Store) -> None:
    with leases.lease(store.layout), leases.lease(store.layout):
        oldest = min(entry.stat().st_mtime for entry in os.scandir(store.layout.path("leases")))
        assert leases.horizon(store.layout, oldest + 100) == oldest
    assert leases.horizon(store.layout, 5.0) == 5.0


def test_temporaries_of_dead_processes_go_and_those_of_living_ones_stay(store: Store) -> None:
    pid, start = process_identity()
    mine = Path(store.layout.path("ingest", f"tmp-{pid}-{start}-mine"))
    mine.write_text("x")
    tree = Path(store.layout.path("ingest", DEAD))
    (tree / "deep/deeper").mkdir(parents=True)
    (tree / "deep").chmod(0o000)
    assert examine(store) == ((), (f"left by a dead process: ingest/{DEAD}",))
    sweep(store)
    assert mine.exists()
    assert not tree.exists()


def test_partial_download_goes_unless_somebody_continues_it(store: Store) -> None:
    encoded = Digest.of(b"x").encoded
    path = Path(store.layout.path("ingest", f"blob-{encoded}"))
    path.write_bytes(b"part")
    os.utime(path, (0, 0))
    with locks.exclusive(locks.bucket(store.layout.path("locks"), encoded)):
        sweep(store)
        assert path.exists()
    sweep(store)
    assert not path.exists()


def test_container_directory_without_a_record_goes_with_its_name(store: Store) -> None:
    before = files(store)
    made = container(store, name="mine")
    os.unlink(store.containers.path(made.id, "container.json"))
    sweep(store)
    assert files(store) == before


def test_name_that_a_killed_rename_left_goes(store: Store) -> None:
    made = container(store, name="mine")
    shutil.copy(store.layout.path("names", "mine"), store.layout.path("names", "older"))
    sweep(store)
    assert os.listdir(store.layout.path("names")) == ["mine"]
    assert store.container("mine") == made


def test_marks_of_dead_runners_go(store: Store) -> None:
    made = container(store)
    Path(store.containers.path(made.id, "run-1-999999999-dead")).touch()
    with store.containers.running(made):
        sweep(store)
        assert len([name for name in os.listdir(store.containers.path(made.id)) if name.startswith("run-")]) == 1


def test_name_that_points_at_no_image_goes(store: Store) -> None:
    image = images.put(store, images.simple(), "localhost/a:latest")
    forget(store, image)
    assert store.fsck() == ("name points at no image: localhost/a:latest",)
    sweep(store)
    assert store.images.names() == {}


def test_index_json_is_brought_up_to_date(store: Store) -> None:
    images.put(store, images.simple(), "localhost/a:latest")
    index = Path(store.layout.path("index.json"))
    right = index.read_bytes()
    for stale in (b'{"schemaVersion":2,"manifests":[]}', b"", b"[]"):
        index.write_bytes(stale)
        sweep(store)
        assert index.read_bytes() == right


def test_chain_of_a_removed_snapshot_goes(store: Store) -> None:
    top = store.snapshots.unpack(images.put(store, images.simple(layers=1)))
    assert top is not None
    store.snapshots.remove(top)
    sweep(store)
    assert os.listdir(store.layout.path("chains")) == []


def test_damaged_image_does_not_stop_the_sweep(store: Store) -> None:
    made = images.simple(1)
    image = images.put(store, made, "localhost/a:latest")
    whole = images.simple(2)
    images.put(store, whole, "localhost/b:latest")
    Path(store.blobs.path(image.digest)).write_bytes(b"damaged")
    garbage = store.put_bytes(b"garbage", "m").digest
    assert f"blob does not match its digest: {image.digest}" in store.fsck()
    sweep(store)
    assert not os.path.exists(store.blobs.path(garbage))
    assert all(store.blobs.has(digest) for digest in whole.blobs)
    images.put(store, made, "localhost/a:latest")
    assert store.fsck() == ()


def test_fsck_finds_what_is_wrong_and_changes_nothing(store: Store) -> None:
    made = images.simple()
    image = images.put(store, made, "localhost/a:latest")
    one = container(store, image, name="mine")
    assert store.fsck() == ()
    os.unlink(store.blobs.path(made.layer_digests[0]))
    assert one.base is not None
    store.snapshots.remove(store.snapshots.new.lineage(one.base)[1])
    before = {path: os.lstat(store.layout.path(path)).st_mtime_ns for path in files(store)}
    found = store.fsck()
    assert any(str(made.layer_digests[0]) in line for line in found)
    assert any("container mine" in line for line in found)
    assert {path: os.lstat(store.layout.path(path)).st_mtime_ns for path in files(store)} == before


def test_prune_keeps_named_images_unless_all_are_meant(store: Store) -> None:
    named = images.put(store, images.simple(1), "localhost/a:latest")
    nameless = images.put(store, images.simple(2))
    used = images.put(store, images.simple(3), "localhost/c:latest")
    container(store, used)
    store.close()
    assert prune(another(store)).deleted == (nameless.id.encoded,)
    assert prune(another(store), all_images=True).deleted == (named.id.encoded,)
    assert prune(another(store), all_images=True, force=True).deleted == (used.id.encoded,)
    assert list(store.containers.iter()) == []


def test_prune_brings_the_store_back_to_its_beginning(store: Store) -> None:
    before = files(store)
    image = images.put(store, images.simple(1), "localhost/a:latest")
    container(store, image)
    store.steps.put(Digest.of(b"k"), StepResult(Tree(store.snapshots.freeze(store.snapshots.prepare(None))), "", 0.0))
    store.steps.put_image(Digest.of(b"k"), image.digest)
    with store.cache_mount("id") as path:
        Path(path, "kept").write_text("x")
    store.close()
    prune(another(store), all_images=True, force=True)
    assert {path for path in files(store) if not path.endswith((".lock", ".users"))} == before
    assert json.loads(Path(store.layout.path("index.json")).read_bytes())["manifests"] == []


def deep(directory: str, levels: int = 1300) -> None:
    here = os.open(directory, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_prune_takes_trees_of_any_depth(store: Store) -> None:
    with store.cache_mount("id") as cache:
        deep(cache)
    made = container(store)
    deep(store.snapshots.new.upper(made.snapshot))
    os.mkdir(store.layout.path("ingest", DEAD))
    deep(store.layout.path("ingest", DEAD))
    os.utime(store.layout.path("ingest", DEAD), (0, 0))
    store.remove_container(made)
    prune(store)
    assert not os.path.exists(cache)
    assert os.listdir(store.layout.path("snapshots")) == os.listdir(store.layout.path("ingest")) == []


HOLDING_SCRATCH = """
import os, sys
from builda.store.layout import Layout
from builda.store.scratch import scratch
with scratch(Layout(sys.argv[1], sys.argv[2])) as place:
    open(f"{place}/secret", "w").close()
    print(place, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "apart", [(), ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")], ids=["here", "other pids"]
)
def test_prune_takes_the_scratch_directory_of_a_killed_run_and_no_living_ones(
    store: Store, apart: tuple[str, ...]
) -> None:
    command = [*apart, sys.executable, "-c", HOLDING_SCRATCH, store.root, store.layout.runroot]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        place = process.stdout.readline().strip()
        prune(store)
        assert os.listdir(place) == ["secret"]
        process.kill()
        process.wait()
        while is_held(place):
            time.sleep(0.01)
    prune(store)
    assert not os.path.exists(place)


def test_prune_takes_mount_points_of_containers_that_are_gone(store: Store) -> None:
    made = container(store)
    for name in (made.id, "f" * 64):
        os.makedirs(store.layout.mount_point(name))
    prune(store)
    assert os.listdir(f"{store.layout.runroot}/mounts") == [made.id]


def test_prune_leaves_a_cache_mount_that_is_in_use(store: Store) -> None:
    for sharing in ("shared", "locked", "private"):
        with store.cache_mount("id", sharing) as path:
            prune(another(store))
            assert os.path.isdir(path), sharing


def test_private_cache_mounts_are_different_directories(store: Store) -> None:
    with store.cache_mount("id", "private") as one, another(store).cache_mount("id", "private") as other:
        assert one != other
    with store.cache_mount("id", "private") as again:
        assert again == one


def test_shared_cache_mount_is_one_directory_for_all(store: Store) -> None:
    with store.cache_mount("id") as one, another(store).cache_mount("id") as other:
        assert one == other
