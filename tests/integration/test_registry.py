"""Push and pull against Debian's docker-registry: plain, over TLS, with passwords and with tokens."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from builda.errors import BuildaError, InvalidValue, NotFound, RegistryError
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor, Platform
from builda.oci.digest import Digest, Readable, VerifyingReader
from builda.oci.manifest import Index, Manifest
from builda.oci.reference import Reference
from builda.registry.keyring import Credentials, store_login
from builda.registry.registryclient import RegistryClient, RegistryOptions, RegistrySink, RegistrySource
from tests.support import needs
from tests.support.registry import (
    PASSWORD,
    REFRESH_TOKEN,
    USER,
    Answer,
    Asked,
    Registry,
    registry,
    scripted,
)

pytestmark = [
    pytest.mark.network,
    needs.program("docker-registry"),
]

CREDS = f"{USER}:{PASSWORD}"
ENVIRON = {"HOME": "/nonexistent"}


class Image:
    """A small random image in memory, with the shape of an ImageSource's blobs."""

    def __init__(self, seed: int, layer_size: int = 300_000, *, docker: bool = False) -> None:
        layers = [random.Random(f"{seed}/{i}").randbytes(layer_size + i) for i in range(3)]
        config = json.dumps({"architecture": "amd64", "os": "linux", "seed": seed}).encode()
        kind = mediatype.DOCKER_LAYER_GZIP if docker else mediatype.LAYER_GZIP
        self.layers = tuple(describe(data, kind) for data in layers)
        self.config = describe(config, mediatype.DOCKER_CONFIG if docker else mediatype.CONFIG)
        self.blobs = {Digest.of(data): data for data in (*layers, config)}
        media_type = mediatype.DOCKER_MANIFEST if docker else mediatype.MANIFEST
        self.manifest = Manifest(config=self.config, layers=self.layers, media_type=media_type).dump()
        self.descriptor = describe(self.manifest, media_type)
        self.opened: list[Digest] = []

    @contextmanager
    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[Readable]:
        self.opened.append(descriptor.digest)
        yield io.BytesIO(self.blobs[descriptor.digest][offset:])


def describe(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


def push(sink: RegistrySink, image: Image) -> list[int]:
    """Everything of `image`, layers side by side; returns what progress heard."""
    moved: list[int] = []

    def blob(descriptor: Descriptor) -> None:
        if not sink.has_blob(descriptor):
            sink.put_blob(descriptor, image, moved.append)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(blob, (*image.layers, image.config)))
    sink.put_manifest(image.descriptor, image.manifest, top=True)
    return moved


def pull(source: RegistrySource) -> tuple[bytes, dict[Digest, bytes]]:
    """The manifest and every blob, verified."""
    _, data = source.manifest()
    value = json.loads(data)
    descriptors = [Descriptor.from_json(entry, where="x") for entry in (*value["layers"], value["config"])]

    def blob(descriptor: Descriptor) -> tuple[Digest, bytes]:
        with source.open_blob(descriptor) as raw:
            return descriptor.digest, VerifyingReader(raw, descriptor.digest, descriptor.size).read()

    with ThreadPoolExecutor(4) as pool:
        return data, dict(pool.map(blob, descriptors))


def client(environ: dict[str, str] | None = None, **options: Any) -> RegistryClient:
    chosen = RegistryOptions(**{"tls_verify": False, **options})
    return RegistryClient(chosen, environ=environ or ENVIRON, system=Path("/nonexistent"), sleep=lambda _: None)


def reference(server: Registry, name: str) -> Reference:
    return Reference.parse(server.name(name))


@pytest.fixture(scope="module")
def plain() -> Iterator[Registry]:
    with registry() as server:
        yield server


@pytest.fixture(scope="module")
def basic() -> Iterator[Registry]:
    with registry(basic=True) as server:
        yield server


@pytest.fixture(scope="module")
def bearer() -> Iterator[Registry]:
    with registry(bearer=True) as server:
        yield server


