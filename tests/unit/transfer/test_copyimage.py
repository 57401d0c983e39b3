from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from builda.errors import CorruptContent, NotFound, Unsupported
from builda.events import Event, Warned
from builda.oci import mediatype
from builda.oci.config import CONFIG_LIMIT, dump_config
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.manifest import MANIFEST_LIMIT, Index, Manifest
from builda.transfer.copyimage import ImageSource, copy_image
from builda.transfer.validate import validate
from tests.support.memory import AMD64, ARM64, MemoryImage, index_of, random_image

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def test_the_layers_come_first_and_the_manifest_last() -> None:
    image, sink = random_image(layers=3), MemoryImage()
    copy_image(image, sink, jobs=1)
    assert sink.puts == [
        *(layer.digest for layer in image.image.layers),
        image.image.config.digest,
        image.descriptor.digest,
    ]


def test_children_come_before_their_index() -> None:
    index, sink = index_of(random_image(), random_image(platform=ARM64)), MemoryImage()
    copy_image(index, sink)
    assert sink.puts[-1] == index.descriptor.digest
    assert sink.top == index.descriptor


@pytest.mark.parametrize("media_type", [FOREIGN, mediatype.LAYER_GZIP + "+encrypted", "application/x-tar"])
def test_layers_that_cannot_be_had_are_refused_before_anything_moves(media_type: str) -> None:
    image, sink = random_image(), MemoryImage()
    first, second = image.image.layers
    image.put(replace(image.image, layers=(first, replace(second, media_type=media_type))))
    with pytest.raises(Unsupported):
        copy_image(image, sink)
    assert sink.puts == []


def test_layers_and_diff_ids_must_be_as_many() -> None:
    image, sink = random_image(layers=2), MemoryImage()
    image.put(replace(image.image, layers=image.image.layers[:1]))
    with pytest.raises(CorruptContent, match="manifest lists 1 layers, its configuration 2 diff_ids"):
        copy_image(image, sink)
    assert sink.puts == []


def test_one_layer_cannot_have_two_sizes() -> None:
    image = random_image(layers=2)
    first = image.image.layers[0]
    image.put(replace(image.image, layers=(first, replace(first, size=first.size + 1))))
    with pytest.raises(CorruptContent, match="two sizes"):
        copy_image(image, MemoryImage())


def test_a_configuration_over_the_limit_is_not_read() -> None:
    image = random_image()
    image.put(replace(image.image, config=replace(image.image.config, size=CONFIG_LIMIT + 1)))
    with pytest.raises(CorruptContent, match="more than the limit"):
        copy_image(image, MemoryImage())


def test_a_child_over_the_limit_is_not_read() -> None:
    index = index_of(random_image())
    entry = replace(index.document.manifests[0], size=MANIFEST_LIMIT + 1)  # type: ignore[union-attr]  # an index
    index.put(Index(manifests=(entry,)))
    for platform in (None, AMD64):
        with pytest.raises(CorruptContent, match="more than the limit"):
            copy_image(index, MemoryImage(), platform=platform)


def test_manifests_are_verified_whatever_the_source_says() -> None:
    image = random_image()
    image.blobs[image.descriptor.digest] = random_image(seed=1).blobs[random_image(seed=1).descriptor.digest]
    with pytest.raises(CorruptContent):
        copy_image(image, MemoryImage())


def test_schema_1_in_an_index_is_refused() -> None:
    index = MemoryImage()
    data = b'{"schemaVersion":1,"fsLayers":[],"history":[]}'
    entry = replace(index.add(data, mediatype.DOCKER_SCHEMA1_SIGNED), platform=AMD64)
    index.put(Index(manifests=(entry,), media_type=mediatype.DOCKER_LIST))
    with pytest.raises(Unsupported, match="schema 1"):
        copy_image(index, MemoryImage())


def test_indexes_in_indexes_are_followed_to_a_limit() -> None:
    image = index_of(random_image())
    for _ in range(3):
        image = nested(image)
    copy_image(image, sink := MemoryImage(), platform=AMD64)
    assert sink.descriptor.digest == random_image().descriptor.digest
    copy_image(image, sink := MemoryImage())
    assert validate(sink) == ()
    image = nested(image)
    for platform in (None, AMD64):
        with pytest.raises(CorruptContent, match="nested more than 4 deep"):
            copy_image(image, MemoryImage(), platform=platform)


def nested(image: MemoryImage) -> MemoryImage:
    plain = replace(image.descriptor, platform=AMD64)
    return image.put(Index(manifests=(plain,)))


def test_an_index_that_lists_one_image_a_thousand_times_is_copied_in_no_time() -> None:
    image = random_image()
    for _ in range(4):
        image.put(Index(manifests=(image.descriptor,) * 1000))
    copy_image(image, sink := MemoryImage())
    assert len(sink.puts) == 8


