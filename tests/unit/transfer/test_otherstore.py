"""`containers-storage:[…]NAME`: how the brackets are read, and what programs say that fail."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from builda.errors import CorruptContent, EngineError, InvalidReference, Unsupported
from builda.store import locks
from builda.transfer.copyimage import copy_image
from builda.transfer.locate import open_sink, open_source, parse_location
from builda.transfer.otherstore import OtherStoreSource, Place, other_store
from tests.support import needs
from tests.support.engines import other_store as podman_store
from tests.support.memory import index_of, random_image


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[]a:1", Place("", None, None, None, (), "a:1")),
        ("[overlay@/a+/b]c", Place("overlay@/a+/b", "overlay", "/a", "/b", (), "c")),
        ("[/a]c", Place("/a", None, "/a", None, (), "c")),
        ("[vfs@]c", Place("vfs@", "vfs", None, None, (), "c")),
        ("[overlay@/a+/b:x=1,y=2]@c", Place("overlay@/a+/b:x=1,y=2", "overlay", "/a", "/b", ("x=1", "y=2"), "@c")),
    ],
)
def test_a_store_is_read_as_skopeo_reads_it(text: str, place: Place) -> None:
    assert Place.parse(text) == place


@pytest.mark.parametrize("text", ["[", "[]", "[overlay@/a]", "[overlay@a]b", "[@/a]b", "[/a+b]c"])
def test_what_names_no_store_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Place.parse(text)


def test_without_their_programs_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="neither skopeo nor podman"):
        other_store("[]a")


@needs.program("skopeo")
@pytest.mark.root
def test_an_image_that_is_not_there_is_said_by_skopeo() -> None:
    with podman_store() as store, pytest.raises(EngineError, match=r"skopeo failed with status 1: .*nope"):
        OtherStoreSource(store.named("localhost/nope:1").partition(":")[2])


@needs.program("podman")
@pytest.mark.root
@pytest.mark.parametrize("image_format", ["oci", "docker"])
def test_podman_serves_where_there_is_no_skopeo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, image_format: str
) -> None:
    podman = shutil.which("podman")
    assert podman is not None
    (tmp_path / "podman").symlink_to(podman)
    monkeypatch.setenv("PATH", str(tmp_path))
    image = random_image(image_format=image_format)  # type: ignore[arg-type]  # literals
    with podman_store() as store:
        location = parse_location(store.named("localhost/a:1"))
        assert location is not None
        copy_image(image, open_sink(location))
        source = open_source(location)
        from builda.transfer.validate import validate

        assert validate(source) == ()
        assert str(image.image.config.digest).encode() in source.manifest()[1]
        with pytest.raises(EngineError, match="podman failed"):
            open_source(location._replace(where=location.where.replace("/a:1", "/none:1")))


def test_what_a_killed_process_left_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    start = f"builda-image-{os.geteuid()}-"
    (tmp_path / f"{start}dead" / "image").mkdir(parents=True)
    (tmp_path / "another").mkdir()
    held = locks.hold_directory(str(tmp_path / f"{start}held"))
    (tmp_path / "skopeo").write_text("#!/bin/sh\n")
    (tmp_path / "skopeo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sink = other_store("[]a")
    names = {path.name for path in tmp_path.iterdir()}
    assert f"{start}dead" not in names
    assert {f"{start}held", "another"} < names
    assert len(names) == 4
    del sink
    assert {path.name for path in tmp_path.iterdir()} == {f"{start}held", "another", "skopeo"}
    os.close(held)


@needs.program("skopeo")
def test_a_source_that_breaks_off_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    image = random_image()
    layer = image.image.layers[-1]
    image.blobs[layer.digest] = image.blobs[layer.digest][:-3]
    sink = other_store("[]localhost/a:1")
    with pytest.raises(CorruptContent):
        copy_image(image, sink)
    assert list(tmp_path.iterdir()) == []


def test_a_list_is_refused() -> None:
    with pytest.raises(Unsupported):
        copy_image(index_of(random_image()), other_store("[]a"))