@pytest.mark.parametrize(
    "kind", [{}, {"tls": True}, {"basic": True}, {"bearer": True}, {"bearer": True, "tls": True}], ids=str
)
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_what_was_pushed_is_pulled_byte_for_byte(kind: dict[str, bool], docker: bool) -> None:
    image = Image(1, docker=docker)
    with registry(**kind) as server:
        how: dict[str, Any] = {"tls_verify": None, "cert_dir": server.cert_dir} if server.authority else {}
        with client(creds=CREDS, **how) as registries:
            name = reference(server, "team/app:1")
            moved = push(registries.sink(name), image)
            assert sum(moved) == sum(len(blob) for blob in image.blobs.values())
            assert registries.source(name).manifest()[0] == image.descriptor
            assert pull(registries.source(name)) == (image.manifest, image.blobs)
            assert registries.source(name).head() == image.descriptor
            assert registries.tags(name) == ("1",)


def test_pushing_again_sends_no_blob(plain: Registry) -> None:
    image = Image(2)
    with client() as registries:
        sink = registries.sink(reference(plain, "again:1"))
        push(sink, image)
        image.opened.clear()
        assert push(sink, image) == []
    assert image.opened == []


def test_a_sink_knows_the_image_that_its_name_means_already(plain: Registry) -> None:
    image, other = Image(4), Image(5)
    with client() as registries:
        sink = registries.sink(reference(plain, "known:1"))
        assert not sink.has_image(image.descriptor)
        push(sink, image)
        assert sink.has_image(image.descriptor)
        assert not sink.has_image(other.descriptor)
        assert not registries.sink(reference(plain, "known:2")).has_image(image.descriptor)


def test_put_blob_of_what_is_there_sends_nothing(plain: Registry) -> None:
    image, moved = Image(3), list[int]()
    with client() as registries:
        push(registries.sink(reference(plain, "there:1")), image)
        image.opened.clear()
        registries.sink(reference(plain, "there:1")).put_blob(image.config, image, moved.append)
    assert (moved, image.opened) == ([image.config.size], [])


def test_blobs_of_a_sibling_repository_are_mounted(plain: Registry) -> None:
    image = Image(4)
    with client() as registries:
        base = reference(plain, "base:1")
        push(registries.sink(base), image)
        image.opened.clear()
        push(registries.sink(reference(plain, "derived:1"), mount_from=(base,)), image)
        assert image.opened == []
        assert pull(registries.source(reference(plain, "derived:1")))[0] == image.manifest


def test_copying_within_a_registry_mounts(plain: Registry) -> None:
    image = Image(5)
    with client() as registries:
        push(registries.sink(reference(plain, "from:1")), image)
        source, sink = registries.source(reference(plain, "from:1")), registries.sink(reference(plain, "to:1"))
        before = plain.log().count("GET /v2/from/blobs")
        for descriptor in (*image.layers, image.config):
            sink.put_blob(descriptor, source, lambda _: None)
        sink.put_manifest(*source.manifest(), top=True)
        assert plain.log().count("GET /v2/from/blobs") == before


def test_a_mount_that_is_not_possible_becomes_an_upload(plain: Registry) -> None:
    image = Image(6)
    with client() as registries:
        push(registries.sink(reference(plain, "mountless:1"), mount_from=(reference(plain, "nothing/here:1"),)), image)
        assert pull(registries.source(reference(plain, "mountless:1")))[1] == image.blobs


def test_mounting_with_tokens_asks_for_both_repositories(bearer: Registry) -> None:
    image = Image(7)
    assert bearer.tokens is not None
    with client(creds=CREDS) as registries:
        push(registries.sink(reference(bearer, "base:1")), image)
        image.opened.clear()
        push(registries.sink(reference(bearer, "child:1"), mount_from=(reference(bearer, "base:1"),)), image)
    assert image.opened == []
    scopes = [set(asked.get("scope", [])) for asked in bearer.tokens.requests]
    assert any({"repository:base:pull", "repository:child:pull,push"} <= scope for scope in scopes)


def test_a_blob_goes_in_chunks_where_one_request_is_refused(plain: Registry) -> None:
    """A proxy in front of the real registry refuses large bodies, as many do."""
    image = Image(8)
    with forwarding(plain, refuse_over=120_000) as address, client() as registries:
        name = Reference.parse(f"{address}/chunks:1")
        moved = push(registries.sink(name, chunk=100_000), image)
        assert sum(moved) == sum(len(blob) for blob in image.blobs.values())
        assert pull(registries.source(reference(plain, "chunks:1")))[1] == image.blobs


