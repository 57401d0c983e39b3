"""What an API server of Kubernetes 1.36 says of the objects of a build, besides their schemas."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from builda.cluster import objects, podkinds
from tests.support.clusteradmission import ANNOTATIONS_LIMIT, faults, violations

OPTIONS = objects.JobOptions(
    "registry.example.org/builda:1",
    labels={"kueue.x-k8s.io/queue-name": "builds"},
    requests={"cpu": "500m", "memory": "1Gi"},
    limits={"cpu": "2", "memory": "2Gi"},
    node_selector={"kubernetes.io/arch": "arm64"},
    tolerations=tuple(map(objects.toleration, ("a=b:NoSchedule", "c"))),
    claims={"caches": "/builda/claims/0"},
)
LONGEST = objects.job_name("registry.example.org/team/" + "long-name-" * 9, "0123456789abcdef")


def job(kind: podkinds.Kind = podkinds.KINDS[0]) -> dict[str, Any]:
    return objects.job(LONGEST, kind, OPTIONS, {"builda.io/names": "registry.example.org/app:1"})


@pytest.mark.parametrize("kind", podkinds.KINDS, ids=lambda kind: kind.mode)
def test_a_job_is_valid_and_its_pod_is_admitted_by_its_level_and_no_stricter_one(kind: podkinds.Kind) -> None:
    made = job(kind)
    assert list(faults(made)) == []
    pod = made["spec"]["template"]
    admitting = [level for level in podkinds.LEVELS if violations(level, pod) is None]
    assert admitting == [*podkinds.LEVELS[: podkinds.LEVELS.index(kind.level) + 1]]


def test_names_of_jobs_leave_room_for_those_of_pods() -> None:
    assert len(f"{LONGEST}-abcde") <= 63


def test_a_secret_is_valid_and_its_owner_is_not_blocked() -> None:
    given = {"request": b"{}", "file-0": b"FROM scratch\n", "auth.json": b"{}", "ignore": b""}
    secret = objects.secret("builda-x", {"metadata": {"uid": "u"}}, given)
    assert list(faults(secret)) == []


def changed(path: str, value: object) -> dict[str, Any]:
    """A Job with another value somewhere."""
    made: Any = copy.deepcopy(job(podkinds.KINDS[1]))
    *parents, last = path.split(".")
    place: Any = made
    for one in parents:
        place = place[int(one) if one.isdecimal() else one]
    place[int(last) if last.isdecimal() else last] = value
    return dict(made)


POD = "spec.template.spec"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("metadata.name", "x" * 64, "no more than 63"),
        ("metadata.name", "Upper", "RFC 1123"),
        ("metadata.labels", {"a": "not a value"}, "labels: Invalid"),
        ("metadata.annotations", {"a": "x" * ANNOTATIONS_LIMIT}, "Too long"),
        ("spec.backoffLimit", -1, "greater than or equal to 0"),
        ("spec.podReplacementPolicy", "TerminatingOrFailed", "only Failed"),
        (f"{POD}.restartPolicy", "OnFailure", "only restartPolicy Never"),
        ("spec.podFailurePolicy.rules.0.onPodConditions.0", {"type": "DisruptionTarget"}, "status: Required"),
        ("spec.podFailurePolicy.rules.1.onExitCodes.values", [0, 1], "must not be 0"),
        ("spec.podFailurePolicy.rules.1.onExitCodes.values", [2, 1], "must be ordered"),
        ("spec.podFailurePolicy.rules.1.onExitCodes.containerName", "other", "must be one of"),
        (f"{POD}.hostUsers", True, "`hostUsers` must be false"),
        (f"{POD}.hostNetwork", True, "when `hostUsers` is false"),
        (f"{POD}.tolerations.1", {"key": "a", "operator": "Exists", "value": "b"}, "value must be empty"),
        (f"{POD}.nodeSelector", {"a": "b/c"}, "nodeSelector: Invalid"),
        (f"{POD}.containers.0.image", " x", "image: Required"),
        (f"{POD}.containers.0.resources", {"requests": {"cpu": "3"}, "limits": {"cpu": "2000m"}}, "less than or equal"),
        (f"{POD}.containers.0.volumeMounts.0", {"name": "none", "mountPath": "/x"}, "Not found: none"),
        (f"{POD}.volumes.0", {"name": "builda-work", "emptyDir": {}}, "Duplicate value"),
    ],
)
def test_what_the_server_refuses_is_refused_here(path: str, value: object, words: str) -> None:
    assert words in "\n".join(faults(changed(path, value)))
