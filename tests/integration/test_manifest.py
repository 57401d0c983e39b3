"""Lists of images: joined from stores and registries without a layer, kept whole, pushed, and read by the peers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builda.oci.digest import Digest
from tests.conftest import Builda
from tests.support.registry import Registry, registry

pytestmark = pytest.mark.root
INSECURE = "--tls-verify=false"
HERE = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
OTHER = "arm64" if HERE == "amd64" else "amd64"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with app:amd64 and app:arm64, each pushed by a machine of its own, and both:1 with both."""
    with registry() as found:
        for architecture in ("amd64", "arm64"):
            machine = store_in(tmp_path_factory.mktemp(architecture))
            made(machine, architecture, f"app:{architecture}")
            machine("push", "-q", INSECURE, f"app:{architecture}", found.name(f"app:{architecture}"))
            machine("push", "-q", INSECURE, f"app:{architecture}", found.name(f"both:{architecture}"))
        joiner = store_in(tmp_path_factory.mktemp("joiner"))
        joiner("manifest", "create", INSECURE, "both", found.name("both:amd64"), found.name("both:arm64"))
        joiner("manifest", "push", "-q", INSECURE, "both", found.name("both:1"))
        yield found


def store_in(directory: Path) -> Builda:
    return Builda(directory / "store", directory / "run")


def made(builda: Builda, architecture: str, name: str) -> str:
    """An image of one small layer for an architecture; its digest."""
    container = builda("from", "scratch")
    context = builda.root.parent / f"content-{architecture}"
    context.write_text(f"{architecture}\n" * 1000)
    builda("copy", container, context, "/content")
    builda("config", "--arch", architecture, "--os", "linux", container)
    builda("commit", "-q", "--rm", container, name)
    return builda("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", name)


def listed(builda: Builda, name: str) -> list[dict[str, Any]]:
    """The entries of a list."""
    found: list[dict[str, Any]] = json.loads(builda("manifest", "inspect", INSECURE, name))["manifests"]
    return found


def platforms(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["platform"]["architecture"] for entry in entries]


def requests(server: Registry, before: int) -> list[str]:
    """Method and path of what the registry was asked since its log had `before` characters, but for its base URL."""
    found = re.findall(r'"(\w+) (/v2/\S*) HTTP/', server.log()[before:])
    return [f"{method} {path}" for method, path in found if path != "/v2/"]


def blobs(builda: Builda) -> set[str]:
    return {path.name for path in (builda.root / "blobs/sha256").iterdir()}


def test_two_machines_build_a_third_joins_and_pushes(builda: Builda, server: Registry, tmp_path: Path) -> None:
    """The usual loop of CI."""
    builda("manifest", "create", "app:1")
    for architecture in ("amd64", "arm64"):
        before = len(server.log())
        said = builda("manifest", "add", INSECURE, "app:1", f"docker://{server.name(f'app:{architecture}')}")
        asked = requests(server, before)
        assert len(asked) == 2, asked
        assert asked[0] == f"GET /v2/app/manifests/{architecture}"
        assert re.fullmatch("[0-9a-f]{64}: sha256:[0-9a-f]{64}", said)
    assert platforms(listed(builda, "app:1")) == ["amd64", "arm64"]
    layers = {layer for entry in listed(builda, "app:1") for layer in layers_of(builda, entry["digest"])}
    assert len(layers) == 2
    assert not layers & blobs(builda)
    assert builda("fsck") == ""
    builda("prune")
    assert builda("fsck") == ""

    digestfile = tmp_path / "digest"
    builda("manifest", "push", "-q", INSECURE, "--digestfile", digestfile, "app:1", f"docker://{server.name('app:1')}")
    assert not layers & blobs(builda)
    raw = peer("skopeo", "inspect", "--raw", INSECURE, f"docker://{server.name('app:1')}")
    assert str(Digest.of(raw.encode())) == digestfile.read_text()
    assert platforms(json.loads(raw)["manifests"]) == ["amd64", "arm64"]
    for architecture in ("amd64", "arm64"):
        found = json.loads(
            peer("skopeo", "--override-arch", architecture, "inspect", INSECURE, f"docker://{server.name('app:1')}")
        )
        assert found["Architecture"] == architecture


