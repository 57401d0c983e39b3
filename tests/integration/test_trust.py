"""Signatures: what policy.json wants of images is there before anything of them is taken, and skopeo agrees."""

from __future__ import annotations

import base64
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
from tests.support.signing import Gpg, encrypted_key, gpg, openssl, openssl_key, openssl_signature, payload

SKOPEO = shutil.which("skopeo")
pytestmark = [pytest.mark.root, needs.program("skopeo"), needs.program("gpg")]
PLAIN = ("--tls-verify=false", "--retry=0")
COSIGN_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
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


def test_signatures_that_do_not_count(trust: Trust, image: str) -> None:
    digest = digest_of(image)

    def signed(content: bytes, key: str = "good", *options: str) -> bytes:
        return trust.keys.sign(content, key, "--compress-algo", "none", *options)

    good = signed(payload(digest, image))
    faults = {
        "its key is not one of those that count": signed(payload(digest, image), "other"),
        "it is about another image": signed(payload(Digest.of(b""), image)),
        "it is for another name, '127.0.0.1:1": signed(payload(digest, image.replace("127.0.0.1:", "127.0.0.1:1"))),
        "it is for another name": signed(payload(digest, image.replace("app:1", "app:2"))),
        "its content was changed": good.replace(b"app:1", b"app:2"),
        "payload has another type": signed(payload(digest, image, "cosign container image signature")),
        "is not an object of": signed(
            payload(digest, image).replace(b'"critical": {', b'"critical": {"only-on": "friday", ')
        ),
        "is no binary OpenPGP message": signed(payload(digest, image), "good", "--armor"),
        "has more bytes than the limit": good + bytes(5 << 20),
        "it is no": good[:-30],
    }
    trust.wants(trust.signed_by())
    for words, blob in faults.items():
        trust.put(image, blob)
        said = refused(trust, image)
        assert f"signature does not count for {trust.policy} (" in said
        assert words in said
    for number, blob in enumerate(faults.values(), 1):
        trust.put(image, blob, number)
    assert f"none of {len(faults)} signatures counts" in refused(trust, image)
    trust.put(image, good, len(faults) + 1)
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


# Signing


def test_skopeo_verifies_what_builda_signed(trust: Trust, image: str, base: str, tmp_path: Path) -> None:
    good, other = trust.keys.fingerprints["good"], trust.keys.fingerprints["other"]
    trust.wants(trust.signed_by())
    check = ("copy", "--src-tls-verify=false", f"docker://{image}", f"dir:{tmp_path}/checked")
    assert "signature was required" in trust.skopeo(*check, check=False).stderr
    trust.builda("push", "-q", "--tls-verify=false", "--sign-by", other, base, image)
    assert trust.skopeo(*check, check=False).returncode
    trust.builda("push", "-q", "--tls-verify=false", "--sign-by", good, base, image)
    trust.skopeo(*check)
    files = sorted(path.name for path in trust.lookaside.rglob("signature-*"))
    assert files == ["signature-1", "signature-2"]
    trust.builda("image", "sign", *PLAIN, "--sign-by", good, image)
    assert sorted(path.name for path in trust.lookaside.rglob("signature-*")) == files  # it is signed already
    manifest = tmp_path / "manifest.json"
    manifest.write_text(trust.builda("image", "inspect", "--raw", *PLAIN, f"docker://{image}"))
    signature = next(trust.lookaside.rglob("signature-2"))
    trust.skopeo("standalone-verify", manifest, image, good, signature)
    assert pulled(trust, image)
    proof = json.loads(trust.builda("image", "verify", "--json", *PLAIN, image))
    digest = str(digest_of(image))
    assert proof["signatures"] == [{"type": "signedBy", "key": good, "identity": image}]
    assert proof["digest"] == digest
    printed = trust.builda("image", "verify", "--key", trust.public, *PLAIN, f"docker://{image}")
    assert printed == f"{digest} signedBy {good} {image}"


