from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builda.errors import AlreadyExists, BuildaError, CorruptContent, InvalidValue, NotFound, Unsupported
from builda.oci import mediatype
from builda.oci.manifest import MANIFEST_LIMIT
from builda.transfer.archive import OciArchiveSink, OciArchiveSource
from builda.transfer.copyimage import copy_image
from builda.transfer.dockerarchive import DockerArchiveSink, DockerArchiveSource
from builda.transfer.members import Members
from builda.transfer.ocilayout import LayoutSink
from builda.transfer.validate import validate
from tests.support.memory import MemoryImage, compressed, index_of, random_image, tar_of

Member = bytes | tuple[bytes, str]
"""A file's content, or a link's type and target."""


def archive(path: Path, members: Mapping[str, Member], form: int = tarfile.PAX_FORMAT) -> str:
    """A tar file with these members, made by another program than ours; its path."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return str(path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive with nothing wrong."""
    path = tmp_path_factory.mktemp("good") / "a.tar"
    copy_image(random_image(size=100), OciArchiveSink(str(path), "a:1"))
    return path.read_bytes()


def docker_members(image: MemoryImage, *, layer: str = "{}/layer.tar") -> dict[str, Member]:
    """What `docker save` writes of an image."""
    names = [layer.format(item.digest.encoded) for item in image.image.layers]
    config = f"{image.image.config.digest.encoded}.json"
    entry = {"Config": config, "RepoTags": ["localhost/a:1", "b:2"], "Layers": names}
    return {
        config: image.blobs[image.image.config.digest],
        **{name: image.blobs[item.digest] for name, item in zip(names, image.image.layers, strict=True)},
        "manifest.json": json.dumps([entry]).encode(),
    }


PLAIN = random_image(image_format="docker", compression="none")


def test_what_docker_saves_is_read(tmp_path: Path) -> None:
    source = DockerArchiveSource(archive(tmp_path / "a.tar", docker_members(PLAIN)), None)
    assert validate(source) == ()
    assert source.names == ("localhost/a:1", "b:2")
    copy_image(source, sink := MemoryImage())
    assert sink.blobs == PLAIN.blobs  # manifest included: layers and configuration are the same, so it is too


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers_are_taken_as_they_are(tmp_path: Path, compression: str) -> None:
    image = random_image(image_format="docker", compression=compression)  # type: ignore[arg-type]  # literals
    source = DockerArchiveSource(archive(tmp_path / "a.tar", docker_members(image)), None)
    copy_image(source, sink := MemoryImage())
    assert sink.blobs == image.blobs


@pytest.mark.parametrize("compression", ["bzip2", "xz"])
def test_layers_in_other_compressions_are_refused(tmp_path: Path, compression: str) -> None:
    import bz2
    import lzma

    members = docker_members(PLAIN)
    name = next(name for name in members if name.endswith("layer.tar"))
    content = members[name]
    assert isinstance(content, bytes)
    members[name] = bz2.compress(content) if compression == "bzip2" else lzma.compress(content)
    with pytest.raises(Unsupported, match=f"compressed with {compression}"):
        DockerArchiveSource(archive(tmp_path / "a.tar", members), None).manifest()


def test_layers_may_be_links_to_other_members(tmp_path: Path) -> None:
    members = docker_members(PLAIN)
    first, second = (name for name in members if name.endswith("layer.tar"))
    for number, (name, kind) in enumerate(((first, tarfile.SYMTYPE), (second, tarfile.LNKTYPE))):
        real = f"real{number}/layer.tar"
        members[real] = members[name]
        members[name] = kind, f"../{real}" if kind == tarfile.SYMTYPE else real
    assert validate(DockerArchiveSource(archive(tmp_path / "a.tar", members), None)) == ()
    members[first] = tarfile.SYMTYPE, "../one"
    members["one"] = tarfile.SYMTYPE, "./two"
    members["two"] = tarfile.SYMTYPE, "real0/layer.tar"
    assert validate(DockerArchiveSource(archive(tmp_path / "b.tar", members), None)) == ()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "../loop", "nowhere"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_never_lead_out_of_the_archive(tmp_path: Path, target: str, kind: bytes) -> None:
    members = docker_members(PLAIN)
    name = next(name for name in members if name.endswith("layer.tar"))
    members[name] = kind, target
    members["loop"] = kind, name
    with pytest.raises(NotFound, match="archive has no member"):
        DockerArchiveSource(archive(tmp_path / "a.tar", members), None).manifest()


