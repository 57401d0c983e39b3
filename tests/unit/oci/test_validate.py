from __future__ import annotations

from dataclasses import replace

import pytest

from builda.oci import mediatype
from builda.oci.config import ImageConfig
from builda.oci.descriptor import Platform
from builda.oci.digest import Digest
from builda.oci.manifest import Manifest
from builda.transfer.validate import disagreements
from tests.support.memory import random_image


@pytest.fixture
def parts() -> tuple[Manifest, ImageConfig]:
    image = random_image(compression="none")
    return image.image, image.config


def test_a_good_image_has_none(parts: tuple[Manifest, ImageConfig]) -> None:
    assert disagreements(*parts) == ()


def test_every_disagreement_is_named(parts: tuple[Manifest, ImageConfig]) -> None:
    manifest, config = parts
    first, second = manifest.layers
    broken = replace(
        manifest,
        config=replace(manifest.config, media_type=mediatype.DOCKER_CONFIG),
        layers=(first, replace(second, media_type=mediatype.DOCKER_LAYER), replace(first, size=1, media_type="x/y")),
    )
    other = replace(
        config,
        platform=Platform(os="linux", architecture=""),
        diff_ids=(Digest.of(b"other"), config.diff_ids[1]),
        history=config.history[:1],
    )
    assert [problem.partition(":")[0] for problem in disagreements(broken, other)] == [
        f"manifest of type {mediatype.MANIFEST} has a configuration of type {mediatype.DOCKER_CONFIG}",
        f"layer 1 is of type {mediatype.DOCKER_LAYER} in a manifest of type {mediatype.MANIFEST}",
        "layer 2",
        "configuration names no architecture",
        "manifest lists 3 layers, its configuration 2 diff_ids",
        "layer 0 is not compressed, but has digest sha256",
        "manifest lists one digest with two sizes",
        "history has 1 entries with a layer, the manifest lists 3 layers",
    ]


def test_docker_manifests_have_no_annotations() -> None:
    image = random_image(image_format="docker")
    assert disagreements(image.image, image.config) == ()
    assert len(disagreements(replace(image.image, annotations={"a": "b"}), image.config)) == 1