def test_directories_are_signed_too(trust: Trust, base: str, tmp_path: Path) -> None:
    place = tmp_path / "image"
    sign = ("--sign-by", trust.keys.fingerprints["good"], "--sign-identity", "r.io/app:1")
    rule = trust.signed_by(signedIdentity={"type": "exactReference", "dockerReference": "r.io/app:1"})
    trust.builda("push", "-q", *sign, base, f"dir:{place}")
    trust.wants(rule, transport="dir")
    trust.skopeo("copy", f"dir:{place}", f"dir:{tmp_path}/checked")
    assert trust.builda("pull", "-q", f"dir:{place}")
    trust.builda("push", "-q", base, f"dir:{place}")
    assert "has no signature" in trust.builda.fails("pull", "-q", f"dir:{place}")
    trust.builda("image", "sign", *sign, f"dir:{place}")
    trust.builda("image", "sign", *sign, f"dir:{place}")
    assert (place / "signature-1").exists()
    assert not (place / "signature-2").exists()
    assert trust.builda("image", "verify", f"dir:{place}").split()[1:] == ["signedBy", sign[1], "r.io/app:1"]


def test_lists_are_signed_with_their_images(trust: Trust, server: support.Registry, base: str, tmp_path: Path) -> None:
    name = server.name("signed-lists/app:1")
    trust.builda("manifest", "create", "many", base)
    sign = ("--sign-by", trust.keys.fingerprints["good"])
    trust.builda("manifest", "push", "-q", "--tls-verify=false", *sign, "many", f"docker://{name}")
    trust.wants(trust.signed_by())
    trust.skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/all")
    trust.skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/one")
    assert len(list(trust.lookaside.rglob("signature-1"))) == 2
    shutil.rmtree(trust.lookaside)
    assert len(trust.builda("image", "sign", "--all", *sign, *PLAIN, name).split()) == 2
    trust.skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/two")


def test_lists_in_directories_are_signed(trust: Trust, base: str, tmp_path: Path) -> None:
    place = tmp_path / "many"
    sign = ("--sign-by", trust.keys.fingerprints["good"], "--sign-identity", "r.io/app:1")
    trust.builda("manifest", "create", "many", base)
    trust.builda("manifest", "push", "-q", *sign, "many", f"dir:{place}")
    rule = trust.signed_by(signedIdentity={"type": "exactReference", "dockerReference": "r.io/app:1"})
    trust.wants(rule, transport="dir")
    trust.skopeo("copy", "--all", f"dir:{place}", f"dir:{tmp_path}/all")
    trust.skopeo("copy", f"dir:{place}", f"dir:{tmp_path}/one")
    files = sorted(path.name.rpartition(".")[2] for path in place.glob("*signature-*"))
    assert files == ["signature-1", "signature-1"]
    trust.builda("image", "sign", "--all", *sign, f"dir:{place}")
    assert len(list(place.glob("*signature-*"))) == 2
    for path in place.glob("*signature-*"):
        path.unlink()
    assert "has no signature" in trust.builda.fails("pull", "-q", f"dir:{place}")
    trust.builda("image", "sign", "--all", *sign, f"dir:{place}")
    assert trust.builda("pull", "-q", f"dir:{place}")
    trust.skopeo("copy", "--all", f"dir:{place}", f"dir:{tmp_path}/again")


def test_copying_signs_each_name(trust: Trust, image: str, tmp_path: Path) -> None:
    names = [image.replace("app:1", f"copied:{tag}") for tag in (1, 2)]
    options = ("--sign-by", trust.keys.fingerprints["good"], "--additional-tag", names[1])
    trust.builda("image", "copy", "-q", *BOTH, *options, f"docker://{image}", f"docker://{names[0]}")
    trust.wants(trust.signed_by())
    for name in names:
        trust.skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/{name[-1]}")
        assert pulled(trust, name)


def test_commit_and_sync_sign_too(trust: Trust, server: support.Registry, base: str, tmp_path: Path) -> None:
    sign = ("--sign-by", trust.keys.fingerprints["good"])
    committed, synced = server.name("committed/app:1"), server.name("synced")
    container = trust.builda("from", "-q", base)
    trust.builda("commit", "-q", "--tls-verify=false", *sign, container, f"docker://{committed}")
    repository = committed.rpartition(":")[0]
    trust.builda("image", "sync", "-q", *BOTH, *sign, "--src", "docker", "--dest", "docker", repository, synced)
    trust.wants(trust.signed_by())
    for name in (committed, f"{synced}/app:1"):
        trust.skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/{len(name)}")
        assert pulled(trust, name)
    container = trust.builda("from", "-q", base)
    assert "no signatures in the store" in trust.builda.fails("commit", "-q", *sign, container, "app:1")
    assert "--sign-by is not supported" in trust.builda.fails("bud", "-q", *sign, tmp_path)


