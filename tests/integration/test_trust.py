"""Signatures: what policy.json wants of images is there before anything of them is taken, and skopeo agrees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builda.oci.digest import Digest
from tests.conftest import Builda
from tests.support import needs
from tests.support import registry as support
from tests.support.signing import Gpg, gpg, payload

SKOPEO = shutil.which("skopeo")
pytestmark = [pytest.mark.root, needs.program("skopeo"), needs.program("gpg")]
PLAIN = ("--tls-verify=false", "--retry=0")
BOTH = ("--src-tls-verify=false", "--dest-tls-verify=false")
REJECT = [{"type": "reject"}]


@pytest.fixture(scope="module")
def server() -> Iterator[support.Registry]:
    with support.registry() as running:
        yield running


@pytest.fixture(scope="module")
def keys() -> Iterator[Gpg]:
    with gpg() as made:
        made.make("good")
        made.make("other")
        yield made


class Trust:
    """A user with a policy, places for signatures and keys of others."""

    def __init__(self, builda: Builda, home: Path, keys: Gpg) -> None:
        self.builda = builda
        self.home = home
        self.keys = keys
        self.containers = home / ".config/containers"
        self.lookaside = home / "lookaside"
        self.public = home / "good.gpg"
        self.policy = self.containers / "policy.json"
        (self.containers / "registries.d").mkdir(parents=True)
        self.public.write_bytes(keys.public("good"))
        self.storage(lookaside=f"file://{self.lookaside}")
        builda.environ.update(HOME=str(home), GNUPGHOME=keys.home)

    def storage(self, **section: object) -> None:
        """What registries.d says of all registries."""
        text = json.dumps({"default-docker": section})  # JSON is YAML
        (self.containers / "registries.d/all.yaml").write_text(text)

    def signed_by(self, **more: object) -> dict[str, object]:
        return {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(self.public), **more}

    def wants(self, *rules: dict[str, object], transport: str = "docker", scope: str = "") -> None:
        """Images of this scope need all of this, others are rejected."""
        self.policy.write_text(json.dumps({"default": REJECT, "transports": {transport: {scope: rules}}}))

    def skopeo(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        assert SKOPEO is not None
        options = ["--policy", str(self.policy), "--registries.d", str(self.containers / "registries.d")]
        done = subprocess.run(
            [SKOPEO, *options, *map(str, arguments)],
            capture_output=True,
            text=True,
            env={**self.keys.environ, "HOME": str(self.home)},
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def accept_all(self) -> None:
        self.policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def put(self, name: str, content: bytes, number: int = 1) -> None:
        """A file of the storage is the signature of the image that a registry has under the name."""
        rest = name.partition("/")[2]
        digest = digest_of(name).encoded
        path = self.lookaside / f"{rest.rpartition(':')[0]}@sha256={digest}/signature-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def digest_of(name: str) -> Digest:
    """The digest that a name in a registry means."""
    assert SKOPEO is not None
    command = [SKOPEO, "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    return Digest.of(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.fixture
def trust(builda: Builda, keys: Gpg, tmp_path: Path) -> Trust:
    return Trust(builda, tmp_path / "home", keys)


@pytest.fixture
def image(builda: Builda, server: support.Registry, base: str, request: pytest.FixtureRequest) -> str:
    """The name of an unsigned image in the registry, another one for each test."""
    name = server.name(f"t{abs(hash(request.node.name))}/app:1")
    builda("push", "-q", "--tls-verify=false", base, name)
    return name


def pulled(trust: Trust, name: str, *options: str) -> str:
    return trust.builda("pull", "-q", "--policy=always", *PLAIN, *options, name)


def refused(trust: Trust, name: str, *options: str) -> str:
    before = set(trust.builda("images", "-aq").split()), _blobs(trust.builda)
    said = trust.builda.fails("pull", "-q", "--policy=always", *PLAIN, *options, name)
    assert (set(trust.builda("images", "-aq").split()), _blobs(trust.builda)) == before
    return said


def _blobs(builda: Builda) -> set[str]:
    return {path.name for path in builda.root.rglob("*") if len(path.name) == 64}


def test_builda_verifies_what_skopeo_signed(trust: Trust, image: str) -> None:
    trust.wants(trust.signed_by())
    said = refused(trust, image)
    assert f"image has no signature, which {trust.policy} wants (signedBy): {image}" in said
    assert 'hint: the rule is transports.docker."" of that file; ' in said
    assert f"signatures are looked for in file://{trust.lookaside}" in said
    trust.accept_all()
    sign = ("copy", *BOTH, "--sign-by", trust.keys.fingerprints["good"])
    trust.skopeo(*sign, f"docker://{image}", f"docker://{image}")
    trust.wants(trust.signed_by())
    assert pulled(trust, image)
    tag = image.replace(":1", ":2")
    trust.builda("image", "copy", "-q", *BOTH, f"docker://{image}", f"docker://{tag}")
    said = refused(trust, tag)
    assert f"signature does not count for {trust.policy} (it is for another name, {image!r}): {tag}" in said
    by_digest = f"{image.rpartition(':')[0]}@{digest_of(image)}"
    assert pulled(trust, by_digest)
    trust.wants(trust.signed_by(signedIdentity={"type": "matchRepository"}))
    assert pulled(trust, tag)
    trust.wants(trust.signed_by(signedIdentity={"type": "matchExact"}))
    trust.builda("rmi", "--all", "--force")
    assert "for another name" in refused(trust, by_digest)


def test_every_way_to_an_image_needs_the_signature(trust: Trust, image: str, base: str, tmp_path: Path) -> None:
    trust.wants(trust.signed_by(), scope=image)
    text = tmp_path / "Containerfile"
    ways: list[tuple[list[str], str]] = [
        (["from", *PLAIN, image], ""),
        (["manifest", "create", *PLAIN[:1], "--all", "list", f"docker://{image}"], ""),
        (["image", "copy", "--src-tls-verify=false", f"docker://{image}", f"oci:{tmp_path}/x"], ""),
        (["image", "inspect", *PLAIN, f"docker://{image}"], ""),
        (["bud", "-q", *PLAIN, "-f", str(text), str(tmp_path)], f"FROM {image}\n"),
        (["bud", "-q", *PLAIN, "-f", str(text), str(tmp_path)], f"FROM {base}\nCOPY --from={image} /bin/sh /x\n"),
        (
            ["bud", "-q", *PLAIN, "-f", str(text), str(tmp_path)],
            f"FROM {base}\nRUN --mount=from={image},target=/m true\n",
        ),
    ]
    for arguments, content in ways:
        text.write_text(content)
        said = trust.builda.fails(*arguments)
        assert f"image has no signature, which {trust.policy} wants" in said, arguments
    assert not (tmp_path / "x").exists()
    trust.put(image, trust.keys.sign(payload(digest_of(image), image), "good"))
    for arguments, content in ways:
        text.write_text(content)
        trust.builda(*arguments)
    assert "rejected by" in refused(trust, image.replace("/app:1", "/other:1"))


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ("other key", "its key is not one of those that count"),
        ("other digest", "it is about another image"),
        ("other name", "it is for another name"),
        ("other port", "it is for another name"),
        ("tampered", "its content was changed"),
        ("cosign's type", "payload is of another type"),
        ("more members", "is not an object of"),
        ("text", "is no binary OpenPGP message"),
        ("huge", "has more bytes than the limit"),
        ("cut", "it is no"),
    ],
)
def test_signatures_that_do_not_count(trust: Trust, image: str, signature: str, words: str) -> None:
    digest = digest_of(image)
    good = trust.keys.sign(payload(digest, image), "good", "--compress-algo", "none")
    files = {
        "other key": lambda: trust.keys.sign(payload(digest, image), "other"),
        "other digest": lambda: trust.keys.sign(payload(Digest.of(b""), image), "good"),
        "other name": lambda: trust.keys.sign(payload(digest, image.replace("app:1", "app:2")), "good"),
        "other port": lambda: trust.keys.sign(payload(digest, image.replace("127.0.0.1:", "127.0.0.1:1")), "good"),
        "tampered": lambda: good.replace(b"app:1", b"app:2"),
        "cosign's type": lambda: trust.keys.sign(payload(digest, image, "cosign container image signature"), "good"),
        "more members": lambda: trust.keys.sign(
            payload(digest, image).replace(b'"critical": {', b'"critical": {"only-on": "friday", '), "good"
        ),
        "text": lambda: trust.keys.sign(payload(digest, image), "good", "--armor"),
        "huge": lambda: good + bytes(5 << 20),
        "cut": lambda: good[:-30],
    }
    trust.put(image, files[signature]())
    trust.wants(trust.signed_by())
    said = refused(trust, image)
    assert f"signature does not count for {trust.policy} (" in said
    assert words in said
    trust.put(image, good, 2)
    assert pulled(trust, image)


def test_every_requirement_needs_its_own_signature(trust: Trust, image: str) -> None:
    second = trust.home / "other.gpg"
    second.write_bytes(trust.keys.public("other"))
    trust.put(image, trust.keys.sign(payload(digest_of(image), image), "good"))
    trust.wants(trust.signed_by(), trust.signed_by(keyPath=str(second)))
    assert "its key is not one of those that count" in refused(trust, image)
    trust.put(image, trust.keys.sign(payload(digest_of(image), image), "other"), 2)
    assert pulled(trust, image)
    rule = trust.signed_by(keyPaths=[str(second), str(trust.public)])
    del rule["keyPath"]
    trust.wants(rule)
    assert pulled(trust, image)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file or directory (/"), (b"no key", "holds no GPG key"), (b"", "holds no GPG key")],
)
def test_keys_that_cannot_be_used(trust: Trust, image: str, content: bytes | None, words: str) -> None:
    trust.public.unlink()
    if content is not None:
        trust.public.write_bytes(content)
    trust.wants(trust.signed_by())
    said = refused(trust, image)
    assert f"key of {trust.policy} cannot be used, {words}" in said
    assert 'named by transports.docker.""' in said


def test_broken_files_of_registries_d_are_named(trust: Trust, image: str) -> None:
    trust.wants(trust.signed_by())
    (trust.containers / "registries.d/all.yaml").write_text("docker: {r.io: {lookasid: x}}")
    assert f"unknown key 'lookasid': docker, r.io, in {trust.containers}/registries.d/all.yaml" in refused(trust, image)


def test_signatures_behind_a_url(trust: Trust, image: str) -> None:
    handler = partial(_Quiet, directory=str(trust.lookaside))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        trust.storage(lookaside=f"http://127.0.0.1:{http.server_address[1]}/")
        trust.wants(trust.signed_by())
        assert "image has no signature" in refused(trust, image)
        trust.put(image, trust.keys.sign(payload(digest_of(image), image), "other"))
        trust.put(image, trust.keys.sign(payload(digest_of(image), image), "good"), 2)
        assert pulled(trust, image)
        http.shutdown()
    assert "127.0.0.1" in refused(trust, image)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Tests have no log."""


