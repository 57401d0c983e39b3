"""What an API server of Kubernetes 1.36 refuses besides what its schemas say: validation, and PodSecurity.

Only what objects of builda's can have is looked at. The rules are those of pkg/apis/batch/validation,
pkg/apis/core/validation and k8s.io/pod-security-admission.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?=.{0,63}$)(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_KEY = re.compile(r"(?!\.\.)(?=.{1,253}$)[-._a-zA-Z0-9]+")
_VARIABLE = re.compile(r"[ -<>-~]+")
ANNOTATIONS_LIMIT = 256 << 10
SECRET_LIMIT = 1 << 20
REQUEST_LIMIT = 3 << 20
"""Bytes of a request's body; etcd takes half of it, for a Secret without base64."""
BASELINE_CAPABILITIES = frozenset(
    """AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID
    SYS_CHROOT""".split()
)
_RESTRICTED_VOLUMES = frozenset(
    "configMap csi downwardAPI emptyDir ephemeral image persistentVolumeClaim projected secret".split()
)


def faults(body: Object) -> Iterator[str]:
    """What is wrong with an object that fits the schemas."""
    yield from _metadata(body["metadata"], "metadata")
    match body["kind"]:
        case "Job":
            yield from _job(body)
        case "Pod":
            yield from _pod(body["metadata"], body["spec"], "spec")
        case "Secret":
            yield from _secret(body)
        case kind:
            yield f"kind: the server could not find {kind}"


def _metadata(metadata: Object, place: str, *, named: bool = True) -> Iterator[str]:
    if named and not _SUBDOMAIN.fullmatch(metadata["name"]):
        yield f"{place}.name: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters"
    for key, value in (metadata.get("labels") or {}).items():
        if not _is_qualified(key) or not _VALUE.fullmatch(value):
            yield f"{place}.labels: Invalid value: {key}={value}"
    annotations = metadata.get("annotations") or {}
    yield from (f"{place}.annotations: Invalid value: {key}" for key in annotations if not _is_qualified(key.lower()))
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > ANNOTATIONS_LIMIT:
        yield f"{place}.annotations: Too long: may not be more than {ANNOTATIONS_LIMIT} bytes"
    for owner in metadata.get("ownerReferences") or ():
        yield from (f"{place}.ownerReferences.{field}: Required" for field in _OWNER if not owner.get(field))
        if owner.get("blockOwnerDeletion"):
            yield "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on"


_OWNER = ("apiVersion", "kind", "name", "uid")


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(_QUALIFIED.fullmatch(name)) and (not slash or bool(_SUBDOMAIN.fullmatch(prefix)))