UNSIGNABLE = (
    (["--sign-by", "nobody@example.org"], "docker", "GPG keyring has no secret key: nobody@example.org"),
    (["--sign-by", ""], "docker", "not a fingerprint of a GPG key: ''"),
    (["--sign-by", "{good}"], "oci:{tmp}/x:a", "images have no signatures in oci:"),
    (["--sign-by", "{good}"], "docker-archive:{tmp}/x:a", "images have no signatures in docker-archive:"),
    (["--sign-by", "{good}"], "containers-storage:x", "images have no signatures in the store"),
    (["--sign-by", "{good}"], "dir:{tmp}/x", "signatures need a name"),
    (["--sign-by", "{good}", "--sign-identity", "app"], "docker", "--sign-identity must be a full name"),
    (["--sign-by", "{good}", "--sign-identity", "r.io/app"], "docker", "--sign-identity must be a full name"),
    (["--sign-identity", "r.io/app:1"], "docker", "--sign-identity without a key"),
    (["--sign-passphrase-file", "/none"], "docker", "--sign-passphrase-file without a key"),
    (["--sign-by", "{good}", "--sign-passphrase-file", "/none"], "docker", "no such file of a passphrase: /none"),
    (["--sign-by-sigstore-private-key", "/none"], "docker", "no such file of a private key: /none"),
    (["--sign-by-sigstore-private-key", "{public}"], "docker", "not a private key in PEM"),
    (["--sign-by-sigstore", "x"], "docker", "--sign-by-sigstore is not supported"),
)


def test_what_cannot_be_signed_is_not_pushed(trust: Trust, server: support.Registry, base: str, tmp_path: Path) -> None:
    values = {"good": trust.keys.fingerprints["good"], "tmp": tmp_path, "public": trust.public}
    name = server.name("unsigned/app:1")
    for options, place, words in UNSIGNABLE:
        where = f"docker://{name}" if place == "docker" else place.format(**values)
        arguments = [option.format(**values) for option in options]
        assert words in trust.builda.fails("push", "-q", "--tls-verify=false", *arguments, base, where)
    assert not (tmp_path / "x").exists()
    assert trust.builda.fails("image", "inspect", *PLAIN, f"docker://{name}")
    assert not trust.lookaside.exists()


def test_storage_that_cannot_be_written(trust: Trust, server: support.Registry, base: str, image: str) -> None:
    sign = ("push", "-q", "--tls-verify=false", "--sign-by", trust.keys.fingerprints["good"], base)
    trust.storage(lookaside="https://signatures.example")
    said = trust.builda.fails(*sign, image)
    assert "signatures cannot be written to https://signatures.example" in said
    assert "lookaside-staging" in said
    trust.lookaside.write_text("a file")
    trust.storage(lookaside=f"file://{trust.lookaside}")
    name = server.name("unwritten/app:1")
    assert "signature cannot be written" in trust.builda.fails(*sign, name)
    assert trust.builda.fails("image", "inspect", *PLAIN, f"docker://{name}")
    trust.lookaside.unlink()
    trust.builda("image", "sign", *PLAIN, *sign[3:5], "--directory", trust.lookaside, image)
    assert len(list(trust.lookaside.rglob("signature-1"))) == 1


# sigstore


def sigstore(trust: Trust, public: Path, **more: object) -> dict[str, object]:
    return {"type": "sigstoreSigned", "keyPath": str(public), **more}


def test_statements_about_an_image_are_attested_for_cosign(
    trust: Trust, server: support.Registry, tmp_path: Path
) -> None:
    private, public = openssl_key(tmp_path)
    sign = ("--sign-by-sigstore-private-key", private)
    name = server.name("attested/app:1")
    container = trust.builda("from", "scratch").strip()
    trust.builda("commit", "-q", "--sbom=true", "--provenance=true", container, "app")
    trust.builda("push", "-q", *PLAIN, *sign, "app", name)
    index = json.loads(trust.builda("image", "inspect", "--raw", *PLAIN, f"docker://{name}"))
    digest = Digest.parse(index["manifests"][0]["digest"])
    assert [(kind, is_signed(public, envelope)) for kind, envelope in envelopes(name, digest, tmp_path)] == [
        ("https://spdx.dev/Document", True),
        ("https://slsa.dev/provenance/v1", True),
    ]
    statement = json.loads(base64.b64decode(envelopes(name, digest, tmp_path)[0][1]["payload"]))
    assert statement["subject"] == [{"name": "_", "digest": {"sha256": digest.encoded}}]
    trust.builda("image", "sign", *PLAIN, *sign, "--all", f"docker://{name}")
    assert len(envelopes(name, digest, tmp_path)) == 2  # each was attested already
    other, public = openssl_key(tmp_path, "other")
    trust.builda("image", "sign", *PLAIN, "--sign-by-sigstore-private-key", other, "--all", f"docker://{name}")
    assert [is_signed(public, envelope) for _, envelope in envelopes(name, digest, tmp_path)] == [False] * 2 + [
        True
    ] * 2