@pytest.mark.parametrize("name", ["/etc/passwd", "../../etc/passwd"])
def test_names_are_never_paths_on_disk(tmp_path: Path, name: str) -> None:
    members = docker_members(PLAIN)
    entry = json.loads(members["manifest.json"])  # type: ignore[arg-type]  # bytes
    entry[0]["Config"] = name
    members["manifest.json"] = json.dumps(entry).encode()
    path = archive(tmp_path / "a.tar", members)
    with pytest.raises(NotFound, match="archive has no member"):
        DockerArchiveSource(path, None)
    members[name] = b"{}"
    with pytest.raises(CorruptContent, match="rootfs"):
        DockerArchiveSource(archive(tmp_path / "b.tar", members), None)


def test_one_of_several_images_is_named_or_counted(tmp_path: Path) -> None:
    other = random_image(7, image_format="docker", compression="none")
    members = {**docker_members(other), **docker_members(PLAIN)}
    entries = [json.loads(docker_members(image)["manifest.json"])[0] for image in (PLAIN, other)]  # type: ignore[arg-type]
    entries[1]["RepoTags"] = ["Not A Name", "docker.io/library/c:3"]
    members["manifest.json"] = json.dumps(entries).encode()
    path = archive(tmp_path / "a.tar", members)
    for name, image in (("localhost/a:1", PLAIN), ("b:2", PLAIN), ("c:3", other), ("@0", PLAIN), ("@1", other)):
        copy_image(DockerArchiveSource(path, name), sink := MemoryImage())
        assert sink.image.config.digest == image.image.config.digest
    for wanted, message in ((None, "2 images to choose from"), ("d:4", "no image d:4 in"), ("@2", "no image @2 in")):
        with pytest.raises(NotFound, match=message) as caught:
            DockerArchiveSource(path, wanted)
        assert "localhost/a:1" in str(caught.value.hint)


def changed(change: Callable[[Any], object]) -> Callable[[dict[str, Member]], None]:
    def apply(members: dict[str, Member]) -> None:
        entries = json.loads(members["manifest.json"])  # type: ignore[arg-type]  # bytes
        replaced = change(entries)
        members["manifest.json"] = json.dumps(entries if replaced is None else replaced).encode()

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.pop("manifest.json"), "not an archive of docker save"),
        (changed(lambda entries: {}), "is not a list of images"),
        (changed(lambda entries: [1]), "is not a list of images"),
        (changed(lambda entries: []), "no image in"),
        (changed(lambda entries: entries[0].pop("Config") and None), "names no Config"),
        (changed(lambda entries: entries[0].update(Config=1)), "names no Config"),
        (changed(lambda entries: entries[0].update(Layers="x")), "not an array of strings"),
        (changed(lambda entries: entries[0].update(Layers=[1])), "not an array of strings"),
        (changed(lambda entries: entries[0].update(RepoTags={"a": 1})), "not an array of strings"),
        (changed(lambda entries: entries[0]["Layers"].pop() and None), "lists 1 layers, its configuration 2"),
        (changed(lambda entries: entries[0].update(Layers=["x"] * 5000)), "more than 4096"),
        (lambda members: members.update({"manifest.json": b"["}), "is not JSON"),
        (lambda members: members.update({"manifest.json": b"[" * 100_000}), "is not JSON"),
        (lambda members: members.update({"manifest.json": b" " * (MANIFEST_LIMIT + 1)}), "more than the limit"),
    ],
)
def test_hostile_lists_are_refused(tmp_path: Path, change: Callable[[dict[str, Member]], object], message: str) -> None:
    members = docker_members(PLAIN)
    change(members)
    with pytest.raises(BuildaError, match=message):
        DockerArchiveSource(archive(tmp_path / "a.tar", members), None)