def _job(job: Object) -> Iterator[str]:
    spec, template = job["spec"], job["spec"]["template"]
    if len(job["metadata"]["name"]) > 63:
        yield "spec.template.labels: Invalid value: must be no more than 63 characters"
    for name in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "parallelism", "completions"):
        if spec.get(name, 0) < 0:
            yield f"spec.{name}: must be greater than or equal to 0"
    yield from _metadata(template.get("metadata") or {}, "spec.template.metadata", named=False)
    yield from _pod(template.get("metadata") or {}, template["spec"], "spec.template.spec")
    if template["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        yield 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    if "podFailurePolicy" in spec:
        yield from _failure_policy(spec)


def _failure_policy(spec: Object) -> Iterator[str]:
    place = "spec.podFailurePolicy"
    if spec["template"]["spec"]["restartPolicy"] != "Never":
        yield f"{place}: only restartPolicy Never is supported"
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "spec.podReplacementPolicy: only Failed with a podFailurePolicy"
    rules = spec["podFailurePolicy"]["rules"]
    if len(rules) > 20:
        yield f"{place}.rules: Too many"
    names = {one["name"] for one in spec["template"]["spec"]["containers"]}
    for rule in rules:
        if ("onExitCodes" in rule) == ("onPodConditions" in rule):
            yield f"{place}.rules: specifying one of OnExitCodes and OnPodConditions is required"
        if rule["action"] not in ("FailJob", "Ignore", "Count"):
            yield f"{place}.rules.action: Unsupported value"
        for condition in rule.get("onPodConditions", ()):
            if condition.get("status") not in ("True", "False", "Unknown"):
                yield f"{place}.rules.onPodConditions.status: Required value"
        if "onExitCodes" in rule:
            codes = rule["onExitCodes"]
            values = codes["values"]
            if codes.get("containerName", next(iter(names))) not in names:
                yield f"{place}.rules.onExitCodes.containerName: must be one of the container names in the pod template"
            if not values or len(values) > 255 or values != sorted(set(values)):
                yield f"{place}.rules.onExitCodes.values: must be ordered, and have no duplicates"
            if codes["operator"] == "In" and 0 in values:
                yield f"{place}.rules.onExitCodes.values: must not be 0 for the In operator"


def _pod(metadata: Object, spec: Object, place: str) -> Iterator[str]:
    volumes = [one["name"] for one in spec.get("volumes") or ()]
    containers = spec["containers"]
    for kind, names in (("volumes", volumes), ("containers", [one["name"] for one in containers])):
        yield from (f"{place}.{kind}.name: Invalid value: {name}" for name in names if not _LABEL.fullmatch(name))
        if len(set(names)) != len(names):
            yield f"{place}.{kind}.name: Duplicate value"
    for volume in spec.get("volumes") or ():
        if len(volume) != 2:
            yield f"{place}.volumes.{volume['name']}: must specify one volume type"
    for container in containers:
        yield from _container(container, volumes, f"{place}.containers.{container['name']}")
        context = container.get("securityContext") or {}
        if context.get("procMount", "Default") != "Default" and spec.get("hostUsers", True):
            yield f"{place}.containers.procMount: `hostUsers` must be false to use `Unmasked`"
    if not spec.get("hostUsers", True):
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                yield f"{place}.{name}: Forbidden: when `hostUsers` is false"
    for one in spec.get("tolerations") or ():
        if one.get("operator") == "Exists" and one.get("value"):
            yield f"{place}.tolerations.operator: value must be empty when `operator` is 'Exists'"
        if not one.get("key") and one.get("operator") != "Exists":
            yield f"{place}.tolerations.operator: operator must be Exists when `key` is empty"
        if one.get("key") and not _is_qualified(one["key"]):
            yield f"{place}.tolerations.key: Invalid value: {one['key']}"
    for key, value in (spec.get("nodeSelector") or {}).items():
        if not _is_qualified(key) or not _VALUE.fullmatch(value):
            yield f"{place}.nodeSelector: Invalid value: {key}={value}"


def _container(container: Object, volumes: list[str], place: str) -> Iterator[str]:
    if not container.get("image") or container["image"] != container["image"].strip():
        yield f"{place}.image: Required value, without leading or trailing whitespace"
    paths = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
    if len(set(paths)) != len(paths):
        yield f"{place}.volumeMounts.mountPath: must be unique"
    for mount in container.get("volumeMounts") or ():
        if mount["name"] not in volumes:
            yield f"{place}.volumeMounts.name: Not found: {mount['name']}"
    for variable in container.get("env") or ():
        if not _VARIABLE.fullmatch(variable["name"]):
            yield f"{place}.env.name: Invalid value: {variable['name']}"
    resources = container.get("resources") or {}
    for name, limit in (resources.get("limits") or {}).items():
        asked = (resources.get("requests") or {}).get(name)
        if asked is not None and _quantity(asked) > _quantity(limit):
            yield f"{place}.resources.requests: must be less than or equal to {name} limit of {limit}"
    context = container.get("securityContext") or {}
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            yield f"{place}.securityContext: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        if "CAP_SYS_ADMIN" in (context.get("capabilities") or {}).get("add", ()):
            yield f"{place}.securityContext: cannot set `allowPrivilegeEscalation` to false and add CAP_SYS_ADMIN"
    if context.get("runAsNonRoot") and context.get("runAsUser") == 0:
        yield f"{place}.securityContext: container's runAsUser breaks non-root policy"  # said by the kubelet


def _quantity(text: str) -> float:
    found = re.fullmatch(r"([0-9.]+)(m|[kMGTPE]i?)?", str(text))
    assert found is not None, text
    units = {"m": 1e-3, **{letter: 1000.0**power for power, letter in enumerate("kMGTPE", 1)}}
    units |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)}
    return float(found[1]) * units.get(found[2] or "", 1.0)


def _secret(secret: Object) -> Iterator[str]:
    data = secret.get("data") or {}
    yield from (
        f"data: Invalid value: {key}: a valid config key must consist of …" for key in data if not _KEY.fullmatch(key)
    )
    if sum(len(base64.b64decode(value, validate=True)) for value in data.values()) > SECRET_LIMIT:
        yield f"data: Too long: may not be more than {SECRET_LIMIT} bytes"


def violations(level: str, pod: Object) -> str | None:
    """What PodSecurity says against a pod at a level, of version 1.36; None if it admits it."""
    if level == "privileged":
        return None
    checks = _RESTRICTED if level == "restricted" else _BASELINE
    found = [said for check in checks for said in check(pod["spec"])]
    return ", ".join(found) or None


def _contexts(spec: Object) -> Iterator[tuple[str, Object]]:
    for kind in ("initContainers", "containers"):
        for one in spec.get(kind) or ():
            yield one["name"], one.get("securityContext") or {}


def _said(reason: str, names: list[str], must: str) -> Iterator[str]:
    if names:
        quoted = ", ".join(f'"{name}"' for name in names)
        yield f"{reason} (container{'s' if len(names) > 1 else ''} {quoted} {must})"


def _profiles(spec: Object, name: str) -> tuple[list[str], str | None]:
    """The containers with a profile of a bad type, and what the pod has for all others."""
    own = ((spec.get("securityContext") or {}).get(name) or {}).get("type")
    bad = [one for one, context in _contexts(spec) if (context.get(name) or {}).get("type") == "Unconfined"]
    return bad if own != "Unconfined" else ["pod", *bad], own