def test_statements_about_another_image_are_not_attested(trust: Trust, image: str, tmp_path: Path) -> None:
    private, _ = openssl_key(tmp_path)
    trust.builda("commit", "-q", "--sbom=true", trust.builda("from", "scratch").strip(), f"oci:{tmp_path}/own:a")
    layout = tmp_path / "own"
    top = json.loads((layout / "index.json").read_text())["manifests"][0]
    index = json.loads(blob_in(layout, top["digest"]).read_text())
    entry = index["manifests"][1]
    manifest = json.loads(blob_in(layout, entry["digest"]).read_text())
    statement = json.loads(blob_in(layout, manifest["layers"][0]["digest"]).read_text())
    statement["subject"][0]["digest"]["sha256"] = digest_of(image).encoded
    manifest["layers"][0] |= put_in(layout, statement)
    entry |= put_in(layout, manifest)
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top | put_in(layout, index)]}))
    place = image.replace("/app:1", "/own:1")
    copy = ("image", "copy", "-q", *BOTH, "--all", f"oci:{layout}:a", f"docker://{place}")
    said = trust.builda.fails(*copy, "--sign-by-sigstore-private-key", private)
    assert "statement is not about the image that the list says" in said
    assert trust.builda.fails("image", "inspect", *PLAIN, f"docker://{place}")
    trust.builda(*copy)
    sign = ("image", "sign", *PLAIN, "--sign-by-sigstore-private-key", private)
    assert "statement is not about the image" in trust.builda.fails(*sign, "--all", f"docker://{place}")


def blob_in(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def put_in(layout: Path, value: object) -> dict[str, object]:
    """Write a blob; the members of its descriptor."""
    data = json.dumps(value).encode()
    digest = Digest.of(data)
    blob_in(layout, str(digest)).write_bytes(data)
    return {"digest": str(digest), "size": len(data)}


def envelopes(name: str, digest: Digest, directory: Path) -> list[tuple[str, dict[str, Any]]]:
    """Type and content of each attestation of an image."""
    layout = directory / f"attestations-{os.urandom(4).hex()}"
    source = f"docker://{name.rpartition(':')[0]}:sha256-{digest.encoded}.att"
    subprocess.run(
        [SKOPEO or "", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", source, f"dir:{layout}"], check=True
    )
    layers = json.loads((layout / "manifest.json").read_text())["layers"]
    return [
        (
            layer["annotations"]["predicateType"],
            json.loads((layout / layer["digest"].removeprefix("sha256:")).read_text()),
        )
        for layer in layers
    ]


def is_signed(public: Path, envelope: dict[str, Any]) -> bool:
    """Whether openssl finds the signature of an envelope (DSSE v1) to be by the key."""
    kind, body = envelope["payloadType"], base64.b64decode(envelope["payload"])
    content = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)
    signature = public.with_suffix(".sig")
    signature.write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(signature)]
    return subprocess.run(command, input=content, capture_output=True).returncode == 0