def test_a_changed_layer_is_found_when_it_is_read(tmp_path: Path) -> None:
    members = docker_members(PLAIN)
    name = next(name for name in members if name.endswith("layer.tar"))
    members[name] = tar_of({"other": b"content"})
    source = DockerArchiveSource(archive(tmp_path / "a.tar", members), None)
    with pytest.raises(CorruptContent, match="does not match its digest"):
        copy_image(source, MemoryImage())


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_archives_are_read_from_pipes_and_compressed(tmp_path: Path, kind: str) -> None:
    image = random_image(image_format="docker")
    plain = tmp_path / "plain.tar"
    sink, source = (
        (OciArchiveSink, OciArchiveSource) if kind == "oci-archive" else (DockerArchiveSink, DockerArchiveSource)
    )
    copy_image(image, sink(str(plain), "a:1"))
    for compression in ("gzip", "zstd"):
        (tmp_path / "packed").write_bytes(compressed(plain.read_bytes(), compression))
        assert validate(source(str(tmp_path / "packed"), None)) == ()
    os.mkfifo(tmp_path / "pipe")
    for content in (plain.read_bytes(), gzip.compress(plain.read_bytes())):
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
        writer.start()
        piped = source(str(tmp_path / "pipe"), None)
        writer.join()
        assert validate(piped) == ()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_tar_is_read(tmp_path: Path, form: int) -> None:
    long = "d/" * 60 + "layer.tar"
    members: dict[str, Member] = {"./a": b"one", long if form != tarfile.USTAR_FORMAT else "d/b": b"two" * 5000}
    found = Members(archive(tmp_path / "a.tar", members, form))
    assert [found.read(name, 1 << 20) for name in members] == list(members.values())
    with found.open("a", 1) as part:
        assert part.read() == b"ne"


def test_the_last_member_of_a_name_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    archive(path, {"a": b"first"})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("a")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"second"))
    assert Members(str(path)).read("a", 100) == b"second"


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["tar", "-C", tmp_path, "--sparse", "-cf", tmp_path / "a.tar", "sparse"], check=True)
    with pytest.raises(Unsupported, match="sparse"):
        Members(str(tmp_path / "a.tar")).read("sparse", 1 << 21)


