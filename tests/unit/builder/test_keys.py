"""Step keys: the same for the same work, whoever wrote it and wherever."""

from __future__ import annotations

from dataclasses import replace

from builda.builder.keys import canonical, explained, step_key
from builda.oci.digest import Digest
from builda.oci.edits import SetEnv, UnsetEnv
from builda.plan import Configure, Copy, Location, Run, RunMount

PARENT = Digest.of(b"base")
RUN = Run(args=("make", "all"), env=(("A", "1"),), mounts=(RunMount(type="cache", target="/c"),))


def test_text_and_place_are_no_part_of_a_key() -> None:
    elsewhere = replace(RUN, text="RUN make all", at=Location("Containerfile", 7))
    assert step_key(PARENT, elsewhere, {}) == step_key(PARENT, RUN, {})


def test_everything_that_is_executed_is_part_of_a_key() -> None:
    changed = (
        replace(RUN, args=("make",)),
        replace(RUN, env=(("A", "2"),)),
        replace(RUN, user="bob"),
        replace(RUN, mounts=()),
        replace(RUN, mounts=(RunMount(type="cache", target="/c", id="x"),)),
        replace(RUN, script=b"#!/bin/sh"),
    )
    keys = {step_key(PARENT, step, {}) for step in (RUN, *changed)}
    assert len(keys) == len(changed) + 1


def test_parent_and_inputs_chain() -> None:
    first = step_key(PARENT, RUN, {})
    assert step_key(first, RUN, {}) != first
    assert step_key(None, RUN, {}) != first
    assert step_key(PARENT, RUN, {"arg:V": "1"}) != step_key(PARENT, RUN, {"arg:V": "2"})
    assert step_key(PARENT, RUN, {"a": "1", "b": "2"}) == step_key(PARENT, RUN, {"b": "2", "a": "1"})


def test_steps_of_different_kinds_never_share_a_key() -> None:
    assert canonical(SetEnv("A", "")) != canonical(UnsetEnv("A"))
    steps = (Copy(sources=(), destination="/"), Configure(), Run(args=()))
    assert len({step_key(PARENT, step, {}) for step in steps}) == len(steps)


def test_an_explanation_is_what_was_hashed_and_can_be_read() -> None:
    text = explained(PARENT, RUN, {"context": "sha256:abc"})
    assert step_key(PARENT, RUN, {"context": "sha256:abc"}) == Digest.of(text)
    assert b'"context":"sha256:abc"' in text
    assert b'"args":["make","all"]' in text


def test_bytes_appear_by_digest_only() -> None:
    assert b"hunter2" not in explained(PARENT, Run(args=("x",), stdin=b"hunter2"), {})
