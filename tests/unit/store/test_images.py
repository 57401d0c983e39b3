"""Images: records, names, what a user means by a text, and the index.json that other tools read."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import pytest

from builda.errors import CorruptContent, InUse, NotFound
from builda.oci import mediatype
from builda.oci.digest import Digest
from builda.store.store import Store
from tests.support import images
from tests.support.stores import another, container, forget

NAME = "localhost/app:latest"


def index_of(store: Store) -> list[tuple[str, str | None]]:
    entries = json.loads(Path(store.layout.path("index.json")).read_bytes())["manifests"]
    return [(entry["digest"], entry.get("annotations", {}).get(images.REF_NAME)) for entry in entries]


def test_published_image_is_what_it_was_made_of(store: Store) -> None:
    made = images.simple(1)
    image = images.put(store, made, NAME)
    assert (image.digest, image.id, image.names) == (made.descriptor.digest, made.config_digest, (NAME,))
    assert image.raw == made.raw
    assert image.raw_config == made.blobs[made.config_digest]
    assert image.config.env == (("NUMBER", "1"),)
    assert image.size == sum(map(len, made.blobs.values()))
    assert not image.is_index
    assert image.created == 1714979289.0


def test_incomplete_image_is_not_published(store: Store) -> None:
    made = images.simple()
    for digest, data in made.blobs.items():
        if digest != made.layer_digests[1]:
            store.put_bytes(data, "a")
    with pytest.raises(NotFound, match=str(made.layer_digests[1])):
        store.put_image(made.descriptor, names=(NAME,))
    assert not list(store.images.iter())
    assert store.images.names() == {}


def test_index_is_an_image_of_its_own(store: Store) -> None:
    made = images.index(images.simple(1), images.simple(2))
    image = images.put(store, made, NAME)
    assert image.is_index
    assert image.id == image.digest == made.descriptor.digest
    with pytest.raises(CorruptContent, match="index"):
        _ = image.manifest


def test_index_may_list_what_is_not_here(store: Store) -> None:
    here, missing = images.simple(1), images.simple(2)
    made = images.index(here, missing)
    for data in (made.raw, *here.blobs.values()):
        store.put_bytes(data, "a")
    assert store.put_image(made.descriptor).size == sum(map(len, here.blobs.values()))


def test_index_may_list_an_artifact(store: Store) -> None:
    empty = b"{}"
    artifact = images.made(
        {
            "schemaVersion": 2,
            "mediaType": mediatype.MANIFEST,
            "artifactType": "application/x-signature",
            "config": images.described(mediatype.EMPTY, empty),
            "layers": [images.described("application/x-signature", b"signed")],
        },
        empty,
        b"signed",
    )
    image = images.put(store, images.index(images.simple(1), artifact), NAME)
    store.sweep()
    assert store.fsck() == ()
    assert store.blobs.has(Digest.of(b"signed"))
    assert image.is_index


def test_tag_and_untag(store: Store) -> None:
    image = images.put(store, images.simple())
    store.images.tag(image, NAME)
    assert store.images.names() == {NAME: str(image.digest)}
    assert store.images.untag(NAME)
    assert not store.images.untag(NAME)
    assert store.images.names() == {}
    assert [found.digest for found in store.images.iter()] == [image.digest]


def test_name_moves_to_the_image_tagged_last(store: Store) -> None:
    images.put(store, images.simple(1), NAME)
    second = images.put(store, images.simple(2), NAME)
    assert store.image(NAME).digest == second.digest
    assert sorted(len(image.names) for image in store.images.iter()) == [0, 1]


def test_index_json_lists_each_name_and_nameless_images(store: Store) -> None:
    first = images.put(store, images.simple(1), NAME, "localhost/app:v1")
    second = images.put(store, images.simple(2))
    assert index_of(store) == [
        (str(first.digest), NAME),
        (str(first.digest), "localhost/app:v1"),
        (str(second.digest), None),
    ]


@pytest.mark.parametrize(
    "text",
    ["app", "app:latest", "localhost/app", NAME, "@digest", "ID", "sha256:ID", "ID12", "ID12 upper"],
)
def test_image_is_found_by_all_that_users_call_it(store: Store, text: str) -> None:
    image = images.put(store, images.simple(1), NAME)
    images.put(store, images.simple(2), "localhost/other:latest")
    words = {
        "@digest": f"localhost/app@{image.digest}",
        "ID": image.id.encoded,
        "sha256:ID": str(image.id),
        "ID12": image.id.encoded[:12],
        "ID12 upper": image.id.encoded[:12].upper(),
    }
    assert store.image(words.get(text, text)).digest == image.digest


def test_short_name_prefers_localhost_then_docker_io_then_any_one(store: Store) -> None:
    quay = images.put(store, images.simple(1), "quay.io/x/app:latest")
    assert store.image("app").digest == quay.digest
    docker = images.put(store, images.simple(2), "docker.io/library/app:latest")
    assert store.image("app").digest == docker.digest
    local = images.put(store, images.simple(3), NAME)
    assert store.image("app").digest == local.digest


def test_short_name_of_two_images_elsewhere_is_nobody(store: Store) -> None:
    images.put(store, images.simple(1), "quay.io/x/app:latest")
    images.put(store, images.simple(2), "ghcr.io/x/app:latest")
    assert store.find_image("app") is None


def test_ambiguous_beginning_of_an_id_is_refused(store: Store) -> None:
    for number in range(40):
        images.put(store, images.simple(number, layers=1))
    ids = sorted(image.id.encoded for image in store.images.iter())
    twice = next(one[0] for one, other in pairwise(ids) if one[0] == other[0])
    with pytest.raises(NotFound, match="ambiguous"):
        store.image(twice)


@pytest.mark.parametrize("text", ["", "nothing", "UPPER", "a:b:c", "../../etc/passwd", "x" * 5000, "f" * 64, "a\0b"])
def test_what_names_no_image_is_not_found(store: Store, text: str) -> None:
    images.put(store, images.simple(1), NAME)
    assert store.find_image(text) is None
    with pytest.raises(NotFound):
        store.image(text)


def test_near_miss_is_suggested(store: Store) -> None:
    images.put(store, images.simple(1), "localhost/webserver:latest")
    with pytest.raises(NotFound) as caught:
        store.image("webservr")
    assert "webserver" in (caught.value.hint or "")


def test_removing_a_name_keeps_the_image_that_has_another(store: Store) -> None:
    image = images.put(store, images.simple(), NAME, "localhost/app:v1")
    removal = store.remove_image("app:v1")
    assert removal.untagged == ("localhost/app:v1",)
    assert removal.deleted == ()
    assert store.image(NAME).digest == image.digest


def test_removing_the_last_name_removes_the_image_and_its_content(store: Store) -> None:
    made = images.simple()
    image = images.put(store, made, NAME)
    store.close()
    removal = another(store).remove_image("app")
    assert removal.deleted == (image.id.encoded,)
    assert list(store.images.iter()) == []
    assert not any(os.path.exists(store.blobs.path(digest)) for digest in made.blobs)


def test_id_with_several_names_needs_force(store: Store) -> None:
    image = images.put(store, images.simple(), NAME, "localhost/app:v1")
    names = image.names
    with pytest.raises(InUse, match="several names"):
        store.remove_image(image.id.encoded)
    assert (
        store.remove_image(image.id.encoded, force=True).untagged
        == names
        == ("localhost/app:latest", "localhost/app:v1")
    )


def test_what_keeps_an_image_with_several_names_is_its_container(store: Store) -> None:
    image = images.put(store, images.simple(), NAME, "localhost/app:v1")
    made = container(store, image)
    with pytest.raises(InUse, match=made.name):
        store.remove_image(image.id.encoded)
    assert store.remove_image(NAME).deleted == ()


def test_image_of_a_container_needs_force_which_removes_that_too(store: Store) -> None:
    image = images.put(store, images.simple(), NAME)
    made = container(store, image)
    with pytest.raises(InUse, match=made.name):
        store.remove_image(NAME)
    assert store.containers.find(made.name) is not None
    store.remove_image(NAME, force=True)
    assert store.containers.find(made.name) is None
    assert store.find_image(NAME) is None


def test_removing_one_of_two_images_keeps_the_layers_they_share(store: Store) -> None:
    shared = images.layer({"shared": b"x" * 1000})
    first = images.image(shared, images.layer({"a": b"a"}))
    second = images.image(shared, images.layer({"b": b"b"}))
    images.put(store, first, "localhost/first:latest")
    kept = images.put(store, second, "localhost/second:latest")
    store.snapshots.unpack(kept)
    store.close()
    another(store).remove_image("first")
    assert store.fsck() == ()
    assert all(store.blobs.has(digest) for digest in second.blobs)
    assert store.snapshots.unpack(kept) is not None


def test_images_are_listed_newest_first(store: Store) -> None:
    images.put(store, images.simple(1))
    newest = images.image(images.layer({"x": b""}), config={})
    document = json.loads(newest.blobs[newest.config_digest])
    document["created"] = "2030-01-01T00:00:00.123456789+02:00"
    raw = json.dumps(document).encode()
    manifest = {**newest.value, "config": images.described(mediatype.CONFIG, raw)}
    made = images.made(manifest, raw, *(newest.blobs[digest] for digest in newest.layer_digests))
    images.put(store, made)
    assert next(iter(store.images.iter())).digest == made.descriptor.digest


@pytest.mark.parametrize("created", ["", "yesterday", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_odd_creation_times_do_no_harm(store: Store, created: str) -> None:
    base = images.simple(1, layers=1)
    document = {**json.loads(base.blobs[base.config_digest]), "created": created}
    raw = json.dumps(document).encode()
    manifest = {**base.value, "config": images.described(mediatype.CONFIG, raw)}
    images.put(store, images.made(manifest, raw, base.blobs[base.layer_digests[0]]))
    assert len(list(store.images.iter())) == 1


def test_damaged_record_is_named(store: Store) -> None:
    from builda.errors import StoreUnavailable

    image = images.put(store, images.simple(), NAME)
    path = store.layout.path("images", f"{image.digest.encoded}.json")
    Path(path).write_bytes(b"{")
    with pytest.raises(StoreUnavailable, match=image.digest.encoded):
        store.image(NAME)


def test_image_that_vanishes_while_it_is_looked_for_is_not_found(store: Store) -> None:
    image = images.put(store, images.simple(), NAME)
    forget(store, image)
    assert store.find_image(NAME) is None
    assert store.find_image(image.id.encoded) is None
    assert index_of(store) == []
