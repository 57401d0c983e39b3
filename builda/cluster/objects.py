"""The objects of a build, as values: a Job, and the Secret with what its pod is given."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from builda.errors import InvalidValue
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builda.cluster.podkinds import Kind

MANAGED = {"app.kubernetes.io/managed-by": "builda"}
SELECTOR = "app.kubernetes.io/managed-by=builda"
CONTAINER = "build"
GIVEN = "/builda/given"
"""Where the pod has the Secret."""
WORK = "/builda/work"
"""Where the pod has a volume for the store and the context: an empty one, or that of the template named WORK_VOLUME."""
WORK_VOLUME = "builda-work"
CLAIMS = "/builda/claims"
"""Where the pod has the volume claims that cache mounts are kept in."""
OUT = f"{WORK}/out"
"""Where the pod writes files for the client, each called as its option."""
SCRIPT = "script"
"""The key of the script of a session, and the directory below WORK that it is run from."""
REQUEST = "request"
REGISTRIES = "registries.conf"
"""The keys of the request and of the file of --registries-conf."""
FAILED = 1
"""The exit status of a pod whose build failed by itself: the Job does not try again."""
SECRET_LIMIT = 1 << 20
RIGHTS = (
    *(("batch/jobs", verb) for verb in ("create", "get", "list", "watch", "delete")),
    *(("/secrets", verb) for verb in ("create", "get")),
    *(("/pods", verb) for verb in ("get", "list", "watch")),
    ("/pods/log", "get"),
)
"""What a client has to be allowed."""
FURTHER_RIGHTS = (
    ("/events", "list", "the words of quotas and policies are not said"),
    ("/namespaces", "get", "the best kind of pod is tried, or --mode says it"),
    ("/pods/exec", "get", "--context-via api is not possible"),
    ("/pods/exec", "create", "--context-via api is not possible from Kubernetes 1.35 on"),
)
"""What it may be allowed, and what becomes of it otherwise."""
_COMMAND = ["builda", "cluster", "work"]


class JobOptions(NamedTuple):
    """What the user says of Job and pod."""

    image: str
    retries: int = 2
    deadline: int = 3600  # seconds
    ttl: int = 600  # seconds
    labels: Mapping[str, str] = {}
    requests: Mapping[str, str] = {}
    limits: Mapping[str, str] = {}
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Mapping[str, str], ...] = ()
    priority_class: str | None = None
    template: Mapping[str, Any] = {}  # of a pod: metadata and spec
    claims: Mapping[str, str] = {}  # names of volume claims, and where the container has them


def job(name: str, kind: Kind, options: JobOptions, annotations: Mapping[str, str]) -> dict[str, Any]:
    """The Job. Its pods wait for the Secret of the same name, which is made after the Job because the Job owns it.

    A build that fails by itself is not tried again; a pod that was evicted, or ended otherwise, is.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": {**options.labels, **MANAGED},
            "annotations": dict(annotations),
        },
        "spec": {
            "backoffLimit": options.retries,
            "activeDeadlineSeconds": options.deadline,
            "ttlSecondsAfterFinished": options.ttl,
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [FAILED]},
                    },
                ]
            },
            "template": _template(name, kind, options),
        },
    }


def secret(name: str, owner: Mapping[str, Any], given: Mapping[str, bytes]) -> dict[str, Any]:
    """The Secret with what the pod is given, which goes when the Job `owner` does. InvalidValue if it is too big."""
    check_size(given)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": dict(MANAGED),
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": owner["metadata"]["uid"]}
            ],
        },
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(data).decode() for key, data in given.items()},
    }


def check_size(given: Mapping[str, bytes]) -> None:
    """InvalidValue if no Secret holds so much."""
    size = sum(len(data) + len(key) for key, data in given.items())
    if size > SECRET_LIMIT - 4096:
        raise InvalidValue(
            f"secrets and Containerfiles of the build have {size} bytes, and a Secret holds less than {SECRET_LIMIT}",
            hint="make the files given by --secret smaller, or mount them with --pod-template",
        )


def job_name(subject: str, unique: str) -> str:
    """A name for the Job that says what is built; `unique` tells it from others."""
    slug = re.sub(r"[^a-z0-9]+", "-", subject.rpartition("/")[2].lower()).strip("-")[:30].strip("-")
    return "-".join(filter(None, ("builda", slug, unique)))