def _host_namespaces(spec: Object) -> Iterator[str]:
    found = [f"{name}=true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    if found:
        yield f"host namespaces ({', '.join(found)})"


def _host_paths(spec: Object) -> Iterator[str]:
    found = [one["name"] for one in spec.get("volumes") or () if "hostPath" in one]
    if found:
        yield f"hostPath volumes (volume {', '.join(found)})"


def _privileged(spec: Object) -> Iterator[str]:
    bad = [name for name, context in _contexts(spec) if context.get("privileged")]
    yield from _said("privileged", bad, "must not set securityContext.privileged=true")


def _capabilities(spec: Object) -> Iterator[str]:
    added = {
        name: set((context.get("capabilities") or {}).get("add") or ()) - BASELINE_CAPABILITIES
        for name, context in _contexts(spec)
    }
    quoted = ", ".join(f'"{one}"' for one in sorted(set().union(*added.values())))
    must = f"must not include {quoted} in securityContext.capabilities.add"
    yield from _said("non-default capabilities", [name for name in added if added[name]], must)


def _seccomp(spec: Object) -> Iterator[str]:
    bad, _ = _profiles(spec, "seccompProfile")
    yield from _said("seccompProfile", bad, 'must not set securityContext.seccompProfile.type to "Unconfined"')


def _apparmor(spec: Object) -> Iterator[str]:
    bad, _ = _profiles(spec, "appArmorProfile")
    yield from _said("forbidden AppArmor profile", bad, 'must not set AppArmor profile type to "Unconfined"')


def _proc_mount(spec: Object) -> Iterator[str]:
    bad = [name for name, context in _contexts(spec) if context.get("procMount", "Default") != "Default"]
    yield from _said("procMount", bad, 'must not set securityContext.procMount to "Unmasked"')


def _proc_mount_with_users(spec: Object) -> Iterator[str]:
    if spec.get("hostUsers", True):  # relaxed from 1.35 on
        yield from _proc_mount(spec)


def _sysctls(spec: Object) -> Iterator[str]:
    found = [one["name"] for one in (spec.get("securityContext") or {}).get("sysctls") or ()]
    if found:
        yield f"forbidden sysctls ({', '.join(found)})"


def _escalation(spec: Object) -> Iterator[str]:
    bad = [name for name, context in _contexts(spec) if context.get("allowPrivilegeEscalation") is not False]
    yield from _said(
        "allowPrivilegeEscalation != false", bad, "must set securityContext.allowPrivilegeEscalation=false"
    )


def _restricted_capabilities(spec: Object) -> Iterator[str]:
    kept, adding = [], []
    for name, context in _contexts(spec):
        capabilities = context.get("capabilities") or {}
        if "ALL" not in (capabilities.get("drop") or ()):
            kept.append(name)
        if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
            adding.append(name)
    yield from _said("unrestricted capabilities", kept, 'must set securityContext.capabilities.drop=["ALL"]')
    yield from _said("unrestricted capabilities", adding, "must not include others in securityContext.capabilities.add")


def _restricted_volumes(spec: Object) -> Iterator[str]:
    found = [one["name"] for one in spec.get("volumes") or () if not set(one) & _RESTRICTED_VOLUMES]
    if found:
        yield f"restricted volume types (volume {', '.join(found)})"


def _non_root(spec: Object) -> Iterator[str]:
    if not spec.get("hostUsers", True):  # relaxed from 1.35 on
        return
    own = (spec.get("securityContext") or {}).get("runAsNonRoot")
    bad = [name for name, context in _contexts(spec) if context.get("runAsNonRoot", own) is not True]
    yield from _said("runAsNonRoot != true", bad, "must set securityContext.runAsNonRoot=true")
    bad = [name for name, context in _contexts(spec) if context.get("runAsUser") == 0]
    yield from _said("runAsUser=0", bad, "must not set runAsUser=0")


def _restricted_seccomp(spec: Object) -> Iterator[str]:
    _, own = _profiles(spec, "seccompProfile")
    types = {name: (context.get("seccompProfile") or {}).get("type", own) for name, context in _contexts(spec)}
    bad = [name for name, kind in types.items() if kind not in ("RuntimeDefault", "Localhost")]
    must = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    yield from _said("seccompProfile", bad, must)


_Check = Callable[[Object], Iterator[str]]
_BASELINE: tuple[_Check, ...] = (
    *(_host_namespaces, _host_paths, _privileged, _capabilities, _seccomp, _apparmor, _proc_mount_with_users, _sysctls),
)
_RESTRICTED: tuple[_Check, ...] = (
    *(_host_namespaces, _privileged, _apparmor, _proc_mount, _sysctls),
    *(_escalation, _restricted_capabilities, _restricted_volumes, _non_root, _restricted_seccomp),
)