def test_pushing_beside_the_images_sends_nothing_but_the_list(builda: Builda, server: Registry) -> None:
    for architecture in ("amd64", "arm64"):
        builda("manifest", "create", INSECURE, "--amend", "app:1", server.name(f"app:{architecture}"))
    before = len(server.log())
    builda("manifest", "push", "-q", INSECURE, "app:1", server.name("app:joined"))
    assert [line.split()[0] for line in requests(server, before)] == ["HEAD", "HEAD", "HEAD", "PUT"]


def test_what_the_store_lacks_is_mounted_or_copied_from_where_it_was(builda: Builda, server: Registry) -> None:
    builda("manifest", "create", "--all", INSECURE, "app:1", server.name("both:1"))
    before = len(server.log())
    builda("manifest", "push", "-q", INSECURE, "app:1", server.name("mounted:1"))
    assert not [line for line in requests(server, before) if line.startswith("PATCH")]
    assert "mount=" in "".join(requests(server, before))
    with registry(basic=True) as other:
        said = builda.fails("manifest", "push", "-q", INSECURE, "app:1", other.name("app:1"))
        assert "401" in said or "unauthorized" in said.lower()
        before = len(server.log())
        builda("manifest", "push", "-q", INSECURE, "--creds", "alice:wonder:land", "app:1", other.name("app:1"))
        assert len([line for line in requests(server, before) if line.startswith("GET /v2/both/blobs/")]) == 4
    assert builda("fsck") == ""


def test_a_list_is_a_base_whatever_has_its_layers(builda: Builda, server: Registry, tmp_path: Path) -> None:
    builda("manifest", "create", "--all", INSECURE, "app:1", server.name("both:1"))
    assert "list names no stored image for" in builda.fails("from", "--pull=never", "app:1")
    container = builda("from", "-q", "app:1")
    root = builda("mount", container)
    assert os.listdir(root) == ["content"]
    builda("umount", container)
    (tmp_path / "Containerfile").write_text("FROM localhost/app:1\nLABEL a=b\n")
    builda("bud", "-q", "-t", "result", tmp_path)
    builda("manifest", "push", "-q", "app:1", f"oci:{tmp_path / 'layout'}:app")
    assert platforms(layout_entries(tmp_path / "layout")) == ["amd64", "arm64"]


def layout_entries(path: Path) -> list[dict[str, Any]]:
    """What the only list of a layout names."""
    top = json.loads((path / "index.json").read_text())["manifests"][0]["digest"]
    found: list[dict[str, Any]] = json.loads((path / "blobs/sha256" / top.partition(":")[2]).read_text())["manifests"]
    return found


def test_peers_read_a_list_of_images_from_two_places(builda: Builda, server: Registry) -> None:
    made(builda, HERE, "mine")
    builda("manifest", "create", INSECURE, "app:1", "mine", server.name(f"app:{OTHER}"))
    builda("manifest", "push", "-q", INSECURE, "app:1", server.name("peers:1"))
    name = server.name("peers:1")
    conf = builda.root.parent / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{server.address}"\ninsecure = true\n')
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # podman takes no longer ones
        storage = ("--storage-driver=vfs", f"--root={short}/r", f"--runroot={short}/v")
        found = json.loads(peer("podman", *storage, "manifest", "inspect", name, CONTAINERS_REGISTRIES_CONF=str(conf)))
        assert platforms(found["manifests"]) == [HERE, OTHER]
        policy = builda.root.parent / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        peer("buildah", *storage, "pull", "-q", INSECURE, f"--signature-policy={policy}", f"docker://{name}")
        architecture = ("inspect", "--type=image", "--format={{.OCIv1.Architecture}}", name)
        assert peer("buildah", *storage, *architecture).strip() == HERE
    raw = json.loads(peer("skopeo", "inspect", "--raw", INSECURE, f"docker://{name}"))
    assert platforms(raw["manifests"]) == [HERE, OTHER]
    lines = ("inspect", INSECURE, "--format", r"{{.Name}}\n{{.Digest}}", f"docker://{name}")
    assert builda.run("image", *lines).stdout == peer("skopeo", *lines)


