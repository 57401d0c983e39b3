"""Options of builds that take place in a cluster, and the values that they make."""

from __future__ import annotations

from builda.cli.core.options import Option, Params, duration, listed, many, number, switch, text
from builda.cli.core.settings import environment
from builda.errors import InvalidValue, NotFound
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from builda.cli.core.options import Row
    from builda.cluster.objects import JobOptions

ON = text(
    "--on",
    metavar="kubernetes[:CONTEXT][/NAMESPACE]",
    help="Build in a Job of this cluster; the result goes to the registries that -t names.  [env: BUILDA_ON]",
)
OF_JOB: Params = (
    text(
        "--builder-image",
        metavar="IMAGE",
        help="With --on: the image of builda that the Job runs.  [env: BUILDA_BUILDER_IMAGE]",
    ),
    text("--pod-template", metavar="FILE", help="With --on: take the rest of the pod from this Pod or PodTemplate."),
    listed("--job-label", metavar="NAME=VALUE,…", help="With --on: label Job and pod, as for a queue of Kueue's."),
    listed("--request", metavar="RESOURCE=AMOUNT,…", help="With --on: what the pod is sure to get: cpu=2,memory=4Gi."),
    listed("--limit", metavar="RESOURCE=AMOUNT,…", help="With --on: what the pod gets at most."),
    listed("--node-selector", metavar="NAME=VALUE,…", help="With --on: build on nodes that have these labels."),
    many("--toleration", metavar="KEY[=VALUE][:EFFECT]", help="With --on: build on nodes with this taint, too."),
    text("--priority-class", metavar="NAME", help="With --on: the priority class of the pod."),
    number("--job-retries", help="With --on: try this often again when a pod is lost.  [default: 2]"),
    duration("--job-deadline", help="With --on: the time that the build may take.  [default: 1h]"),
    duration("--job-ttl", help="With --on: the time for which the ended Job stays.  [default: 10m]"),
)
"""What is said of the Job, whatever it does."""
VIA = text(
    "--context-via",
    metavar="REPO|api",
    help="With --on: send the context through this repository, or through the API server.  [default: the "
    "repository of --cache-to, else of -t]",
)
CLUSTER: Params = (
    ON,
    *OF_JOB,
    VIA,
    switch("--detach", help="With --on: print the name of the Job and leave; --attach watches it."),
    text("--attach", metavar="JOB", help="With --on: watch a build that was begun before, from its beginning on."),
)
OF_SESSION: Params = (
    *CLUSTER,
    text("--contextdir", metavar="DIR", help="With --on: the directory that the script runs in.  [default: .]"),
    many("--env", metavar="NAME[=VALUE]", help="With --on: give the script this variable, by default with our value."),
)


class ClusterValues(NamedTuple):
    """The options of a build in a cluster besides those of its Job."""

    on: str
    context_via: str | None
    detach: bool
    attach: str | None


def cluster_of(environ: Mapping[str, str], values: Mapping[str, Any]) -> str | None:
    """The value of --on or BUILDA_ON; None for a build on this machine."""
    on: str | None = values.get("on")
    return environment(environ, "BUILDA_ON") if on is None else on or None


def cluster_for_session(environ: Mapping[str, str], values: Mapping[str, Any]) -> str | None:
    """The same for a session; BUILDA_ON is for the outer one if this session is a part of another."""
    if environ.get("BUILDA_SESSION"):
        if values.get("on"):
            raise InvalidValue("--on belongs on the outer session, which this one is part of")
        return None
    return cluster_of(environ, values)


_OF_ATTACH = frozenset(
    "on attach iidfile iidfile_raw progress quiet logfile report trace metadata_file sbom_output "
    "sbom_purl_output".split()
)
"""Options that say what becomes of a build's output."""


def check_attach(rows: Sequence[Row], values: Mapping[str, Any], *arguments: object) -> None:
    """InvalidValue for an argument, or an option in `values`, that means nothing for a build that was begun before."""
    hint = "the Job has the options of the command that made it"
    others = [row for row in rows if isinstance(row, Option) and row.refusal is None and row.name not in _OF_ATTACH]
    for row in others:
        if values.get(row.name, row.default) != row.default:
            raise InvalidValue(f"{row.long} cannot be used with --attach", hint=hint)
    if any(arguments):
        raise InvalidValue("--attach takes no context and no script", hint=hint)


