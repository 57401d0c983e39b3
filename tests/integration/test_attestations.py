"""SBOMs and provenance of images: made by `bud` and `commit`, kept in the index, copied, pushed and read by others."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Builda
from tests.support import needs
from tests.support.registry import Registry
from tests.support.schemas import check_cyclonedx

pytestmark = pytest.mark.root
INSECURE = "--tls-verify=false"
EPOCH = "1700000000"
SLSA, SPDX, CYCLONEDX = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document", "https://cyclonedx.org/bom"
PACKAGE = "var/lib/dpkg/status.d/own"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context whose image has one package of Debian's."""
    place = tmp_path / "context"
    place.mkdir()
    (place / "own").write_text("Package: own\nVersion: 1.5\nArchitecture: all\n")
    (place / "Containerfile").write_text(f"FROM busybox AS below\nARG WHO=x\nFROM below\nCOPY own /{PACKAGE}\n")
    return place


def parsed(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def index_of(builda: Builda, name: str, *options: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = parsed(builda("image", "inspect", "--raw", *options, name))["manifests"]
    return entries


def provenance_of(builda: Builda, name: str, *options: str) -> dict[str, Any]:
    return parsed(builda("image", "inspect", "--provenance", *options, name))


def test_a_build_is_attached_to_its_image_as_buildkit_does(builda: Builda, base: str, context: Path) -> None:
    builda("bud", "-q", "--sbom=true", "--provenance=true", "-t", "app", context)
    image, about = index_of(builda, "app")
    assert image["platform"]["os"] == "linux"
    assert about["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert about["annotations"] == {
        "vnd.docker.reference.digest": image["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    builda("push", "app", f"oci:{context.parent}/layout:app")
    blobs = context.parent / "layout/blobs/sha256"
    manifest = parsed((blobs / about["digest"].partition(":")[2]).read_text())
    kinds = [layer["annotations"]["in-toto.io/predicate-type"] for layer in manifest["layers"]]
    assert kinds == [SPDX, SLSA]
    for layer in manifest["layers"]:
        assert layer["mediaType"] == "application/vnd.in-toto+json"
        said = parsed((blobs / layer["digest"].partition(":")[2]).read_text())
        assert said["_type"] == "https://in-toto.io/Statement/v1"
        assert said["predicateType"] == layer["annotations"]["in-toto.io/predicate-type"]
        assert said["subject"] == [{"name": "_", "digest": {"sha256": image["digest"].partition(":")[2]}}]
    assert parsed(builda("image", "inspect", "app"))["Attestations"] == [SLSA, SPDX]
    names = [one["name"] for one in parsed(builda("image", "sbom", "--attached", "app"))["packages"]]
    assert names == ["localhost/app", "own"]


def test_provenance_names_what_was_used_and_max_how(builda: Builda, base: str, context: Path) -> None:
    (context / "key").write_text("very-secret-value")
    options = ("--build-arg=WHO=https://user:hidden@host/", "--label=a=b", f"--secret=id=key,src={context}/key")
    for mode in ("min", "max"):
        builda("bud", "-q", f"--provenance=mode={mode},builder-id=urn:me", *options, "-t", mode, context)
    digest = parsed(builda("image", "inspect", base))["Digest"]
    least, most = (provenance_of(builda, mode) for mode in ("min", "max"))
    for found in (least, most):
        definition = found["buildDefinition"]
        assert definition["buildType"] == "urn:builda:build-type:containerfile:v1"
        files, used = sorted(definition["resolvedDependencies"], key=lambda one: "uri" in one)
        assert files["name"] == "context:own"
        assert used["uri"].startswith("pkg:docker/localhost/busybox@latest?platform=linux%2F")
        assert used["digest"] == {"sha256": digest.partition(":")[2]}
        assert definition["externalParameters"]["configSource"]["path"] == "Containerfile"
        assert found["runDetails"]["builder"]["id"] == "urn:me"
        assert found["runDetails"]["metadata"]["invocationId"]
        text = json.dumps(found)
        assert "very-secret-value" not in text
        assert "hidden" not in text
    assert list(least["buildDefinition"]["externalParameters"]["request"]) == ["platform"]
    assert list(least["buildDefinition"]["internalParameters"]) == ["builderPlatform"]
    request = most["buildDefinition"]["externalParameters"]["request"]
    assert request["buildArgs"] == {"WHO": "https://***@host/"}
    assert (request["labels"], request["secrets"]) == ({"a": "b"}, [{"id": "key"}])
    steps = most["buildDefinition"]["internalParameters"]["buildConfig"]["steps"]
    (copied,) = (step for step in steps if step["text"].startswith("COPY own"))
    assert copied["layer"] == parsed(builda("image", "inspect", "max"))["Layers"][-1]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing of it."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # the standard library's name
        """Say nothing."""


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory, and the URL that it is served under."""
    place = tmp_path / "served"
    place.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield place, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_what_a_build_fetches_is_named_with_its_digest(
    builda: Builda, base: str, tmp_path: Path, files: tuple[Path, str]
) -> None:
    served, url = files
    (served / "data").write_bytes(b"data")
    work = tmp_path / "work"
    work.mkdir()
    text = f"FROM scratch\nCOPY --from=localhost/busybox /etc/passwd /p\nADD {url}/data /d\n"
    (work / "Containerfile").write_text(text)
    git = ["git", "-C", str(work), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(served / "r.git")], check=True)
    subprocess.run(["git", "-C", str(served / "r.git"), "update-server-info"], check=True)
    builda("bud", "-q", "--provenance=max", "-t", "fetched", f"{url}/r.git")
    found = provenance_of(builda, "fetched")["buildDefinition"]
    used = {one["uri"].partition("?")[0]: one["digest"] for one in found["resolvedDependencies"]}
    assert used[f"{url}/r.git"] == {"gitCommit": commit}
    assert used[f"{url}/data"] == {"sha256": hashlib.sha256(b"data").hexdigest()}
    assert "pkg:docker/localhost/busybox@latest" in used
    assert found["externalParameters"]["configSource"]["digest"] == {"gitCommit": commit}
    container = builda("from", "scratch")
    builda("add", "-q", container, f"{url}/data", "/d")
    builda("copy", "-q", "--from=localhost/busybox", container, "/etc/passwd", "/p")
    builda("commit", "-q", "--rm", "--provenance=true", container, "script")
    script = provenance_of(builda, "script")["buildDefinition"]["resolvedDependencies"]
    assert {one["uri"].partition("?")[0]: one["digest"] for one in script} == {
        name: digest for name, digest in used.items() if not name.endswith(".git")
    }
    builda("bud", "-q", "--provenance=true", "-t", "local", work)
    assert provenance_of(builda, "local")["runDetails"]["metadata"]["builda_vcs"] == {"revision": commit}


def content(path: Path, *, mode: int = 0o644) -> str:
    """The digest that docs/attestations.md describes, of a file or of what a directory holds."""
    records = [record("f", path.name, mode, file_digest(path))] if path.is_file() else list(records_in(path, ""))
    return hashlib.sha256(b"".join(records)).hexdigest()


def record(kind: str, name: str, mode: int, data: bytes) -> bytes:
    return f"{kind}\0{name}\0{mode:o}\0\x000\0{len(data)}\0".encode() + data


def file_digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def records_in(directory: Path, prefix: str) -> Iterator[bytes]:
    yield record("d", prefix, directory.stat().st_mode & 0o7777, b"")
    for path in sorted(directory.iterdir(), key=lambda one: os.fsencode(one.name)):
        name = prefix + path.name
        if path.is_symlink():
            yield record("120000", name, 0, os.fsencode(os.readlink(path)))
        elif path.is_dir():
            yield from records_in(path, f"{name}/")
        else:
            yield record("f", name, path.stat().st_mode & 0o7777, file_digest(path))


def files_in(builda: Builda, name: str) -> dict[str, str]:
    """The files that the provenance names, and their digests."""
    found = provenance_of(builda, name)["buildDefinition"]["resolvedDependencies"]
    return {one["name"]: one["digest"]["builda_content"] for one in found if "name" in one}


def test_the_files_of_the_context_are_named_with_their_digest(builda: Builda, base: str, tmp_path: Path) -> None:
    work, other = tmp_path / "work", tmp_path / "other"
    for place in (work / "src/deep", other):
        place.mkdir(parents=True)
    texts = {"src/a": "a", "src/deep/b": "b" * 70_000, "one": "1", "unused": "x", "../other/f": "f"}
    for path, text in texts.items():
        (work / path).write_text(text)
        (work / path).chmod(0o640)
    (work / "src/link").symlink_to("deep/b")
    (work / ".dockerignore").write_text("src/noise\n")
    (work / "Containerfile").write_text(
        "FROM busybox AS first\nCOPY src /src\nFROM busybox\nCOPY --chmod=600 --chown=1:1 one /\nADD one /two\n"
        "COPY --from=named f /\nCOPY <<END /text\ninline\nEND\nCOPY --from=first /src/a /a\n"
        "RUN --mount=type=bind,source=src,target=/m true\n"
    )
    expected = {
        "context:src": content(work / "src"),
        "context:one": content(work / "one", mode=0o640),
        "context(named):f": content(other / "f", mode=0o640),
    }
    (work / "src/noise").write_text("ignored")
    build = ("bud", "-q", "--provenance=true", f"--build-context=named={other}", "-t", "app")
    for options in ((), (), ("--no-cache",), ("--layers=false",)):  # performed, found, performed without looking
        builda(*build, *options, work)
        assert files_in(builda, "app") == expected
    (work / "src/a").write_text("changed")
    builda(*build, work)
    changed = files_in(builda, "app")
    assert changed.pop("context:src") != expected.pop("context:src")
    assert changed == expected
    container = builda("from", "scratch")
    builda("copy", "-q", container, other, work / "one", "/")
    builda("commit", "-q", "--rm", "--provenance=true", container, "script")
    assert list(files_in(builda, "script")) == ["files:other one"]


def test_a_script_says_how_it_made_its_image(builda: Builda, base: str, context: Path) -> None:
    container = builda("from", base)
    builda("copy", "-q", "--add-history", container, context / "own", f"/{PACKAGE}")
    builda("config", "--add-history", "--env", "A=1", container)
    printed = builda("commit", "-q", "--rm", "--sbom=cyclonedx", "--provenance=mode=max", container, "script")
    found = provenance_of(builda, "script")["buildDefinition"]
    assert found["buildType"] == "urn:builda:build-type:script:v1"
    files, below = found["resolvedDependencies"]
    assert files == {"name": "files:own", "digest": {"builda_content": content(context / "own")}}
    assert below["uri"].startswith("pkg:docker/localhost/busybox@latest")
    assert any("A=1" in step["text"] for step in found["internalParameters"]["buildConfig"]["steps"])
    assert index_of(builda, printed) == index_of(builda, "script")
    document = builda("image", "sbom", "--attached", "script")
    check_cyclonedx(document)
    assert [one["name"] for one in parsed(document)["components"]] == ["own"]
    assert "nothing of type" in builda.fails("image", "sbom", "--attached", "--format=spdx", "script")
    assert "nothing is attached" in builda.fails("image", "inspect", "--provenance", base)
    container = builda("from", "script")  # an image as any other
    assert builda("run", container, "cat", f"/{PACKAGE}").startswith("Package: own")


def test_the_same_build_at_the_same_time_has_the_same_digest(builda: Builda, base: str, context: Path) -> None:
    options = ("--no-cache", "--sbom=spdx,cyclonedx", "--provenance=max", f"--source-date-epoch={EPOCH}")
    found = []
    for _ in range(2):
        builda("bud", "-q", *options, "-t", "same", context)
        found.append(index_of(builda, "same"))
    assert found[0] == found[1]


def test_attestations_go_with_the_image_and_a_pull_takes_the_image(
    builda: Builda, base: str, context: Path, server: Registry, tmp_path: Path
) -> None:
    name = server.name("attested")
    options = ("--sbom=true", "--provenance=max", INSECURE)
    builda("bud", "-q", *options, "-t", "app", "-t", f"docker://{name}:direct", context)
    entries = index_of(builda, "app")
    builda("push", INSECURE, "app", f"docker://{name}:1")
    assert index_of(builda, f"docker://{name}:1", INSECURE) == entries
    assert len(index_of(builda, f"docker://{name}:direct", INSECURE)) == 2
    files = (f"oci:{tmp_path}/layout:a", f"dir:{tmp_path}/directory")
    for place in (f"docker://{name}:2", *files, "containers-storage:copied"):
        builda("image", "copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false",
               f"docker://{name}:1", place)  # fmt: skip
        assert index_of(builda, place, INSECURE) == entries
        assert parsed(builda("image", "sbom", "--attached", INSECURE, place))["spdxVersion"] == "SPDX-2.3"
    other = Builda(tmp_path / "other", tmp_path / "other-run")
    other("pull", "-q", INSECURE, f"docker://{name}:1")
    assert parsed(other("image", "inspect", "-n", f"{name}:1"))["Digest"] == entries[0]["digest"]
    (tmp_path / "Containerfile").write_text(f"FROM {name}:1\n")
    other("bud", "-q", INSECURE, "--pull=always", "-t", "built", tmp_path)
    builda("manifest", "create", "list")
    builda("manifest", "add", INSECURE, "--all", "list", f"docker://{name}:1")
    assert index_of(builda, "list") == entries
    assert builda("fsck") == ""


@needs.program("skopeo")
@needs.program("podman")
def test_other_programs_read_what_was_pushed(
    builda: Builda, base: str, context: Path, server: Registry, tmp_path: Path
) -> None:
    name = server.name("others")
    builda("bud", "-q", "--sbom=true", "--provenance=true", "-t", "app", context)
    builda("push", INSECURE, "app", f"docker://{name}:1")
    skopeo = ["skopeo", "--insecure-policy"]
    seen = subprocess.run(
        [*skopeo, "inspect", "--tls-verify=false", f"docker://{name}:1"], check=True, capture_output=True, text=True
    ).stdout
    assert parsed(seen)["Layers"] == parsed(builda("image", "inspect", "app"))["Layers"]
    copied = [*skopeo, "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}:1", f"oci:{tmp_path}/all:a"]
    subprocess.run(copied, check=True)
    assert index_of(builda, f"oci:{tmp_path}/all:a") == index_of(builda, "app")
    with tempfile.TemporaryDirectory(prefix="b") as short:  # podman wants a short path
        podman = ["podman", "--root", f"{short}/p", "--runroot", f"{short}/r", "--storage-driver", "vfs"]
        podman += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        command = [*podman, "pull", "--quiet", "--tls-verify=false", f"{name}:1"]
        pulled = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    config = builda("image", "inspect", "--raw", "--config", "app")
    assert pulled == hashlib.sha256(config.encode()).hexdigest()


def test_several_platforms_have_an_sbom_each(builda: Builda, context: Path) -> None:
    (context / "Containerfile").write_text(f"FROM scratch\nCOPY own /{PACKAGE}\n")
    builda("bud", "-q", "--platform=linux/amd64,linux/arm64", "--sbom=true", "--attest=type=provenance,mode=max", "-t",
           "both", context)  # fmt: skip
    entries = index_of(builda, "both")
    assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm64", "unknown", "unknown"]
    for platform in ("linux/amd64", "linux/arm64"):
        assert provenance_of(builda, "both", "--platform", platform)["buildDefinition"]["externalParameters"] == {
            "configSource": provenance_of(builda, "both")["buildDefinition"]["externalParameters"]["configSource"],
            "request": {"platform": platform},
        }
    builda("bud", "-q", "--sbom=true", "--manifest", "both", context)
    again = index_of(builda, "both")
    assert [entry["platform"]["architecture"] for entry in again].count("unknown") == 2
    assert "--sbom-output is for one platform" in builda.fails(
        "bud", "--platform=linux/amd64,linux/arm64", "--sbom=syft", "--sbom-output", context / "x", context
    )


def test_files_are_written_as_buildahs_presets_say(builda: Builda, base: str, context: Path, tmp_path: Path) -> None:
    output, urls = tmp_path / "sbom.json", tmp_path / "purl.json"
    builda(
        "bud", "-q", "--sbom=syft-spdx", "--sbom-output", output, "--sbom-purl-output", urls,
        "--sbom-image-output=/root/sbom.json", "--sbom-image-purl-output=/root/purl.json", "-t", "files", context,
    )  # fmt: skip
    assert [one["name"] for one in parsed(output.read_text())["packages"]] == ["localhost/files", "own"]
    assert parsed(urls.read_text()) == {"image_contents": {"dependencies": ["pkg:deb/debian/own@1.5?arch=all"]}}
    assert "manifests" not in parsed(builda("image", "inspect", "--raw", "files"))
    container = builda("from", "files")
    assert builda("run", container, "cat", "/root/sbom.json") + "\n" == output.read_text()
    assert builda("run", container, "cat", "/root/purl.json") + "\n" == urls.read_text()
    builda("commit", "-q", "--sbom=trivy", "--sbom-output", output, container, "again")
    assert parsed(output.read_text())["bomFormat"] == "CycloneDX"
    builda("bud", "-q", "--format=docker", "--sbom=syft", "--sbom-image-output=/s.json", "-t", "docker", context)
    assert builda("image", "check", "containers-storage:docker") == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sbom=syft",), "needs --sbom-output"),
        (("--sbom-output=x",), "--sbom-output needs --sbom"),
        (("--sbom=odd",), "unknown --sbom: odd"),
        (("--sbom=generator=x/y",), "runs no generator"),
        (("--sbom=syft", "--sbom-scanner-image=x"), "runs no scanner"),
        (("--sbom=syft", "--sbom-scanner-command=x"), "runs no scanner"),
        (("--sbom=syft", "--sbom-merge-strategy=cat"), "nothing to merge"),
        (("--provenance=mode=most",), "unknown mode of provenance: most"),
        (("--provenance=mode=max,version=v0.2",), "only of v1"),
        (("--provenance=mode=max,odd=1",), "provenance has no odd"),
        (("--attest=type=vex",), "unknown type of --attest"),
        (("--attest=type=sbom,generator=x",), "runs no generator"),
        (("--sbom=syft", "--sbom-image-output=../x"), "not the path of a file in the image"),
        (("--sbom=syft", "--sbom-image-output=/a/.wh.x"), "not the path of a file in the image"),
        (("--sbom=syft", "--sbom-output=/nowhere/x"), "no such file or directory: /nowhere/x"),
    ],
)
def test_what_cannot_be_said_is_refused_before_anything_is_done(
    builda: Builda, base: str, context: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in builda.fails("bud", *options, context)
    container = builda("from", base)
    assert said in builda.fails("commit", *options, container, "none")
    assert builda.run("exists", "localhost/none", check=False).returncode != 0


def test_outputs_get_the_files_of_the_image_or_all_of_the_list(builda: Builda, base: str, context: Path) -> None:
    there = context.parent
    files = there / "metadata.json"
    builda("bud", "-q", "--sbom=true", "-t", "app", "-o", there / "out", "--metadata-file", files, context)
    assert (there / "out" / PACKAGE).read_text().startswith("Package: own")
    said = parsed(files.read_text())
    raw = builda("image", "inspect", "--raw", "--config", "app")
    assert said["containerimage.config.digest"] == f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"
    assert said["containerimage.descriptor"]["mediaType"].endswith("index.v1+json")
    builda("bud", "-q", "--sbom=true", "-o", f"type=oci,dest={there}/o.tar", context)
    assert len(index_of(builda, f"oci-archive:{there}/o.tar")) == 2


def test_places_for_single_images_are_refused_before_the_build(builda: Builda, base: str, context: Path) -> None:
    for option in ("-t", "--output"):
        place = f"docker-archive:{context}/x:y" if option == "-t" else f"type=docker,dest={context}/x"
        assert "docker-archive holds single images" in builda.fails("bud", "--sbom=true", option, place, context)
    assert "cannot be used with --print-script" in builda.fails("bud", "--sbom=true", "--print-script", context)
    assert builda("bud", "-q", "--sbom=false", "--provenance=false", "--attest=type=sbom,disabled=true", context)
