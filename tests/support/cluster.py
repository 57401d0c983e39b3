"""A stand-in for a Kubernetes cluster: the part of the API that builda uses, over TLS with tokens, on loopback.

Its controllers are one thread: Jobs make pods (podFailurePolicy, backoffLimit, deadline, TTL), namespaces admit them by
PodSecurity, owners take what they own with them. A pod is run by podsim with exactly its security context; its image is
this checkout. Every object that is made is checked against the schemas of Kubernetes. `Faults` says what goes wrong.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import ssl
import subprocess
import sysconfig
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from tests.support import kubeexec
from tests.support.clusteradmission import REQUEST_LIMIT, faults, violations
from tests.support.pods import PODSIM
from tests.support.registry import make_certificates
from tests.support.rootless import REPOSITORY, interpreter
from tests.support.schemas import NotValid, check_kubernetes

TOKEN = "token-of-alice"
ROLE = REPOSITORY / "examples/kubernetes/cluster-rbac.yaml"
"""What alice may do: the Role that the documents name."""
IMAGE = "registry.example.org/builda:test"
NODES = {"node-amd64": "amd64", "node-arm64": "arm64"}
ENFORCE = "pod-security.kubernetes.io/enforce"
Object = dict[str, Any]


class Role:
    """The rights that a manifest gives, with the API's words for what it does not give."""

    def __init__(self, path: Path) -> None:
        (role,) = [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == "Role"]
        self._allowed = {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def allows(self, verb: str, group: str, resource: str) -> bool:
        return (group, resource, verb) in self._allowed


def forbidden(verb: str, group: str, resource: str, namespace: str, name: str | None) -> str:
    """What the API says to a user who has no right."""
    kind = resource.partition("/")[0] + (f".{group}" if group else "")
    subject = f'{kind} "{name}"' if name else kind
    what = f'cannot {verb} resource "{resource}" in API group "{group}" in the namespace "{namespace}"'
    return f'{subject} is forbidden: User "alice" {what}'


@dataclass
class Faults:
    """What goes wrong from now on; counts go down as it does."""

    refusals: int = 0
    """Requests that are answered with `refusal`, of whatever kind."""
    refusal: tuple[int, str] = (503, "apiserver is starting")
    """Status and words; 429 comes with Retry-After, as from a server that has too much to do."""
    cuts: int = 0
    """Log streams that break off ..."""
    cut_after: int = 1500
    """... after so many bytes, in the middle of a line."""
    gone: int = 0
    """Watches that are answered with 410; every second one has it as an event, as the API has it most often."""
    dead_nodes: set[str] = field(default_factory=set)
    """Nodes that answer nothing: pods go on there unseen, and their logs cannot be read."""
    cut_execs: int = 0
    """Commands whose connection breaks off in the middle of their input."""
    forbidden: str = ""
    """A word in the paths of requests that are forbidden, besides all that the Role does not allow."""
    quota: str | None = None
    """The words in which pods are refused."""
    on_create: tuple[str, Callable[[Object], None]] | None = None
    """What is done, once, when an object of a kind has been made and before the client is told."""
    on_log: tuple[bytes, Callable[[Object], None]] | None = None
    """What is done, once, when a pod has written this."""


@dataclass
class Running:
    """A pod's container: its process, and what it wrote when."""

    process: subprocess.Popen[bytes] | None = None
    lines: list[tuple[float, bytes]] = field(default_factory=list)
    ended: bool = False
    reason: str | None = None
    """Why the container ended, if the kernel or the node ended it."""
    directory: Path | None = None
    times: list[float] = field(default_factory=list)
    """When it got its node and when it ended, by the monotonic clock."""


class Cluster:
    """The objects by kind and namespace, and what the API says of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.faults = Faults()
        self.role = Role(ROLE)
        self.requests: list[str] = []
        self.changed = threading.Condition()
        self.objects: dict[tuple[str, str], dict[str, Object]] = {}
        self.namespaces: dict[str, Object] = {"default": {"metadata": {"name": "default", "labels": {}}}}
        self.history: list[tuple[int, str, str, str, Object]] = []
        self.version = 100
        self.running: dict[str, Running] = {}
        self.closed = False
        self.enforced = "privileged"
        """The PodSecurity level of namespaces without a label, as the server's configuration has it."""
        self.url = ""
        self.slots: int | None = None
        """How many pods a node runs at a time; the others wait for it."""
        self.busy: dict[str, int] = {}

    # What the API does

    def of(self, kind: str, namespace: str = "default") -> dict[str, Object]:
        return self.objects.setdefault((kind, namespace), {})

    def put(self, kind: str, namespace: str, found: Object, change: str) -> Object:
        """Store an object as it is now, and tell those who watch."""
        with self.changed:
            self.version += 1
            found["metadata"]["resourceVersion"] = str(self.version)
            if change == "DELETED":
                self.of(kind, namespace).pop(found["metadata"]["name"], None)
            else:
                self.of(kind, namespace)[found["metadata"]["name"]] = found
            self.history.append((self.version, kind, namespace, change, json.loads(json.dumps(found))))
            self.changed.notify_all()
        return found

    def create(self, kind: str, namespace: str, body: Object) -> tuple[int, Object]:
        try:
            self.check(kind, body)
        except NotValid as error:
            return 422, status(422, "Invalid", f"{kind} is invalid: {error}")
        name = body["metadata"]["name"]
        if name in self.of(kind, namespace):
            return 409, status(409, "AlreadyExists", f'{kind} "{name}" already exists')
        body["metadata"].update(uid=str(uuid.uuid4()), namespace=namespace, creationTimestamp=stamp())
        body.setdefault("status", {})
        return 201, self.put(kind, namespace, body, "ADDED")

    def check(self, kind: str, body: Object) -> None:
        """NotValid for an object that does not fit the schemas, or that validation refuses."""
        check_kubernetes(body)
        for fault in faults(body):
            raise NotValid(fault)

    def delete(self, kind: str, namespace: str, name: str, *, force: bool = False) -> bool:
        """Delete an object and what it owns; a pod that runs is gone when its container has ended."""
        found = self.of(kind, namespace).get(name)
        if found is None:
            return False
        if kind == "pods":
            run = self.running.get(name)
            if not force and run is not None and run.process is not None and not run.ended:
                found["metadata"].update(deletionTimestamp=stamp(), deletionGracePeriodSeconds=30)
                self.put(kind, namespace, found, "MODIFIED")
                self.stop(name)
                return True
            self.stop(name)
        self.put(kind, namespace, found, "DELETED")
        uid = found["metadata"]["uid"]
        for (other, place), objects in list(self.objects.items()):
            for owned in list(objects.values()):
                if place == namespace and any(o["uid"] == uid for o in owned["metadata"].get("ownerReferences", ())):
                    self.delete(other, namespace, owned["metadata"]["name"])
        return True

    def left(self, *parts: str) -> list[str]:
        """The names of Jobs, pods and Secrets with one of these words, after a wait for them to go."""
        end = time.monotonic() + 30
        while True:
            names = [name for kind in ("jobs", "pods", "secrets") for name in list(self.of(kind))]
            found = [name for name in names if any(part in name for part in parts)]
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.05)

    # What the controllers do

    def control(self) -> None:
        while not self.closed:
            with self.changed:
                self.changed.wait(0.02)
            for (kind, namespace), objects in list(self.objects.items()):
                if kind == "jobs":
                    for job in list(objects.values()):
                        self.control_job(namespace, job)
                    self.collect(namespace)

    def collect(self, namespace: str) -> None:
        """Delete the pods of Jobs that are gone: one may be made while its Job is being deleted."""
        there = {job["metadata"]["uid"] for job in list(self.of("jobs", namespace).values())}
        for name, pod in list(self.of("pods", namespace).items()):
            owners = {owner["uid"] for owner in pod["metadata"].get("ownerReferences", ()) if owner["kind"] == "Job"}
            if owners and not owners & there and "deletionTimestamp" not in pod["metadata"]:
                self.delete("pods", namespace, name)

    def control_job(self, namespace: str, job: Object) -> None:
        spec, state, name = job["spec"], job["status"], job["metadata"]["name"]
        conditions = {one["type"] for one in state.get("conditions", ())}
        if conditions & {"Complete", "Failed"}:
            if time.time() - state["_ended"] > spec.get("ttlSecondsAfterFinished", 1e9):
                self.delete("jobs", namespace, name)
            return None
        if spec.get("suspend"):
            return None
        pods = [one for one in self.of("pods", namespace).values() if is_owned(one, job)]
        actions = state.setdefault("_actions", {})
        for pod in pods:
            if pod["status"]["phase"] == "Failed" and pod["metadata"]["name"] not in actions:
                actions[pod["metadata"]["name"]] = policy_action(spec, pod)
            if pod["status"]["phase"] in ("Succeeded", "Failed") and "deletionTimestamp" in pod["metadata"]:
                self.delete("pods", namespace, pod["metadata"]["name"], force=True)  # it is counted now
        if "FailureTarget" in conditions:
            if all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in pods):
                (target,) = state["conditions"]
                state["conditions"] = [target, {**target, "type": "Failed"}]
                state["_ended"] = time.time()
                self.put("jobs", namespace, job, "MODIFIED")
            return None
        began = state.setdefault("_began", time.time())
        if time.time() - began > spec["activeDeadlineSeconds"]:
            return self.end_job(namespace, job, "DeadlineExceeded", "Job was active longer than specified deadline")
        if any(pod["status"]["phase"] == "Succeeded" for pod in pods):
            return self.end_job(namespace, job, None, "")
        if "FailJob" in actions.values():
            pod_name = next(one for one, action in actions.items() if action == "FailJob")
            rule = "failed with exit code 1 matching FailJob rule at index 1"
            message = f"Container build for pod {namespace}/{pod_name} {rule}"
            return self.end_job(namespace, job, "PodFailurePolicy", message)
        if list(actions.values()).count("Count") > spec["backoffLimit"]:
            return self.end_job(namespace, job, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        if all(pod["status"]["phase"] == "Failed" for pod in pods):
            self.make_pod(namespace, job, len(actions))
        return None

    def end_job(self, namespace: str, job: Object, reason: str | None, message: str) -> None:
        """The Job is to end; one that failed has failed when the last of its pods has ended."""
        now = stamp()
        if reason is None:
            words = {
                "status": "True",
                "reason": "CompletionsReached",
                "message": "Reached expected number of succeeded pods",
            }
            job["status"]["conditions"] = [{**words, "type": kind} for kind in ("SuccessCriteriaMet", "Complete")]
            job["status"].update(_ended=time.time(), completionTime=now, succeeded=1)
        else:
            target = {"type": "FailureTarget", "status": "True", "reason": reason, "message": message}
            job["status"]["conditions"] = [{**target, "lastTransitionTime": now}]
        self.put("jobs", namespace, job, "MODIFIED")
        if reason is not None:
            for pod in [one for one in self.of("pods", namespace).values() if is_owned(one, job)]:
                if pod["status"]["phase"] not in ("Succeeded", "Failed"):
                    self.delete("pods", namespace, pod["metadata"]["name"])

    def make_pod(self, namespace: str, job: Object, number: int) -> None:
        template, name = json.loads(json.dumps(job["spec"]["template"])), job["metadata"]["name"]
        pod: Object = {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]}
        labels = pod["metadata"].setdefault("labels", {})
        labels["batch.kubernetes.io/job-name"] = labels["job-name"] = name
        labels["batch.kubernetes.io/controller-uid"] = job["metadata"]["uid"]
        pod["metadata"]["name"] = f"{name}-{number}{uuid.uuid4().hex[:4]}"
        pod["metadata"]["finalizers"] = ["batch.kubernetes.io/job-tracking"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        pod["metadata"]["ownerReferences"] = [owner]
        refusal = self.faults.quota or self.violation(namespace, pod)
        if refusal is not None:
            key = f"{name}.refused"
            if key not in self.of("events", namespace):
                message = f"Error creating: {refusal}"
                event = {"reason": "FailedCreate", "message": message, "lastTimestamp": stamp(), "type": "Warning"}
                about = {"metadata": {"name": key, "uid": key}, "involvedObject": {"kind": "Job", "name": name}}
                self.put("events", namespace, {**about, **event}, "ADDED")
            return
        pod["status"] = {"phase": "Pending"}
        code, made = self.create("pods", namespace, pod)
        assert code == 201, made
        made["status"] = {"phase": "Pending"}
        threading.Thread(target=self.kubelet, args=(namespace, made), daemon=True).start()

    def violation(self, namespace: str, pod: Object) -> str | None:
        """What PodSecurity says against a pod."""
        level = self.namespaces[namespace]["metadata"]["labels"].get(ENFORCE, self.enforced)
        said = violations(level, pod)
        name = pod["metadata"]["name"]
        return None if said is None else f'pods "{name}" is forbidden: violates PodSecurity "{level}:latest": {said}'

    # What a node does

    def kubelet(self, namespace: str, pod: Object) -> None:
        spec, name = pod["spec"], pod["metadata"]["name"]
        (container,) = spec["containers"]
        run = self.running[name] = Running()
        wanted = spec.get("nodeSelector", {}).get("kubernetes.io/arch")
        fitting = [node for node, architecture in NODES.items() if wanted in (None, architecture)]
        node = self.node_for(fitting) if fitting else None
        if node is None:
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            condition["message"] = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
            self.update(namespace, pod, phase="Pending", conditions=[condition])
            return
        spec["nodeName"] = node
        run.times.append(time.monotonic())
        try:
            self.run_pod(namespace, pod, container, run)
        finally:
            run.times.append(time.monotonic())
            with self.changed:
                self.busy[node] -= 1
                self.changed.notify_all()

    def node_for(self, fitting: list[str]) -> str:
        """The node with the fewest pods; waits until there is one with a free slot."""
        with self.changed:
            while True:
                node = min(fitting, key=lambda one: self.busy.get(one, 0))
                if self.slots is None or self.busy.get(node, 0) < self.slots or self.closed:
                    self.busy[node] = self.busy.get(node, 0) + 1
                    return node
                self.changed.wait(1)

    def run_pod(self, namespace: str, pod: Object, container: Object, run: Running) -> None:
        spec, name = pod["spec"], pod["metadata"]["name"]
        if container["image"] != IMAGE:
            message = f'failed to pull image "{container["image"]}": not found'
            self.update(namespace, pod, "waiting", {"reason": "ErrImagePull", "message": message})
            return
        options = self.podsim_options(namespace, spec, container, run)
        if options is None or name not in self.of("pods", namespace):
            return
        environ = {**os.environ, "PODSIM_STATE": str(self.directory / "podsim")}
        run.process = subprocess.Popen(
            [str(PODSIM), *options, "--", *container["command"], *container.get("args", ())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environ,
        )
        self.update(namespace, pod, "running", {"startedAt": stamp()}, phase="Running")
        assert run.process.stdout is not None
        with run.process.stdout as written:
            for line in written:
                self.heard(pod, run, line)
        code = run.process.wait()
        reason = run.reason or ("Completed" if code == 0 else "Error")
        run.ended = True
        if run.directory is not None:
            shutil.rmtree(run.directory)
        if name in self.of("pods", namespace) and spec["nodeName"] not in self.faults.dead_nodes:
            ended = {"exitCode": code if code >= 0 else 128 - code, "reason": reason}
            phase = "Succeeded" if code == 0 else "Failed"
            self.update(namespace, pod, "terminated", ended, phase=phase)
            self.confirm(namespace, pod)
        with self.changed:
            self.changed.notify_all()

    def confirm(self, namespace: str, pod: Object) -> None:
        """A pod that was deleted goes now, if no Job has to count it first."""
        jobs = self.of("jobs", namespace).values()
        if "deletionTimestamp" in pod["metadata"] and not any(is_owned(pod, job) for job in jobs):
            self.delete("pods", namespace, pod["metadata"]["name"], force=True)

    def heard(self, pod: Object, run: Running, line: bytes) -> None:
        with self.changed:
            run.lines.append((time.monotonic(), line))
            self.changed.notify_all()
        if self.faults.on_log is not None and self.faults.on_log[0] in line:
            action, self.faults.on_log = self.faults.on_log[1], None
            action(pod)

    def podsim_options(self, namespace: str, spec: Object, container: Object, run: Running) -> list[str] | None:
        """The pod in podsim's words; None if it goes before it has its Secrets."""
        context = container.get("securityContext", {})
        options = ["root-default-unconfined" if spec.get("hostUsers", True) else "userns-pod", "--timeout", "120"]
        options += [
            "--seccomp",
            "default" if context.get("seccompProfile", {}).get("type") != "Unconfined" else "unconfined",
        ]
        if "runAsUser" in context:
            options += ["--user", f"{context['runAsUser']}:{context.get('runAsGroup', context['runAsUser'])}"]
        if context.get("allowPrivilegeEscalation") is False:
            options.append("--no-new-privs")
        if "ALL" in context.get("capabilities", {}).get("drop", ()):
            options.append("--cap-drop-all")
        for capability in context.get("capabilities", {}).get("add", ()):
            options += ["--cap-add", capability]
        if context.get("procMount") == "Unmasked":
            options += ["--proc-mount", "unmasked"]
        run.directory = Path(tempfile.mkdtemp(dir=self.directory))
        run.directory.chmod(0o755)
        program = run.directory / "bin/builda"
        program.parent.mkdir(mode=0o755)
        program.write_text(f'#!/bin/sh\nexec {interpreter()[0]} -m builda "$@"\n')
        program.chmod(0o755)
        options += ["--bind", f"{program.parent}:/image/bin:ro", "--bind", f"{REPOSITORY}:/app:ro"]
        options += ["--bind", f"{sysconfig.get_path('purelib')}:/packages:ro", "--env", "PYTHONPATH=/app:/packages"]
        options += ["--env", "PATH=/image/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        for variable in container.get("env", ()):
            options += ["--env", f"{variable['name']}={variable['value']}"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for volume in spec["volumes"]:
            if "emptyDir" in volume:
                options += ["--emptydir", mounts[volume["name"]]]
                continue
            if "persistentVolumeClaim" in volume:
                claim = self.directory / "claims" / volume["persistentVolumeClaim"]["claimName"]
                claim.mkdir(parents=True, exist_ok=True)
                claim.chmod(0o777)  # as fsGroup makes it for the pod's group
                options += ["--bind", f"{claim}:{mounts[volume['name']]}"]
                continue
            found = self.secret(namespace, volume["secret"]["secretName"])
            if found is None:
                return None
            place = run.directory / volume["name"]
            place.mkdir(mode=0o755)
            for key, data in found["data"].items():
                (place / key).write_bytes(base64.b64decode(data))
                (place / key).chmod(0o644)
            options += ["--bind", f"{place}:{mounts[volume['name']]}:ro"]
        return options

    def secret(self, namespace: str, name: str) -> Object | None:
        with self.changed:
            self.changed.wait_for(lambda: name in self.of("secrets", namespace) or self.closed, 60)
        return self.of("secrets", namespace).get(name)

    def update(
        self, namespace: str, pod: Object, state: str | None = None, what: Object | None = None, **more: Any
    ) -> None:
        if state is not None:
            pod["status"]["containerStatuses"] = [
                {"name": pod["spec"]["containers"][0]["name"], "state": {state: what}}
            ]
        pod["status"].update(more)
        self.put("pods", namespace, pod, "MODIFIED")

    def stop(self, name: str) -> None:
        run = self.running.get(name)
        if run is not None and run.process is not None and run.process.poll() is None:
            run.process.terminate()

    def evict(self, pod: Object) -> None:
        """The node is short of memory: the pod ends, and its status says why."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
        pod["status"]["conditions"] = [{**condition, "message": "The node was low on resource: memory."}]
        pod["status"].update(reason="Evicted", message="The node was low on resource: memory.")
        self.stop(pod["metadata"]["name"])

    def lose_node(self, pod: Object) -> None:
        """A pod's node dies: nothing of it is heard, then its pod is marked, and in the end the cluster removes both.

        The waits of minutes between these are left out; each comes when the log has been asked for in vain.
        """
        name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
        namespace = pod["metadata"]["namespace"]
        self.faults.dead_nodes.add(node)
        target = {"type": "DisruptionTarget", "status": "True"}

        def die() -> None:
            self.wait_for_request(f"GET /api/v1/namespaces/{namespace}/pods/{name}/log", 2)
            words = "Taint manager: deleting due to NoExecute taint"
            marked = {**target, "reason": "DeletionByTaintManager", "message": words}
            pod["metadata"]["deletionTimestamp"] = stamp()
            self.update(namespace, pod, phase="Running", reason="NodeLost", conditions=[marked])
            # between two such requests a client looks at the pod
            self.wait_for_request(f"GET /api/v1/namespaces/{namespace}/pods/{name}/log", 2)
            collected = {**target, "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists"}
            self.update(namespace, pod, phase="Failed", conditions=[collected])
            self.delete("pods", namespace, name, force=True)
            self.faults.dead_nodes.discard(node)

        threading.Thread(target=die, daemon=True).start()

    def wait_for_request(self, request: str, count: int) -> None:
        """Wait until there were so many more requests of a kind."""
        seen, end = self.requests.count(request), time.monotonic() + 60
        while self.requests.count(request) < seen + count and not self.closed and time.monotonic() < end:
            time.sleep(0.02)

    def kill_for_memory(self, pod: Object) -> None:
        """The container has used up its memory."""
        self.running[pod["metadata"]["name"]].reason = "OOMKilled"
        self.stop(pod["metadata"]["name"])

    def close(self) -> None:
        self.closed = True
        with self.changed:
            self.changed.notify_all()
        for run in self.running.values():
            if run.process is not None:
                with suppress(ProcessLookupError):
                    run.process.terminate()
                run.process.wait(30)


class Simulated(Cluster):
    """A cluster whose pods run nothing: each writes `lines`, and ends well after `seconds`."""

    lines: tuple[bytes, ...] = ()
    seconds = 0.0
    checked_first = 5
    """So many objects of a kind are compared with the schemas, which takes longer than all else."""

    def check(self, kind: str, body: Object) -> None:
        """Check the first of each kind."""
        if len(self.of(kind)) < self.checked_first:
            super().check(kind, body)

    def run_pod(self, namespace: str, pod: Object, container: Object, run: Running) -> None:
        """Write, with pauses."""
        name = pod["metadata"]["name"]
        if self.secret(namespace, pod["spec"]["volumes"][0]["secret"]["secretName"]) is None:
            return
        run.process = subprocess.Popen(["true"])
        run.process.wait()
        self.update(namespace, pod, "running", {"startedAt": stamp()}, phase="Running")
        for line in self.lines:
            time.sleep(self.seconds / len(self.lines))
            if name not in self.of("pods", namespace) or "deletionTimestamp" in pod["metadata"]:
                break
            self.heard(pod, run, line)
        run.ended = True
        if name in self.of("pods", namespace):
            ended = {"exitCode": 0, "reason": "Completed"}
            self.update(namespace, pod, "terminated", ended, phase="Succeeded")
            self.confirm(namespace, pod)
        with self.changed:
            self.changed.notify_all()


def is_owned(found: Object, owner: Object) -> bool:
    """Whether an object is another's."""
    owners = found["metadata"].get("ownerReferences", ())
    return any(one["uid"] == owner["metadata"]["uid"] for one in owners)


def policy_action(spec: Object, pod: Object) -> str:
    """What the podFailurePolicy says of a failed pod."""
    conditions = {c["type"] for c in pod["status"].get("conditions", ())}
    state = pod["status"].get("containerStatuses", [{"state": {}}])[0]["state"]
    code = state.get("terminated", {}).get("exitCode")
    for rule in spec.get("podFailurePolicy", {}).get("rules", ()):
        if any(one["type"] in conditions for one in rule.get("onPodConditions", ())):
            return str(rule["action"])
        if "onExitCodes" in rule and code in rule["onExitCodes"]["values"]:
            return str(rule["action"])
    return "Count"


def stamp() -> str:
    """The time as metav1.Time has it: whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def status(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1)/namespaces/([^/]+)/(jobs|pods|secrets|events|resourcequotas)(?:/([^/]+)(/log|/exec)?)?$"
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.answer_to("GET")

    def do_POST(self) -> None:
        self.answer_to("POST")

    def do_DELETE(self) -> None:
        self.answer_to("DELETE")

    def answer_to(self, method: str) -> None:
        with suppress(OSError):  # the client is gone
            self.answered(method)

    def answered(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        cluster = self.cluster
        if len(body) > REQUEST_LIMIT:
            return self.send(413, status(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"))
        cluster.requests.append(f"{method} {url.path}")
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if (scheme.lower(), token) != ("bearer", TOKEN):  # in a pod, the client writes it in small letters
            return self.send(401, status(401, "Unauthorized", "Unauthorized"))
        if cluster.faults.refusals:
            cluster.faults.refusals -= 1
            code, words = cluster.faults.refusal
            return self.send(code, status(code, "ServiceUnavailable", words))
        if url.path == "/version/":
            return self.send(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        if found := re.fullmatch(r"/api/v1/namespaces/([^/]+)", url.path):
            if not self.is_allowed(["get"], "", "namespaces", found[1], found[1]):
                return None
            return self.send(200, cluster.namespaces[found[1]])
        if url.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            return self.send(201, self.review(json.loads(body)))
        found = PATH.match(unquote(url.path))
        if found is None or found[1] not in cluster.namespaces:
            return self.send(404, status(404, "NotFound", f"the server could not find {url.path}"))
        namespace, kind, name, log = found.groups()
        verbs = {"POST": ["create"], "DELETE": ["delete"]}.get(method)
        if verbs is None:
            verbs = ["get" if name else "watch" if query.get("watch") else "list"]
        if log == "/exec":
            verbs = ["get", "create"]  # the second from Kubernetes 1.35 on, whatever the method
        if not self.is_allowed(verbs, "batch" if kind == "jobs" else "", f"{kind}{log or ''}", namespace, name):
            return None
        if method == "POST":
            answer = cluster.create(kind, namespace, json.loads(body))
            if cluster.faults.on_create is not None and cluster.faults.on_create[0] == kind:
                action, cluster.faults.on_create = cluster.faults.on_create[1], None
                action(answer[1])
            return self.send(*answer)
        if name is None:
            return self.watch(kind, namespace, query) if query.get("watch") else self.list(kind, namespace, query)
        there = cluster.of(kind, namespace).get(name)
        if there is None:
            return self.send(404, status(404, "NotFound", f'{kind} "{name}" not found'))
        if method == "DELETE":
            cluster.delete(kind, namespace, name)
            return self.send(200, {"kind": "Status", "status": "Success"})
        if log == "/exec":
            return self.execute(name, [value for key, value in parse_qsl(url.query) if key == "command"])
        if log and there["spec"].get("nodeName") in cluster.faults.dead_nodes:
            words = f'Get "https://{there["spec"]["nodeName"]}:10250/containerLogs/{namespace}/{name}/build": '
            return self.send(500, status(500, "InternalError", f"{words}dial tcp: connect: no route to host"))
        return self.log(there, cluster.running[name], query) if log else self.send(200, there)

    def is_allowed(self, verbs: Sequence[str], group: str, resource: str, namespace: str, name: str | None) -> bool:
        """Whether alice may do this; if not, that is the answer."""
        for verb in verbs:
            if not self.may(verb, group, resource):
                words = forbidden(verb, group, resource, namespace, name)
                self.send(403, status(403, "Forbidden", words))
                return False
        return True

    def may(self, verb: str, group: str, resource: str) -> bool:
        without = self.cluster.faults.forbidden
        return self.cluster.role.allows(verb, group, resource) and not (without and without in f"/{resource}")

    def review(self, body: Object) -> Object:
        """Whether alice has a right."""
        check_kubernetes(body)
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        return {**body, "status": {"allowed": self.may(asked["verb"], asked.get("group", ""), resource)}}

    def execute(self, name: str, command: list[str]) -> None:
        cluster = self.cluster
        process = cluster.running[name].process
        assert process is not None, "a command is for a pod that runs"
        cut = None
        if cluster.faults.cut_execs:
            cluster.faults.cut_execs -= 1
            cut = 100
        kubeexec.serve(self, kubeexec.in_container(process.pid, cluster.directory / "podsim", command), cut_after=cut)

    def list(self, kind: str, namespace: str, query: dict[str, str]) -> None:
        with self.cluster.changed:
            items = [one for one in self.cluster.of(kind, namespace).values() if selected(one, query)]
            version = {"resourceVersion": str(self.cluster.version)}
        self.send(200, {"kind": "List", "metadata": version, "items": items})

    def watch(self, kind: str, namespace: str, query: dict[str, str]) -> None:
        cluster, seen, end = (
            self.cluster,
            int(query["resourceVersion"]),
            time.monotonic() + int(query["timeoutSeconds"]),
        )
        old = status(410, "Expired", "too old resource version")
        if cluster.faults.gone:
            cluster.faults.gone -= 1
            if cluster.faults.gone % 2:
                return self.send(410, old)
            self.begin_stream()
            self.piece(json.dumps({"type": "ERROR", "object": old}).encode() + b"\n")
            return self.piece(b"")
        self.begin_stream()
        while time.monotonic() < end and not cluster.closed:
            with cluster.changed:
                new = [one for one in cluster.history if one[0] > seen]
                if not new:
                    cluster.changed.wait(min(1.0, max(0.0, end - time.monotonic())))
                    continue
            for version, of, place, change, found in new:
                seen = version
                if (of, place) == (kind, namespace) and selected(found, query):
                    self.piece(json.dumps({"type": change, "object": found}).encode() + b"\n")
        self.piece(b"")
        return None

    def log(self, pod: Object, run: Running, query: dict[str, str]) -> None:
        faults, sent, at = self.cluster.faults, 0, 0
        if run.process is None:
            words = f'container "build" in pod "{pod["metadata"]["name"]}" is waiting to start: ContainerCreating'
            return self.send(400, status(400, "BadRequest", words))
        oldest = time.monotonic() - float(query.get("sinceSeconds") or 1e9)
        self.begin_stream()
        while True:
            with self.cluster.changed:
                if len(run.lines) == at and not run.ended:
                    self.cluster.changed.wait(1)
                new, ended = run.lines[at:], run.ended or self.cluster.closed
            at += len(new)
            if pod["spec"]["nodeName"] in faults.dead_nodes:
                self.close_connection = True
                self.connection.close()
                return None
            for when, line in new:
                if when < oldest:
                    continue
                sent += len(line)
                if faults.cuts and sent > faults.cut_after:
                    faults.cuts -= 1
                    self.piece(line[: len(line) // 2])
                    self.close_connection = True
                    self.connection.close()
                    return None
                self.piece(line)
            if ended and not new:
                return self.piece(b"")

    def send(self, code: int, value: Object) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()


def selected(found: Object, query: dict[str, str]) -> bool:
    """Whether an object has the labels and fields that a query asks for."""
    labels = found["metadata"].get("labels", {})
    for term in filter(None, query.get("labelSelector", "").split(",")):
        name, _, value = term.partition("=")
        if labels.get(name) != value:
            return False
    about = {f"involvedObject.{name}": value for name, value in found.get("involvedObject", {}).items()}
    fields = {**about, "reason": found.get("reason"), "metadata.name": found["metadata"]["name"]}
    terms = [term.partition("=") for term in query.get("fieldSelector", "").split(",") if term]
    return all(fields.get(name) == value for name, _, value in terms)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    """Connections that wait to be accepted. Clients of more than these are connected, and hear nothing (listen(2))."""


@contextmanager
def cluster(kind: type[Cluster] = Cluster) -> Iterator[Cluster]:
    """A cluster that answers; `kubeconfig` in its directory leads to it."""
    scratch = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="cluster-", dir=scratch, ignore_cleanup_errors=True) as place:
        directory = Path(place)
        directory.chmod(0o755)
        authority = make_certificates(directory)
        made = kind(directory)
        handler = type("BoundHandler", (Handler,), {"cluster": made})
        server = Server(("127.0.0.1", 0), handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.crt", directory / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        made.url = f"https://127.0.0.1:{server.server_address[1]}"
        (directory / "kubeconfig").write_text(json.dumps(kubeconfig(made.url, authority.read_bytes())))
        threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=made.control)]
        for thread in threads:
            thread.start()
        try:
            yield made
        finally:
            made.close()
            server.shutdown()
            server.server_close()
            for thread in threads:
                thread.join()


def kubeconfig(url: str, authority: bytes) -> Object:
    """A configuration with the context `there`; JSON is YAML."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "there",
        "clusters": [
            {
                "name": "c",
                "cluster": {"server": url, "certificate-authority-data": base64.b64encode(authority).decode()},
            }
        ],
        "users": [{"name": "alice", "user": {"token": TOKEN}}],
        "contexts": [{"name": "there", "context": {"cluster": "c", "user": "alice", "namespace": "default"}}],
    }
