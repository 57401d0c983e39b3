"""Whatever strangers write is read, or refused by an error of builda's; never another exception, never without end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builda.errors import BuildaError
from tests.fuzz.targets import TARGETS, Target

SAMPLE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@st.composite
def inputs(draw: st.DrawFn, target: Target) -> bytes:
    """A well-formed input with changes in it, or the target's words in any order."""
    word = st.sampled_from(target.words)
    if draw(st.booleans()):
        return "".join(draw(st.lists(word, max_size=20))).encode(errors="surrogateescape")
    data = bytearray(draw(st.sampled_from(target.seeds)).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 0, 1, 3, 10))))
        added = draw(st.one_of(st.binary(max_size=4), word.map(lambda text: text.encode(errors="surrogateescape"))))
        data[start:end] = added
    return bytes(data)


@SAMPLE
@given(data=st.data())
@pytest.mark.parametrize("name", TARGETS)
def test_anything_is_read_or_refused(tmp_path: Path, name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    with suppress(BuildaError):
        target.read(data.draw(inputs(target)), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_well_formed_is_read(tmp_path: Path, name: str) -> None:
    target = TARGETS[name]
    refused = ("secret", "compressed stream", "manifest", "auth.json", "output")
    for seed in target.seeds:
        if name in refused:
            with suppress(BuildaError):
                target.read(seed.encode(), tmp_path)
        else:
            target.read(seed.encode(), tmp_path)