def test_directories_have_their_signatures_beside_the_image(trust: Trust, image: str, tmp_path: Path) -> None:
    place = tmp_path / "image"
    trust.accept_all()
    sign = ("--sign-by", trust.keys.fingerprints["good"], "--sign-identity", "r.io/app:1")
    trust.skopeo("copy", "--src-tls-verify=false", *sign, f"docker://{image}", f"dir:{place}")
    rule = trust.signed_by(signedIdentity={"type": "exactReference", "dockerReference": "r.io/app:1"})
    trust.wants(rule, transport="dir", scope=str(tmp_path))
    assert trust.builda("pull", "-q", f"dir:{place}")
    (place / "signature-1").rename(place / "signature-2")
    os.mkfifo(place / "signature-1")
    assert trust.builda("pull", "-q", f"dir:{place}")
    trust.wants(trust.signed_by(), transport="dir")
    assert "it is for another name, 'r.io/app:1'" in trust.builda.fails("pull", "-q", f"dir:{place}")
    trust.wants(rule, transport="oci")
    trust.accept_all()
    trust.builda("image", "copy", "-q", f"dir:{place}", f"oci:{tmp_path}/layout:a")
    trust.wants(rule, transport="oci")
    said = trust.builda.fails("pull", "-q", f"oci:{tmp_path}/layout:a")
    assert "looked for nowhere, as oci: holds no signatures" in said


def test_a_list_vouches_for_its_images_and_each_image_for_itself(
    trust: Trust, server: support.Registry, base: str, tmp_path: Path
) -> None:
    name = server.name("lists/app:1")
    trust.accept_all()
    trust.builda("manifest", "create", "many", base)
    trust.builda("manifest", "push", "-q", "--tls-verify=false", "many", f"docker://{name}")
    raw = json.loads(trust.builda("image", "inspect", "--raw", *PLAIN, f"docker://{name}"))
    child = Digest.parse(raw["manifests"][0]["digest"])
    trust.builda("rmi", "many")
    trust.wants(trust.signed_by())
    assert "image has no signature" in refused(trust, name)
    whole = ("image", "copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/all")
    path = trust.lookaside / f"lists/app@sha256={child.encoded}/signature-1"
    path.parent.mkdir(parents=True)
    path.write_bytes(trust.keys.sign(payload(child, name), "good"))
    assert pulled(trust, name)
    assert "image has no signature" in trust.builda.fails(*whole)
    path.unlink()
    assert "image has no signature" in refused(trust, name)
    trust.put(name, trust.keys.sign(payload(digest_of(name), name), "good"))
    assert pulled(trust, name)
    trust.builda(*whole)
