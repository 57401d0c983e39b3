"""The cache artifact: what is written is read again, and what is hostile is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from builda.errors import BuildaError, CorruptContent
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import Manifest, parse
from builda.oci.stepcache import ARTIFACT, STEP_LIMIT, CachedStep, from_manifest, to_manifest

ONE, TWO, THREE = (Digest.of(text) for text in (b"1", b"2", b"3"))
LAYER = Descriptor(media_type=mediatype.LAYER_GZIP, digest=ONE, size=7, annotations={"a": "b"})
STEP = CachedStep(TWO, 1700000000, THREE, TWO, LAYER)
EMPTY = CachedStep(THREE, 1600000000)


def of(config: object, *, layers: tuple[Descriptor, ...] = (LAYER,)) -> Manifest:
    data = json.dumps(config).encode()
    extra = {"data": base64.b64encode(data).decode()}
    described = Descriptor(media_type=ARTIFACT, digest=Digest.of(data), size=len(data), extra=extra)
    return Manifest(config=described, layers=layers)


def test_steps_survive_the_way_through_a_registry() -> None:
    manifest, config = to_manifest([EMPTY, STEP])
    assert manifest.config.digest == Digest.of(config)
    assert from_manifest(parse(manifest.dump())) == (STEP, EMPTY)


def test_of_too_many_steps_the_newest_are_kept() -> None:
    steps = [CachedStep(Digest.of(b"%d" % number), number) for number in range(STEP_LIMIT + 5)]
    kept = from_manifest(to_manifest(steps)[0])
    assert [step.created for step in kept] == list(range(STEP_LIMIT + 4, 4, -1))
    assert len(to_manifest(steps)[0].dump()) < 4 << 20


ENTRY = {"key": str(TWO), "created": 5, "layer": str(ONE), "diffId": str(TWO), "chainId": str(THREE)}


@pytest.mark.parametrize(
    "steps",
    [
        [{**ENTRY, "key": "sha256:../../x"}],
        [{**ENTRY, "created": 1e300}],
        [{**ENTRY, "created": "yesterday"}],
        [{**ENTRY, "layer": str(THREE)}],
        [{**ENTRY, "diffId": None}],
        [{**ENTRY, "chainId": "sha512:" + "0" * 128}],
        ["text"],
        [{"key": str(TWO), "created": 5}] * (STEP_LIMIT + 1),
        {},
    ],
)
def test_hostile_steps_are_refused(steps: object) -> None:
    with pytest.raises(CorruptContent):
        from_manifest(of({"version": 1, "steps": steps}))


def test_other_documents_are_refused() -> None:
    good = of({"version": 1, "steps": [ENTRY]})
    assert len(from_manifest(good)) == 1
    bad = [
        replace(good, config=replace(good.config, media_type=mediatype.CONFIG)),
        replace(good, config=replace(good.config, extra={})),
        replace(good, config=replace(good.config, extra={"data": "!"})),
        replace(good, config=replace(good.config, digest=ONE)),
        of({"version": 2, "steps": []}),
        of([]),
        of({"version": 1, "steps": [ENTRY]}, layers=(replace(LAYER, media_type="text/plain"),)),
    ]
    for manifest in bad:
        with pytest.raises(BuildaError):
            from_manifest(manifest)
