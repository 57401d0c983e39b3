"""What the client does about pods that do not begin, that end without a log, and logs that cannot be read.

The words are those of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kubernetes.client.configuration import Configuration

from builda.cluster.apiclient import Client
from builda.cluster.connection import Away, Cluster
from builda.cluster.follow import JobFailed, follow
from builda.cluster.frames import Ended, Frame, Printed, to_line
from builda.errors import BuildaError, InvalidValue, NotFound

Object = dict[str, Any]
NAME = "builda-x"
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:01Z"}}
NOT_AVAILABLE = InvalidValue('cluster refuses (400): container "build" in pod "p-1" is not available')
NO_ROUTE = Away("server is busy (500): dial tcp 10.0.0.7:10250: connect: no route to host")


def pod(name: str, phase: str = "Pending", container: Object | None = None, *, node: str = "n", **more: Any) -> Object:
    """A pod of the Job as the API shows it; `container` is the state of its container."""
    status: Object = {"phase": phase, **more}
    if container is not None:
        status["containerStatuses"] = [{"name": "build", "state": container}]
    metadata = {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{name[-1]}Z", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": status}


def waits(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def log(*texts: str) -> list[bytes]:
    """The lines of a build that printed these and ended well."""
    frames: list[Frame] = [*map(Printed, texts), Ended(None)]
    return [to_line(number, frame).encode() + b"\n" for number, frame in enumerate(frames, 1)]


class Told(Cluster):
    """A namespace that does what a test says; time passes while its client waits."""

    def __init__(self, *pods: Object) -> None:
        self.now = 0.0
        super().__init__(Client(Configuration(host="http://nowhere")), "ci", 90, lambda: self.now, self.pass_time)
        self.pods = {one["metadata"]["name"]: one for one in pods}
        self.job: Object = {"spec": {}, "status": {}}
        self.said: list[Object] = []
        self.changes: list[tuple[float, Object]] = []
        """Pods, and when they become so."""
        self.logs: dict[str, Callable[[float | None], Iterator[bytes]]] = {}
        self.since: list[float | None] = []

    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        assert self.now < 7200, "the client waits for ever"

    def says(self, kind: str, name: str, reason: str, message: str, *, at: str = "00:00:01") -> None:
        """An event about an object."""
        about = {"kind": kind, "name": name}
        when = f"2026-01-01T{at}Z"
        self.said.append(
            {"involvedObject": about, "type": "Warning", "reason": reason, "message": message, "lastTimestamp": when}
        )

    def list(self, kind: str, **selectors: str) -> Object:
        """The pods, or the events of what is selected."""
        if kind == "pods":
            return {"metadata": {"resourceVersion": "1"}, "items": list(self.pods.values())}
        about = dict(term.split("=") for term in selectors["field_selector"].split(","))
        name = about["involvedObject.name"]
        return {"items": [one for one in self.said if one["involvedObject"]["name"] == name]}

    def watch(self, kind: str, version: str, seconds: int, **selectors: str) -> Iterator[Object]:
        """The next change, if it comes in time."""
        if not self.changes or self.changes[0][0] > self.now + seconds:
            self.pass_time(seconds)
            return
        when, found = self.changes.pop(0)
        self.pass_time(max(0.0, when - self.now))
        self.pods[found["metadata"]["name"]] = found
        yield {"type": "MODIFIED", "object": found}

    def get(self, kind: str, name: str) -> Object:
        """The Job or a pod."""
        if kind == "jobs":
            return self.job
        if name not in self.pods:
            raise NotFound(f'pods "{name}" not found')
        return self.pods[name]

    @contextmanager
    def log(self, pod: str, container: str, since: float | None = None) -> Iterator[Iterator[bytes]]:
        """What the test says."""
        self.since.append(since)
        yield self.logs[pod](since)


def refuses(error: BuildaError) -> Callable[[float | None], Iterator[bytes]]:
    def answer(since: float | None) -> Iterator[bytes]:
        raise error

    return answer


def followed(cluster: Told) -> tuple[list[Frame], list[str]]:
    said: list[str] = []
    return list(follow(cluster, NAME, said.append)), said


def fails(cluster: Told) -> tuple[JobFailed, list[str]]:
    said: list[str] = []
    with pytest.raises(JobFailed) as failure:
        list(follow(cluster, NAME, said.append))
    return failure.value, said


def test_a_pod_that_a_node_refused_has_no_log_and_the_next_is_followed() -> None:
    there = Told(pod("p-1", "Failed", reason="OutOfcpu", message="Node didn't have enough resource: cpu"))
    there.logs = {"p-1": refuses(NOT_AVAILABLE), "p-2": lambda since: iter(log("hello"))}
    there.changes = [(11.0, pod("p-2", "Running", RUNNING))]
    frames, said = followed(there)
    assert Printed("hello") in frames
    assert "pod p-1 did not finish: OutOfcpu: Node didn't have enough resource: cpu" in said


def test_the_log_of_a_pod_that_ended_is_asked_for_while_its_node_may_come_back() -> None:
    ended = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    there = Told(pod("p-1", "Succeeded", ended))
    there.logs["p-1"] = lambda since: iter(log("hello")) if there.now > 20 else refuses(NO_ROUTE)(since)
    frames, _ = followed(there)
    assert Printed("hello") in frames


@pytest.mark.parametrize("error", [NO_ROUTE, NOT_AVAILABLE])
def test_a_pod_that_ended_on_a_node_that_is_gone_is_given_up(error: BuildaError) -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "could not be located"}}
    there = Told(pod("p-1", "Failed", ended))
    there.logs = {"p-1": refuses(error), "p-2": lambda since: iter(log("hello"))}
    there.changes = [(0.0, pod("p-2", "Running", RUNNING))]
    frames, said = followed(there)
    assert Printed("hello") in frames
    assert "pod p-1 did not finish: ContainerStatusUnknown (exit status 137): could not be located" in said
    assert 30 < there.now < 60


def test_a_deadline_ends_the_build_though_the_pod_stays_on_a_node_that_is_gone() -> None:
    there = Told(pod("p-1", "Running", RUNNING))

    def answer(since: float | None) -> Iterator[bytes]:
        if there.now > 300:
            late = {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
            there.job["status"] = {"conditions": [late]}
        raise NO_ROUTE

    there.logs["p-1"] = answer
    failure, _ = fails(there)
    assert str(failure) == "Job failed, DeadlineExceeded: too long; its last pod: its log ends"
    assert 300 < there.now < 340


def test_lines_that_came_late_are_read_again_from_the_beginning() -> None:
    """A client that was held up reads what was written long ago: the seconds since then are too few."""
    there = Told(pod("p-1", "Running", RUNNING))
    first, *rest = log("one", "two", "three")

    def answer(since: float | None) -> Iterator[bytes]:
        if len(there.since) == 1:
            yield first
            raise Away("stream broke")
        yield from (first, *rest) if since is None else rest[1:]

    there.logs["p-1"] = answer
    frames, said = followed(there)
    assert frames == [Printed("one"), Printed("two"), Printed("three"), Ended(None)]
    assert there.since == [None, 0.0, None]
    assert not said


def test_last_lines_that_came_late_are_read_again_from_the_beginning() -> None:
    """No later line tells that they are missing."""
    there = Told(pod("p-1", "Running", RUNNING))
    lines = log("one", "two")

    def answer(since: float | None) -> Iterator[bytes]:
        if len(there.since) == 1:
            yield lines[0]
            there.pods["p-1"] = pod("p-1", "Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}})
            raise Away("stream broke")
        yield from lines if since is None else []

    there.logs["p-1"] = answer
    frames, said = followed(there)
    assert frames == [Printed("one"), Printed("two"), Ended(None)]
    assert there.since == [None, 0.0, None]
    assert not said


@pytest.mark.parametrize("seconds", [3.0, 40.0])
def test_a_node_whose_agent_has_just_begun_does_not_know_its_pods_yet(seconds: float) -> None:
    there = Told(pod("p-1", "Running", RUNNING))
    lines = log("one", "two")

    def answer(since: float | None) -> Iterator[bytes]:
        if there.now < seconds and len(there.since) > 1:
            raise NotFound('pod "ci/p-1" does not exist')
        yield lines[0]
        if len(there.since) == 1:
            raise Away("stream broke")
        yield from lines[1:]

    there.logs["p-1"] = answer
    frames, said = followed(there)
    assert frames == [Printed("one"), Printed("two"), Ended(None)]
    assert not said


def test_the_log_of_a_pod_that_is_gone_is_not_asked_for_again() -> None:
    there = Told(pod("p-1", "Running", RUNNING))

    def answer(since: float | None) -> Iterator[bytes]:
        del there.pods["p-1"]
        there.pods["p-2"] = pod("p-2", "Running", RUNNING)
        return refuses(NotFound('pods "p-1" not found'))(since)

    there.logs = {"p-1": answer, "p-2": lambda since: iter(log("hello"))}
    frames, said = followed(there)
    assert frames == [Printed("hello"), Ended(None)]
    assert said == ["pod p-1 did not finish: it was deleted"]


def test_a_node_that_cannot_make_the_pod_is_said_and_ends_the_build() -> None:
    words = "Failed to create pod sandbox: network plugin is not ready"
    there = Told(pod("p-1", "Pending", waits("ContainerCreating")))
    there.says("Pod", "p-1", "FailedCreatePodSandBox", words)
    failure, said = fails(there)
    assert said == [f"pod p-1 waits: FailedCreatePodSandBox: {words}"]
    assert str(failure) == f"node cannot make the pod of the build: FailedCreatePodSandBox: {words}"
    assert 60 < there.now < 90


@pytest.mark.parametrize(
    "words",
    [
        "runtime does not support user namespaces",
        "can't set `spec.hostUsers: false`, the container runtime handler does not support it",
        "failed to set MOUNT_ATTR_IDMAP on /var/lib/kubelet/pods/x: invalid argument",
    ],
)
def test_a_node_without_user_namespaces_is_not_waited_for(words: str) -> None:
    there = Told(pod("p-1", "Pending", waits("ContainerCreating")))
    there.says("Pod", "p-1", "FailedCreatePodSandBox", words)
    failure, _ = fails(there)
    assert str(failure) == f"node cannot make the pod of the build: FailedCreatePodSandBox: {words}"
    assert "--mode chroot" in (failure.hint or "")
    assert there.now < 15


def test_a_container_that_fails_without_user_namespaces_has_the_hint() -> None:
    words = "failed to set MOUNT_ATTR_IDMAP: invalid argument (maybe the filesystem does not support idmap mounts)"
    there = Told(pod("p-1", "Failed", {"terminated": {"exitCode": 128, "reason": "StartError", "message": words}}))
    there.logs["p-1"] = lambda since: iter([])
    over = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit"}
    there.job["status"] = {"conditions": [over]}
    failure, _ = fails(there)
    assert "--mode chroot" in (failure.hint or "")


def test_a_volume_that_is_late_is_said_and_waited_for() -> None:
    there = Told(pod("p-1", "Pending", waits("ContainerCreating")))
    there.says("Pod", "p-1", "FailedMount", 'secret "builda-x" not found', at="00:00:01")
    there.says("Pod", "p-1", "FailedAttachVolume", 'volume "pvc-1" is used by pod q', at="00:00:02")
    there.changes = [(400.0, pod("p-1", "Running", RUNNING))]
    there.logs["p-1"] = lambda since: iter(log("hello"))
    frames, said = followed(there)
    assert Printed("hello") in frames
    assert said == ['pod p-1 waits: FailedAttachVolume: volume "pvc-1" is used by pod q']


@pytest.mark.parametrize(
    ("reason", "message", "seconds", "hint"),
    [
        ("InvalidImageName", "couldn't parse image name", 0, "--builder-image"),
        ("ErrImageNeverPull", "is not present with pull policy of Never", 0, "--builder-image"),
        ("ErrImagePull", "r.example.org/x:1: not found", 0, "--builder-image"),
        ("ImagePullBackOff", "Back-off pulling image", 60, "--builder-image"),
        ("RegistryUnavailable", "dial tcp: i/o timeout", 60, "--builder-image"),
        ("SignatureValidationFailed", "no signature", 60, "--builder-image"),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", 0, "kubectl describe"),
        ("CreateContainerConfigError", "failed to sync secret cache: timed out", 60, "kubectl describe"),
        ("CreateContainerError", "failed to reserve container name", 60, "kubectl describe"),
        ("RunContainerError", "context deadline exceeded", 60, "kubectl describe"),
    ],
)
def test_a_container_that_cannot_begin_ends_the_build(reason: str, message: str, seconds: float, hint: str) -> None:
    there = Told(pod("p-1", "Pending", waits(reason, message)))
    failure, _ = fails(there)
    assert str(failure) == f"pod of the build does not begin: {reason}: {message}"
    assert hint in (failure.hint or "")
    assert seconds <= there.now <= seconds + 21


def init(state: Object, **more: Any) -> Object:
    return {"name": "mesh-init", "state": state, **more}


def test_an_init_container_that_cannot_begin_ends_the_build_and_is_named() -> None:
    """A pod template has it, or a webhook puts it there."""
    back_off = init(waits("ImagePullBackOff", "Back-off pulling image"))
    done = init({"terminated": {"exitCode": 0, "reason": "Completed"}})
    sidecar = init(RUNNING, started=True)
    there = Told(pod("p-1", "Pending", waits("PodInitializing"), initContainerStatuses=[done, sidecar, back_off]))
    failure, said = fails(there)
    words = "init container mesh-init: ImagePullBackOff: Back-off pulling image"
    assert said == [f"pod p-1 waits: {words}"]
    assert str(failure) == f"pod of the build does not begin: {words}"
    assert "--builder-image names" not in (failure.hint or "")
    assert 60 < there.now < 90


def test_an_init_container_that_fails_is_named() -> None:
    failed = init({"terminated": {"exitCode": 3, "reason": "Error", "message": "no route"}})
    there = Told(pod("p-1", "Failed", waits("PodInitializing"), initContainerStatuses=[failed]))
    there.logs["p-1"] = refuses(NOT_AVAILABLE)
    over = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit"}
    there.job["status"] = {"conditions": [over]}
    failure, _ = fails(there)
    assert str(failure).endswith("its last pod: init container mesh-init: Error (exit status 3): no route")


def test_a_program_that_cannot_be_started_is_named() -> None:
    words = 'exec: "builda": executable file not found in $PATH'
    there = Told(pod("p-1", "Failed", {"terminated": {"exitCode": 128, "reason": "StartError", "message": words}}))
    there.logs["p-1"] = lambda since: iter([])
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "limit"}
    there.job["status"] = {"conditions": [failed]}
    failure, _ = fails(there)
    assert f"its last pod: StartError (exit status 128): {words}" in str(failure)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ('pods "x" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities', "--mode"),
        ('pods "x" is forbidden: failed quota: q: must specify limits.cpu for: build', "--limit"),
        ('pods "x" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi', "--limit"),
        ('pods "x" is forbidden: ValidatingAdmissionPolicy "p" with binding "b" denied request: no', None),
        ('pods "x" is forbidden: unable to validate against any security context constraint: []', "OpenShift"),
        ('admission webhook "policy.example.org" denied the request: no builds on Fridays', None),
        ('Pod "x" is invalid: spec.containers[0].env[0].name: Invalid value', None),
    ],
)
def test_pods_that_are_refused_end_the_build(message: str, hint: str | None) -> None:
    there = Told()
    there.says("Job", NAME, "FailedCreate", f"Error creating: {message}")
    failure, _ = fails(there)
    assert str(failure) == f"cluster refuses the pod of the build: Error creating: {message}"
    assert failure.hint is None if hint is None else hint in (failure.hint or "")


@pytest.mark.parametrize(
    "message",
    [
        'pods "x" is forbidden: exceeded quota: small, requested: pods=1, used: pods=3, limited: pods=3',
        'pods "x" is forbidden: status unknown for quota: small, resources: pods',
        'pods "x" is forbidden: error looking up service account ci/default: serviceaccount "default" not found',
        'Internal error occurred: failed calling webhook "p.example.org": connect: connection refused',
        "etcdserver: request timed out",
    ],
)
def test_what_may_pass_is_said_and_waited_for(message: str) -> None:
    there = Told()
    there.says("Job", NAME, "FailedCreate", f"Error creating: {message}")
    there.changes = [(100.0, pod("p-1", "Running", RUNNING))]
    there.logs["p-1"] = lambda since: iter(log("hello"))
    frames, said = followed(there)
    assert Printed("hello") in frames
    assert said == [f"cluster makes no pod for now: Error creating: {message}"]
