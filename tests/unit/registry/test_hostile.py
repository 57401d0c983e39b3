"""What the client makes of registries that lie, break off, redirect, or are not there."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from builda.errors import BuildaError, CorruptContent, RegistryError, Unsupported
from builda.events import Event, Warned
from builda.oci import mediatype
from builda.oci.descriptor import Descriptor
from builda.oci.digest import Digest, VerifyingReader
from builda.oci.manifest import MANIFEST_LIMIT
from builda.oci.reference import Reference
from builda.registry.certificates import Tls
from builda.registry.http import Http, Request
from builda.registry.registryclient import RegistryClient, RegistryOptions, RegistrySource
from builda.registry.repository import Endpoint
from tests.support.registry import Answer, Asked, Scripted, free_port, make_certificates, scripted, serving

BLOB = bytes(range(256)) * 4096
BLOB_DESCRIPTOR = Descriptor(media_type=mediatype.LAYER, digest=Digest.of(BLOB), size=len(BLOB))
CONFIG = {"mediaType": mediatype.CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": mediatype.MANIFEST, "config": CONFIG, "layers": []}).encode()
OCI = {"Content-Type": mediatype.MANIFEST}


class Net:
    """A client on a fake clock: what it slept and what it warned of."""

    def __init__(self, client_options: RegistryOptions, environ: dict[str, str] | None = None) -> None:
        self.slept: list[float] = []
        self.events: list[Event] = []
        self.client = RegistryClient(
            client_options,
            self.events.append,
            environ=environ or {"HOME": "/nonexistent"},
            system=Path("/nonexistent"),
            sleep=self.slept.append,
        )


@pytest.fixture
def net() -> Iterator[Net]:
    net = Net(RegistryOptions(tls_verify=False))
    with net.client:
        yield net


@contextmanager
def server(answer: Callable[[Asked], Answer], *, tls: Path | None = None) -> Iterator[Scripted]:
    """A scripted registry that answers the ping itself."""
    with scripted(lambda asked: Answer() if asked.path == "/v2/" else answer(asked), tls=tls) as running:
        yield running


def source(net: Net, running: Scripted, name: str = "app:1") -> RegistrySource:
    return net.client.source(Reference.parse(f"{running.address}/{name}"))


def pulled(image: RegistrySource, offset: int = 0, descriptor: Descriptor = BLOB_DESCRIPTOR) -> bytes:
    with image.open_blob(descriptor, offset) as content:
        return b"".join(iter(lambda: content.read(100_000), b""))


def ranged(asked: Asked) -> Answer:
    """A blob from where the Range says."""
    start = int(asked.headers.get("Range", "bytes=0-")[6:-1])
    headers = {"Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"}
    return Answer(206, BLOB[start:], headers) if start else Answer(200, BLOB)


# Blobs


def test_a_blob_is_read_from_an_offset_by_range(net: Net) -> None:
    with server(ranged) as running:
        assert pulled(source(net, running), 1000) == BLOB[1000:]
    assert running.asked[-1].headers["Range"] == "bytes=1000-"


def test_a_server_that_ignores_the_range_has_its_bytes_skipped(net: Net) -> None:
    with server(lambda _: Answer(200, BLOB)) as running:
        assert pulled(source(net, running), 1000) == BLOB[1000:]


def test_an_offset_at_the_end_asks_nothing(net: Net) -> None:
    with server(ranged) as running:
        assert pulled(source(net, running), len(BLOB)) == b""
    assert all("/blobs/" not in asked.path for asked in running.asked)


def test_a_connection_dropped_mid_blob_goes_on_where_it_stopped(net: Net) -> None:
    def answer(asked: Asked) -> Answer:
        whole = ranged(asked)
        return Answer(whole.status, whole.body, whole.headers, cut=300_000)

    with server(answer) as running:
        assert pulled(source(net, running)) == BLOB
    ranges = [asked.headers.get("Range") for asked in running.asked if "/blobs/" in asked.path]
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert len(net.slept) == 3  # more than one failure in a row would give up: each came after progress


def test_a_dropped_connection_is_mended_without_ranges_too(net: Net) -> None:
    cuts = iter([300_000, None])
    with server(lambda _: Answer(200, BLOB, cut=next(cuts))) as running:
        assert pulled(source(net, running)) == BLOB


def test_a_blob_that_always_breaks_at_the_same_place_is_given_up(net: Net) -> None:
    with server(lambda _: Answer(200, BLOB, cut=300_000)) as running, pytest.raises(RegistryError) as caught:
        pulled(source(net, running))
    assert "connection broke before the end" in str(caught.value)
    assert running.address in str(caught.value)
    assert len(net.slept) == 3
    assert net.slept == sorted(net.slept)


def test_a_truncated_blob_of_the_announced_length_is_refused_before_it_is_read(net: Net) -> None:
    with server(lambda _: Answer(200, BLOB[:-1])) as running, pytest.raises(CorruptContent, match="promised"):
        pulled(source(net, running))


def test_a_blob_longer_than_promised_is_refused(net: Net) -> None:
    with server(lambda _: Answer(200, BLOB + b"x")) as running, pytest.raises(CorruptContent, match="promised"):
        pulled(source(net, running))


def test_an_endless_blob_is_cut_off(net: Net) -> None:
    with server(lambda _: Answer(endless=True)) as running, pytest.raises(CorruptContent, match="longer than"):
        pulled(source(net, running))


def test_a_blob_with_other_content_fails_in_the_verifying_reader(net: Net) -> None:
    with server(lambda _: Answer(200, BLOB[::-1])) as running, source(net, running).open_blob(BLOB_DESCRIPTOR) as raw:
        reader = VerifyingReader(raw, BLOB_DESCRIPTOR.digest, BLOB_DESCRIPTOR.size)
        with pytest.raises(CorruptContent, match="digest"):
            reader.read()


def test_a_range_from_the_wrong_place_is_refused(net: Net) -> None:
    headers = {"Content-Range": f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}"}
    with server(lambda _: Answer(206, BLOB[5:], headers)) as running, pytest.raises(CorruptContent, match="from 5"):
        pulled(source(net, running), 1000)


def test_a_missing_blob_is_a_registry_error(net: Net) -> None:
    body = b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}'
    with server(lambda _: Answer(404, body)) as running, pytest.raises(RegistryError) as caught:
        pulled(source(net, running))
    assert (caught.value.status, caught.value.code) == (404, "BLOB_UNKNOWN")
    assert "blob unknown to registry" in str(caught.value)


# Redirects


def test_a_redirect_to_another_host_does_not_carry_the_password() -> None:
    net = Net(RegistryOptions(tls_verify=False, creds="me:secret"))
    with scripted(lambda _: Answer(200, BLOB)) as storage:

        def answer(asked: Asked) -> Answer:
            if "Authorization" not in asked.headers:
                return Answer(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return Answer(307, headers={"Location": f"http://{storage.address}/bucket/key?signature=abc"})

        with server(answer) as running, net.client:
            assert pulled(source(net, running)) == BLOB
    assert running.asked[-1].headers["Authorization"].startswith("Basic ")
    assert "Authorization" not in storage.asked[0].headers


def test_a_challenge_from_the_redirected_host_is_not_answered() -> None:
    net = Net(RegistryOptions(tls_verify=False, creds="me:secret"))
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    with scripted(lambda _: Answer(401, headers=challenge)) as storage:
        location = {"Location": f"http://{storage.address}/x?signature=abc"}
        with (
            server(lambda _: Answer(302, headers=location)) as running,
            net.client,
            pytest.raises(RegistryError) as caught,
        ):
            pulled(source(net, running))
    assert caught.value.status == 401
    assert all("Authorization" not in asked.headers for asked in storage.asked)


def test_redirects_in_a_circle_end(net: Net) -> None:
    with (
        server(lambda asked: Answer(302, headers={"Location": asked.path})) as running,
        pytest.raises(RegistryError, match="more than 10 redirects"),
    ):
        pulled(source(net, running))


def test_a_redirect_to_a_file_is_refused(net: Net) -> None:
    with (
        server(lambda _: Answer(302, headers={"Location": "file:///etc/passwd"})) as running,
        pytest.raises(RegistryError, match="something other than HTTP"),
    ):
        pulled(source(net, running))


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    net = Net(RegistryOptions(cert_dir=tmp_path / "certs"))
    location = {"Location": "http://127.0.0.1:1/x"}
    with (
        server(lambda _: Answer(302, headers=location), tls=tmp_path) as running,
        net.client,
        pytest.raises(RegistryError, match="from HTTPS to plain HTTP"),
    ):
        pulled(source(net, running))


# Retries


def failing(times: int, failure: Answer, then: Answer) -> Callable[[Asked], Answer]:
    left = iter([failure] * times)
    return lambda _: next(left, then)


def test_retry_after_is_obeyed(net: Net) -> None:
    busy = Answer(429, headers={"Retry-After": "7"})
    with server(failing(2, busy, Answer(200, MANIFEST, OCI))) as running:
        assert source(net, running).manifest()[1] == MANIFEST
    assert net.slept == [7.0, 7.0]
    assert all(isinstance(event, Warned) and "429" in event.message for event in net.events)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_are_retried_with_growing_pauses(net: Net, status: int) -> None:
    with server(failing(3, Answer(status), Answer(200, MANIFEST, OCI))) as running:
        assert source(net, running).manifest()[1] == MANIFEST
    assert len(net.slept) == 3
    assert net.slept == sorted(net.slept)


def test_a_connection_closed_without_an_answer_is_retried(net: Net) -> None:
    with server(failing(1, Answer(reset=True), Answer(200, MANIFEST, OCI))) as running:
        assert source(net, running).manifest()[1] == MANIFEST


def test_retries_end_with_the_registrys_own_words(net: Net) -> None:
    body = b'{"errors":[{"code":"UNAVAILABLE","message":"down for a nap"}]}'
    with server(lambda _: Answer(503, body)) as running, pytest.raises(RegistryError, match="503 down for a nap"):
        source(net, running).manifest()
    assert len(running.asked) == 1 + 3


@pytest.mark.parametrize(("retry", "delay", "slept"), [(0, None, []), (2, 0.25, [0.25, 0.25])])
def test_the_user_says_how_often_and_how_long(retry: int, delay: float | None, slept: list[float]) -> None:
    net = Net(RegistryOptions(tls_verify=False, retry=retry, retry_delay=delay))
    with server(lambda _: Answer(500)) as running, net.client, pytest.raises(RegistryError, match="500"):
        source(net, running).manifest()
    assert net.slept == slept


def test_an_hour_of_retry_after_is_not_waited_for(net: Net) -> None:
    with (
        server(lambda _: Answer(429, headers={"Retry-After": "3600"})) as running,
        pytest.raises(RegistryError) as caught,
    ):
        source(net, running).manifest()
    assert "3600 seconds" in str(caught.value.hint)
    assert net.slept == []


def test_refusals_are_not_retried(net: Net) -> None:
    with server(lambda _: Answer(403)) as running, pytest.raises(RegistryError) as caught:
        source(net, running).manifest()
    assert caught.value.status == 403
    assert "builda login" in str(caught.value.hint)
    assert net.slept == []


# Manifests


def test_an_oversized_manifest_is_refused_while_it_is_read(net: Net) -> None:
    with (
        server(lambda _: Answer(200, b" " * (MANIFEST_LIMIT + 1), OCI)) as running,
        pytest.raises(RegistryError, match="larger than the limit"),
    ):
        source(net, running).manifest()


def test_an_endless_manifest_is_refused(net: Net) -> None:
    with (
        server(lambda _: Answer(headers=OCI, endless=True)) as running,
        pytest.raises(RegistryError, match="larger than the limit"),
    ):
        source(net, running).manifest()


def test_the_announced_digest_must_be_that_of_the_bytes(net: Net) -> None:
    headers = {**OCI, "Docker-Content-Digest": "sha256:" + "0" * 64}
    with server(lambda _: Answer(200, MANIFEST, headers)) as running, pytest.raises(CorruptContent, match="digest"):
        source(net, running).manifest()


def test_a_sha512_announcement_is_verified_as_such(net: Net) -> None:
    headers = {**OCI, "Docker-Content-Digest": f"sha512:{hashlib.sha512(MANIFEST).hexdigest()}"}
    with server(lambda _: Answer(200, MANIFEST, headers)) as running:
        assert source(net, running).manifest()[0].digest.algorithm == "sha512"


def test_the_digest_asked_for_must_be_that_of_the_bytes(net: Net) -> None:
    with server(lambda _: Answer(200, MANIFEST, OCI)) as running, pytest.raises(CorruptContent, match="digest"):
        source(net, running, f"app@sha256:{'1' * 64}").manifest()


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "text/plain; charset=utf-8",
        mediatype.DOCKER_SCHEMA1_SIGNED,
        mediatype.MANIFEST + "; x=y",
    ],
)
def test_a_meaningless_content_type_leaves_it_to_the_manifest(net: Net, content_type: str) -> None:
    with server(lambda _: Answer(200, MANIFEST, {"Content-Type": content_type})) as running:
        assert source(net, running).manifest()[0].media_type == mediatype.MANIFEST


def test_a_content_type_that_contradicts_the_manifest_is_refused(net: Net) -> None:
    with (
        server(lambda _: Answer(200, MANIFEST, {"Content-Type": mediatype.INDEX})) as running,
        pytest.raises(CorruptContent, match="announced"),
    ):
        source(net, running).manifest()


def test_schema_1_is_refused_as_such(net: Net) -> None:
    body = b'{"schemaVersion": 1, "name": "x"}'
    headers = {"Content-Type": mediatype.DOCKER_SCHEMA1_SIGNED}
    with server(lambda _: Answer(200, body, headers)) as running, pytest.raises(Unsupported, match="schema 1"):
        source(net, running).manifest()


def test_html_instead_of_a_manifest_is_no_traceback(net: Net) -> None:
    with (
        server(lambda _: Answer(200, b"<html>", {"Content-Type": "text/html"})) as running,
        pytest.raises(BuildaError, match="not JSON"),
    ):
        source(net, running).manifest()


def test_every_kind_of_manifest_is_accepted_in_one_request(net: Net) -> None:
    with server(lambda _: Answer(200, MANIFEST, OCI)) as running:
        source(net, running).manifest()
    accept = running.asked[-1].headers["Accept"]
    assert all(kind in accept for kind in mediatype.MANIFESTS | mediatype.INDEXES)


def test_a_head_without_headers_falls_back_to_the_manifest(net: Net) -> None:
    with server(lambda _: Answer(200, MANIFEST)) as running:
        found = source(net, running).head()
    assert found is not None
    assert found.digest == Digest.of(MANIFEST)


def test_a_head_for_an_unknown_tag_finds_nothing(net: Net) -> None:
    with server(lambda _: Answer(404)) as running:
        assert source(net, running).head() is None


# Tags


def test_tags_come_page_by_page(net: Net) -> None:
    def answer(asked: Asked) -> Answer:
        if "last=b" in asked.path:
            return Answer(body=b'{"name": "app", "tags": ["c"]}')
        link = {"Link": '</v2/app/tags/list?n=2&last=b>; rel="next"'}
        return Answer(body=b'{"name": "app", "tags": ["a", "b"]}', headers=link)

    with server(answer) as running:
        assert net.client.tags(Reference.parse(f"{running.address}/app")) == ("a", "b", "c")


def test_pages_that_go_in_a_circle_end(net: Net) -> None:
    link = {"Link": '</v2/app/tags/list?n=1000>; rel="next"'}
    with server(lambda _: Answer(body=b'{"tags": ["a"]}', headers=link)) as running:
        assert net.client.tags(Reference.parse(f"{running.address}/app")) == ("a",)


def test_no_tags_at_all_may_be_written_as_null(net: Net) -> None:
    with server(lambda _: Answer(body=b'{"tags": null}')) as running:
        assert net.client.tags(Reference.parse(f"{running.address}/app")) == ()


def test_an_unknown_tag_names_its_neighbours(net: Net) -> None:
    def answer(asked: Asked) -> Answer:
        tags = b'{"tags": ["bookworm", "bullseye", "1.0"]}'
        return Answer(body=tags) if "tags/list" in asked.path else Answer(404)

    with server(answer) as running, pytest.raises(RegistryError) as caught:
        source(net, running, "app:bookwrom").manifest()
    assert caught.value.hint == f"did you mean {running.address}/app:bookworm?"


# Mirrors


def test_a_failing_mirror_is_passed_over_with_a_warning(tmp_path: Path) -> None:
    good = Answer(200, MANIFEST, OCI)
    with server(lambda _: Answer(404)) as mirror, server(lambda _: good) as primary:
        conf = tmp_path / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{primary.address}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{mirror.address}/cache"\ninsecure = true\n'
        )
        net = Net(RegistryOptions(registries_conf=conf))
        with net.client:
            assert source(net, primary).manifest()[1] == MANIFEST
    assert mirror.asked[0].path == "/v2/cache/app/manifests/1"
    assert any(isinstance(event, Warned) and "mirror failed" in event.message for event in net.events)


# Connections


def test_a_refused_connection_is_named_with_host_and_port() -> None:
    net = Net(RegistryOptions())
    port = free_port()
    with net.client, pytest.raises(RegistryError, match=rf"connection refused\): 127\.0\.0\.1:{port}"):
        net.client.source(Reference.parse(f"127.0.0.1:{port}/app")).manifest()
    assert len(net.slept) == 3


def test_an_unknown_host_is_named_and_not_retried() -> None:
    net = Net(RegistryOptions())
    with net.client, pytest.raises(RegistryError, match=r"cannot resolve host name: no-such-host\.invalid"):
        net.client.source(Reference.parse("no-such-host.invalid/app")).manifest()


def test_plain_http_where_https_was_expected_names_the_way_out() -> None:
    net = Net(RegistryOptions())
    with (
        server(lambda _: Answer(200, MANIFEST, OCI)) as running,
        net.client,
        pytest.raises(RegistryError, match="server gave HTTP response to HTTPS client") as caught,
    ):
        source(net, running).manifest()
    assert "--tls-verify=false" in str(caught.value.hint)
    assert "insecure = true" in str(caught.value.hint)
    assert net.slept == []


def test_the_first_request_to_a_loopback_address_shows_that_it_speaks_http(net: Net) -> None:
    with scripted(lambda _: Answer(200, MANIFEST, OCI)) as running:
        source(net, running).manifest()
        source(net, running, "other:1").manifest()
    assert [(asked.method, asked.path) for asked in running.asked] == [
        ("GET", "/v2/app/manifests/1"),
        ("GET", "/v2/other/manifests/1"),
    ]


@pytest.mark.parametrize("refusal", [404, 400])
def test_a_registry_that_refuses_the_first_request_is_believed(net: Net, refusal: int) -> None:
    with scripted(lambda _: Answer(refusal)) as running, pytest.raises(RegistryError) as caught:
        source(net, running).manifest()
    assert caught.value.status == refusal
    assert net.slept == []


def test_a_registry_on_a_loopback_address_may_speak_tls(net: Net, tmp_path: Path) -> None:
    make_certificates(tmp_path)
    with server(
        lambda asked: ranged(asked) if "blobs" in asked.path else Answer(200, MANIFEST, OCI), tls=tmp_path
    ) as running:
        assert source(net, running).manifest()[1] == MANIFEST
        assert pulled(source(net, running)) == BLOB
    assert net.slept == []


def test_a_request_that_was_made_before_another_found_out_tls_goes_over_it(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    http = Http(environ={})
    with scripted(lambda _: Answer(), tls=tmp_path) as running:
        endpoint = Endpoint(http, running.address, trust=lambda _: Tls(verify=False), insecure=True)
        request = Request("GET", f"{endpoint.base()}/v2/", endpoint.trust, "x")
        for _ in range(2):
            with endpoint.open(request) as reply:
                assert (reply.status, reply.url) == (200, f"https://{running.address}/v2/")
    http.close()


def test_a_refusal_over_https_is_no_reason_to_ask_over_http(net: Net, tmp_path: Path) -> None:
    make_certificates(tmp_path)

    def answer(asked: Asked) -> Answer:
        return Answer() if asked.path == "/v2/" else Answer(400, b'{"errors": [{"message": "no such way"}]}')

    with scripted(answer, tls=tmp_path, also_plain=True) as running:
        elsewhere = running.address.replace("127.0.0.1", "0.0.0.0")  # which is this machine, and no loopback address
        with pytest.raises(RegistryError, match="400 no such way"):
            net.client.source(Reference.parse(f"{elsewhere}/app:1")).manifest()
    assert [asked.path for asked in running.asked] == ["/v2/app/manifests/1"]


def test_a_web_page_that_redirects_to_https_is_no_registry_of_http(net: Net, tmp_path: Path) -> None:
    make_certificates(tmp_path)

    def answer(asked: Asked) -> Answer:
        there = f"https://{asked.headers['Host']}{asked.path}"
        return Answer() if asked.path == "/v2/" else Answer(307, headers={"Location": there})  # in a circle

    with scripted(answer, tls=tmp_path) as running:
        elsewhere = running.address.replace("127.0.0.1", "0.0.0.0")
        with pytest.raises(RegistryError, match="redirects"):
            net.client.source(Reference.parse(f"{elsewhere}/app:1")).manifest()


def test_an_unknown_authority_names_the_ways_out(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    net = Net(RegistryOptions())
    with (
        server(lambda _: Answer(200, MANIFEST, OCI), tls=tmp_path) as running,
        net.client,
        pytest.raises(RegistryError, match="certificate is not trusted") as caught,
    ):
        source(net, running).manifest()
    assert "--cert-dir" in str(caught.value.hint)


def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    make_certificates(tmp_path, names="DNS:other.example")
    net = Net(RegistryOptions(cert_dir=tmp_path / "certs"))
    with (
        server(lambda _: Answer(200, MANIFEST, OCI), tls=tmp_path) as running,
        net.client,
        pytest.raises(RegistryError, match=r"not trusted \(IP address mismatch"),
    ):
        source(net, running).manifest()


@pytest.mark.parametrize("options", [{"tls_verify": False}, {"cert_dir": True}])
def test_tls_works_with_an_authority_or_without_verification(tmp_path: Path, options: dict[str, object]) -> None:
    make_certificates(tmp_path)
    if "cert_dir" in options:
        options = {"cert_dir": tmp_path / "certs"}
    net = Net(RegistryOptions(**options))  # type: ignore[arg-type]  # a test's choice
    with server(lambda _: Answer(200, MANIFEST, OCI), tls=tmp_path) as running, net.client:
        assert source(net, running).manifest()[1] == MANIFEST


def test_certs_d_of_the_host_is_trusted(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    with server(lambda _: Answer(200, MANIFEST, OCI), tls=tmp_path) as running:
        directory = tmp_path / "system/etc/docker/certs.d" / running.address
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
        environ = {"HOME": "/nonexistent"}
        with RegistryClient(environ=environ, system=tmp_path / "system") as client:
            assert client.source(Reference.parse(f"{running.address}/app:1")).manifest()[1] == MANIFEST


# URLs


def test_a_url_is_fetched_with_its_name_size_and_date(net: Net) -> None:
    headers = {"Last-Modified": "Thu, 01 Jan 1970 00:01:40 GMT", "ETag": '"v1"'}
    with (
        scripted(lambda _: Answer(200, BLOB, headers)) as running,
        net.client.fetch_url(f"http://{running.address}/dir/file%20name.tar?x=1#f") as response,
    ):
        assert (response.filename, response.size) == ("file name.tar", len(BLOB))
        assert (response.last_modified, response.etag) == (100.0, '"v1"')
        assert response.read() == BLOB
    assert running.asked[0].path == "/dir/file%20name.tar?x=1"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="a b.txt"', "a b.txt"),
        ("attachment; filename*=UTF-8''na%C3%AFve", "naïve"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename=".."', "end"),
        ("inline", "end"),
    ],
)
def test_the_header_names_the_file_but_never_a_path(net: Net, disposition: str, name: str) -> None:
    with (
        scripted(lambda _: Answer(200, b"x", {"Content-Disposition": disposition})) as running,
        net.client.fetch_url(f"http://{running.address}/end") as response,
    ):
        assert response.filename == name


def test_a_broken_download_goes_on_when_the_file_is_the_same(net: Net) -> None:
    def answer(asked: Asked) -> Answer:
        whole = ranged(asked)
        return Answer(whole.status, whole.body, {**whole.headers, "ETag": '"v1"'}, cut=500_000)

    with scripted(answer) as running, net.client.fetch_url(f"http://{running.address}/f") as response:
        assert response.read() == BLOB
    assert running.asked[1].headers["If-Range"] == '"v1"'


def test_a_file_that_changes_meanwhile_is_an_error(net: Net) -> None:
    etags = iter(['"v1"', '"v2"'])
    with (
        scripted(lambda _: Answer(200, BLOB, {"ETag": next(etags)}, cut=500_000)) as running,
        net.client.fetch_url(f"http://{running.address}/f") as response,
        pytest.raises(RegistryError, match="changed while"),
    ):
        response.read()


def test_a_missing_file_is_named_without_password_and_query(net: Net) -> None:
    with (
        scripted(lambda _: Answer(404)) as running,
        pytest.raises(RegistryError) as caught,
        net.client.fetch_url(f"http://me:pw@{running.address}/f?token=secret"),
    ):
        pass
    assert str(caught.value) == f"cannot download http://{running.address}/f?…: 404 Not Found"
    assert running.asked[0].headers["Authorization"] == "Basic bWU6cHc="


def test_downloads_follow_redirects_and_retry(net: Net) -> None:
    answers = iter([Answer(503), Answer(302, headers={"Location": "/real.txt"}), Answer(200, b"content")])
    with (
        scripted(lambda _: next(answers)) as running,
        net.client.fetch_url(f"http://{running.address}/link") as response,
    ):
        assert response.read() == b"content"
        assert response.url.endswith("/real.txt")
        assert response.filename == "link"


@pytest.mark.parametrize("url", ["ftp://x/y", "http://", "file:///etc/passwd", "nonsense"])
def test_other_urls_are_refused(net: Net, url: str) -> None:
    with pytest.raises(BuildaError, match="not an http or https URL"), net.client.fetch_url(url):
        pass


def test_requests_go_through_the_proxy_of_the_environment() -> None:
    with scripted(lambda _: Answer(200, b"via proxy")) as proxy:
        environ = {"HOME": "/nonexistent", "HTTP_PROXY": f"http://me:pw@{proxy.address}"}
        net = Net(RegistryOptions(), environ)
        with net.client, net.client.fetch_url("http://files.invalid/x") as response:
            assert response.read() == b"via proxy"
    assert proxy.asked[0].path == "http://files.invalid/x"
    assert proxy.asked[0].headers["Proxy-Authorization"] == "Basic bWU6cHc="


@contextmanager
def tunnel(target: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy that tunnels whatever it is asked for to `target`; its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            host, _, port = target.partition(":")
            with socket.create_connection((host, int(port))) as upstream:
                self.send_response(200)
                self.end_headers()
                back = threading.Thread(target=pump, args=(upstream, self.connection))
                back.start()
                pump(self.connection, upstream)
                back.join()

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler) as address:
        yield address, asked


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("verify", [True, False])
def test_tls_goes_through_a_tunnel_of_the_proxy(tmp_path: Path, verify: bool) -> None:
    make_certificates(tmp_path, names="DNS:registry.invalid")
    options = RegistryOptions(cert_dir=tmp_path / "certs") if verify else RegistryOptions(tls_verify=False)
    with (
        server(lambda _: Answer(200, MANIFEST, OCI), tls=tmp_path) as running,
        tunnel(running.address) as (proxy, asked),
    ):
        net = Net(options, {"HOME": "/nonexistent", "HTTPS_PROXY": proxy})
        with net.client:
            assert net.client.source(Reference.parse("registry.invalid/app:1")).manifest()[1] == MANIFEST
    assert asked == ["registry.invalid:443"]


def test_an_unreachable_proxy_is_named_as_the_cause() -> None:
    net = Net(RegistryOptions(retry=0), {"HOME": "/nonexistent", "HTTPS_PROXY": f"127.0.0.1:{free_port()}"})
    with net.client, pytest.raises(RegistryError, match=r"cannot reach registry\.invalid:443 through the proxy"):
        net.client.source(Reference.parse("registry.invalid/app:1")).manifest()