def test_an_archive_that_ends_early_is_not_even_opened(tmp_path: Path, good: bytes) -> None:
    header = good.rindex(b"oci-layout")
    for size in (header // 2, header + 100, header + 512, header + 700):
        (tmp_path / "a.tar").write_bytes(good[:size])
        with pytest.raises(CorruptContent, match="truncated"):
            OciArchiveSource(str(tmp_path / "a.tar"), None)
    (tmp_path / "a.tar").write_bytes(good[: header + 1024])  # only the end mark is missing, as some programs have it
    assert OciArchiveSource(str(tmp_path / "a.tar"), None).names == ("a:1",)


@pytest.mark.parametrize("source", [OciArchiveSource, DockerArchiveSource])
def test_what_is_no_archive_is_named(tmp_path: Path, source: Any) -> None:
    with pytest.raises(NotFound, match="no such file or directory"):
        source(str(tmp_path / "missing"), None)
    with pytest.raises(InvalidValue, match="is a directory"):
        source(str(tmp_path), None)
    for content in (b"", b"x", b"x" * 4096, gzip.compress(b""), gzip.compress(b"x" * 1000)[:-9]):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(CorruptContent):
            source(str(tmp_path / "file"), None)


def test_the_other_kind_of_archive_is_recognised(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", docker_members(PLAIN))
    with pytest.raises(NotFound) as caught:
        OciArchiveSource(path, None)
    assert caught.value.hint == "use docker-archive:"
    copy_image(PLAIN, OciArchiveSink(str(tmp_path / "b.tar"), None))
    with pytest.raises(NotFound) as caught:
        DockerArchiveSource(str(tmp_path / "b.tar"), None)
    assert caught.value.hint == "use oci-archive:"


@pytest.mark.parametrize("sink", [OciArchiveSink, DockerArchiveSink])
def test_equal_images_make_equal_archives(tmp_path: Path, sink: Any) -> None:
    for name in ("one", "two"):
        copy_image(random_image(layers=5), sink(str(tmp_path / name), "a:1"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with tarfile.open(tmp_path / "one") as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
    blobs = [member.name for member in members if member.name not in ("index.json", "oci-layout", "manifest.json")]
    assert blobs == sorted(blobs)


def test_an_oci_archive_replaces_the_one_before(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tar")
    for seed in (1, 2):
        copy_image(random_image(seed), OciArchiveSink(path, "a:1"))
    source = OciArchiveSource(path, None)
    assert source.manifest()[0].digest == random_image(2).descriptor.digest
    assert source.names == ("a:1",)
    assert os.listdir(tmp_path) == ["a.tar"]


def test_an_archive_stays_readable_when_it_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tar")
    copy_image(random_image(1), OciArchiveSink(path, "a:1"))
    source = OciArchiveSource(path, None)
    copy_image(random_image(2), OciArchiveSink(path, "a:1"))
    assert validate(source) == ()


def test_through_a_link_the_file_behind_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.tar").symlink_to("real/a.tar")
    copy_image(random_image(), OciArchiveSink(str(tmp_path / "link.tar"), None))
    assert (tmp_path / "link.tar").is_symlink()
    assert validate(OciArchiveSource(str(tmp_path / "real" / "a.tar"), None)) == ()


def test_an_archive_goes_to_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    copy_image(random_image(), DockerArchiveSink(str(tmp_path / "pipe"), "a:1"))
    reader.join()
    (tmp_path / "a.tar").write_bytes(parts[0])
    assert validate(DockerArchiveSource(str(tmp_path / "a.tar"), "a:1")) == ()


def test_an_archive_goes_to_standard_output(tmp_path: Path) -> None:
    code = (
        "from builda.transfer.copyimage import copy_image; from builda.transfer.archive import OciArchiveSink;"
        "from tests.support.memory import random_image;"
        "copy_image(random_image(), OciArchiveSink('/dev/stdout', None))"
    )
    with open(tmp_path / "a.tar", "wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)  # a pipe first
        subprocess.run([sys.executable, "-c", code + ";import sys; sys.exit(0)"], stdout=out, check=True)
    assert os.path.islink("/dev/stdout")
    assert validate(OciArchiveSource(str(tmp_path / "a.tar"), None)) == ()


def test_a_docker_archive_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.touch()
    copy_image(PLAIN, DockerArchiveSink(str(path), None))
    before = path.read_bytes()
    with pytest.raises(AlreadyExists, match="cannot be added to"):
        DockerArchiveSink(str(path), "b:1")
    assert path.read_bytes() == before
    assert DockerArchiveSource(str(path), None).names == ()


def test_a_docker_archive_takes_no_index(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="single images"):
        copy_image(index_of(random_image()), DockerArchiveSink(str(tmp_path / "a.tar"), None))
    assert os.listdir(tmp_path) == []


def test_a_missing_directory_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file or directory"):
        copy_image(random_image(), OciArchiveSink(str(tmp_path / "a" / "b.tar"), None))
    assert os.listdir(tmp_path) == []


def test_an_archive_of_an_archive_of_a_layout_is_the_same_image(tmp_path: Path) -> None:
    image = random_image()
    copy_image(image, LayoutSink(str(tmp_path / "l"), "a:1"))
    from builda.transfer.ocilayout import LayoutSource

    copy_image(LayoutSource(str(tmp_path / "l"), None), OciArchiveSink(str(tmp_path / "a.tar"), "a:1"))
    copy_image(OciArchiveSource(str(tmp_path / "a.tar"), "a:1"), sink := MemoryImage())
    assert sink.blobs == image.blobs
    assert sink.descriptor.media_type == mediatype.MANIFEST