def test_docker_s_format_converts_the_images_too(builda: Builda, server: Registry) -> None:
    builda("manifest", "create", "--all", INSECURE, "app:1", server.name("both:1"))
    builda("manifest", "push", "-q", INSECURE, "-f", "v2s2", "app:1", server.name("docker:1"))
    name = f"docker://{server.name('docker:1')}"
    raw = json.loads(peer("skopeo", "inspect", "--raw", INSECURE, name))
    assert raw["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert {entry["mediaType"] for entry in raw["manifests"]} == {
        "application/vnd.docker.distribution.manifest.v2+json"
    }
    assert json.loads(peer("skopeo", "--override-arch", OTHER, "inspect", INSECURE, name))["Architecture"] == OTHER
    before = listed(builda, "app:1")
    builda("manifest", "push", "-q", INSECURE, "-f", "oci", "app:1", server.name("oci:1"))
    assert listed(builda, server.name("oci:1")) == before


def test_images_are_added_in_another_compression(builda: Builda, server: Registry, tmp_path: Path) -> None:
    builda("manifest", "create", "--all", INSECURE, "twice", server.name("both:1"))
    before = listed(builda, "twice")
    line = ("manifest", "push", "-q", INSECURE, "twice")
    builda(*line, "--add-compression", "zstd,gzip", f"docker://{server.name('twice:1')}")
    for place in (f"oci:{tmp_path / 'layout'}:x", f"oci-archive:{tmp_path / 'a.tar'}:x"):
        builda(*line, "--add-compression", "zstd", place)
        builda("image", "check", place)
    raw = builda("image", "inspect", "--raw", INSECURE, f"docker://{server.name('twice:1')}")
    assert raw == builda("image", "inspect", "--raw", f"oci-archive:{tmp_path / 'a.tar'}:x")
    entries = json.loads(raw)["manifests"]
    assert entries[: len(before)] == before
    assert platforms(entries) == ["amd64", "arm64"] * 2
    assert [entry.get("annotations") for entry in entries[2:]] == [
        {"io.github.containers.compression.zstd": "true"}
    ] * 2
    builda("image", "check", INSECURE, f"docker://{server.name('twice:1')}")
    assert listed(builda, "twice") == before
    builda("pull", "-q", INSECURE, server.name("twice:1"))
    assert "--all=false" in builda.fails(*line, "--all=false", "--add-compression", "zstd", f"oci:{tmp_path}/l:x")
    assert "not supported: xz" in builda.fails(*line, "--add-compression", "xz", f"oci:{tmp_path}/l:x")
    said = builda.fails(*line, "--format", "v2s2", "--add-compression", "zstd", f"dir:{tmp_path}/d")
    assert "a list in Docker's format" in said


def test_an_image_is_listed_once_and_a_platform_twice_only_if_that_is_asked_for(builda: Builda) -> None:
    digest = made(builda, "amd64", "one")
    builda("manifest", "create", "l", "one")
    same = builda("manifest", "add", "l", "one")
    assert same == builda("manifest", "add", "l", "one")
    (builda.root.parent / "content-amd64").write_text("other")
    container = builda("from", "one")
    builda("config", "--label", "a=b", container)
    builda("commit", "-q", "--rm", container, "two")
    other = builda("inspect", "--type", "image", "--format", "{{.FromImageDigest}}", "two")
    said = builda.fails("manifest", "add", "l", "two")
    assert f"list has another image for linux/amd64: {digest}" in said
    assert "--replace" in said
    assert [entry["digest"] for entry in listed(builda, "l")] == [digest]
    builda("manifest", "add", "--allow-duplicate", "l", "two")
    assert [entry["digest"] for entry in listed(builda, "l")] == [digest, other]
    builda("manifest", "remove", "l", "two")
    builda("manifest", "add", "--replace", "l", "two")
    assert [entry["digest"] for entry in listed(builda, "l")] == [other]
    builda("manifest", "add", "--os-version", "10", "l", "one")
    assert len(listed(builda, "l")) == 2
    builda("commit", "-q", "--manifest", "l", builda("from", "one"))
    assert builda("images", "-q", "--filter", "dangling=true", "--filter", "manifest=true") == ""


