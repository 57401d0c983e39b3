"""Records that cannot be read: all else works, they are named, and fsck --repair takes them away."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from builda.errors import StoreUnavailable
from builda.store import fsck
from builda.store.images import Image
from builda.store.pruning import prune
from builda.store.store import Store
from tests.support import images
from tests.support.stores import age, another, container

pytestmark = pytest.mark.root

DAMAGES = [b"x", b"{", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"id": 1, "manifest": [], "name": {}}']


class Victims:
    """A store with two images, a container on each, and a name that points at the first; nothing is young."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.image = images.put(store, images.simple(1), "localhost/a:latest")
        self.other = images.put(store, images.simple(2), "localhost/b:latest")
        self.container = container(store, self.image, name="one")
        self.rest = container(store, self.other, name="two")
        store.close()
        age(store)

    def paths(self) -> dict[str, str]:
        """The records of each kind that are damaged in turn."""
        layout = self.store.layout
        return {
            "image": layout.path("images", f"{self.image.digest.encoded}.json"),
            "name": layout.path("refs", "localhost%2Fa:latest"),
            "container": layout.path("containers", self.container.id, "container.json"),
            "container name": layout.path("names", "one"),
            "snapshot": layout.path("snapshots", self.container.snapshot, "info.json"),
            "index": layout.path("index.json"),
            "step": layout.path("steps", "0" * 64),
        }


@pytest.fixture
def victims(store: Store) -> Victims:
    return Victims(store)


KINDS = ("image", "name", "container", "container name", "snapshot", "index", "step")
VERBS: dict[str, Callable[[Store], object]] = {
    "images": lambda store: [image.names for image in store.images.iter()],
    "containers": lambda store: list(store.containers.iter()),
    "inspect": lambda store: store.image("b").config,
    "by ID": lambda store: store.image(images.simple(2).config_digest.encoded[:12]),
    "from": lambda store: container(store, store.image("b")),
    "tag": lambda store: store.images.tag(store.image("b"), "localhost/c:latest"),
    "rm": lambda store: store.remove_container(store.container("two")),
    "rmi": lambda store: store.remove_image("b", force=True),
    "commit": lambda store: images.put(store, images.simple(3), "localhost/d:latest"),
    "prune": lambda store: prune(store),
    "prune all": lambda store: prune(store, all_images=True, force=True),
    "fsck": lambda store: store.fsck(),
    "names": lambda store: store.images.names(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_else_works_with_one_damaged_record(victims: Victims, kind: str) -> None:
    for number, damage in enumerate(DAMAGES):
        Path(victims.paths()[kind]).write_bytes(damage)
        verbs = VERBS if number == len(DAMAGES) - 1 else dict.fromkeys(("images", "containers", "tag", "fsck", "names"))
        for name in verbs:
            warned: list[StoreUnavailable] = []
            with another(victims.store, warn=warned.append) as store:
                VERBS[name](store)
                assert len(warned) == len({str(error) for error in warned})


@pytest.mark.parametrize("kind", ["image", "name", "container", "snapshot"])
def test_a_damaged_record_is_named_and_repaired(victims: Victims, kind: str) -> None:
    path = victims.paths()[kind]
    Path(path).write_bytes(b"x")
    with another(victims.store) as store:
        assert any(path in line for line in store.fsck())
        done = fsck.repair(store)
        assert any(path in line for line in done)
    with another(victims.store) as store:
        assert store.fsck() == (() if kind != "snapshot" else store.fsck())
        store.image("b")
        store.container("two")
        if kind != "name":
            assert store.image("a").digest == victims.image.digest  # its record was written again


def test_the_record_of_an_image_that_is_not_whole_goes_with_its_names(victims: Victims) -> None:
    Path(victims.paths()["image"]).write_bytes(b"x")
    Path(victims.store.blobs.path(victims.image.digest)).write_bytes(b"x")
    with another(victims.store) as store:
        store.remove_container(store.container("one"))
        fsck.repair(store)
    with another(victims.store) as store:
        assert store.fsck() == ()
        assert store.images.names() == {"localhost/b:latest": str(victims.other.digest)}


def content(image: Image) -> set[str]:
    return {image.digest.encoded, image.id.encoded, *(layer.digest.encoded for layer in image.manifest.layers)}


@pytest.mark.parametrize("kind", ["image", "container"])
def test_a_sweep_keeps_what_a_damaged_record_may_stand_on(victims: Victims, kind: str) -> None:
    wanted = content(victims.image)
    Path(victims.paths()[kind]).write_bytes(b"x")
    with another(victims.store) as store:
        prune(store)
        prune(store, all_images=True)
    assert wanted <= set(os.listdir(victims.store.layout.path("blobs/sha256"))) or kind == "container"
    assert os.path.exists(victims.store.snapshots.new.path(victims.container.snapshot))