def check_detach(values: Mapping[str, Any]) -> None:
    """InvalidValue for a file that only a client which stays can write."""
    for name in ("iidfile", "iidfile_raw"):
        if values[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise InvalidValue(
                f"{option} cannot be used with --detach, which leaves before there is an image",
                hint=f"builda build --attach JOB {option} FILE writes it",
            )


def drop(values: dict[str, Any], rows: Params = CLUSTER, *, is_used: bool) -> None:
    """`values` without these options; InvalidValue naming one that a build on this machine does not have."""
    if not is_used:
        check_unused(values, rows)
    for row in rows:
        values.pop(row.name)


def check_unused(values: Mapping[str, Any], rows: Params = CLUSTER) -> None:
    """InvalidValue naming an option that only a build in a cluster has."""
    for row in rows:
        if row is not ON and values.get(row.name) not in (None, False, ()):
            option = f"--{row.name.replace('_', '-')}"
            raise InvalidValue(f"{option} is for builds in a cluster", hint="--on kubernetes says where that is")


def job_options(values: dict[str, Any], environ: Mapping[str, str]) -> JobOptions:
    """Take the options OF_JOB out of `values`; NotFound without an image."""
    from builda.cluster.objects import JobOptions, pairs, toleration

    file = values.pop("pod_template")
    template = {} if file is None else template_of(file)
    image = values.pop("builder_image") or _image_of(template) or environment(environ, "BUILDA_BUILDER_IMAGE")
    if image is None:
        raise NotFound(
            "no image is named for the Job's pod",
            hint="--builder-image or BUILDA_BUILDER_IMAGE names one with builda in it, as "
            "examples/kubernetes/Containerfile makes it",
        )
    retries, deadline, ttl = (values.pop(name) for name in ("job_retries", "job_deadline", "job_ttl"))
    return JobOptions(
        image=image,
        retries=2 if retries is None else _least(retries, 0, "--job-retries"),
        deadline=3600 if deadline is None else _least(deadline // 10**9, 1, "--job-deadline"),
        ttl=600 if ttl is None else ttl // 10**9,
        labels=_labels(pairs(values.pop("job_label"), "--job-label"), "--job-label"),
        requests=_quantities(pairs(values.pop("request"), "--request"), "--request"),
        limits=_quantities(pairs(values.pop("limit"), "--limit"), "--limit"),
        node_selector=_labels(pairs(values.pop("node_selector"), "--node-selector"), "--node-selector"),
        tolerations=tuple(map(toleration, values.pop("toleration"))),
        priority_class=values.pop("priority_class"),
        template=template,
    )


def _image_of(template: Mapping[str, Any]) -> str | None:
    """The image that a template gives to the container of the build."""
    from builda.cluster.objects import CONTAINER

    containers = template.get("spec", {}).get("containers") or ()
    found = next((one.get("image") for one in containers if one.get("name") == CONTAINER), None)
    return None if found is None else str(found)


def _least(value: int, least: int, option: str) -> int:
    if value < least:
        raise InvalidValue(f"{option} is too small: {value}")
    return value


def _labels(found: Mapping[str, str], option: str) -> Mapping[str, str]:
    """The labels, each of which a cluster would take (Kubernetes, "Labels and Selectors", syntax and character set)."""
    for name, value in found.items():
        prefix, slash, own = name.rpartition("/")
        if not (_is_label_name(own) and (not value or _is_label_name(value)) and (not slash or _is_domain(prefix))):
            hint = "name and value have up to 63 letters, digits, -, _ and . and begin and end with a letter or digit"
            raise InvalidValue(f"{option} is not a label: {name}={value}", hint=hint)
    return found


def _is_label_name(text: str) -> bool:
    import re

    return len(text) <= 63 and re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", text) is not None


def _is_domain(text: str) -> bool:
    import re

    return len(text) <= 253 and re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?", text) is not None


def _quantities(found: Mapping[str, str], option: str) -> Mapping[str, str]:
    """The quantities of resources (Kubernetes API, Quantity): a number, with a suffix or an exponent."""
    import re

    for name, value in found.items():
        if not re.fullmatch(r"(?:\d+\.?\d*|\.\d+)(?:[munkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?", value, re.ASCII):
            raise InvalidValue(f"{option} is not a quantity: {name}={value}", hint="write cpu=500m or memory=4Gi")
    return found


def template_of(path: str) -> Mapping[str, Any]:
    """Metadata and spec of the Pod or PodTemplate in a file; dates in it are texts, as kubectl has them."""
    import json

    import yaml  # the client of Kubernetes needs it, too

    from builda.inputfile import read_input

    try:
        value = json.loads(json.dumps(yaml.safe_load(read_input(path, "pod template")), default=str))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InvalidValue(f"pod template is not YAML: {path}: {' '.join(str(error).split())}") from error
    if isinstance(value, dict) and value.get("kind") == "PodTemplate":
        value = value.get("template")
    if not isinstance(value, dict) or not isinstance(value.get("spec"), dict):
        raise InvalidValue(f"pod template has no spec: {path}", hint="it is a Pod or a PodTemplate in YAML or JSON")
    fault = _fault(value)
    if fault is not None:
        raise InvalidValue(f"pod template is not a Pod: {path}: {fault}", hint="its container is called build")
    return {"metadata": value.get("metadata") or {}, "spec": value["spec"]}


_MAPS: Mapping[str, type] = {
    "metadata": dict,
    "metadata.labels": dict,
    "spec.containers": list,
    "spec.nodeSelector": dict,
    "spec.securityContext": dict,
    "spec.tolerations": list,
    "spec.volumes": list,
}
_OF_CONTAINER: Mapping[str, type] = {
    "env": list,
    "resources": dict,
    "resources.limits": dict,
    "resources.requests": dict,
    "securityContext": dict,
    "volumeMounts": list,
}
_NAMES: Mapping[type, str] = {dict: "map", list: "list"}


def _fault(template: Mapping[str, Any]) -> str | None:
    """What of the parts to which builda adds is no map or list; None if all are. The API server looks at the rest."""
    found = _other_kind(template, _MAPS)
    if found is not None:
        return found
    spec = template["spec"]
    for place in ("containers", "volumes"):
        for index, one in enumerate(spec.get(place) or ()):
            if not isinstance(one, dict):
                return f"spec.{place}[{index}] is no map"
            found = None if place == "volumes" else _other_kind(one, _OF_CONTAINER)
            if found is not None:
                return f"spec.{place}[{index}].{found}"
    return None


def _other_kind(value: Mapping[str, Any], kinds: Mapping[str, type]) -> str | None:
    for path, kind in kinds.items():
        found: Any = value
        for name in path.split("."):
            found = (found or {}).get(name)
        if found is not None and not isinstance(found, kind):
            return f"{path} is no {_NAMES[kind]}"
    return None
