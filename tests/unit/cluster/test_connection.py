"""What the client does when the API server is away, busy or refuses."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from kubernetes.client.configuration import Configuration

from builda.cluster.apiclient import Client
from builda.cluster.connection import AWAY, Away, Cluster, Forbidden, Gone, connect, refusal, upgrade_refusal
from builda.cluster.where import Where
from builda.errors import BuildaError, InvalidValue, NotFound, Unsupported
from tests.support.registry import Answer, Asked, free_port, make_certificates, scripted

REFUSED = b'{"message": "User cannot create pods/exec"}'
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "builda-x"}, "spec": {"template": {}}}


def to(address: str, away: float = 30.0) -> Cluster:
    configuration = Configuration(host=f"http://{address}")
    configuration.retries = False
    return Cluster(Client(configuration), "ci", away)


def says(code: int, message: str) -> Answer:
    return Answer(code, json.dumps({"kind": "Status", "message": message, "code": code}).encode())


def test_a_server_that_is_away_or_busy_is_asked_again() -> None:
    answers: Iterator[Answer] = iter(
        [says(503, "starting"), says(429, "too many"), Answer(reset=True), says(500, "etcd"), Answer(body=b"{}")]
    )
    with scripted(lambda asked: next(answers)) as server:
        assert to(server.address).get("jobs", "x") == {}
        assert len(server.asked) == 5


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def cluster(self, address: str, away: float = AWAY) -> Cluster:
        return Cluster(to(address).server, "ci", away, lambda: self.now, self.sleep)


@pytest.mark.parametrize("fault", [Answer(reset=True), says(503, "starting"), says(502, "proxy")])
def test_a_server_that_is_away_for_a_minute_is_waited_for(fault: Answer) -> None:
    clock = Clock()
    with scripted(lambda asked: Answer(body=b"{}") if clock.now > 60 else fault) as server:
        assert clock.cluster(server.address).get("jobs", "x") == {}
        assert 10 < len(server.asked) < 30
    assert 60 < clock.now < 66


@pytest.mark.parametrize(
    ("said", "waited"), [("7", 7.0), ("0", 0.1), ("3600", 60.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.1)]
)
def test_a_busy_server_says_when_to_ask_again(said: str, waited: float) -> None:
    clock = Clock()
    answers = iter([replace(says(429, "too many"), headers={"Retry-After": said}), Answer(body=b"{}")])
    with scripted(lambda asked: next(answers)) as server:
        clock.cluster(server.address).get("jobs", "x")
    assert clock.slept == [waited]


def test_a_server_that_stays_away_is_given_up_and_the_job_is_not() -> None:
    answers = iter([Answer(body=b"{}")])
    with scripted(lambda asked: next(answers, says(503, "stopping"))) as server:
        cluster = to(server.address, 0.2)
        cluster.get("jobs", "x")
        with pytest.raises(BuildaError, match=r"API server is away for 0 s: .*stopping") as failure:
            cluster.get("jobs", "x")
    assert "builda build --attach JOB watches it" in (failure.value.hint or "")


def test_a_server_that_never_answered_may_be_another_one() -> None:
    with pytest.raises(BuildaError, match=r"API server is away for 0 s: .*refused") as failure:
        to(f"127.0.0.1:{free_port()}", 0.2).get("jobs", "x")
    assert "whether the kubeconfig has the server's address" in (failure.value.hint or "")


def test_it_is_said_once_that_a_server_is_away_for_longer_than_a_moment() -> None:
    time, said = Clock(), list[str]()
    cluster = Cluster(to(f"127.0.0.1:{free_port()}").server, "ci", AWAY, lambda: time.now, time.sleep, said.append)
    with pytest.raises(BuildaError):
        cluster.get("jobs", "x")
    (words,) = said
    assert words.startswith("API server is away, and asked again for 90 s: ")
    said.clear()
    answers = iter([says(503, "starting")] * 3)
    with scripted(lambda asked: next(answers, Answer(body=b"{}"))) as server:
        Cluster(to(server.address).server, "ci", AWAY, lambda: time.now, time.sleep, said.append).get("jobs", "x")
    assert not said


def test_a_certificate_that_is_not_accepted_is_said_at_once(tmp_path: Path) -> None:
    """As kubectl does: no wait makes it a good one."""
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                context.wrap_socket(server.accept()[0], server_side=True)

        thread = Thread(target=answer)
        thread.start()
        configuration = Configuration(host=f"https://127.0.0.1:{server.getsockname()[1]}")
        configuration.retries = False
        cluster = Cluster(Client(configuration), "ci")
        with pytest.raises(Forbidden, match="certificate of the API server is not accepted: ") as failure:
            cluster.get("jobs", "x")
        thread.join()
    assert "certificate-authority" in (failure.value.hint or "")


@pytest.mark.parametrize("text", ["a: [b", "clusters: 3", "apiVersion: v1\nclusters: [3]", "[]", "3"])
def test_a_kubeconfig_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises((InvalidValue, NotFound), match=f"{tmp_path}/config"):
        connect(Where(), {"KUBECONFIG": f"{tmp_path}/config"})


def test_an_object_that_an_earlier_attempt_made_is_found() -> None:
    def answer(asked: Asked) -> Answer:
        return says(409, "exists") if asked.method == "POST" else Answer(body=b'{"metadata": {"uid": "1"}}')

    with scripted(answer) as server:
        assert to(server.address).create("jobs", JOB) == {"metadata": {"uid": "1"}}


def test_a_quota_that_others_change_at_the_same_time_is_asked_again() -> None:
    words = 'Operation cannot be fulfilled on resourcequotas "small": the object has been modified'
    busy = Answer(409, json.dumps({"kind": "Status", "message": words, "reason": "Conflict", "code": 409}).encode())
    answers = iter([busy, busy, Answer(201, b'{"metadata": {"uid": "1"}}')])
    with scripted(lambda asked: next(answers)) as server:
        assert to(server.address).create("jobs", JOB) == {"metadata": {"uid": "1"}}
        assert [asked.method for asked in server.asked] == ["POST"] * 3


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (403, "jobs.batch is forbidden: exceeded quota: small, requested: count/jobs.batch=1", "quota raised"),
        (403, 'admission webhook "policy.example.org" denied the request: no builds', "the policy says what it wants"),
        (403, 'jobs.batch is forbidden: User "alice" cannot create resource "jobs"', "the Role that builds need"),
        (403, "unable to create new content in namespace ci because it is being terminated", "is being deleted"),
        (422, "Job.batch is invalid: spec.template.spec.priorityClassName: not found", "--pod-template"),
    ],
)
def test_a_refusal_names_the_object_says_the_words_and_the_way_out(code: int, message: str, hint: str) -> None:
    with (
        scripted(lambda asked: says(code, message)) as server,
        pytest.raises((Forbidden, InvalidValue)) as failure,
    ):
        to(server.address).create("jobs", JOB)
    assert "cluster does not take the Job builda-x of namespace ci: cluster refuses" in str(failure.value)
    assert message in str(failure.value)
    assert hint in (failure.value.hint or "")


@pytest.mark.parametrize("name", ["", "..", "x/../y", "x?watch=true", "X"])
def test_a_text_that_is_no_name_is_not_sent(name: str) -> None:
    with scripted(lambda asked: Answer(body=b"{}")) as server:
        with pytest.raises(NotFound, match="no object of jobs with such a name"):
            to(server.address).get("jobs", name)
        assert not server.asked


@pytest.mark.parametrize(
    ("code", "kind"),
    [(404, NotFound), (410, Gone), (401, Forbidden), (429, Away), (503, Away), (0, Away), (400, InvalidValue)],
)
def test_refusals_have_kinds(code: int, kind: type[BuildaError]) -> None:
    assert type(refusal(code, "no JSON")) is kind


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        (
            "Handshake status 403 Forbidden -+-+- {} -+-+- " + str(REFUSED),
            Forbidden,
            "User cannot create pods/exec",
        ),
        ("Handshake status 404 Not Found -+-+- {} -+-+- None", NotFound, ""),
        ("[Errno 111] Connection refused", Away, "Connection refused"),
    ],
)
def test_a_stream_that_cannot_be_opened_says_why(reason: str, kind: type[BuildaError], words: str) -> None:
    error = upgrade_refusal(reason)
    assert type(error) is kind
    assert words in str(error)


def kubeconfig(place: Path, user: dict[str, object]) -> dict[str, str]:
    """The environment in which a kubeconfig with this user leads to a server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "t",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "alice", "user": user}],
        "contexts": [{"name": "t", "context": {"cluster": "c", "user": "alice"}}],
    }
    (place / "config").write_text(json.dumps(config))
    return {"KUBECONFIG": str(place / "config")}


