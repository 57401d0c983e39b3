"""What a Job and its pods are doing, read from their status: the decision of what its client does next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from builda.cluster.objects import CONTAINER
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Object: TypeAlias = Mapping[str, Any]

_PATIENCE = 60.0
"""Seconds for which a container may fail to begin, as registries and nodes have bad moments."""
_NEVER = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
_NO_IMAGE = (
    *("InvalidImageName", "ErrImageNeverPull", "ImagePullBackOff", "ErrImagePull"),
    *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
)
_FAILING = (
    *("CreateContainerError", "RunContainerError"),
    *("PreCreateHookError", "PreStartHookError", "PostStartHookError"),
)
_CACHE = "failed to sync"
"""In the words of a node that has not yet read a Secret or ConfigMap."""
OF_PODS, OF_JOBS = "involvedObject.kind=Pod", "involvedObject.kind=Job"
"""The field selectors of events about pods and Jobs."""
NO_SANDBOX = "FailedCreatePodSandBox"
"""The reason of an event: the node cannot make the pod, which is tried again for ever and not in the pod's status."""


DELETED = "it was deleted"
"""Why a pod ended that somebody deleted."""


class Pod(NamedTuple):
    """A pod of the build as its client sees it."""

    name: str
    phase: str
    created: str
    begun: bool
    """Its container has begun, so that it has a log."""
    ended: bool
    waiting: str | None = None
    """Why it does not begin, in the cluster's words."""
    hopeless: bool = False
    """Whether `waiting` is something that no waiting changes."""
    no_image: bool = False
    """Whether the image of builda cannot be had."""
    may_pass: bool = False
    """Whether `waiting` may pass, or may stay for ever."""
    placed: bool = False
    """It has a node."""
    cause: str | None = None
    """Why it ended without having said how the build ended."""


def pod_of(found: Object) -> Pod:
    """What the pod's status says."""
    status = found.get("status") or {}
    own: Object = next((one for one in status.get("containerStatuses") or () if one.get("name") == CONTAINER), {})
    state = own.get("state") or {}
    terminated = state.get("terminated") or {}
    before = None if state.get("running") or terminated else _first_before(status)
    waiting = (before or own).get("state", {}).get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    phase = str(status.get("phase") or "Pending")
    return Pod(
        name=found["metadata"]["name"],
        phase=phase,
        created=str(found["metadata"].get("creationTimestamp") or ""),
        begun=bool(terminated or state.get("running")),
        ended=phase in ("Succeeded", "Failed") or bool(terminated),
        waiting=_waiting(reason, waiting, status, before),
        hopeless=reason in _NEVER and _CACHE not in str(waiting.get("message")),
        no_image=before is None and reason in _NO_IMAGE,
        may_pass=reason in (*_NO_IMAGE, *_FAILING, *_NEVER),
        placed=bool((found.get("spec") or {}).get("nodeName")),
        cause=_cause(status, terminated, before, is_deleted="deletionTimestamp" in found["metadata"]),
    )


def newest(pods: Iterable[Pod]) -> Pod | None:
    """The pod that was made last."""
    return max(pods, key=lambda pod: (pod.created, pod.name), default=None)


class Finished(NamedTuple):
    """The Job does nothing more."""

    failed: bool
    reason: str = ""
    message: str = ""


def finished(job: Object) -> Finished | None:
    """How the Job ended; None while it goes on."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed", "FailureTarget"):
            failed = condition["type"] != "Complete"
            return Finished(failed, str(condition.get("reason") or ""), str(condition.get("message") or ""))
    return None


def is_suspended(job: Object) -> bool:
    """Whether a queue, such as Kueue, holds the Job back."""
    return bool((job.get("spec") or {}).get("suspend"))


def refused(events: Iterable[Object]) -> str | None:
    """The words in which a quota or an admission policy refuses the Job's pods; None if nothing does."""
    last = _latest(event for event in events if event.get("reason") == "FailedCreate")
    return None if last is None else str(last.get("message") or "")


def is_final(words: str) -> bool:
    """Whether a policy refuses the pods, so that it makes no difference how often the Job's controller tries."""
    if any(text in words for text in _PASSING):
        return False
    return any(text in words for text in ("forbidden", "denied the request", "denied request", "is invalid"))


_PASSING = (
    "exceeded quota",
    "status unknown for quota",
    "error looking up service account",  # the one of a new namespace is made a moment after it
    "not yet ready to handle request",
)
"""In the words of refusals (403) that other words come after."""


def hindered(events: Iterable[Object]) -> str | None:
    """What the node's agent said last against beginning a pod, with the event's reason."""
    last = _latest(event for event in events if event.get("type") == "Warning")
    return None if last is None else f"{last.get('reason')}: {last.get('message') or ''}".rstrip(": ")


def _latest(events: Iterable[Object]) -> Object | None:
    def when(event: Object) -> str:
        series = event.get("series") or {}
        return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")

    return max(events, key=when, default=None)


def lacks_user_namespaces(words: str) -> bool:
    """Whether a node says that it, or a file system of it, has no user namespaces for pods: no wait changes that."""
    return re.search(r"user namespace|hostusers|idmap", words, re.IGNORECASE) is not None


def is_patient(seconds: float) -> bool:
    """Whether a container that has failed to begin for so long may still begin."""
    return seconds < _PATIENCE


def _first_before(status: Object) -> Object | None:
    """The status of the container that the build's own waits for; None without one.

    Init containers come from a pod template, or from webhooks such as those of service meshes.
    """
    for one in status.get("initContainerStatuses") or ():
        state = one.get("state") or {}
        is_done = "running" in state and one.get("started")  # as a sidecar, with restartPolicy Always
        if not is_done and (state.get("terminated") or {}).get("exitCode") != 0:
            found: Object = one
            return found
    return None


def _waiting(reason: str, waiting: Object, status: Object, before: Object | None) -> str | None:
    if reason and reason not in ("ContainerCreating", "PodInitializing"):
        message = str(waiting.get("message") or "").strip()
        words = f"{reason}: {message}" if message else reason
        return words if before is None else f"init container {before.get('name')}: {words}"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return None


def _cause(status: Object, terminated: Object, before: Object | None, *, is_deleted: bool) -> str | None:
    """The pod's own reason (Evicted, NodeLost, Preempting), else its container's (OOMKilled)."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return f"{condition.get('reason')}: {condition.get('message') or ''}".rstrip(": ")
    if status.get("reason"):
        return f"{status['reason']}: {status.get('message') or ''}".rstrip(": ")
    if terminated:
        reason = terminated.get("reason") or "ended"
        if is_deleted and reason == "Error":
            return DELETED
        is_own = reason in ("Error", "Completed")  # what builda itself left as its last words
        said = None if is_own else terminated.get("message")
        return _end_of(terminated, said)
    ended = (before or {}).get("state", {}).get("terminated")
    if before is not None and ended:
        return f"init container {before.get('name')}: {_end_of(ended, ended.get('message'))}"
    return None


def _end_of(terminated: Object, said: object) -> str:
    """How a container ended, and what is said of it."""
    status = f"{terminated.get('reason') or 'ended'} (exit status {terminated.get('exitCode')})"
    return f"{status}: {said}" if said else status
