"""What a build takes of a remembered step: a pure function of where its files are and of what lies below."""

from __future__ import annotations

from itertools import product

import pytest

from builda.builder.execution.lookup import usable
from builda.builder.execution.tip import Layer, Tip
from builda.oci.config import History, empty_config
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest
from builda.oci.edits import Edited
from builda.store.steps import Blob, Content, Empty, Remote, StepResult, Tree

DIFF_ID = Digest.of(b"diff")
LAYER = Descriptor(media_type="m", digest=Digest.of(b"layer"), size=5)
WHOLE, UNWRITTEN = Tree("s", DIFF_ID, LAYER), Tree("s")
BLOB, REMOTE = Blob(DIFF_ID, LAYER), Remote(DIFF_ID, LAYER)


def taken(
    content: Content, *, on_snapshot: bool = True, own_kind: bool = True, blobs: bool = True, oldest: float = 0.0
) -> Content | None:
    result = StepResult(content, "", 10.0)
    return usable(result, oldest=oldest, on_snapshot=on_snapshot, own_kind=own_kind, blobs=blobs)


def test_a_step_that_is_not_remembered_is_performed() -> None:
    assert usable(None, oldest=0.0, on_snapshot=True, own_kind=True, blobs=True) is None


@pytest.mark.parametrize("content", [WHOLE, UNWRITTEN, BLOB, Empty("s"), Empty()])
def test_on_a_snapshot_of_the_same_kind_all_is_taken_as_it_is(content: Content) -> None:
    assert taken(content) == content


@pytest.mark.parametrize(("on_snapshot", "own_kind"), [(False, True), (True, False), (False, False)])
def test_elsewhere_a_tree_is_taken_as_its_bytes(on_snapshot: bool, own_kind: bool) -> None:
    assert taken(WHOLE, on_snapshot=on_snapshot, own_kind=own_kind) == BLOB
    assert taken(BLOB, on_snapshot=on_snapshot, own_kind=own_kind) == BLOB
    assert taken(Empty("s"), on_snapshot=on_snapshot, own_kind=own_kind) == Empty()


def test_a_tree_whose_bytes_were_never_made_is_of_no_use_elsewhere() -> None:
    assert taken(UNWRITTEN, on_snapshot=False) is None
    assert taken(UNWRITTEN, own_kind=False) is None


def test_once_bytes_were_not_what_they_should_be_only_snapshots_are_taken() -> None:
    assert taken(WHOLE, blobs=False) == WHOLE
    assert taken(WHOLE, own_kind=False, blobs=False) is None
    assert taken(BLOB, blobs=False) is None
    assert taken(REMOTE, blobs=False) is None


@pytest.mark.parametrize("content", [WHOLE, BLOB, Empty("s")])
def test_what_is_older_than_the_limit_is_forgotten(content: Content) -> None:
    assert taken(content, oldest=10.0) == content
    assert taken(content, oldest=10.5) is None


def test_no_answer_has_a_snapshot_that_the_build_cannot_stand_on() -> None:
    contents: tuple[Content, ...] = (WHOLE, UNWRITTEN, BLOB, REMOTE, Empty("s"), Empty())
    yes_or_no = (True, False)
    for content, on_snapshot, own_kind, blobs in product(contents, yes_or_no, yes_or_no, yes_or_no):
        found = taken(content, on_snapshot=on_snapshot, own_kind=own_kind, blobs=blobs)
        if not (on_snapshot and own_kind):
            assert not isinstance(found, Tree)
            assert found is None or not isinstance(found, Empty) or found.snapshot is None


def tip(*contents: Content) -> Tip:
    layers = tuple(Layer(History(), content) for content in contents)
    edited = Edited(empty_config(Platform(os="linux", architecture="amd64")))
    return Tip(image=None, key=Digest.of(b"k"), edited=edited, layers=layers, base="base")


def test_a_tip_stands_on_its_topmost_layer() -> None:
    assert tip().top == "base"
    assert tip(WHOLE, Empty("t")).top == "t"
    assert tip(WHOLE, BLOB).top is None
    assert tip(WHOLE, Empty("t")).above == WHOLE
    assert tip(Empty("t")).above is None


def test_the_diff_ids_of_a_tip_are_known_when_all_are() -> None:
    assert tip(WHOLE, Empty("s"), REMOTE).diff_ids == (DIFF_ID, DIFF_ID)
    assert tip(WHOLE, UNWRITTEN).diff_ids is None
    assert tip().diff_ids == ()


def test_a_tip_is_here_when_every_layer_has_a_snapshot() -> None:
    assert tip(WHOLE, Empty("s")).is_here
    assert not tip(WHOLE, BLOB).is_here
    assert not tip(Empty()).is_here


def test_a_working_container_records_only_what_is_here() -> None:
    records = tip(WHOLE, Empty("s"), Empty()).frozen()
    assert [(record.snapshot, record.blob, record.empty) for record in records] == [
        ("s", LAYER, False),
        ("s", None, True),
        ("", None, True),
    ]
    with pytest.raises(AssertionError):
        tip(REMOTE).frozen()
