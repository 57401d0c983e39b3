from __future__ import annotations

import os
from pathlib import Path

import pytest

from builda.errors import AlreadyExists, CorruptContent, NotFound, Unsupported
from builda.transfer.copyimage import copy_image
from builda.transfer.flatdir import VERSION, DirectorySink, DirectorySource
from builda.transfer.validate import validate
from tests.support.memory import ARM64, MemoryImage, index_of, random_image


def test_the_directory_is_as_skopeo_writes_it(tmp_path: Path) -> None:
    image = random_image()
    copy_image(image, DirectorySink(str(tmp_path / "d")))
    manifest = image.blobs.pop(image.descriptor.digest)
    content = {path.name: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    assert content == {
        "version": VERSION,
        "manifest.json": manifest,
        **{digest.encoded: data for digest, data in image.blobs.items()},
    }


def test_children_of_an_index_have_names_of_their_own(tmp_path: Path) -> None:
    index = index_of(random_image(), random_image(platform=ARM64))
    copy_image(index, DirectorySink(str(tmp_path)))
    assert len(list(tmp_path.glob("*.manifest.json"))) == 2
    assert validate(DirectorySource(str(tmp_path))) == ()


def test_what_belonged_to_the_image_before_goes_and_nothing_else(tmp_path: Path) -> None:
    copy_image(index_of(random_image(1)), DirectorySink(str(tmp_path)))
    (tmp_path / "signature-1").touch()
    (tmp_path / "notes.txt").touch()
    copy_image(random_image(2), DirectorySink(str(tmp_path)))
    encoded = {digest.encoded for digest in random_image(2).blobs} - {random_image(2).descriptor.digest.encoded}
    assert set(os.listdir(tmp_path)) == {"version", "manifest.json", "notes.txt"} | encoded


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(AlreadyExists, match="something other than an image"):
        DirectorySink(str(tmp_path))
    assert os.listdir(tmp_path) == ["precious"]


def test_a_copy_that_failed_can_be_repeated(tmp_path: Path) -> None:
    bad = random_image()
    bad.blobs[bad.image.layers[1].digest] = b""
    with pytest.raises(CorruptContent):
        copy_image(bad, DirectorySink(str(tmp_path)))
    with pytest.raises(NotFound):
        DirectorySource(str(tmp_path)).manifest()
    copy_image(random_image(), DirectorySink(str(tmp_path)))
    assert validate(DirectorySource(str(tmp_path))) == ()


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFound, match="no image in the directory"):
            DirectorySource(str(path)).manifest()


def test_other_versions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("Directory Transport Version: 2.0\n")
    with pytest.raises(Unsupported, match="unsupported version"):
        DirectorySource(str(tmp_path))


def test_a_pipe_is_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(CorruptContent, match="not a regular file"):
        DirectorySource(str(tmp_path)).manifest()


def test_a_child_that_was_changed_is_found(tmp_path: Path) -> None:
    copy_image(index_of(random_image()), DirectorySink(str(tmp_path)))
    (path,) = tmp_path.glob("*.manifest.json")
    path.write_bytes(path.read_bytes().replace(b"gzip", b"zstd"))
    with pytest.raises(CorruptContent):
        copy_image(DirectorySource(str(tmp_path)), MemoryImage())