def test_attestations_of_an_index_are_copied_with_it() -> None:
    image = random_image()
    statement = image.add(b"{}", "application/vnd.in-toto+json")
    config = dump_config(replace(image.config, diff_ids=(statement.digest,), history=()))
    manifest = Manifest(config=image.add(config, mediatype.CONFIG), layers=(statement,))
    attestation = replace(
        image.add(manifest.dump(), mediatype.MANIFEST),
        platform=Platform(os="unknown", architecture="unknown"),
        annotations={"vnd.docker.reference.type": "attestation-manifest"},
    )
    index = image.put(Index(manifests=(replace(image.descriptor, platform=AMD64), attestation)))
    copy_image(index, sink := MemoryImage())
    assert sink.blobs == index.blobs
    copy_image(index, sink := MemoryImage(), platform=AMD64)
    assert statement.digest not in sink.blobs


def test_artifacts_are_copied_as_they_are() -> None:
    image = MemoryImage()
    config = image.add(b"{}", mediatype.EMPTY)
    chart = image.add(b"chart", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
    image.put(Manifest(config=config, layers=(chart,), artifact_type="application/vnd.example"))
    copy_image(image, sink := MemoryImage())
    assert sink.blobs == image.blobs


def test_what_an_index_says_of_its_images_is_not_written_elsewhere() -> None:
    image = random_image()
    entry = replace(image.descriptor, platform=AMD64, annotations={"a": "b"}, urls=("http://x",), extra={"data": ""})
    index = image.put(Index(manifests=(entry,)))
    assert copy_image(index, MemoryImage(), platform=AMD64) == replace(entry, annotations={}, urls=(), extra={})


def test_a_platform_that_is_not_there_moves_nothing() -> None:
    sink = MemoryImage()
    with pytest.raises(NotFound, match="no image for platform linux/s390x") as caught:
        copy_image(index_of(random_image()), sink, platform=Platform.parse("linux/s390x"))
    assert caught.value.hint == "the index has: linux/amd64"
    assert sink.puts == []


def test_a_lone_image_for_another_platform_is_warned_of() -> None:
    events: list[Event] = []
    copy_image(random_image(platform=ARM64), MemoryImage(), platform=AMD64, emit=events.append)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "image is for linux/arm64, not for linux/amd64"
    ]


class Watched(MemoryImage):
    """Gives blobs through `read`, which a test replaces."""

    read: Callable[[Descriptor, bytes], bytes]

    @classmethod
    def of(cls, image: MemoryImage, read: Callable[[Descriptor, bytes], bytes]) -> Watched:
        made = cls(image.blobs, image.top)
        made.read = read
        return made

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Any]:
        outer = self

        class File:
            def __init__(self, file: Any) -> None:
                self.file = file

            def read(self, size: int = -1, /) -> bytes:
                return outer.read(descriptor, self.file.read(min(size, 1000)))

        with super().open_blob(descriptor, offset) as file:
            yield File(file)


def test_the_configuration_is_fetched_once() -> None:
    image = random_image()
    opened: list[Descriptor] = []

    def read(descriptor: Descriptor, data: bytes) -> bytes:
        if data:
            opened.append(descriptor)
        return data

    copy_image(Watched.of(image, read), MemoryImage())
    assert opened.count(image.image.config) == 1


def test_layers_move_side_by_side() -> None:
    image = random_image(layers=4)
    together = threading.Barrier(4, timeout=20)
    waited = threading.local()

    def read(descriptor: Descriptor, data: bytes) -> bytes:
        if descriptor in image.image.layers and not getattr(waited, "done", False):
            waited.done = True
            together.wait()
        return data

    copy_image(Watched.of(image, read), sink := MemoryImage(), jobs=4)
    assert validate(sink) == ()


def test_when_a_layer_fails_the_others_are_stopped() -> None:
    image = random_image(layers=2, size=400_000)
    slow, bad = image.image.layers
    began = threading.Event()
    reads = 0

    def read(descriptor: Descriptor, data: bytes) -> bytes:
        nonlocal reads
        if descriptor == bad:
            assert began.wait(20)
            raise ConnectionResetError("gone")
        if descriptor == slow:
            began.set()
            reads += 1
            time.sleep(0.01)
        return data

    with pytest.raises(ConnectionResetError, match="gone"):
        copy_image(Watched.of(image, read), sink := MemoryImage())
    assert sink.puts == []
    assert reads < 300  # of the 400 that there are: it was stopped on the way


def test_the_first_failure_is_the_one_that_is_told() -> None:
    image = random_image(layers=4)
    for layer in image.image.layers:
        image.blobs[layer.digest] = b""
    with pytest.raises(CorruptContent, match=r"ends after 0 of"):
        copy_image(image, MemoryImage())


def test_a_source_need_not_say_what_it_is() -> None:
    source: ImageSource = random_image()
    assert copy_image(source, MemoryImage()).platform is None