@pytest.mark.parametrize("kind", ["COSIGN", "plain"])
def test_openssl_verifies_what_builda_signed(trust: Trust, image: str, base: str, tmp_path: Path, kind: str) -> None:
    """Debian's skopeo is built without sigstore."""
    private, public = openssl_key(tmp_path)
    _, unknown = openssl_key(tmp_path, "unknown")
    key, phrase = tmp_path / "cosign.key", tmp_path / "phrase"
    key.write_bytes(private.read_bytes() if kind == "plain" else encrypted_key(private, b"a phrase", kind=kind))
    phrase.write_text("a phrase\nmore\n")
    trust.storage(**{"use-sigstore-attachments": True})
    trust.wants(sigstore(trust, public))
    assert "image has no signature" in refused(trust, image)
    sign = ("--sign-by-sigstore-private-key", key, *(() if kind == "plain" else ("--sign-passphrase-file", phrase)))
    trust.builda("push", "-q", "--tls-verify=false", *sign, base, image)
    assert pulled(trust, image)
    trust.builda("image", "sign", *PLAIN, *sign, image)
    layers = attached(image, tmp_path)
    assert len(layers) == 1  # it was signed already
    content, annotations = layers[0]
    signature = tmp_path / "signature"
    signature.write_bytes(base64.b64decode(annotations["dev.cosignproject.cosign/signature"]))
    openssl("dgst", "-sha256", "-verify", str(public), "-signature", str(signature), data=content)
    assert json.loads(content)["critical"] == {
        "identity": {"docker-reference": image},
        "image": {"docker-manifest-digest": str(digest_of(image))},
        "type": "cosign container image signature",
    }
    trust.wants(sigstore(trust, unknown))
    assert "it was not made with a trusted key" in refused(trust, image)
    other, _ = openssl_key(tmp_path, "other")
    trust.builda("image", "sign", *PLAIN, "--sign-by-sigstore-private-key", other, image)
    assert len(attached(image, tmp_path)) == 2
    trust.wants(sigstore(trust, public), sigstore(trust, other.with_suffix(".pub")))
    assert pulled(trust, image)


def test_keys_of_cosign_with_another_passphrase(trust: Trust, image: str, tmp_path: Path) -> None:
    private, _ = openssl_key(tmp_path)
    key, phrase = tmp_path / "cosign.key", tmp_path / "phrase"
    key.write_bytes(encrypted_key(private, b"a phrase"))
    phrase.write_text("another")
    sign = ("image", "sign", *PLAIN, "--sign-by-sigstore-private-key", key)
    for options in ((), ("--sign-passphrase-file", phrase)):
        said = trust.builda.fails(*sign, *options, image)
        assert f"passphrase is not that of the private key: {key}" in said
    trust.builda(*sign, image, COSIGN_PASSWORD="a phrase")


def attached(image: str, directory: Path) -> list[tuple[bytes, dict[str, str]]]:
    """The payloads and annotations that the registry has under cosign's tag."""
    place = directory / "attached"
    shutil.rmtree(place, ignore_errors=True)
    assert SKOPEO is not None
    tag = f"{image.rpartition(':')[0]}:sha256-{digest_of(image).encoded}.sig"
    command = [SKOPEO, "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{tag}", f"dir:{place}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    layers = json.loads((place / "manifest.json").read_text())["layers"]
    assert {layer["mediaType"] for layer in layers} == {COSIGN_TYPE}
    return [((place / layer["digest"].partition(":")[2]).read_bytes(), layer["annotations"]) for layer in layers]


def test_cosigns_signatures(trust: Trust, image: str, tmp_path: Path) -> None:
    """As `cosign sign` makes them: the payload has a repository without a tag, and its optional part is null."""
    private, public = openssl_key(tmp_path)
    name = image.rpartition(":")[0]
    payload = cosign_payload(digest_of(image), name)
    attach(image, [(payload, openssl_signature(private, payload))], tmp_path)
    trust.wants(sigstore(trust, public, signedIdentity={"type": "matchRepository"}))
    assert "nowhere, as registries.d does not say use-sigstore-attachments: true" in refused(trust, image)
    trust.storage(**{"use-sigstore-attachments": True})
    assert pulled(trust, image)
    trust.wants(sigstore(trust, public))
    assert f"it is for another name, {name!r}" in refused(trust, image)
    assert trust.builda("image", "verify", "--key", public, *PLAIN, image)


def test_cosigns_signatures_that_do_not_count(trust: Trust, image: str, tmp_path: Path) -> None:
    private, public = openssl_key(tmp_path)
    other, _ = openssl_key(tmp_path, "other")
    name, digest = image.rpartition(":")[0], digest_of(image)
    good = cosign_payload(digest, name)

    def signed(content: bytes, key: Path = private) -> tuple[bytes, str | None]:
        return content, openssl_signature(key, content)

    faults = {
        "it was not made with a trusted key": signed(good, other),
        "its content was changed": (good + b" ", signed(good)[1]),
        "it is about another image": signed(cosign_payload(Digest.of(b""), name)),
        "it is for another name": signed(cosign_payload(digest, f"{name}-other")),
        "payload has another type": signed(good.replace(b"cosign container image", b"atomic container")),
        "signature is not base64": (good, "#"),
        "it has no annotation": (good, None),
    }
    trust.storage(**{"use-sigstore-attachments": True})
    trust.wants(sigstore(trust, public, signedIdentity={"type": "matchRepository"}))
    for words, signature in faults.items():
        attach(image, [signature], tmp_path)
        assert words in refused(trust, image)
    attach(image, [*faults.values(), signed(good)], tmp_path)
    assert pulled(trust, image)


def cosign_payload(digest: Digest, name: str) -> bytes:
    value = json.loads(payload(digest, name, "cosign container image signature"))
    return json.dumps({**value, "optional": None}).encode()


def attach(image: str, signatures: list[tuple[bytes, str | None]], directory: Path) -> None:
    """The registry has these payloads and signatures where cosign puts them; skopeo brings them there."""
    place = directory / "attached"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    config = b'{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
    layers = []
    for content, signature in signatures:
        annotations = {} if signature is None else {"dev.cosignproject.cosign/signature": signature}
        layers.append({**described(place, content, COSIGN_TYPE), "annotations": annotations})
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(place, config, "application/vnd.oci.image.config.v1+json"),
        "layers": layers,
    }
    (place / "manifest.json").write_text(json.dumps(manifest))
    (place / "version").write_text("Directory Transport Version: 1.1\n")
    tag = f"{image.rpartition(':')[0]}:sha256-{digest_of(image).encoded}.sig"
    assert SKOPEO is not None
    command = [SKOPEO, "--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", f"dir:{place}"]
    subprocess.run([*command, f"docker://{tag}"], check=True, capture_output=True, timeout=60)


