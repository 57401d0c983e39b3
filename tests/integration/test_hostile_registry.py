"""Registries that lie, break off or never end, as a user meets them: the message, the status, nothing changed.

What the client makes of each answer is in tests/unit/registry.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from builda.oci import mediatype
from tests.conftest import Builda, clean_environ
from tests.support import images
from tests.support.compared import unchanged
from tests.support.registry import Answer, Asked, make_certificates, scripted

pytestmark = [pytest.mark.root, pytest.mark.network]

MADE = images.simple(11)
LAYER = MADE.layer_digests[1]
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}
FAST = ("--tls-verify=false", "--retry=0")
HTML = Answer(200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"})
Lie = Callable[[Asked, Answer], Answer]


def honest(asked: Asked, made: images.Made = MADE) -> Answer:
    """What a registry with one image says."""
    if "/manifests/" in asked.path:
        return Answer(body=made.raw, headers={"Content-Type": made.value["mediaType"]})
    for digest, data in made.blobs.items():
        if asked.path.endswith(str(digest)):
            start = int(asked.headers.get("Range", "bytes=0-")[6:-1])
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            return Answer(206, data[start:], headers) if start else Answer(body=data)
    return Answer() if asked.path == "/v2/" else Answer(404)


def of(part: str, change: Callable[[Answer], Answer]) -> Lie:
    """A lie about what is asked for under paths that hold `part`."""
    return lambda asked, answer: change(answer) if part in asked.path else answer


def manifest(change: Callable[[Answer], Answer]) -> Lie:
    return of("/manifests/", change)


def layer(change: Callable[[Answer], Answer]) -> Lie:
    return of(str(LAYER), change)


def headed(**headers: str) -> Callable[[Answer], Answer]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda answer: replace(answer, headers={**answer.headers, **named})


def challenged(challenge: str) -> Lie:
    return lambda asked, _: Answer(401, headers={"WWW-Authenticate": challenge})


def renewed(asked: Asked, answer: Answer) -> Answer:
    """A registry that is content with no token."""
    if asked.path.startswith("/token"):
        return Answer(body=json.dumps({"token": f"t{time.monotonic_ns()}"}).encode())
    realm = f"http://{asked.headers['Host']}/token"
    return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",scope="repository:x:pull"'})


def cut_then(change: Callable[[Answer], Answer]) -> Lie:
    """A layer that breaks off; what comes when it is asked for the rest is changed."""

    def lie(asked: Asked, answer: Answer) -> Answer:
        if not asked.path.endswith(str(LAYER)):
            return answer
        return change(answer) if "Range" in asked.headers else replace(answer, cut=20)

    return lie


def itself() -> Answer:
    """A list that says that it lists itself; its digest cannot be its own."""
    entry = {"mediaType": mediatype.INDEX, "digest": str(MADE.descriptor.digest), "size": MADE.descriptor.size}
    platform = {"os": "linux", "architecture": "amd64"}
    index = {"schemaVersion": 2, "mediaType": mediatype.INDEX, "manifests": [{**entry, "platform": platform}]}
    return Answer(body=json.dumps(index).encode(), headers={"Content-Type": mediatype.INDEX})


PULLED: Mapping[str, tuple[Lie, str, tuple[str, ...]]] = {
    "length more than promised": (layer(lambda a: replace(a, body=a.body + b"x")), "bytes where", ()),
    "length less than promised": (layer(lambda a: replace(a, body=a.body[:-1])), "bytes where", ()),
    "length that is no number": (manifest(headed(Content_Length="x")), "its length is not a number", ()),
    "two lengths": (manifest(headed(Content_Length="5, 6")), "its length is not a number", ()),
    "content cut off": (layer(lambda a: replace(a, cut=9)), "connection broke before the end", ()),
    "a connection cut at once": (layer(lambda _: Answer(reset=True)), "connection broke", ()),
    "another range": (cut_then(headed(Content_Range="bytes 3-9/10")), "asked for bytes from 20", ("--retry=2",)),
    "a range that is none": (cut_then(headed(Content_Range="x")), "without a usable Content-Range", ("--retry=2",)),
    "another total": (
        cut_then(headed(Content_Range=f"bytes 20-{2**40}/{2**40}")),
        f"has {2**40} bytes",
        ("--retry=2",),
    ),
    "other bytes": (layer(lambda a: replace(a, body=a.body[::-1])), "digest", ()),
    "other bytes for the rest": (cut_then(lambda a: replace(a, body=a.body[::-1])), "digest", ("--retry=2",)),
    "other bytes of the manifest": (manifest(headed(Docker_Content_Digest=f"sha256:{'0' * 64}")), "digest", ()),
    "a digest that is none": (manifest(headed(Docker_Content_Digest="sha256:x")), "Docker-Content-Digest", ()),
    "another media type": (manifest(headed(Content_Type=mediatype.INDEX)), "announced", ()),
    "a web page for a manifest": (manifest(lambda _: HTML), "not JSON", ()),
    "a web page for a layer": (layer(lambda _: HTML), "bytes where", ()),
    "a web page as a refusal": (manifest(lambda _: replace(HTML, status=403)), "403 Forbidden", ()),
    "a list in place of an image": (manifest(lambda _: itself()), "does not match its digest", ()),
    "a manifest of the wrong form": (
        manifest(
            lambda _: Answer(body=b'{"schemaVersion": 2, "layers": 7}', headers={"Content-Type": mediatype.MANIFEST})
        ),
        "cannot pull 127.0.0.1",
        (),
    ),
    "a header without end": (manifest(headed(X="x" * 200_000)), "a line of its header is longer", ()),
    "redirects in a circle": (
        lambda asked, answer: Answer(302, headers={"Location": asked.path}) if "manifests" in asked.path else answer,
        "more than 10 redirects",
        (),
    ),
    "a redirect to a file": (
        manifest(lambda _: Answer(302, headers={"Location": "file:///etc/passwd"})),
        "redirected",
        (),
    ),
    "a redirect to nowhere": (manifest(lambda _: Answer(302, headers={"Location": "http://[x"})), "not a URL", ()),
    "always another token": (renewed, "401", ()),
    "basic for ever": (challenged('Basic realm="x"'), "401", ("--creds=me:hunter2",)),
    "a token server that is a web page": (
        lambda asked, _: (
            HTML
            if asked.path.startswith("/token")
            else Answer(401, headers={"WWW-Authenticate": f'Bearer realm="http://{asked.headers["Host"]}/token"'})
        ),
        "gave no token",
        (),
    ),
    "a token server that is a file": (challenged('Bearer realm="file:///etc/passwd"'), "token server", ()),
    "an hour of patience": (
        manifest(lambda _: Answer(429, headers={"Retry-After": "3600"})),
        "3600 seconds",
        ("--retry=3",),
    ),
    "control characters": (
        manifest(lambda _: Answer(403, b'{"errors": [{"code": "DENIED", "message": "a\\u001b[2Jb"}]}')),
        "a [2Jb",
        (),
    ),
}


@pytest.mark.parametrize("kind", PULLED)
def test_a_pull_from_a_registry_that_lies_changes_nothing(builda: Builda, kind: str) -> None:
    lie, words, options = PULLED[kind]
    ping = Answer(headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    def answer(asked: Asked) -> Answer:
        return ping if asked.path == "/v2/" else lie(asked, honest(asked))

    builda("images")
    with scripted(answer) as server, unchanged(builda):
        said = builda.fails("pull", "-q", *FAST, "--retry-delay=10ms", *options, f"{server.address}/x:1")
    assert words in said
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert "hunter2" not in said
    assert len(server.asked) < 40
    with scripted(honest) as server:  # and what was kept of it does no harm
        builda("pull", "-q", *FAST, f"{server.address}/x:1")
    assert builda("fsck") == ""


def test_no_password_goes_to_where_a_registry_redirects(builda: Builda) -> None:
    def asking(asked: Asked) -> Answer:
        """Asks for a password, which the redirection could carry on."""
        return honest(asked) if "Authorization" in asked.headers else Answer(401, headers=BASIC)

    with scripted(asking) as other:

        def answer(asked: Asked) -> Answer:
            if "Authorization" not in asked.headers:
                return Answer(401, headers=BASIC)
            if asked.path.endswith(str(LAYER)):
                return Answer(307, headers={"Location": f"http://{other.address}{asked.path}"})
            return honest(asked)

        builda("images")
        with scripted(answer) as server, unchanged(builda):
            said = builda.fails("pull", "-q", *FAST, "--creds=me:hunter2", f"{server.address}/x:1")
        assert "401" in said
        assert "hunter2" not in said
        assert any("Authorization" in asked.headers for asked in server.asked)
        assert other.asked
        assert not any("Authorization" in asked.headers for asked in other.asked)


def uploading(asked: Asked) -> Answer:
    """A registry that takes everything."""
    if asked.path == "/v2/":
        return Answer()
    if asked.method == "HEAD":
        return Answer(404)
    if asked.method == "POST":
        return Answer(202, headers={"Location": "/v2/x/blobs/uploads/u"})
    return Answer(201)


def pushed(method: str, part: str, said: Answer) -> Lie:
    return lambda asked, answer: said if asked.method == method and part in asked.path else answer


PUSHED: Mapping[str, tuple[Lie, str]] = {
    "no place for an upload": (pushed("POST", "uploads", Answer(202)), "no Location"),
    "a place that is a file": (
        pushed("POST", "uploads", Answer(202, headers={"Location": "file:///x"})),
        "not an http",
    ),
    "a place that is none": (pushed("POST", "uploads", Answer(202, headers={"Location": "http://[x"})), "not a URL"),
    "a web page for an upload": (pushed("POST", "uploads", HTML), "200"),
    "a refused layer": (
        pushed("PUT", "uploads", Answer(400, b'{"errors": [{"code": "DIGEST_INVALID", "message": "not that"}]}')),
        "not that",
    ),
    "a layer refused in one piece and in many": (lambda asked, a: Answer(413) if asked.body else a, "413"),
    "a manifest stored as another": (
        pushed("PUT", "manifests", Answer(201, headers={"Docker-Content-Digest": f"sha256:{'1' * 64}"})),
        "stored it as sha256:1111",
    ),
    "a refused manifest": (pushed("PUT", "manifests", Answer(400, b"<html>")), "400 Bad Request"),
    "an upload that breaks off": (pushed("PUT", "uploads", Answer(reset=True)), "connection broke"),
    "an hour of patience": (pushed("PUT", "manifests", Answer(429, headers={"Retry-After": "3600"})), "429"),
    "a redirect elsewhere": (
        pushed("POST", "uploads", Answer(307, headers={"Location": "file:///x"})),
        "redirected to something other than HTTP",
    ),
}


@pytest.mark.parametrize("kind", PUSHED)
def test_a_push_to_a_registry_that_lies_fails_and_changes_nothing(builda: Builda, tmp_path: Path, kind: str) -> None:
    lie, words = PUSHED[kind]
    builda("pull", "-q", f"oci:{images.write_layout(tmp_path / 'layout', MADE, 'localhost/x:1')}")
    identity = builda("images", "-q").split()[0]
    with scripted(lambda asked: lie(asked, uploading(asked))) as server, unchanged(builda):
        said = builda.fails("push", "-q", *FAST, "--creds=me:hunter2", identity, f"{server.address}/x:1")
    assert words in said
    assert "Traceback" not in said
    assert "hunter2" not in said


def test_a_certificate_that_has_expired_is_refused(builda: Builda, tmp_path: Path) -> None:
    make_certificates(tmp_path)
    expire(tmp_path)
    builda("images")
    with scripted(honest, tls=tmp_path) as server, unchanged(builda):
        said = builda.fails("pull", "-q", "--cert-dir", tmp_path / "certs", f"{server.address}/x:1")
    assert f"certificate is not trusted (certificate has expired): {server.address}" in said
    assert "hint: " in said


def expire(directory: Path) -> None:
    """Sign the server's certificate again, until yesterday."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    found = x509.load_pem_x509_certificate((directory / "server.crt").read_bytes())
    key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        found.issuer, found.subject, found.public_key(), found.serial_number, now - timedelta(9), now - timedelta(1)
    )
    for extension in found.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    signed = builder.sign(key, hashes.SHA256())  # type: ignore[arg-type]  # an RSA key
    (directory / "server.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


# Pulls that go on


BIG = images.image(images.layer({"a": os.urandom(100_000)}), images.layer({"b": os.urandom(3_000_000)}))
SECOND = BIG.layer_digests[1]


def hanging(asked: Asked) -> Answer:
    """The second layer stops after a megabyte, and the connection stays open."""
    answer = honest(asked, BIG)
    return replace(answer, stall=1_000_000) if asked.path.endswith(str(SECOND)) else answer


@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_pull_that_was_ended_goes_on_elsewhere(builda: Builda, ended: signal.Signals) -> None:
    partial = builda.root / "ingest" / f"blob-{SECOND.encoded}"
    with scripted(hanging) as server:
        command = [*builda.command, "pull", "-q", *FAST, f"{server.address}/x:1"]
        with subprocess.Popen(command, env=clean_environ(), stderr=subprocess.PIPE) as process:
            wait_for(lambda: partial.exists() and partial.stat().st_size == 1_000_000)
            wait_for(lambda: (builda.root / "blobs/sha256" / BIG.layer_digests[0].encoded).exists())
            process.send_signal(ended)
            assert process.wait(timeout=30) == (-ended if ended == signal.SIGKILL else 128 + ended)
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
    assert builda("images", "-q") == ""
    with scripted(lambda asked: honest(asked, BIG)) as mirror:
        builda("pull", "-q", *FAST, f"{mirror.address}/copy/of/x:1")
    blobs = {
        re.sub(".*/", "", asked.path): asked.headers.get("Range") for asked in mirror.asked if "/blobs/" in asked.path
    }
    assert blobs == {str(SECOND): "bytes=1000000-", str(BIG.config_digest): None}
    assert builda("fsck") == ""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_refused_layer_does_not_wait_for_one_that_stalls(builda: Builda) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.path.endswith(str(BIG.layer_digests[0])):
            wait_for(lambda: any(str(SECOND) in other.path for other in server.asked))
            return Answer(404)
        return hanging(asked)

    builda("images")
    with scripted(answer) as server, unchanged(builda):
        said = builda.fails("pull", "-q", *FAST, f"{server.address}/x:1", seconds=30)  # the timeout for one read is 60
    assert "404" in said


@pytest.mark.parametrize("ended", [signal.SIGINT, signal.SIGTERM])
def test_a_push_that_waits_for_an_answer_can_be_ended(builda: Builda, tmp_path: Path, ended: signal.Signals) -> None:
    layout = images.write_layout(tmp_path / "layout", MADE, "localhost/x:1")
    builda("pull", "-q", f"oci:{layout}")
    over = threading.Event()

    def answer(asked: Asked) -> Answer:
        if asked.method == "PUT":
            over.wait(60)  # a read of an answer to an upload waits for ten minutes
        return uploading(asked)

    with scripted(answer) as server:
        command = [*builda.command, "push", "-q", *FAST, builda("images", "-q").split()[0], f"{server.address}/x:1"]
        with subprocess.Popen(command, env=clean_environ(), stderr=subprocess.PIPE) as process:
            wait_for(lambda: any(asked.method == "PUT" for asked in server.asked))
            process.send_signal(ended)
            assert process.wait(timeout=30) == 128 + ended
        over.set()
