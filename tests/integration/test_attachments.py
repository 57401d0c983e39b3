"""`image copy --attachments`: what cosign keeps under tags, and what refers to an image, comes along."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest

from builda.oci import mediatype
from builda.oci.digest import Digest
from tests.conftest import Builda
from tests.support import images
from tests.support.registry import Answer, Asked, Registry, scripted

pytestmark = [pytest.mark.root, pytest.mark.network]
BOTH = ("--src-tls-verify=false", "--dest-tls-verify=false")
COPY = ("image", "copy", "-q", *BOTH, "--attachments")
EMPTY = "application/vnd.oci.empty.v1+json"
MADE = images.simple(12)


class Memory:
    """A registry in memory, which lists referrers by itself."""

    def __init__(self) -> None:
        self.manifests: dict[str, tuple[str, bytes]] = {}  # by tag and by digest
        self.blobs: dict[str, bytes] = {}

    def __call__(self, asked: Asked) -> Answer:
        path, _, name = urlsplit(asked.path).path.rpartition("/")
        kind = path.rpartition("/")[2]
        if kind == "referrers":
            return self._referrers(name)
        if kind == "manifests":
            return self._manifest(asked, name)
        if asked.method == "POST":
            return Answer(202, headers={"Location": f"{path}/uploads/x"})
        if asked.method == "PUT":
            self.blobs[str(Digest.of(asked.body))] = asked.body
            return Answer(201)
        if kind == "blobs":
            found = self.blobs.get(name)
            return Answer(404) if found is None else Answer(body=found)
        return Answer()

    def _manifest(self, asked: Asked, name: str) -> Answer:
        if asked.method == "PUT":
            digest = str(Digest.of(asked.body))
            self.manifests[name] = self.manifests[digest] = asked.headers["Content-Type"], asked.body
            return Answer(201, headers={"Docker-Content-Digest": digest})
        if name not in self.manifests:
            return Answer(404)
        media_type, data = self.manifests[name]
        return Answer(body=data, headers={"Content-Type": media_type, "Docker-Content-Digest": str(Digest.of(data))})

    def _referrers(self, name: str) -> Answer:
        found = []
        for digest, (media_type, data) in self.manifests.items():
            if digest.startswith("sha256:") and json.loads(data).get("subject", {}).get("digest") == name:
                found.append({"mediaType": media_type, "digest": digest, "size": len(data)})
        index = {"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": found}
        return Answer(body=json.dumps(index).encode(), headers={"Content-Type": mediatype.INDEX})


def request(method: str, url: str, body: bytes = b"", media_type: str = "application/x") -> str:
    """The Location of the answer."""
    asked = urllib.request.Request(url, data=body or None, method=method, headers={"Content-Type": media_type})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return answer.headers.get("Location") or ""


def put_blob(repository: str, data: bytes, media_type: str) -> dict[str, object]:
    host = repository.partition("/v2/")[0]
    location = request("POST", f"{repository}/blobs/uploads/")
    place = location if location.startswith("http") else host + location
    digest = Digest.of(data)
    request("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", data)
    return {"mediaType": media_type, "digest": str(digest), "size": len(data)}


def put(repository: str, version: str | None, layers: Mapping[bytes, Mapping[str, str]], **more: object) -> Digest:
    """The repository has an artifact of these layers with their annotations, by a tag or by its digest alone."""
    value: dict[str, object] = {"schemaVersion": 2, "mediaType": mediatype.MANIFEST, **more}
    value["config"] = put_blob(repository, b"{}", EMPTY)
    value["layers"] = [
        {**put_blob(repository, data, "application/x-test"), "annotations": dict(annotations)}
        for data, annotations in layers.items()
    ]
    data = json.dumps(value).encode()
    digest = Digest.of(data)
    request("PUT", f"{repository}/manifests/{version or digest}", data, mediatype.MANIFEST)
    return digest


def got(repository: str, version: object) -> dict[str, object] | None:
    asked = urllib.request.Request(f"{repository}/manifests/{version}")
    asked.add_header("Accept", f"{mediatype.MANIFEST}, {mediatype.INDEX}")
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            value: dict[str, object] = json.loads(answer.read())
            return value
    except HTTPError as error:
        if error.code == 404:
            return None
        raise


def with_image(builda: Builda, directory: Path, address: str, name: str) -> tuple[str, str]:
    """The image is in the registry; the URL of its repository, and what builda calls it."""
    layout = images.write_layout(directory / "layout", MADE, "localhost/x:1")
    builda(
        "image", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:localhost/x:1", f"docker://{address}/{name}:1"
    )
    return f"http://{address}/v2/{name}", f"docker://{address}/{name}:1"


SUBJECT = {"mediaType": MADE.descriptor.media_type, "digest": str(MADE.descriptor.digest), "size": MADE.descriptor.size}
TAG = f"sha256-{MADE.descriptor.digest.encoded}"


def test_what_cosign_keeps_under_tags_comes_along(builda: Builda, server: Registry, tmp_path: Path) -> None:
    here, image = with_image(builda, tmp_path, server.address, "tagged")
    there, goal = f"http://{server.address}/v2/goal", f"docker://{server.address}/goal:2"
    made = {ending: put(here, f"{TAG}.{ending}", {ending.encode(): {"a": ending}}) for ending in ("sig", "att", "sbom")}
    signed = put(here, f"sha256-{made['sbom'].encoded}.sig", {b"of the SBOM": {}})
    builda("image", "copy", "-q", *BOTH, image, goal)
    assert got(there, f"{TAG}.att") is None
    for _ in range(2):
        builda(*COPY, image, goal)
    for ending in made:
        assert got(there, f"{TAG}.{ending}") == got(here, f"{TAG}.{ending}")
    assert got(there, f"sha256-{made['sbom'].encoded}.sig") == got(here, signed)


def test_what_is_attached_already_stays(builda: Builda, server: Registry, tmp_path: Path) -> None:
    here, image = with_image(builda, tmp_path, server.address, "more")
    there, goal = f"http://{server.address}/v2/own", f"docker://{server.address}/own:1"
    put(here, f"{TAG}.att", {b"both": {"by": "x"}, b"new": {}})
    put(there, f"{TAG}.att", {b"both": {"by": "x"}, b"own": {}})
    builda(*COPY, image, goal)
    found = got(there, f"{TAG}.att")
    assert found is not None
    assert [one["digest"] for one in found["layers"]] == [  # type: ignore[attr-defined]  # as JSON
        str(Digest.of(data)) for data in (b"both", b"own", b"new")
    ]


@pytest.mark.parametrize("lists", ["neither", "source", "destination", "both"])
def test_what_refers_to_an_image_comes_along(builda: Builda, server: Registry, tmp_path: Path, lists: str) -> None:
    """Registries list what refers to a manifest, or clients do it under a tag."""
    with scripted(Memory()) as memory:
        first = memory.address if lists in ("source", "both") else server.address
        second = memory.address if lists in ("destination", "both") else server.address
        here, image = with_image(builda, tmp_path, first, f"of-{lists}")
        there, goal = f"http://{second}/v2/to-{lists}", f"docker://{second}/to-{lists}:1"
        sbom = put(here, None, {b"sbom": {}}, artifactType="application/spdx+json", subject=SUBJECT)
        about = described(here, sbom)
        signature = put(here, None, {b"signature": {}}, artifactType="application/x-signature", subject=about)
        stranger = put(here, None, {b"stranger": {}}, artifactType="application/x-other")
        if first == server.address:
            gone = put(here, None, {b"gone": {}}, subject=SUBJECT)
            put_list(here, TAG, [described(here, one) for one in (sbom, stranger, gone)])
            request("DELETE", f"{here}/manifests/{gone}")
            put_list(here, f"sha256-{sbom.encoded}", [described(here, signature)])
        for _ in range(2):
            builda(*COPY, image, goal)
        assert got(there, sbom) == got(here, sbom)
        assert got(there, signature) == got(here, signature)
        if second == server.address:
            assert got(there, stranger) is None
            assert entries(got(there, TAG)) == [str(sbom)]
            assert entries(got(there, f"sha256-{sbom.encoded}")) == [str(signature)]
        else:
            assert got(there, TAG) is None


def described(repository: str, digest: Digest) -> dict[str, object]:
    asked = urllib.request.Request(f"{repository}/manifests/{digest}", headers={"Accept": mediatype.MANIFEST})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return {"mediaType": mediatype.MANIFEST, "digest": str(digest), "size": len(answer.read())}


def put_list(repository: str, tag: str, listed: list[dict[str, object]]) -> None:
    value = {"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": listed}
    request("PUT", f"{repository}/manifests/{tag}", json.dumps(value).encode(), mediatype.INDEX)


def entries(found: dict[str, object] | None) -> list[str]:
    assert found is not None
    return [one["digest"] for one in found["manifests"]]  # type: ignore[attr-defined]  # as JSON


def test_many_images_bring_their_attachments(builda: Builda, server: Registry, tmp_path: Path) -> None:
    here, _ = with_image(builda, tmp_path, server.address, "synced")
    put(here, f"{TAG}.att", {b"statement": {}})
    (tmp_path / "list.yaml").write_text(json.dumps({server.address: {"images": {"synced": ["1"]}}}))  # JSON is YAML
    sync = ("image", "sync", "-q", *BOTH, "--attachments", "--src", "yaml", tmp_path / "list.yaml")
    builda(*sync, "--dest", "docker", f"{server.address}/mirror")
    assert got(f"http://{server.address}/v2/mirror/synced", f"{TAG}.att") == got(here, f"{TAG}.att")
    assert "only images in registries have attachments" in builda.fails(*sync, "--dest", "dir", tmp_path / "place")


def test_attachments_go_where_they_can_be_and_stay_true(builda: Builda, server: Registry, tmp_path: Path) -> None:
    _, image = with_image(builda, tmp_path, server.address, "refused")
    goal = f"docker://{server.address}/never:1"
    for arguments, words in (
        ((image, f"oci:{tmp_path}/x:1"), "only images in registries have attachments"),
        ((f"oci:{tmp_path}/layout:localhost/x:1", goal), "only images in registries have attachments: oci:"),
        (("--format", "v2s2", image, goal), "--attachments cannot be used with another format"),
        (("--dest-compress-format", "zstd", image, goal), "--attachments cannot be used with another format"),
        (("--remove-signatures", image, goal), "--attachments cannot be used with --remove-signatures"),
    ):
        assert words in builda.fails(*COPY, *arguments)
    assert got(f"http://{server.address}/v2/never", "1") is None


def lying(asked: Asked) -> Answer:
    """A registry with a web page in place of a list of referrers."""
    name = asked.path.rpartition("/")[2]
    if "/referrers/" in asked.path:
        return Answer(200, b"<html>", {"Content-Type": "text/html"})
    if "/manifests/" in asked.path:
        return Answer(404) if "." in name else Answer(body=MADE.raw, headers={"Content-Type": MADE.value["mediaType"]})
    return Answer()


def test_a_registry_that_lists_a_web_page(builda: Builda, server: Registry) -> None:
    with scripted(lying) as liar:
        said = builda.fails(
            *COPY, "--retry-times=0", f"docker://{liar.address}/x:1", f"docker://{server.address}/lied:1"
        )
    assert "cannot list what refers to" in said
    assert "not JSON" in said
    assert got(f"http://{server.address}/v2/lied", "1") is None


class Lying(Memory):
    """Lists each referrer a hundred times, with a wrong type and size, and the image as referring to itself."""

    def _referrers(self, name: str) -> Answer:
        listed = json.loads(super()._referrers(name).body)
        wrong = [{**one, "mediaType": mediatype.INDEX, "size": 7} for one in listed["manifests"]]
        itself = {"mediaType": mediatype.INDEX, "digest": name, "size": 1 << 60}
        value = {**listed, "manifests": [itself, *wrong * 100]}
        return Answer(body=json.dumps(value).encode(), headers={"Content-Type": mediatype.INDEX})


def test_what_a_registry_says_of_its_referrers_is_not_believed(
    builda: Builda, server: Registry, tmp_path: Path
) -> None:
    with scripted(Lying()) as liar:
        repository, image = with_image(builda, tmp_path, liar.address, "lies")
        digest = put(repository, None, {b"bill": {}}, subject=SUBJECT)
        liar.asked.clear()
        builda(*COPY, image, f"docker://{server.address}/true:1")
        asked = [one.path for one in liar.asked if one.path.endswith(f"/manifests/{digest}")]
    there = got(f"http://{server.address}/v2/true", TAG)
    assert there is not None
    entry = json.loads(json.dumps(there["manifests"]))
    assert [(one["digest"], one["mediaType"]) for one in entry] == [(str(digest), mediatype.MANIFEST)]
    assert entry[0]["size"] == len(json.dumps(got(f"http://{server.address}/v2/true", digest)))
    assert len(asked) < 5