def described(place: Path, content: bytes, media_type: str) -> dict[str, object]:
    digest = Digest.of(content)
    (place / digest.encoded).write_bytes(content)
    return {"mediaType": media_type, "digest": str(digest), "size": len(content)}


def test_the_policy_is_shown(trust: Trust) -> None:
    assert json.loads(trust.builda("image", "trust", "--json"))["file"] in (None, "/etc/containers/policy.json")
    trust.wants(trust.signed_by(signedIdentity={"type": "exactRepository", "dockerRepository": "r.io/a"}), scope="q.io")
    shown = json.loads(trust.builda("image", "trust", "--json"))
    assert shown["file"] == str(trust.policy)
    assert shown["rules"][1] == {
        "transport": "docker",
        "scope": "q.io",
        "type": "signedBy",
        "keys": str(trust.public),
        "identity": "exactRepository r.io/a",
    }
    lines = trust.builda("image", "trust").splitlines()
    assert lines[0] == str(trust.policy)
    assert lines[2].split() == ["default", "-", "reject", "-", "-"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sign", "r.io/a"], "no key to sign with"),
        (["sign", "--sign-by", "x", "oci:a"], "images have no signatures there: oci:a"),
        (["sign", "--sign-by", "nobody", "r.io/a"], "has no secret key"),
        (["verify", "oci:a"], "images have no signatures there"),
        (["verify", "--identity", "a", "r.io/a"], "--identity needs --key"),
        (["verify", "--key", "/none", "r.io/a"], "no such key: /none"),
    ],
)
def test_what_cannot_be_signed_or_verified(trust: Trust, arguments: list[str], words: str) -> None:
    assert words in trust.builda.fails("image", *arguments)


def test_nothing_to_verify_is_no_success(trust: Trust, image: str) -> None:
    trust.accept_all()
    said = trust.builda.fails("image", "verify", *PLAIN, image)
    assert "policy wants no signature of the image" in said
    assert "--key" in said
    trust.wants({"type": "reject"})
    assert "rejected by" in trust.builda.fails("image", "verify", *PLAIN, image)


# Signatures that come along