def test_a_chunk_that_broke_off_goes_on_where_the_registry_is(plain: Registry) -> None:
    image = Image(9)
    with forwarding(plain, refuse_over=120_000, fail_patches=2) as address, client() as registries:
        push(registries.sink(Reference.parse(f"{address}/broken:1"), chunk=100_000), image)
        assert pull(registries.source(reference(plain, "broken:1")))[1] == image.blobs


def test_an_upload_that_broke_off_is_tried_again(plain: Registry) -> None:
    image = Image(10)
    with forwarding(plain, fail_puts=2) as address, client() as registries:
        push(registries.sink(Reference.parse(f"{address}/retried:1")), image)
        assert pull(registries.source(reference(plain, "retried:1")))[1] == image.blobs


def test_content_that_is_not_its_digest_is_refused_by_the_registry(plain: Registry) -> None:
    image = Image(11)
    image.blobs[image.layers[0].digest] = image.blobs[image.layers[0].digest][::-1]
    with client() as registries, pytest.raises(RegistryError) as caught:
        push(registries.sink(reference(plain, "wrong:1")), image)
    assert caught.value.code == "DIGEST_INVALID"


def test_a_source_that_ends_early_is_our_error(plain: Registry) -> None:
    image = Image(12)
    image.blobs[image.layers[0].digest] = image.blobs[image.layers[0].digest][:1000]
    with client() as registries, pytest.raises(BuildaError, match="content ends"):
        push(registries.sink(reference(plain, "short:1")), image)


def test_an_index_and_its_children(plain: Registry) -> None:
    image = Image(13)
    entry = Descriptor(
        media_type=image.descriptor.media_type,
        digest=image.descriptor.digest,
        size=image.descriptor.size,
        platform=Platform(os="linux", architecture="amd64"),
    )
    index = Index(manifests=(entry,)).dump()
    with client() as registries:
        sink = registries.sink(reference(plain, "multi:1"))
        for descriptor in (*image.layers, image.config):
            sink.put_blob(descriptor, image, lambda _: None)
        sink.put_manifest(entry, image.manifest, top=False)
        sink.put_manifest(describe(index, mediatype.INDEX), index, top=True)
        source = registries.source(reference(plain, "multi:1"))
        assert source.manifest() == (describe(index, mediatype.INDEX), index)
        assert source.child(entry) == image.manifest


def test_a_digest_names_an_image_too(plain: Registry) -> None:
    image = Image(14)
    with client() as registries:
        name = reference(plain, f"bydigest@{image.descriptor.digest}")
        push(registries.sink(name), image)
        assert registries.source(name).manifest() == (image.descriptor, image.manifest)
        with pytest.raises(InvalidValue, match="digest is"):
            registries.sink(reference(plain, f"x@{Digest.of(b'')}")).put_manifest(
                image.descriptor, image.manifest, top=True
            )


def test_an_unknown_tag_and_an_unknown_repository(plain: Registry) -> None:
    with client() as registries:
        push(registries.sink(reference(plain, "known:stable")), Image(15))
        with pytest.raises(RegistryError) as caught:
            registries.source(reference(plain, "known:stabel")).manifest()
        assert (caught.value.status, caught.value.code) == (404, "MANIFEST_UNKNOWN")
        assert caught.value.hint == f"did you mean {plain.name('known:stable')}?"
        with pytest.raises(RegistryError) as caught:
            registries.source(reference(plain, "unknown:1")).manifest()
        assert caught.value.status == 404


def test_many_tags_come_in_pages(plain: Registry) -> None:
    image = Image(16, 10)
    with client() as registries:
        push(registries.sink(reference(plain, "paged:v0")), image)
        tags = plain.directory / "data/docker/registry/v2/repositories/paged/_manifests/tags"
        for number in range(1, 1200):
            (tags / f"v{number}").symlink_to(tags / "v0")
        assert len(registries.tags(reference(plain, "paged"))) == 1200