def test_a_list_says_what_it_was_told(builda: Builda) -> None:
    digest = made(builda, "amd64", "one")
    identity = builda("manifest", "create", "--annotation", "of=list,and=more", "l")
    added = builda(
        "manifest", "add", "--os", "windows", "--arch=arm", "--variant=v7", "--os-version", "10.0", "--os-features",
        "win32k,x", "--features", "sse4", "--annotation", "a=1,b=2", "l", "one",
    )  # fmt: skip
    assert added != f"{identity}: {digest}"
    annotated = builda("manifest", "annotate", "--annotation", "b=3", "--variant", "v6", "l", digest)
    assert annotated.endswith(f": {digest}")
    builda("manifest", "annotate", "--index", "--annotation", "and=less", "l")
    builda("manifest", "annotate", "--subject", "one", "l")
    found = json.loads(builda("manifest", "inspect", "l"))
    assert found["annotations"] == {"of": "list", "and": "less"}
    assert found["subject"]["digest"] == digest
    assert found["manifests"] == [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": found["manifests"][0]["size"],
            "annotations": {"a": "1", "b": "3"},
            "platform": {
                "architecture": "arm",
                "os": "windows",
                "os.version": "10.0",
                "os.features": ["win32k", "x"],
                "variant": "v6",
                "features": ["sse4"],
            },
        }
    ]
    assert builda("manifest", "remove", "l", digest).endswith(f": {digest}")
    assert listed(builda, "l") == []


def test_lists_have_names_of_their_own(builda: Builda) -> None:
    made(builda, "amd64", "one")
    builda("manifest", "create", "a")
    builda("manifest", "create", "b")
    builda("manifest", "add", "a", "one")
    assert (len(listed(builda, "a")), len(listed(builda, "b"))) == (1, 0)
    assert "name is taken: localhost/a:latest" in builda.fails("manifest", "create", "a")
    assert "name is taken" in builda.fails("manifest", "create", "one")
    builda("manifest", "create", "--replace", "a")
    assert listed(builda, "a") == []
    builda("manifest", "create", "--amend", "one")
    assert platforms(listed(builda, "one")) == ["amd64"]
    builda.run("manifest", "exists", "a")
    for missing in ("nosuch", "sha256:" + "0" * 64):
        assert builda.run("manifest", "exists", missing, check=False).returncode == 1
    made(builda, "amd64", "image")
    assert builda.run("manifest", "exists", "image", check=False).returncode == 1
    assert "is an image, not a list: image" in builda.fails("manifest", "rm", "image")
    identity = builda("images", "-q", "--no-trunc", "one").removeprefix("sha256:")
    assert builda("manifest", "rm", "one").splitlines() == ["untagged: localhost/one:latest", identity]
    builda.run("exists", "image")


def test_a_list_by_its_id_keeps_its_name(builda: Builda) -> None:
    digest = made(builda, "amd64", "one")
    builda("manifest", "create", "a", "one")
    identity = builda("images", "-q", "a")
    changed = builda("manifest", "remove", identity, digest).partition(":")[0]
    assert builda("images", "-q", "a") == changed[:12]
    builda("tag", "a", "b")
    assert "list has several names" in builda.fails("manifest", "add", changed, "one")


