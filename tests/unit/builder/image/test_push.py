"""push: the bytes that were committed, and others only when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from builda.builder.imageoptions import CommitOptions, PushOptions
from builda.errors import InvalidReference, InvalidValue, NotFound, Unsupported
from builda.oci import mediatype
from builda.oci.manifest import Index, Manifest, parse
from builda.store.containers import WorkingContainer
from builda.store.store import Image
from builda.transfer.locate import open_source, parse_location
from builda.transfer.ocilayout import LayoutSource
from builda.transfer.validate import validate
from tests.unit.builder.conftest import Bench

pytestmark = pytest.mark.root


def manifest_at(path: Path, name: str) -> Manifest:
    descriptor, data = LayoutSource(str(path), name).manifest()
    found = parse(data, descriptor.media_type)
    assert isinstance(found, Manifest)
    return found


def test_nothing_is_changed_by_default(bench: Bench, box: Image, tmp_path: Path) -> None:
    assert bench.builder.push("box", f"oci:{tmp_path}/out:1") == box.descriptor
    assert manifest_at(tmp_path / "out", "1") == box.manifest


def test_the_destination_is_the_images_name(bench: Bench, box: Image) -> None:
    bench.store.images.tag(box, "registry.test/app:1")
    bench.builder.push("registry.test/app:1")
    bench.builder.push("app:1")
    bench.builder.push("box", "other.test/app")
    assert list(bench.remote.images) == ["registry.test/app:1", "other.test/app:latest"]


def test_an_image_without_a_name_needs_a_destination(bench: Bench, container: WorkingContainer) -> None:
    image = bench.builder.commit(container, CommitOptions())
    with pytest.raises(InvalidValue, match="no name to push it to"):
        bench.builder.push(str(image.id))


@pytest.mark.parametrize("compression", ["zstd", "none", "gzip"])
def test_another_compression_keeps_the_content(bench: Bench, box: Image, tmp_path: Path, compression: str) -> None:
    options = PushOptions(compression=compression)  # type: ignore[arg-type]  # one of them
    written = bench.builder.push("box", f"oci:{tmp_path}/out:1", options)
    found = manifest_at(tmp_path / "out", "1")
    assert {mediatype.compression_of(layer.media_type) for layer in found.layers} == {compression}
    assert found.config == box.manifest.config
    assert (written.digest == box.digest) == (compression == "gzip")
    bench.store.images.untag("localhost/box:latest")
    again = bench.builder.from_image(f"oci:{tmp_path}/out:1")
    assert bench.shell(again, "echo works") == "works\n"


def test_a_level_is_honoured_when_forced(bench: Bench, box: Image, tmp_path: Path) -> None:
    options = PushOptions(compression="gzip", compression_level=9, force_compression=True)
    bench.builder.push("box", f"oci:{tmp_path}/out:1", options)
    assert manifest_at(tmp_path / "out", "1").layers[0].size < box.manifest.layers[0].size


def test_another_format_keeps_the_blobs(bench: Bench, box: Image, tmp_path: Path) -> None:
    bench.builder.push("box", f"oci:{tmp_path}/out:1", PushOptions(format="docker"))
    found = manifest_at(tmp_path / "out", "1")
    assert found.media_type == mediatype.DOCKER_MANIFEST
    assert [layer.digest for layer in found.layers] == [layer.digest for layer in box.manifest.layers]
    assert found.config.digest == box.manifest.config.digest


def test_an_index_is_pushed_with_its_images(bench: Bench, container: WorkingContainer, tmp_path: Path) -> None:
    bench.builder.commit(container, CommitOptions(manifest="list"))
    index = bench.store.image("list")
    written = bench.builder.push("list", f"oci:{tmp_path}/out:1", PushOptions())
    assert written.digest == index.digest
    other = bench.builder.push("list", f"dir:{tmp_path}/other", PushOptions(format="docker"))
    assert other.media_type == mediatype.DOCKER_LIST
    for place in (f"oci:{tmp_path}/out:2", f"oci-archive:{tmp_path}/archive"):
        bench.builder.push("list", place, PushOptions(compression="zstd"))
        location = parse_location(place)
        assert location is not None
        source = open_source(location)
        top = parse(source.manifest()[1])
        assert isinstance(top, Index)
        inner = parse(source.child(top.manifests[0]))
        assert isinstance(inner, Manifest)
        assert all(layer.media_type.endswith("+zstd") for layer in inner.layers)
        assert validate(source) == ()


def test_what_cannot_be_pushed(bench: Bench, box: Image) -> None:
    with pytest.raises(NotFound, match="image not known: bix"):
        bench.builder.push("bix", "oci:/tmp/x")
    with pytest.raises(InvalidReference):
        bench.builder.push("box", "docker://Not A Name")
    with pytest.raises(Unsupported, match="transport is not supported"):
        bench.builder.push("box", "tarball:box")


def test_another_name_in_the_store(bench: Bench, box: Image) -> None:
    bench.builder.push("box", "containers-storage:copy:2")
    assert bench.store.image("copy:2").id == box.id