@pytest.mark.parametrize("creds", [None, f"{USER}:wrong", "mallory:x"])
@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_missing_or_wrong_credentials_name_the_way_out(
    request: pytest.FixtureRequest, kind: str, creds: str | None
) -> None:
    server: Registry = request.getfixturevalue(kind)
    with client(creds=creds) as registries, pytest.raises(RegistryError) as caught:
        registries.source(reference(server, "secret:1")).manifest()
    assert caught.value.status == 401
    assert f"builda login {server.address}" in str(caught.value.hint)
    assert ("user name or password is wrong" in str(caught.value.hint)) == (creds is not None)
    assert "wrong" not in str(caught.value)


def test_credentials_come_from_the_file_for_the_namespace(basic: Registry, tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    store_login(basic.address, Credentials("mallory", "x"), file, environ={})
    store_login(f"{basic.address}/team", Credentials(USER, PASSWORD), file, environ={})
    with client(authfile=file) as registries:
        push(registries.sink(reference(basic, "team/app:1")), Image(17))
        with pytest.raises(RegistryError):
            registries.source(reference(basic, "other/app:1")).manifest()
    with client({**ENVIRON, "REGISTRY_AUTH_FILE": str(file)}) as registries:
        assert registries.tags(reference(basic, "team/app")) == ("1",)


def test_an_identity_token_is_exchanged(bearer: Registry, tmp_path: Path) -> None:
    file = tmp_path / "auth.json"
    store_login(bearer.address, Credentials("", "", REFRESH_TOKEN), file, environ={})
    with client(authfile=file) as registries:
        push(registries.sink(reference(bearer, "token/app:1")), Image(18))
    assert bearer.tokens is not None
    assert bearer.tokens.requests[-1]["grant_type"] == ["refresh_token"]


def test_anonymous_tokens_can_pull_but_not_push(bearer: Registry) -> None:
    assert bearer.tokens is not None
    bearer.tokens.anonymous_pull = True
    try:
        with client(creds=CREDS) as registries:
            push(registries.sink(reference(bearer, "public/app:1")), Image(19))
        with client() as registries:
            assert pull(registries.source(reference(bearer, "public/app:1")))[0] == Image(19).manifest
            with pytest.raises(RegistryError) as caught:
                push(registries.sink(reference(bearer, "public/app:2")), Image(20))
        assert caught.value.status == 401
    finally:
        bearer.tokens.anonymous_pull = False


def test_one_token_serves_a_whole_push(bearer: Registry) -> None:
    assert bearer.tokens is not None
    before = len(bearer.tokens.requests)
    with client(creds=CREDS) as registries:
        push(registries.sink(reference(bearer, "frugal:1")), Image(21))
    assert len(bearer.tokens.requests) - before == 1


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_a_login_is_checked(request: pytest.FixtureRequest, kind: str) -> None:
    server: Registry = request.getfixturevalue(kind)
    with client() as registries:
        registries.check_login(server.address, Credentials(USER, PASSWORD))
        with pytest.raises(RegistryError) as caught:
            registries.check_login(server.address, Credentials(USER, "wrong"))
    assert caught.value.status == 401


def test_a_plain_registry_needs_leave(plain: Registry, tmp_path: Path) -> None:
    with client(tls_verify=None) as registries, pytest.raises(RegistryError, match="HTTP response to HTTPS client"):
        registries.source(reference(plain, "x:1")).manifest()
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{plain.address}"\ninsecure = true\n')
    with client(tls_verify=None, registries_conf=conf) as registries:
        push(registries.sink(reference(plain, "leave:1")), Image(22))
    with (
        client(tls_verify=True, registries_conf=conf) as registries,
        pytest.raises(RegistryError, match="HTTP response to HTTPS client"),
    ):
        registries.source(reference(plain, "leave:1")).manifest()


def test_mirrors_and_rewritten_names_reach_the_real_registry(plain: Registry, tmp_path: Path) -> None:
    image = Image(23)
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f"""
        unqualified-search-registries = ["hub.invalid"]
        [[registry]]
        prefix = "hub.invalid"
        location = "unreachable.invalid"
        [[registry.mirror]]
        location = "{plain.address}/mirror"
        insecure = true
        """
    )
    with client() as registries:
        push(registries.sink(reference(plain, "mirror/app:1")), image)
    with client(tls_verify=None, registries_conf=conf) as registries:
        (name,) = registries.candidates("app:1")
        assert str(name) == "hub.invalid/app:1"
        assert pull(registries.source(name)) == (image.manifest, image.blobs)