def token(cluster: Cluster) -> str | None:
    """What the next request says of the user."""
    return cluster.server._credentials().get("authorization")


def test_a_file_with_a_token_is_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    cluster = connect(Where(), kubeconfig(tmp_path, {"tokenFile": "token"}))
    assert token(cluster) == "Bearer first"
    (tmp_path / "token").write_text("second\n")
    assert token(cluster) == "Bearer second"
    (tmp_path / "token").unlink()
    assert token(cluster) == "Bearer second"


def plugin(place: Path, body: str) -> dict[str, object]:
    program = place / "plugin"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program)}}


def test_a_plugin_gives_the_credentials(tmp_path: Path) -> None:
    said = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "made"}}
    user = plugin(tmp_path, f"echo '{json.dumps(said)}'")
    assert token(connect(Where(), kubeconfig(tmp_path, user))) == "Bearer made"


def test_a_plugin_that_fails_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"gives no credentials for user alice: .*/plugin"):
        connect(Where(), kubeconfig(tmp_path, plugin(tmp_path, "exit 1")))


@pytest.mark.slow
def test_the_client_is_imported_in_parts_and_is_whole_for_others(tmp_path: Path) -> None:
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "t",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {"token": "x"}}],
        "contexts": [{"name": "t", "context": {"cluster": "c", "user": "a", "namespace": "ci"}}],
    }
    (tmp_path / "config").write_text(json.dumps(kubeconfig))
    program = f"""
import sys
from builda.cluster.connection import connect
from builda.cluster.where import Where
print(connect(Where(), {{"KUBECONFIG": "{tmp_path}/config"}}).namespace, "kubernetes.informer" in sys.modules)
print([name for name in sys.modules if name.startswith(("kubernetes.client.api", "kubernetes.client.models"))])
import kubernetes
print(kubernetes.informer.__name__, hasattr(kubernetes, "nothing"), hasattr(kubernetes.client, "nothing"))
from kubernetes.client import ApiClient, BatchV1Api, Configuration, V1Job
print(isinstance(ApiClient(Configuration()), ApiClient), BatchV1Api.__name__, V1Job.__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "ci False\n[]\nkubernetes.informer False False\nTrue BatchV1Api V1Job\n"
