from __future__ import annotations

from dataclasses import replace

import pytest

from builda.oci import mediatype
from builda.oci.config import dump_config
from builda.oci.digest import Digest
from builda.oci.manifest import Index, Manifest
from builda.transfer.validate import validate
from tests.support.memory import AMD64, ARM64, MemoryImage, compressed, index_of, random_image


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_nothing_is_wrong_with_a_good_image(compression: str) -> None:
    image = random_image(compression=compression)  # type: ignore[arg-type]  # literals
    assert validate(image) == ()
    assert validate(index_of(image, random_image(platform=ARM64))) == ()


def test_a_changed_layer_is_wrong_in_every_way_it_is() -> None:
    image = random_image()
    layer = image.image.layers[1]
    image.blobs[layer.digest] = compressed(b"no tar at all".ljust(1024), "gzip")
    problems = validate(image)
    assert [problem.partition(": ")[0] for problem in problems] == [f"layer 1, {layer.digest}"] * 4
    assert ["checksum" in problems[0], "its descriptor says" in problems[1]] == [True, True]
    assert ["content has digest" in problems[2], "unpacks to" in problems[3]] == [True, True]


def test_damage_behind_the_tar_is_found() -> None:
    image = random_image()
    layer = image.image.layers[0]
    image.blobs[layer.digest] += b"\0"
    assert len(validate(image)) == 2


def test_a_wrong_diff_id_is_found() -> None:
    image = random_image()
    config = dump_config(replace(image.config, diff_ids=(image.config.diff_ids[0], Digest.of(b""))))
    image.put(replace(image.image, config=image.add(config, mediatype.CONFIG)))
    assert [problem.partition(", the conf")[0] for problem in validate(image)] == [
        f"layer 1, {image.image.layers[1].digest}: unpacks to {random_image().config.diff_ids[1]}"
    ]


def test_all_mismatches_are_told_at_once() -> None:
    image = random_image(layers=3)
    first, second, _ = image.image.layers
    del image.blobs[first.digest]
    image.blobs[second.digest] = b"\x1f\x8b\x08 broken"
    config = dump_config(replace(image.config, history=image.config.history[:1]))
    image.put(replace(image.image, config=image.add(config, mediatype.CONFIG)))
    told = "\n".join(validate(image))
    assert "no such blob" in told
    assert "cannot decompress gzip" in told or "gzip data ends" in told
    assert "history has 1 entries with a layer" in told


def test_a_missing_or_broken_manifest_or_configuration_is_told() -> None:
    assert validate(MemoryImage()) == ("manifest: nothing was copied here",)
    image = random_image()
    image.blobs[image.image.config.digest] = b"{}"
    assert validate(image)[0].startswith(f"configuration {image.image.config.digest}: ")
    image.blobs[image.descriptor.digest] = b"{}"
    assert validate(image)[0].startswith(f"manifest {image.descriptor.digest}: ")


def test_of_an_index_all_images_are_looked_at_or_the_one_asked_for() -> None:
    index = index_of(random_image(platform=AMD64), random_image(platform=ARM64))
    arm = random_image(platform=ARM64).image.layers[0]
    del index.blobs[arm.digest]
    assert len(validate(index)) == 1
    assert validate(index, platform=AMD64) == ()
    assert len(validate(index, platform=ARM64)) == 1
    assert isinstance(index.document, Index)
    del index.blobs[index.document.manifests[1].digest]
    assert validate(index) == (
        f"manifest {index.document.manifests[1].digest}: no such blob: {index.document.manifests[1].digest}",
    )


def test_blobs_of_artifacts_are_verified_too() -> None:
    image = MemoryImage()
    part = image.add(b"part", "application/x")
    image.put(Manifest(config=image.add(b"{}", mediatype.EMPTY), layers=(part,)))
    assert validate(image) == ()
    image.blobs[part.digest] = b"trap"
    assert validate(image) == (f"blob {part.digest}: content does not match its digest: {part.digest}",)