def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    with registry(tls=True, client_certificate=True) as server:
        name = reference(server, "private:1")
        with (
            client(tls_verify=None, cert_dir=server.cert_dir) as registries,
            pytest.raises(RegistryError, match=r"TLS|connection broke") as caught,
        ):
            registries.source(name).manifest()
        assert caught.value.status is None
        for suffix, file in (("cert", "client.crt"), ("key", "client.key")):
            shutil.copy(server.directory / file, server.cert_dir / f"me.{suffix}")
        with client(tls_verify=None, cert_dir=server.cert_dir) as registries:
            push(registries.sink(name), Image(25))
        (server.cert_dir / "me.key").unlink()
        with client(tls_verify=None, cert_dir=server.cert_dir) as registries, pytest.raises(NotFound, match="no key"):
            registries.source(name).manifest()


def test_a_missing_cert_dir_is_named(plain: Registry) -> None:
    with (
        client(cert_dir=Path("/no/such"), tls_verify=None) as registries,
        pytest.raises(NotFound, match="/no/such"),
    ):
        registries.source(reference(plain, "x:1")).manifest()


@needs.program("skopeo")
def test_skopeo_reads_what_was_pushed(plain: Registry, tmp_path: Path) -> None:
    image = Image(24)
    with client() as registries:
        push(registries.sink(reference(plain, "skopeo:1")), image)
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{plain.name('skopeo:1')}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == image.manifest


def test_no_secret_is_in_an_argument_list_an_event_or_a_message(basic: Registry) -> None:
    events: list[str] = []
    registries = RegistryClient(
        RegistryOptions(tls_verify=False, creds=f"{USER}:hunter2"), lambda e: events.append(repr(e)), environ=ENVIRON
    )
    with registries, pytest.raises(RegistryError) as caught:
        registries.source(reference(basic, "x:1")).manifest()
    seen = [*events, str(caught.value), str(caught.value.hint), repr(RegistryOptions(creds="a:hunter2"))]
    assert "hunter2" not in " ".join(seen)


def test_naming_an_image_loads_no_network_code() -> None:
    code = (
        "import sys, builda.registry.registryclient as c\n"
        "with c.RegistryClient(environ={'HOME': '/nonexistent'}) as r: r.source(r.candidates('alpine')[0])\n"
        "print([m for m in ('ssl', 'socket', 'http.client', 'email') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


@contextmanager
def forwarding(
    server: Registry, *, refuse_over: int | None = None, fail_patches: int = 0, fail_puts: int = 0
) -> Iterator[str]:
    """A reverse proxy before the registry that refuses large bodies, or drops the first uploads."""
    left = {"PATCH": fail_patches, "PUT": fail_puts}

    def answer(asked: Asked) -> Answer:
        if refuse_over is not None and len(asked.body) > refuse_over:
            return Answer(413)
        if "/blobs/uploads/" in asked.path and left.get(asked.method, 0):
            left[asked.method] -= 1
            return Answer(reset=True)
        return relay(server, asked)

    with scripted(answer) as running:
        yield running.address


def relay(server: Registry, asked: Asked) -> Answer:
    host = asked.headers["Host"]
    headers = {k: v for k, v in asked.headers.items() if k.lower() not in ("host", "content-length")}
    with closing(HTTPConnection(server.address)) as connection:
        connection.request(asked.method, asked.path, asked.body, headers)
        said = connection.getresponse()
        data = said.read()
    kept: Callable[[str], bool] = lambda name: name.lower() not in ("content-length", "date", "connection")  # noqa: E731
    back = {name: value.replace(server.address, host) for name, value in said.headers.items() if kept(name)}
    length = int(said.headers.get("Content-Length", 0)) if asked.method == "HEAD" else None
    return Answer(said.status, data, back, length=length)
