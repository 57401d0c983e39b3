"""The build cache: steps are remembered as long as what they led to is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.store.pruning import prune
from builda.store.steps import Blob, Content, Empty, StepResult, Tree
from builda.store.store import Store
from tests.support.stores import another

KEY = Digest.of(b"key")


LAYER = Descriptor(media_type="m", digest=KEY, size=3)
DIFF_ID = Digest.of(b"diff")


def tree(store: Store) -> Tree:
    return Tree(store.snapshots.freeze(store.snapshots.prepare(None)))


def result(content: Content) -> StepResult:
    return StepResult(content, "RUN true", 5.0)


def test_unknown_key_has_no_result(store: Store) -> None:
    assert store.steps.find(KEY) is None
    assert store.steps.find_image(KEY) is None


def test_result_is_found_by_another_process(store: Store) -> None:
    remembered = StepResult(replace(tree(store), diff_id=DIFF_ID, blob=LAYER), "RUN ü\nline", 5.0)
    store.steps.put(KEY, remembered)
    assert another(store).steps.find(KEY) == remembered
    assert list(store.steps.iter()) == [(KEY, remembered)]


def test_later_result_replaces_the_earlier(store: Store) -> None:
    store.steps.put(KEY, result(tree(store)))
    later = result(Empty(tree(store).snapshot))
    store.steps.put(KEY, later)
    assert store.steps.find(KEY) == later


def test_step_whose_snapshot_is_gone_is_done_again(store: Store) -> None:
    gone = tree(store)
    store.steps.put(KEY, result(gone))
    store.snapshots.remove(gone.snapshot)
    assert store.steps.find(KEY) is None


def test_what_is_left_of_a_step_whose_snapshot_is_gone_is_its_blob(store: Store) -> None:
    with store.new_blob() as writing:
        writing.file.write(b"abc")
        digest = Digest.of(b"abc")
        writing.publish(digest, DIFF_ID)
    layer = replace(LAYER, digest=digest)
    gone = tree(store)
    store.steps.put(KEY, result(replace(gone, diff_id=DIFF_ID, blob=layer)))
    store.snapshots.remove(gone.snapshot)
    assert store.steps.find(KEY) == result(Blob(DIFF_ID, layer))
    store.steps.put(KEY, result(Empty(gone.snapshot)))
    assert store.steps.find(KEY) == result(Empty())


@pytest.mark.parametrize("content", [Tree("s"), Tree("s", DIFF_ID, LAYER), Blob(DIFF_ID, LAYER), Empty("s"), Empty()])
def test_every_kind_of_result_is_remembered(store: Store, content: Content) -> None:
    store.steps.put(KEY, result(content))
    assert list(store.steps.iter()) == [(KEY, result(content))]


@pytest.mark.parametrize("damage", [{"blob": {}}, {"diff_id": "x"}, {"snapshot": ""}, {"blob": 7}, {"created": None}])
def test_a_damaged_record_counts_as_forgotten(store: Store, damage: dict[str, object]) -> None:
    store.steps.put(KEY, result(Tree("s")))
    path = Path(store.layout.path("steps", KEY.encoded))
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **damage}))
    assert store.steps.find(KEY) is None


def test_image_of_a_whole_build_is_remembered_apart_from_steps(store: Store) -> None:
    store.steps.put_image(KEY, Digest.of(b"manifest"))
    assert store.steps.find_image(KEY) == Digest.of(b"manifest")
    assert list(store.steps.iter()) == []
    assert store.steps.find(KEY) is None


def test_forgotten_steps_are_done_again(store: Store) -> None:
    store.steps.put(KEY, result(tree(store)))
    store.steps.put_image(KEY, Digest.of(b"manifest"))
    prune(store)
    assert store.steps.find(KEY) is None
    assert store.steps.find_image(KEY) is None


def test_remembered_step_keeps_its_snapshot_and_all_below(store: Store) -> None:
    below = store.snapshots.freeze(store.snapshots.prepare(None))
    above = store.snapshots.freeze(store.snapshots.prepare(below))
    store.steps.put(KEY, result(Tree(above)))
    store.close()
    another(store).sweep()
    assert store.snapshots.new.lineage(above) == (above, below)
