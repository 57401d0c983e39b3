"""Images in files between builda and the tools people have: each reads what the other wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builda.oci.manifest import Manifest, parse
from builda.transfer.copyimage import ImageSource, copy_image
from builda.transfer.locate import open_sink, open_source, parse_location
from builda.transfer.validate import validate
from tests.conftest import Builda
from tests.support import needs
from tests.support.memory import ARM64, MemoryImage, image_of, index_of, random_image

SKOPEO = shutil.which("skopeo")
PODMAN = shutil.which("podman")
KINDS = ("oci", "oci-archive", "docker-archive", "dir")
pytestmark = needs.program("skopeo")


def skopeo(*arguments: str) -> str:
    assert SKOPEO is not None
    done = subprocess.run([SKOPEO, "--insecure-policy", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def place(kind: str, path: Path) -> str:
    return f"{kind}:{path}" + ("" if kind == "dir" else ":localhost/a:1")


def source(text: str) -> ImageSource:
    location = parse_location(text)
    assert location is not None
    return open_source(location)


def write(image: MemoryImage, text: str) -> None:
    location = parse_location(text)
    assert location is not None
    copy_image(image, open_sink(location))


def config_of(found: ImageSource) -> str:
    descriptor, data = found.manifest()
    document = parse(data, descriptor.media_type)
    assert isinstance(document, Manifest)
    return str(document.config.digest)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image_format", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_skopeo_reads_what_we_write(tmp_path: Path, kind: str, image_format: str, compression: str) -> None:
    if image_format == "docker" and (compression == "zstd" or kind.startswith("oci")):
        return  # skopeo knows no such layers, and no Docker manifests in layouts: `push` converts them
    image = random_image(image_format=image_format, compression=compression)  # type: ignore[arg-type]  # literals
    text = place(kind, tmp_path / "ours")
    write(image, text)
    told = json.loads(skopeo("inspect", text))
    assert told["Labels"] == {"org.example.a": "b"}
    assert len(told["Layers"]) == 2
    if kind != "docker-archive":
        assert told["Digest"] == str(image.descriptor.digest)
    skopeo("copy", text, f"oci:{tmp_path / 'copy'}:x")
    copy = source(f"oci:{tmp_path / 'copy'}:x")
    assert validate(copy) == ()
    if image_format == "oci" and compression != "none" and kind != "docker-archive":
        assert copy.manifest()[1] == image.blobs[image.descriptor.digest]


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_what_skopeo_writes(tmp_path: Path, kind: str) -> None:
    image = random_image(layers=3)
    write(image, f"oci:{tmp_path / 'ours'}:x")
    text = place(kind, tmp_path / "theirs")
    skopeo("copy", f"oci:{tmp_path / 'ours'}:x", text)
    found = source(text)
    assert validate(found) == ()
    assert config_of(found) == str(image.image.config.digest)
    copy_image(found, MemoryImage())


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "dir"])
def test_indexes_go_both_ways_whole(tmp_path: Path, kind: str) -> None:
    index = index_of(random_image(), random_image(platform=ARM64))
    text = place(kind, tmp_path / "ours")
    write(index, text)
    skopeo("copy", "--all", text, f"dir:{tmp_path / 'theirs'}")
    copy_image(source(f"dir:{tmp_path / 'theirs'}"), sink := MemoryImage())
    assert sink.blobs == index.blobs
    assert validate(source(f"dir:{tmp_path / 'theirs'}")) == ()


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_skopeo_adds_to_a_layout_of_ours_and_we_to_one_of_theirs(tmp_path: Path, kind: str) -> None:
    write(random_image(1), f"oci:{tmp_path / 'ours'}:one:1")
    write(random_image(2), place(kind, tmp_path / "other"))
    skopeo("copy", place(kind, tmp_path / "other"), f"oci:{tmp_path / 'ours'}:two:2")
    write(random_image(3), f"oci:{tmp_path / 'ours'}:three:3")
    for name in ("one:1", "two:2", "three:3"):
        assert validate(source(f"oci:{tmp_path / 'ours'}:{name}")) == ()
        skopeo("inspect", f"oci:{tmp_path / 'ours'}:{name}")


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[list[str]]:
    if PODMAN is None:
        pytest.skip("podman is not installed")
    with tempfile.TemporaryDirectory(prefix="p") as runroot:  # podman allows it 50 characters
        yield [PODMAN, "--root", str(tmp_path / "root"), "--runroot", runroot, "--storage-driver", "vfs"]


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_podman_loads_what_we_write_and_we_read_what_it_saves(tmp_path: Path, podman: list[str], kind: str) -> None:
    image = image_of(({"etc/one": b"1"}, {"etc/two": b"2"}))
    write(image, place(kind, tmp_path / "ours.tar"))
    assert "localhost/a:1" in output(*podman, "load", "-i", str(tmp_path / "ours.tar"))
    (shown,) = json.loads(output(*podman, "image", "inspect", "localhost/a:1"))
    assert shown["RootFS"]["Layers"] == [str(diff_id) for diff_id in image.config.diff_ids]
    assert shown["Id"] == image.image.config.digest.encoded
    output(*podman, "tag", "localhost/a:1", "localhost/b:2")
    extra = ["localhost/b:2"] if kind == "docker-archive" else []
    output(*podman, "save", "--format", kind, "-o", str(tmp_path / "theirs.tar"), "localhost/a:1", *extra)
    found = source(f"{kind}:{tmp_path / 'theirs.tar'}")
    assert validate(found) == ()
    assert config_of(found) == str(image.image.config.digest)


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
def test_skopeo_reads_a_docker_image_that_we_push_or_commit(
    builda: Builda, base: str, tmp_path: Path, kind: str
) -> None:
    container = builda("from", base)
    builda("config", "--healthcheck", "CMD true", container)
    text = place(kind, tmp_path / "committed")
    builda("commit", "--format", "docker", container, text)
    builda("commit", "--format", "docker", container, "localhost/a:1")
    builda("push", "localhost/a:1", place(kind, tmp_path / "pushed"))
    for there in (text, place(kind, tmp_path / "pushed")):
        config = json.loads(skopeo("inspect", "--config", "--raw", there))
        assert config["config"] == config["container_config"]
        assert config["config"]["Healthcheck"]["Test"]
        assert validate(source(there)) == ()


@pytest.mark.root
def test_an_archive_without_a_name_given_keeps_its_own(builda: Builda, base: str, tmp_path: Path) -> None:
    builda("push", base, f"docker-archive:{tmp_path / 'a.tar'}:quay.io/x/y:z")
    builda("pull", f"docker-archive:{tmp_path / 'a.tar'}")
    assert "quay.io/x/y:z" in builda("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()


@pytest.mark.root
def test_archives_pass_through_a_pipe(builda: Builda, base: str, tmp_path: Path) -> None:
    builda_command = " ".join(builda.command)
    script = (
        f"set -o pipefail; {builda_command} push -q {base} oci-archive:/dev/stdout:quay.io/x/y:z"
        f" | gzip | {builda_command} pull -q oci-archive:/dev/stdin:quay.io/x/y:z"
    )
    assert output("bash", "-c", script).strip()
    assert "quay.io/x/y:z" in builda("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()


def test_members_of_an_archive_are_listed_by_any_tar(tmp_path: Path) -> None:
    write(random_image(), place("docker-archive", tmp_path / "a.tar"))
    names = output("tar", "-tf", str(tmp_path / "a.tar")).split()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == names
    assert names[-1] == "manifest.json"