def test_copying_takes_signatures_along(trust: Trust, image: str, server: support.Registry, tmp_path: Path) -> None:
    private, public = openssl_key(tmp_path)
    name = image.rpartition(":")[0]
    content = cosign_payload(digest_of(image), name)
    attach(image, [(content, openssl_signature(private, content))], tmp_path)
    trust.storage(lookaside=f"file://{trust.lookaside}", **{"use-sigstore-attachments": True})
    for number, key in enumerate(("good", "other"), 1):
        trust.put(image, trust.keys.sign(payload(digest_of(image), image), key), number)
    mirror, place = image.replace("/app:1", "/mirror:1"), tmp_path / "dir"
    for _ in range(2):
        trust.builda("image", "copy", "-q", *BOTH, f"docker://{image}", f"docker://{mirror}")
        trust.builda("image", "copy", "-q", *BOTH, f"docker://{image}", f"dir:{place}")
    assert sorted(path.name for path in place.glob("signature-*")) == ["signature-1", "signature-2", "signature-3"]
    assert len(attached(mirror, tmp_path)) == 1
    assert len(list(trust.lookaside.rglob("mirror@*/signature-*"))) == 2
    exact = {"type": "exactRepository", "dockerRepository": name}
    rules = (trust.signed_by(signedIdentity=exact), sigstore(trust, public, signedIdentity=exact))
    trust.wants(*rules)
    assert pulled(trust, mirror)
    trust.wants(rules[0])
    trust.skopeo("copy", "--src-tls-verify=false", f"docker://{mirror}", f"dir:{tmp_path}/checked")
    trust.accept_all()
    back = image.replace("/app:1", "/back:1")
    trust.builda("image", "copy", "-q", *BOTH, f"dir:{place}", f"docker://{back}")
    trust.wants(*rules)
    assert pulled(trust, back)
    without = image.replace("/app:1", "/without:1")
    trust.builda("image", "copy", "-q", *BOTH, "--remove-signatures", f"docker://{mirror}", f"docker://{without}")
    assert "image has no signature" in refused(trust, without)


def test_what_cosign_puts_beside_an_image_is_copied(trust: Trust, image: str, server: support.Registry) -> None:
    private, public = openssl_key(trust.home)
    trust.builda("image", "sign", *PLAIN, "--sign-by-sigstore-private-key", private, image)
    repository, mirror = image.rpartition(":")[0], f"{image.rpartition('/')[0]}/mirror"
    sync = ("image", "sync", "-q", *BOTH, "--src", "docker", "--dest", "docker", repository, mirror)
    assert len(trust.builda(*sync).splitlines()) == 2
    exact = ("--identity", image)
    assert trust.builda("image", "verify", "--key", public, *exact, *PLAIN, f"{mirror}/app:1")
    tag = f"{repository}:sha256-{digest_of(image).encoded}.sig"
    assert "not a layer media type" in trust.builda.fails("pull", "-q", *PLAIN, tag)


def test_signatures_that_cannot_come_along_are_told(trust: Trust, image: str, tmp_path: Path) -> None:
    copy = ("image", "copy", *BOTH, f"docker://{image}")
    quiet = trust.builda.run(*copy, f"oci:{tmp_path}/plain")
    assert "signatures" not in quiet.stderr
    trust.put(image, trust.keys.sign(payload(digest_of(image), image), "good"))
    for arguments, words in (
        ((f"oci:{tmp_path}/x:a",), "signatures are not copied: oci: holds none"),
        (("containers-storage:x",), "signatures are not copied: the store holds none"),
        (("--format", "v2s2", f"dir:{tmp_path}/y"), "which was changed"),
    ):
        assert words in trust.builda.run(*copy, *arguments).stderr
        assert "signatures" not in trust.builda.run(*copy, "--remove-signatures", *arguments).stderr
    trust.storage(lookaside="https://signatures.example")
    (trust.containers / "registries.d/here.yaml").write_text(
        json.dumps({"docker": {image: {"lookaside": f"file://{trust.lookaside}"}}})
    )
    said = trust.builda.fails(*copy, f"docker://{image.replace('/app:1', '/there:1')}")
    assert "signatures cannot be written to https://signatures.example" in said


def test_a_mirror_has_signatures_of_its_own(trust: Trust, image: str, base: str) -> None:
    """Those of the mirror's storage count for the image by its own name."""
    conf = trust.home / "registries.conf"
    conf.write_text(
        f'[[registry]]\nprefix = "r.example/app"\nlocation = "{image.rpartition(":")[0]}"\ninsecure = true\n'
    )
    trust.wants(trust.signed_by(), scope="r.example/app")
    trust.builda.environ["CONTAINERS_REGISTRIES_CONF"] = str(conf)
    pull = ("pull", "-q", "--policy=always", "--retry=0", "r.example/app:1")
    assert "image has no signature" in trust.builda.fails(*pull)
    trust.put(image, trust.keys.sign(payload(digest_of(image), image), "good"))
    assert "it is for another name" in trust.builda.fails(*pull)
    trust.put(image, trust.keys.sign(payload(digest_of(image), "r.example/app:1"), "good"), 2)
    assert trust.builda(*pull)
