from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Literal

import pytest

from builda.errors import BuildaError, CorruptContent, NotFound, Unsupported
from builda.oci.manifest import MANIFEST_LIMIT
from builda.transfer.copyimage import copy_image
from builda.transfer.ocilayout import CONTAINERD_NAME, REF_NAME, LayoutSink, LayoutSource
from builda.transfer.validate import validate
from tests.support.memory import MemoryImage, index_of, random_image


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A layout with one image, called a:1."""
    copy_image(random_image(), LayoutSink(str(tmp_path / "layout"), "a:1"))
    return tmp_path / "layout"


def source(layout: Path, name: str | None = None) -> LayoutSource:
    return LayoutSource(str(layout), name)


def index(layout: Path) -> dict[str, object]:
    value: dict[str, object] = json.loads((layout / "index.json").read_bytes())
    return value


def test_the_layout_is_what_the_specification_says(layout: Path) -> None:
    image = random_image()
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert index(layout)["manifests"] == [
        {**image.descriptor.to_json(), "annotations": {REF_NAME: "a:1"}},
    ]
    names = {path.name for path in (layout / "blobs" / "sha256").iterdir()}
    assert names == {digest.encoded for digest in image.blobs}


def test_images_are_found_by_name_place_or_because_they_are_alone(layout: Path) -> None:
    assert source(layout).manifest()[0].digest == random_image().descriptor.digest
    copy_image(random_image(1), LayoutSink(str(layout), "b:1"))
    assert source(layout, "b:1").manifest()[0].digest == random_image(1).descriptor.digest
    assert source(layout, "@0").manifest()[0].digest == random_image().descriptor.digest
    assert source(layout, "@1").names == ("b:1",)
    for name, message in ((None, "2 images to choose from"), ("c:1", "no image c:1 in"), ("@2", "no image @2 in")):
        with pytest.raises(NotFound, match=message) as caught:
            source(layout, name)
        assert caught.value.hint == "it has: a:1, b:1"


def test_one_image_under_two_names_is_one_to_choose_from(layout: Path) -> None:
    copy_image(random_image(), LayoutSink(str(layout), "b:1"))
    assert source(layout).manifest()[0].digest == random_image().descriptor.digest


def test_a_name_that_containerd_gave_is_a_name(layout: Path) -> None:
    value = index(layout)
    value["manifests"][0]["annotations"] = {CONTAINERD_NAME: "docker.io/library/a:1", REF_NAME: "1"}  # type: ignore[index]
    (layout / "index.json").write_text(json.dumps(value))
    assert source(layout, "docker.io/library/a:1").names == ("1", "docker.io/library/a:1")


def test_what_others_wrote_into_the_index_stays(layout: Path) -> None:
    value = {**index(layout), "annotations": {"org.example": "x"}, "org.example.more": [1]}
    value["manifests"].append({**random_image(3).descriptor.to_json(), "data": "e30="})  # type: ignore[attr-defined]
    (layout / "index.json").write_text(json.dumps(value))
    copy_image(random_image(1), LayoutSink(str(layout), "a:1"))
    changed = index(layout)
    assert changed["annotations"] == {"org.example": "x"}
    assert changed["org.example.more"] == [1]
    assert [item["digest"] for item in changed["manifests"]] == [  # type: ignore[attr-defined]
        str(random_image(3).descriptor.digest),
        str(random_image(1).descriptor.digest),
    ]


def test_without_a_name_an_image_is_added_once(tmp_path: Path) -> None:
    for seed in (1, 2, 1):
        copy_image(random_image(seed), LayoutSink(str(tmp_path), None))
    assert len(index(tmp_path)["manifests"]) == 2  # type: ignore[arg-type]


def test_many_writers_lose_no_name(tmp_path: Path) -> None:
    def write(seed: int) -> None:
        copy_image(random_image(seed), LayoutSink(str(tmp_path / "l"), f"image:{seed}"))

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(8):
        assert validate(source(tmp_path / "l", f"image:{seed}")) == ()


def test_nothing_but_the_layout_is_left(layout: Path) -> None:
    files = [path.relative_to(layout) for path in layout.rglob("*") if path.is_file()]
    assert {path.parts[0] for path in files} == {"oci-layout", "index.json", "blobs"}
    assert not [path for path in files if path.name.startswith(".")]


def test_blobs_are_files_of_their_own(layout: Path, tmp_path: Path) -> None:
    copy_image(source(layout), LayoutSink(str(tmp_path / "copy"), None))
    for path in (tmp_path / "copy" / "blobs" / "sha256").iterdir():
        twin = layout / "blobs" / "sha256" / path.name
        assert (path.stat().st_nlink, path.stat().st_ino == twin.stat().st_ino) == (1, False)
    assert validate(source(tmp_path / "copy")) == ()


def test_a_damaged_local_blob_is_not_copied(layout: Path, tmp_path: Path) -> None:
    layer = random_image().image.layers[0]
    path = layout / "blobs" / "sha256" / layer.digest.encoded
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(CorruptContent, match="does not match its digest"):
        copy_image(source(layout), LayoutSink(str(tmp_path / "copy"), None))
    assert not (tmp_path / "copy" / "index.json").exists()
    assert not (tmp_path / "copy" / "blobs" / "sha256" / layer.digest.encoded).exists()


def test_a_blob_of_wrong_size_is_written_again(layout: Path) -> None:
    layer = random_image().image.layers[0]
    path = layout / "blobs" / "sha256" / layer.digest.encoded
    path.write_bytes(b"")
    copy_image(random_image(), LayoutSink(str(layout), "a:1"))
    assert validate(source(layout)) == ()
    assert not [name for name in os.listdir(path.parent) if name.startswith(".")]


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_what_is_no_layout_is_named(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "file":
        path.touch()
    if what == "empty":
        path.mkdir()
    with pytest.raises(NotFound, match="not an OCI image layout") as caught:
        source(path)
    assert caught.value.hint == "it lacks oci-layout or index.json"


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("oci-layout", b"{}", CorruptContent),
        ("oci-layout", b"x", CorruptContent),
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}', Unsupported),
        ("index.json", b"[]", CorruptContent),
        ("index.json", b"{}", CorruptContent),
        ("index.json", b'{"manifests":{}}', CorruptContent),
        ("index.json", b'{"manifests":[1]}', CorruptContent),
        ("index.json", b'{"manifests":[{"digest":"sha256:../../../x"}]}', CorruptContent),
        ("index.json", b'{"manifests":null}', NotFound),
        ("index.json", b" " * (MANIFEST_LIMIT + 1), CorruptContent),
    ],
)
def test_hostile_layouts_are_refused(layout: Path, name: str, content: bytes, error: type[BuildaError]) -> None:
    (layout / name).write_bytes(content)
    with pytest.raises(error):
        source(layout)


@pytest.mark.parametrize("name", ["oci-layout", "index.json", "blob"])
@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_what_is_no_file_is_never_waited_for(
    layout: Path, name: str, kind: Literal["fifo", "device", "directory"]
) -> None:
    path = layout / name
    if name == "blob":
        path = layout / "blobs" / "sha256" / random_image().image.layers[0].digest.encoded
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "directory":
            path.mkdir()
    with pytest.raises(CorruptContent):
        copy_image(source(layout), MemoryImage())


def test_a_sink_makes_nothing_before_something_comes(tmp_path: Path) -> None:
    sink = LayoutSink(str(tmp_path / "a" / "b"), None)
    assert not sink.has_blob(random_image().image.config)
    assert not (tmp_path / "a").exists()
    copy_image(index_of(random_image()), sink)
    assert validate(source(tmp_path / "a" / "b")) == ()