def test_files_become_an_artifact_of_the_list(builda: Builda, server: Registry, tmp_path: Path) -> None:
    digest = made(builda, "amd64", "one")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "data").write_bytes(b"\0\1")
    builda("manifest", "create", "l", "one")
    builda(
        "manifest", "add", "--artifact", "--artifact-type", "application/x-notes", "--artifact-subject", "one",
        "--artifact-annotation", "k=v", "--annotation", "entry=1", "l", tmp_path / "notes.txt", tmp_path / "data",
    )  # fmt: skip
    entry = listed(builda, "l")[1]
    assert entry["artifactType"] == "application/x-notes"
    assert entry["annotations"] == {"entry": "1"}
    manifest = json.loads((builda.root / "blobs/sha256" / entry["digest"][7:]).read_text())
    assert manifest["subject"]["digest"] == digest
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    assert [(layer["mediaType"], layer["annotations"]) for layer in manifest["layers"]] == [
        ("text/plain", {"org.opencontainers.image.title": "notes.txt"}),
        ("application/octet-stream", {"org.opencontainers.image.title": "data"}),
    ]
    builda("manifest", "push", "-q", INSECURE, "l", server.name("artifact:1"))
    peer(
        "skopeo",
        "copy",
        "--all",
        "--src-tls-verify=false",
        f"docker://{server.name('artifact:1')}",
        f"dir:{tmp_path}/d",
    )
    assert builda("fsck") == ""
    builda("prune")
    assert builda("fsck") == ""
    assert "--artifact-type needs --artifact" in builda.fails("manifest", "add", "--artifact-type", "x", "l", "one")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in builda.fails("manifest", "add", "--artifact", "l", tmp_path / "pipe")


EXAMPLES = """
buildah manifest create mylist:v1.11
buildah manifest create --amend mylist:v1.11
buildah manifest exists mylist:v1.11
buildah manifest add mylist:v1.11 docker://fedora
buildah manifest add --all mylist:v1.11 docker://fedora
buildah manifest add --arch arm64 --variant v8 mylist:v1.11 docker://fedora@DIGEST
buildah manifest annotate --arch arm64 --variant v8 mylist:v1.11 DIGEST
buildah manifest inspect mylist:v1.11
buildah manifest push mylist:v1.11 registry.example.org/mylist:v1.11
buildah manifest remove mylist:v1.11 DIGEST
buildah manifest-rm mylist:v1.11
buildah manifest create mylist:v1.11 docker://fedora
buildah manifest rm mylist:v1.11
buildah manifest create --all mylist:v1.11 docker://fedora
"""


def test_the_examples_of_buildah_s_pages_run_as_written(builda: Builda, server: Registry, tmp_path: Path) -> None:
    builda("manifest", "create", "--all", INSECURE, "fedora", server.name("both:1"))
    builda("manifest", "push", "-q", INSECURE, "fedora", server.name("library/fedora:latest"))
    digest = next(entry["digest"] for entry in listed(builda, "fedora") if entry["platform"]["architecture"] == "arm64")
    conf = tmp_path / "registries.conf"
    conf.write_text(
        "".join(
            f'[[registry]]\nprefix = "{prefix}"\nlocation = "{server.address}{suffix}"\ninsecure = true\n'
            for prefix, suffix in (("docker.io/library", "/library"), (server.address, ""))
        )
    )
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "buildah").symlink_to(builda.command[0])
    environ = {
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "CONTAINERS_REGISTRIES_CONF": str(conf),
        "BUILDA_ROOT": str(builda.root),
        "BUILDA_RUNROOT": str(builda.runroot),
        "HOME": str(tmp_path),
    }
    script = EXAMPLES.replace("DIGEST", digest).replace("registry.example.org", server.address)
    done = subprocess.run(["sh", "-e", "-c", script], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert platforms(listed(builda, "mylist:v1.11")) == ["amd64", "arm64"]


def layers_of(builda: Builda, digest: str) -> list[str]:
    manifest = json.loads((builda.root / "blobs/sha256" / digest.partition(":")[2]).read_text())
    return [layer["digest"].partition(":")[2] for layer in manifest["layers"]]


def peer(program: str, *arguments: str | Path, **environ: str) -> str:
    path = shutil.which(program)
    assert path is not None, f"{program} is not installed"
    policy = ["--insecure-policy"] if program == "skopeo" else []
    command = [path, *policy, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