def pairs(items: tuple[str, ...], option: str) -> dict[str, str]:
    """`NAME=VALUE` items of an option."""
    found = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise InvalidValue(f"{option} is written NAME=VALUE: {item}")
        found[name] = value
    return found


def toleration(item: str) -> dict[str, str]:
    """`KEY[=VALUE][:EFFECT]` as kubectl writes taints; without a value any value is tolerated."""
    rest, _, effect = item.partition(":")
    key, equals, value = rest.partition("=")
    if not key or (effect and effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute")):
        raise InvalidValue(
            f"--toleration is written KEY[=VALUE][:EFFECT]: {item}",
            hint="effects are NoSchedule, PreferNoSchedule and NoExecute",
        )
    found = {"key": key, "operator": "Equal", "value": value} if equals else {"key": key, "operator": "Exists"}
    return {**found, "effect": effect} if effect else found


def _template(name: str, kind: Kind, options: JobOptions) -> dict[str, Any]:
    """The pod: what the user's template says, with builda's container, volumes and rights over it."""
    base = options.template
    metadata, spec = dict(base.get("metadata") or {}), dict(base.get("spec") or {})
    containers = [dict(one) for one in spec.get("containers") or ()]
    own = next((one for one in containers if one.get("name") == CONTAINER), {})
    others = [one for one in containers if one.get("name") != CONTAINER]
    volumes = list(spec.get("volumes") or ())
    has_work = any(one.get("name") == WORK_VOLUME for one in volumes)
    spec.update(
        restartPolicy="Never",
        automountServiceAccountToken=spec.get("automountServiceAccountToken", False),
        enableServiceLinks=spec.get("enableServiceLinks", False),  # variables of all services of the namespace
        containers=[_container(kind, options, own), *others],
        nodeSelector={"kubernetes.io/os": "linux", **(spec.get("nodeSelector") or {}), **options.node_selector},
        volumes=[
            *volumes,
            {"name": "builda-given", "secret": {"secretName": name}},
            *(() if has_work else ({"name": WORK_VOLUME, "emptyDir": {}},)),
            *(
                {"name": f"builda-claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
                for number, claim in enumerate(options.claims)
            ),
        ],
    )
    if (options.claims or has_work) and "runAsGroup" in kind.context:  # so that the pod's user may write into volumes
        spec["securityContext"] = {"fsGroup": kind.context["runAsGroup"], **(spec.get("securityContext") or {})}
    if not kind.host_users:
        spec.setdefault("hostUsers", False)
    if options.tolerations:
        spec["tolerations"] = [*(spec.get("tolerations") or ()), *options.tolerations]
    if options.priority_class is not None:
        spec["priorityClassName"] = options.priority_class
    labels = {**(metadata.get("labels") or {}), **options.labels, **MANAGED}
    return {"metadata": {**metadata, "labels": labels}, "spec": spec}


def _container(kind: Kind, options: JobOptions, said: Mapping[str, Any]) -> dict[str, Any]:
    resources = dict(said.get("resources") or {})
    for name, values in (("requests", options.requests), ("limits", options.limits)):
        if values:
            resources[name] = {**(resources.get(name) or {}), **values}
    made = {
        **said,
        "name": CONTAINER,
        "image": options.image,
        "command": _COMMAND,
        "securityContext": _without_nulls({**kind.context, **(said.get("securityContext") or {})}),
        "env": [
            *(said.get("env") or ()),
            {"name": "BUILDA_ROOT", "value": f"{WORK}/store"},
            {"name": "BUILDA_RUNROOT", "value": f"{WORK}/run"},
        ],
        "volumeMounts": [
            *(said.get("volumeMounts") or ()),
            {"name": "builda-given", "mountPath": GIVEN, "readOnly": True},
            {"name": WORK_VOLUME, "mountPath": WORK},
            *(
                {"name": f"builda-claim-{number}", "mountPath": path}
                for number, path in enumerate(options.claims.values())
            ),
        ],
    }
    return {**made, "resources": resources} if resources else made


def _without_nulls(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a template does not take away by null, as it does with the user where the cluster chooses one."""
    return {name: value for name, value in values.items() if value is not None}
