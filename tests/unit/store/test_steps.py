"""The build cache: steps are remembered as long as what they led to is there."""

from __future__ import annotations

from builda.oci.digest import Digest
from builda.store.steps import StepResult
from builda.store.store import Store
from tests.support.stores import another

KEY = Digest.of(b"key")


def result(store: Store, **values: object) -> StepResult:
    snapshot = store.freeze(store.prepare(None))
    made = StepResult(snapshot, None, None, False, "RUN true", 5.0)
    return made._replace(**values)  # type: ignore[arg-type]  # the test says which


def test_unknown_key_has_no_result(store: Store) -> None:
    assert store.steps.find(KEY) is None
    assert store.steps.find_image(KEY) is None


def test_result_is_found_by_another_process(store: Store) -> None:
    blob = {"mediaType": "m", "digest": str(KEY), "size": 3}
    remembered = result(store, diff_id=Digest.of(b"diff"), blob=blob, explained="RUN ü\nline")
    store.steps.put(KEY, remembered)
    assert another(store).steps.find(KEY) == remembered
    assert list(store.steps.iter()) == [(KEY, remembered)]


def test_later_result_replaces_the_earlier(store: Store) -> None:
    store.steps.put(KEY, result(store))
    later = result(store, empty=True)
    store.steps.put(KEY, later)
    assert store.steps.find(KEY) == later


def test_step_whose_snapshot_is_gone_is_done_again(store: Store) -> None:
    remembered = result(store)
    store.steps.put(KEY, remembered)
    store.remove_snapshot(remembered.snapshot)
    assert store.steps.find(KEY) is None


def test_image_of_a_whole_build_is_remembered_apart_from_steps(store: Store) -> None:
    store.steps.put_image(KEY, Digest.of(b"manifest"))
    assert store.steps.find_image(KEY) == Digest.of(b"manifest")
    assert list(store.steps.iter()) == []
    assert store.steps.find(KEY) is None


def test_forgotten_steps_are_done_again(store: Store) -> None:
    store.steps.put(KEY, result(store))
    store.steps.put_image(KEY, Digest.of(b"manifest"))
    store.prune()
    assert store.steps.find(KEY) is None
    assert store.steps.find_image(KEY) is None


def test_remembered_step_keeps_its_snapshot_and_all_below(store: Store) -> None:
    below = store.freeze(store.prepare(None))
    above = store.freeze(store.prepare(below))
    store.steps.put(KEY, result(store, snapshot=above))
    store.close()
    another(store).sweep()
    assert store.snapshots.lineage(above) == (above, below)
