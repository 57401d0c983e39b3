"""Names of images that change many at once: whatever cuts it off, all old ones are there or all new ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builda.errors import NotFound
from builda.oci.descriptor import Descriptor
from builda.oci.mediatype import INDEX
from builda.store import sessions
from builda.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", tmp_path / "run")


def image(store: Store, text: str, *names: str) -> str:
    """The digest of a new image, which is an index without members."""
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"a": text}})
    descriptor: Descriptor = store.put_bytes(body.encode(), INDEX)
    return str(store.put_image(descriptor, names=names).digest)


def test_a_change_that_was_cut_off_is_seen_whole_and_finished_by_the_next_writer(store: Store) -> None:
    with store:
        old, new = image(store, "old", "a:1", "b:1", "c:1"), image(store, "new")
        journal = Path(store.root) / "journal.json"
        journal.write_text(json.dumps({"a:1": new, "b:1": None, "d:1": new}))
        expected = {"a:1": new, "c:1": old, "d:1": new}
        assert store.images.names() == expected
        assert {name: store.images.named.target(name) for name in (*expected, "b:1")} == {**expected, "b:1": None}
        store.images.tag(store.images.get(old), "e:1")
        assert not journal.exists()
        assert store.images.names() == {**expected, "e:1": old}
        listed = json.loads((Path(store.root) / "index.json").read_text())["manifests"]
        assert {one["annotations"]["org.opencontainers.image.ref.name"] for one in listed} == {*expected, "e:1"}


def test_nothing_is_changed_if_one_image_is_gone(store: Store) -> None:
    with store:
        old = image(store, "old", "a:1")
        with pytest.raises(NotFound, match="no name was given: b:1"):
            store.images.publish({"a:1": None, "b:1": f"sha256:{'0' * 64}"}, ())
        assert store.images.names() == {"a:1": old}


def test_a_sweep_in_a_session_spares_what_only_others_still_have(store: Store, tmp_path: Path) -> None:
    with store:
        old = image(store, "old", "localhost/a:1")
    name, _ = sessions.begin(store.layout, str(tmp_path / "run/s/0"), transaction=True)
    with Store.open(store.root, store.layout.runroot) as inside:
        inside.join(sessions.join(inside.layout, name))
        assert inside.remove_image("localhost/a:1", force=True).deleted != ()
        inside.sweep()
        assert (inside.images.find("localhost/a:1"), inside.images.find(old)) == (None, None)
    assert store.image("localhost/a:1").raw
