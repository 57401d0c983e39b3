"""Snapshots: unpacked layers under working trees, found again by ChainID."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from builda.errors import CorruptContent, NotFound
from builda.oci import mediatype
from builda.oci.config import chain_ids
from builda.oci.digest import Digest
from builda.store.store import Store
from tests.support import images
from tests.support.stores import another, container, files

pytestmark = pytest.mark.root


def chain_of(store: Store, digest: Digest) -> str:
    return os.readlink(store.layout.path("chains", digest.encoded))


def test_unpacked_image_is_a_lineage_of_its_layers(store: Store) -> None:
    image = images.put(store, images.simple(7, layers=3))
    top = store.snapshots.unpack(image)
    lineage = store.snapshots.new.lineage(top)
    assert len(lineage) == 3
    for number, snapshot in enumerate(reversed(lineage)):
        assert Path(store.snapshots.new.path(snapshot, f"fs/etc/file{number}")).read_text().startswith(f"7.{number}\n")
        assert store.snapshots.new.info(snapshot).committed


def test_unpacking_again_finds_what_is_there(store: Store) -> None:
    image = images.put(store, images.simple())
    top = store.snapshots.unpack(image)
    before = files(store)
    assert store.snapshots.unpack(image) == top
    assert files(store) == before


def test_image_without_layers_has_no_snapshot(store: Store) -> None:
    image = images.put(store, images.image())
    assert store.snapshots.unpack(image) is None
    assert store.snapshots.rootfs(store.snapshots.prepare(None))[0].lower == (store.layout.path("empty"),)


def test_images_share_the_layers_they_have_in_common(store: Store) -> None:
    shared = images.layer({"shared": b"x"})
    one = store.snapshots.unpack(images.put(store, images.image(shared, images.layer({"a": b"a"}))))
    other = store.snapshots.unpack(
        images.put(store, images.image(shared, images.layer({"b": b"b"}), compression="zstd"))
    )
    assert store.snapshots.new.lineage(one)[1] == store.snapshots.new.lineage(other)[1]


@pytest.mark.parametrize("what", ["digest", "diff_id", "not a tar"])
def test_layer_that_is_not_what_it_says_leaves_nothing(store: Store, what: str) -> None:
    made = images.simple(1)
    image = images.put(store, made)
    path = Path(store.blobs.path(made.layer_digests[1]))
    if what == "digest":
        path.write_bytes(images.pack(images.layer({"other": b"x"}), "gzip"))
    elif what == "diff_id":
        config = json.loads(made.blobs[made.config_digest])
        config["rootfs"]["diff_ids"][1] = str(Digest.of(b"other"))
        raw = json.dumps(config).encode()
        manifest = {**made.value, "config": images.described(mediatype.CONFIG, raw)}
        image = images.put(store, images.made(manifest, raw, *made.blobs.values()))
    else:
        junk = images.image(b"junk" * 1000)
        image = images.put(store, junk)
    before = files(store)
    with pytest.raises(CorruptContent):
        store.snapshots.unpack(image)
    assert {path for path in files(store) - before if not path.startswith("diffs/")} == set()


def test_layers_and_diff_ids_must_agree(store: Store) -> None:
    made = images.simple(1)
    manifest = {**made.value, "layers": made.value["layers"][:1]}
    image = images.put(store, images.made(manifest, *made.blobs.values()))
    with pytest.raises(CorruptContent, match="1 layers and 2 diff_ids"):
        store.snapshots.unpack(image)


def test_working_tree_takes_its_roots_attributes_from_below(store: Store) -> None:
    base = store.snapshots.prepare(None)
    os.chmod(store.snapshots.new.upper(base), 0o751)
    os.chown(store.snapshots.new.upper(base), 7, 8)
    top = store.snapshots.prepare(store.snapshots.freeze(base))
    status = os.stat(store.snapshots.new.upper(top))
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o751, 7, 8)


def test_frozen_snapshot_keeps_its_id_and_can_be_built_upon(store: Store) -> None:
    key = store.snapshots.prepare(None)
    Path(store.snapshots.new.upper(key), "file").write_text("x")
    assert store.snapshots.freeze(key) == key
    assert store.snapshots.new.info(key).committed
    assert not os.path.exists(store.snapshots.new.path(key, "work"))
    assert store.snapshots.new.lineage(store.snapshots.prepare(key))[1] == key


def test_nothing_is_prepared_on_a_snapshot_that_is_not_there(store: Store) -> None:
    before = files(store)
    with pytest.raises(NotFound):
        store.snapshots.prepare("0" * 32)
    assert files(store) == before


def test_mounts_have_the_top_first_and_the_options_that_keep_diffs_true(store: Store) -> None:
    image = images.put(store, images.simple(layers=3))
    top = store.snapshots.unpack(image)
    (mount,) = store.snapshots.rootfs(store.snapshots.prepare(top))
    assert mount.lower == tuple(store.snapshots.new.path(one, "fs") for one in store.snapshots.new.lineage(top))
    assert {"redirect_dir=off", "metacopy=off", "index=off", "volatile"} <= set(mount.options)


def test_views_are_read_only_whatever_the_number_of_layers(store: Store) -> None:
    for layers in (0, 1, 3):
        (mount,) = store.snapshots.view(store.snapshots.unpack(images.put(store, images.simple(layers=layers))))
        assert "ro" in mount.options
        assert mount.type == ("overlay" if layers == 3 else "bind")


def test_chain_that_was_there_first_stays(store: Store) -> None:
    image = images.put(store, images.simple(layers=1))
    first = store.snapshots.unpack(image)
    assert first is not None
    chain = chain_ids(image.config.diff_ids)[0]
    second = store.snapshots.freeze(store.snapshots.prepare(None))
    assert store.snapshots.bind_chain(chain, second) == first


def test_frozen_tree_is_found_under_the_chain_it_was_bound_to(store: Store) -> None:
    frozen = store.snapshots.prepare(None)
    Path(store.snapshots.new.upper(frozen), "x").write_text("x")
    chain = Digest.of(b"chain")
    assert store.snapshots.bind_chain(chain, store.snapshots.freeze(frozen)) == frozen
    assert store.snapshots.new.find_chain(chain) == frozen


def test_snapshot_of_an_earlier_boot_is_trusted_only_when_it_is_whole(store: Store) -> None:
    image = images.put(store, images.simple(layers=1))
    top = store.snapshots.unpack(image)
    assert top is not None
    record = Path(store.snapshots.new.path(top, "info.json"))

    def reboot() -> None:
        record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "earlier"}))

    reboot()
    assert store.snapshots.unpack(image) == top
    reboot()
    Path(store.snapshots.new.path(top, "fs/etc/file0")).write_bytes(b"")  # as a power cut leaves it
    fresh = store.snapshots.unpack(image)
    assert fresh not in (None, top)


def test_layer_on_a_damaged_one_stands_on_its_successor(store: Store) -> None:
    image = images.put(store, images.simple(layers=3))
    bottom = store.snapshots.new.lineage(store.snapshots.unpack(image))[2]
    record = Path(store.snapshots.new.path(bottom, "info.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot": "earlier"}))
    Path(store.snapshots.new.path(bottom, "fs/etc/file0")).unlink()
    top = store.snapshots.unpack(image)
    lineage = store.snapshots.new.lineage(top)
    assert len(lineage) == 3
    assert bottom not in lineage
    assert os.path.exists(store.snapshots.new.path(lineage[2], "fs/etc/file0"))


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_missing_layer_is_unpacked_anew_under_those_that_are_there(store: Store, gone: int) -> None:
    image = images.put(store, images.simple(layers=3))
    store.snapshots.new.remove(store.snapshots.new.lineage(store.snapshots.unpack(image))[gone])
    top = store.snapshots.unpack(image)
    lineage = store.snapshots.new.lineage(top)
    assert [len(os.listdir(store.snapshots.new.path(one, "fs"))) for one in lineage] == [1, 1, 1]
    assert store.snapshots.rootfs(store.snapshots.prepare(top))


def test_removing_is_done_when_it_is_not_there(store: Store) -> None:
    key = store.snapshots.prepare(None)
    store.snapshots.remove(key)
    store.snapshots.remove(key)
    assert not os.path.exists(store.snapshots.new.path(key))
    with pytest.raises(NotFound):
        store.snapshots.new.info(key)


def test_snapshot_without_its_record_is_not_there(store: Store) -> None:
    key = store.snapshots.prepare(None)
    os.unlink(store.snapshots.new.path(key, "info.json"))
    assert not store.snapshots.new.exists(key)
    with pytest.raises(NotFound):
        store.snapshots.rootfs(key)


def test_plain_driver_makes_one_tree_of_all_layers(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", tmp_path / "run", driver="plain") as store:
        image = images.put(store, images.simple(3, layers=3))
        made = container(store, image)
        assert made.base is None
        assert sorted(os.listdir(store.snapshots.new.path(made.snapshot, "fs/etc"))) == ["file0", "file1", "file2"]


def test_plain_driver_leaves_nothing_of_an_image_that_cannot_be_unpacked(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", tmp_path / "run", driver="plain") as store:
        made = images.simple()
        image = images.put(store, made)
        Path(store.blobs.path(made.layer_digests[1])).write_bytes(b"?")
        before = files(store)
        with pytest.raises(CorruptContent):
            store.snapshots.prepare_for(image)
        assert files(store) == before


def test_store_can_be_moved(store: Store, tmp_path: Path) -> None:
    image = images.put(store, images.simple(), "localhost/x:latest")
    top = store.snapshots.unpack(image)
    store.close()
    shutil.move(store.root, tmp_path / "moved")
    moved = Store.open(tmp_path / "moved", tmp_path / "run")
    assert moved.snapshots.unpack(moved.image("x")) == top


Falseness: TypeAlias = Literal["other files", "cut off", "no archive"]


def false_image(kind: Falseness, true: images.Made) -> images.Made:
    """An image whose configuration claims the DiffIDs of `true`, and whose topmost blob is something else."""
    blobs = [true.blobs[digest] for digest in true.layer_digests]
    match kind:
        case "other files":
            blobs[-1] = images.pack(images.layer({"evil": b"x"}), "gzip")
        case "cut off":
            blobs[-1] = blobs[-1][:-9]
        case "no archive":
            blobs[-1] = b"not gzip"
    manifest = {**true.value, "layers": [images.described(mediatype.LAYER_GZIP, data) for data in blobs]}
    return images.made(manifest, true.blobs[true.config_digest], *blobs)


@pytest.mark.parametrize("as_list", [False, True], ids=["tree", "list"])
@pytest.mark.parametrize("kind", ["other files", "cut off", "no archive"])
def test_an_image_gets_no_layer_by_a_diff_id_that_it_only_claims(store: Store, kind: Falseness, as_list: bool) -> None:
    true = images.simple(1)
    store.snapshots.unpack(images.put(store, true), as_list=as_list)
    false = images.put(store, false_image(kind, true))
    for _ in range(2):
        with pytest.raises(CorruptContent):
            store.snapshots.unpack(false, as_list=as_list)


def test_a_claim_is_verified_once_for_each_blob(store: Store) -> None:
    true = images.simple(1)
    image = images.put(store, true)
    top = store.snapshots.unpack(image)
    shutil.rmtree(store.layout.path("diffs"))  # as in a store of an earlier version
    assert store.snapshots.unpack(image) == top
    assert sorted(os.listdir(store.layout.path("diffs"))) == sorted(digest.encoded for digest in true.layer_digests)
    for digest in true.layer_digests:
        os.truncate(store.blobs.path(digest), 0)  # so that reading it again would fail
    assert store.snapshots.unpack(image) == top


def test_what_is_known_of_a_blob_goes_with_it(store: Store) -> None:
    store.snapshots.unpack(images.put(store, images.simple(1), "localhost/x:latest"))
    store.close()
    with another(store) as later:
        later.remove_image("x")
    assert os.listdir(store.layout.path("diffs")) == []
