"""One suite for every place that images come from and go to: what the Protocols of transfer/copyimage.py promise."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from builda.errors import AlreadyExists, BuildaError, CorruptContent, Unsupported
from builda.events import BlobProgress, Event, ImageMoved
from builda.oci import mediatype
from builda.oci.config import dump_config
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest
from builda.oci.manifest import Index, Manifest, parse
from builda.oci.reference import Reference
from builda.store.store import Store
from builda.transfer.copyimage import ImageSink, ImageSource, copy_image, read_blob
from builda.transfer.locate import open_sink, open_source, parse_location
from builda.transfer.stored import StoreSink, StoreSource
from builda.transfer.validate import validate
from tests.support.memory import AMD64, ARM64, MemoryImage, index_of, random_image
from tests.support.registry import PROGRAM, registry


class Place(NamedTuple):
    """A place that one image at a time is written to and read from again."""

    kind: str
    sink: Callable[[], ImageSink]
    source: Callable[[], ImageSource]

    @property
    def keeps_manifests(self) -> bool:
        return self.kind != "docker-archive"  # it has none


KINDS = ("memory", "oci", "oci-archive", "docker-archive", "dir", "store", "registry")


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with registry() as server:
        yield server.address


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    kind: str = request.param
    if kind == "memory":
        image = MemoryImage()
        yield Place(kind, lambda: image, lambda: image)
    elif kind == "store":
        with Store.open(tmp_path / "store", tmp_path / "run") as store:
            name = "localhost/a:1"
            yield Place(kind, lambda: StoreSink(store, (name,)), lambda: StoreSource(store, store.image(name)))
    elif kind == "registry":
        yield from _registry_place(request.getfixturevalue("address"), tmp_path)
    else:
        name = "" if kind == "dir" else ":a:1"
        location = parse_location(f"{kind}:{tmp_path / 'place'}{name}")
        assert location is not None
        yield Place(kind, lambda: open_sink(location), lambda: open_source(location))


def _registry_place(address: str, tmp_path: Path) -> Iterator[Place]:
    from builda.registry.registryclient import RegistryClient, RegistryOptions

    reference = Reference.parse(f"{address}/r{abs(hash(str(tmp_path)))}:1")
    with RegistryClient(RegistryOptions(tls_verify=False, retry=0), environ={}, system=tmp_path) as client:
        yield Place("registry", lambda: client.sink(reference), lambda: client.source(reference))


@pytest.mark.parametrize("image_format", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_an_image_comes_back_as_it_was(place: Place, image_format: str, compression: str) -> None:
    image = random_image(image_format=image_format, compression=compression)  # type: ignore[arg-type]  # literals
    written = copy_image(image, place.sink())
    assert written == image.descriptor
    source = place.source()
    assert validate(source) == ()
    if place.keeps_manifests:
        descriptor, data = source.manifest()
        assert (descriptor.digest, descriptor.size) == (image.descriptor.digest, image.descriptor.size)
        assert descriptor.media_type == image.descriptor.media_type
        assert data == image.blobs[image.descriptor.digest]
    back = copied(source)
    assert back.image.config.digest == image.image.config.digest
    assert [layer.digest for layer in back.image.layers] == [layer.digest for layer in image.image.layers]


def copied(source: ImageSource) -> MemoryImage:
    image = MemoryImage()
    copy_image(source, image)
    return image


def test_an_image_without_layers_is_an_image(place: Place) -> None:
    copy_image(random_image(layers=0), place.sink())
    assert validate(place.source()) == ()


def test_a_layer_that_is_listed_twice_is_there_once(place: Place) -> None:
    image = random_image(layers=1)
    layer, config = image.image.layers[0], image.config
    doubled = image_with(image, (layer, layer), (*config.diff_ids, *config.diff_ids))
    copy_image(doubled, place.sink())
    assert len(copied(place.source()).image.layers) == 2


def test_digests_of_other_algorithms_are_kept_or_refused(place: Place) -> None:
    image = random_image(layers=1)
    (layer,) = image.image.layers
    other = replace(layer, digest=Digest("sha512", hashlib.sha512(image.blobs[layer.digest]).hexdigest()))
    image.blobs[other.digest] = image.blobs[layer.digest]
    image.put(replace(image.image, layers=(other,)))
    if place.kind in ("store", "docker-archive"):  # the latter names no digests; the store says why it cannot
        with pytest.raises(BuildaError, match="sha256 content only") if place.kind == "store" else nullcontext():
            copy_image(image, place.sink())
        return
    copy_image(image, place.sink())
    assert validate(place.source()) == ()
    assert place.source().manifest()[0].digest == image.descriptor.digest


def image_with(image: MemoryImage, layers: tuple[Descriptor, ...], diff_ids: tuple[Digest, ...]) -> MemoryImage:
    config = dump_config(replace(image.config, diff_ids=diff_ids, history=()))
    return image.put(replace(image.image, config=image.add(config, mediatype.CONFIG), layers=layers))


def test_a_blob_is_read_from_any_offset(place: Place) -> None:
    image = random_image()
    copy_image(image, place.sink())
    source = place.source()
    layer = source_manifest(source).layers[1]
    data = image.blobs[layer.digest]
    for offset in (0, 1, 512, len(data) - 1, len(data)):
        with source.open_blob(layer, offset) as file:
            assert b"".join(iter(partial(file.read, 700), b"")) == data[offset:]


def source_manifest(source: ImageSource) -> Manifest:
    descriptor, data = source.manifest()
    document = parse(data, descriptor.media_type)
    assert isinstance(document, Manifest)
    return document


def test_a_local_path_holds_the_blob(place: Place) -> None:
    image = random_image()
    copy_image(image, place.sink())
    source = place.source()
    for blob in (source_manifest(source).config, *source_manifest(source).layers):
        path = source.local_path(blob)
        assert (path is not None) == (place.kind in ("oci", "dir", "store"))
        assert path is None or path.read_bytes() == image.blobs[blob.digest]


def test_threads_may_read_blobs_side_by_side(place: Place) -> None:
    image = random_image(layers=4, size=300_000)
    copy_image(image, place.sink())
    source = place.source()
    found: dict[int, bytes] = {}
    layers = source_manifest(source).layers

    def read(number: int) -> None:
        found[number] = read_blob(source, layers[number])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == [image.blobs[layer.digest] for layer in layers]


def test_what_is_not_there_is_not_found(place: Place) -> None:
    with pytest.raises(BuildaError):
        place.source().manifest()
    copy_image(random_image(), place.sink())
    missing = random_image(seed=1).image.layers[0]
    with pytest.raises(BuildaError), place.source().open_blob(missing) as file:
        file.read(1)


def test_an_image_replaces_the_one_before(place: Place) -> None:
    if place.kind == "docker-archive":
        copy_image(random_image(), place.sink())
        with pytest.raises(AlreadyExists, match="cannot be added to"):
            place.sink()
        assert validate(place.source()) == ()
        return
    for seed in (1, 2, 1):
        image = random_image(seed=seed)
        copy_image(image, place.sink())
        source = place.source()
        assert source.manifest()[0].digest == image.descriptor.digest
        assert validate(source) == ()


def test_what_is_there_is_not_moved_again(place: Place) -> None:
    if place.kind.endswith("-archive"):  # written anew
        return
    image = random_image()
    copy_image(image, place.sink())
    events: list[Event] = []
    copy_image(image, place.sink(), emit=events.append)
    assert [event.reused for event in events if isinstance(event, BlobProgress)] == [True] * 3


def test_every_blob_is_done_once_and_last(place: Place) -> None:
    image = random_image(layers=3, size=2_500_000)
    told: list[Event] = []
    copy_image(image, place.sink(), action="push", emit=told.append)
    events = [event for event in told if isinstance(event, BlobProgress)]
    (moved,) = [event for event in told if isinstance(event, ImageMoved)]
    size = image.image.config.size + sum(layer.size for layer in image.image.layers)
    assert (moved.action, moved.blobs, moved.size, moved.reused) == ("push", 4, size, 0)
    assert told[-1] == moved
    for blob in (image.image.config, *image.image.layers):
        own = [event for event in events if event.digest == blob.digest]
        assert [event.done for event in own] == [False] * (len(own) - 1) + [True]
        assert own[-1].offset == own[-1].total == blob.size
        assert [event.offset for event in own] == sorted(event.offset for event in own)
        assert {event.action for event in own} == {"push"}


def test_an_index_is_copied_whole(place: Place) -> None:
    index = index_of(random_image(platform=AMD64), random_image(platform=ARM64, seed=5))
    if not place.keeps_manifests:
        with pytest.raises(Unsupported, match="single images"):
            copy_image(index, place.sink())
        return
    written = copy_image(index, place.sink(), platform=AMD64, select="all")
    assert written == index.descriptor
    source = place.source()
    descriptor, data = source.manifest()
    assert isinstance(parse(data, descriptor.media_type), Index)
    assert validate(source) == ()
    assert copied(source).blobs == index.blobs


def test_the_image_of_a_platform_is_taken_out_of_an_index(place: Place) -> None:
    arm = random_image(platform=ARM64, seed=5)
    index = index_of(random_image(platform=AMD64), arm)
    written = copy_image(index, place.sink(), platform=ARM64)
    assert written.digest == arm.descriptor.digest
    assert source_manifest(place.source()).config.digest == arm.image.config.digest


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "short": lambda data: data[:-1],
    "long": lambda data: data + b"x",
    "other": lambda data: b"x" + data[1:],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["layer", "config", "child"])
def test_a_damaged_source_publishes_nothing(place: Place, damage: str, part: str) -> None:
    image = index_of(random_image(), random_image(platform=ARM64))
    if place.kind == "docker-archive":
        image = random_image()
        part = "config" if part == "child" else part
    victim = {
        "layer": lambda: random_image().image.layers[1],
        "config": lambda: random_image().image.config,
        "child": lambda: random_image().descriptor,
    }[part]()
    image.blobs[victim.digest] = DAMAGES[damage](image.blobs[victim.digest])
    if place.kind == "registry" and part == "layer":  # it verifies itself, and is never sent more than was promised
        if damage == "long":
            return
        with pytest.raises(BuildaError):
            copy_image(image, place.sink())
    else:
        with pytest.raises(CorruptContent):
            copy_image(image, place.sink())
    with pytest.raises(BuildaError):
        place.source().manifest()


def test_a_failed_copy_leaves_what_was_there(place: Place) -> None:
    if place.kind == "docker-archive":  # see above
        return
    good, bad = random_image(seed=1), random_image(seed=2)
    copy_image(good, place.sink())
    bad.blobs[bad.image.layers[0].digest] = b""
    with pytest.raises(BuildaError):
        copy_image(bad, place.sink())
    source = place.source()
    assert source.manifest()[0].digest == good.descriptor.digest
    assert validate(source) == ()
