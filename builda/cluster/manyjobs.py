"""A cluster for many Jobs at once: one watch of their pods and one of them serve all who follow a Job.

Watching each by itself would take requests that grow with the number of Jobs times the time that they wait for nodes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from threading import Condition, Lock, Thread

from builda.cluster.connection import Away, Cluster, Gone
from builda.errors import BuildaError, NotFound
from builda.values import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Object: TypeAlias = dict[str, Any]

RUN = "builda.io/run"
"""The label of all Jobs and pods that are followed together."""
_JOB = "batch.kubernetes.io/job-name"
_SECONDS = 60
"""How long one watch lasts."""
_EVENTS = 5.0
"""Seconds for which a list of events is new enough."""


class _Change(NamedTuple):
    number: int
    kind: str
    object: Object


class ManyJobs(Cluster):
    """The same namespace. What `follow` asks about pods and Jobs with the label RUN is answered by what was watched."""

    def __init__(self, cluster: Cluster, run: str) -> None:
        super().__init__(cluster.server, cluster.namespace, tell=cluster.tell)
        self.run = run
        self._changed = Condition()
        self._objects: dict[str, dict[str, Object]] = {"pods": {}, "jobs": {}}
        self._gone: set[str] = set()
        self._changes: dict[str, list[_Change]] = {}
        self._number = 0
        self._listed: set[str] = set()
        self._events: Sequence[Object] = ()
        self._asked_at = -_EVENTS
        self._asking = Lock()
        self._ends = False
        self._failure: BuildaError | None = None
        for kind in self._objects:
            Thread(target=self._keep, args=(kind,), daemon=True, name=f"builda-watch-{kind}").start()

    def close(self) -> None:
        """Watch no more."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()

    # What those who follow a Job ask

    def list(self, kind: str, **selectors: str) -> Object:
        """The pods of a Job as they were seen last; other lists are the server's."""
        if kind == "events" and "," not in selectors["field_selector"]:  # of the name of a Job
            return self._refusals(selectors)
        job = _job_of(kind, selectors)
        if job is None:
            return super().list(kind, **selectors)
        with self._changed:
            self._changed.wait_for(lambda: "pods" in self._listed or self._is_over())
            self._check()
            found = [pod for pod in self._objects["pods"].values() if _label(pod) == job]
            return {"metadata": {"resourceVersion": str(self._number)}, "items": found}

    def _refusals(self, selectors: dict[str, str]) -> Object:
        """The events of one Job that say why it makes no pod, from a list of all Jobs' that is renewed now and then."""
        _, _, name = selectors["field_selector"].partition("=")
        with self._asking:
            if time.monotonic() - self._asked_at > _EVENTS:
                found = super().list("events", field_selector="involvedObject.kind=Job,reason=FailedCreate")
                self._events, self._asked_at = found["items"], time.monotonic()
            return {"items": [one for one in self._events if one["involvedObject"].get("name") == name]}

    def watch(self, kind: str, version: str, seconds: int, **selectors: str) -> Iterator[Object]:
        """The changes of a Job's pods that come within so many seconds; other watches are the server's."""
        job = _job_of(kind, selectors)
        if job is None:
            yield from super().watch(kind, version, seconds, **selectors)
            return
        seen, end = int(version), time.monotonic() + seconds
        while True:
            with self._changed:
                new = [change for change in self._changes.get(job, ()) if change.number > seen]
                if not new:
                    left = end - time.monotonic()
                    if left <= 0:
                        return
                    self._changed.wait(left)
                    self._check()
                    if self._ends:
                        return
                    continue
            for change in new:
                seen = change.number
                numbered = {**change.object["metadata"], "resourceVersion": str(seen)}
                yield {"type": change.kind, "object": {**change.object, "metadata": numbered}}

    def get(self, kind: str, name: str) -> Object:
        """A Job as it was seen last; other objects are the server's."""
        if kind == "jobs":
            with self._changed:
                if name in self._objects["jobs"]:
                    return self._objects["jobs"][name]
                if name in self._gone:
                    raise NotFound(f"no such Job: {name}")
        return super().get(kind, name)

    def _is_over(self) -> bool:
        return self._ends or self._failure is not None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # What keeps the answers

    def _keep(self, kind: str) -> None:
        """List, then watch, again and again."""
        version = ""
        while not self._ends:
            try:
                if not version:
                    version = self._list_all(kind)
                for change in super().watch(kind, version, _SECONDS, label_selector=f"{RUN}={self.run}"):
                    version = change["object"]["metadata"]["resourceVersion"]
                    if change["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        self._take(kind, change["type"], change["object"])
            except Gone:
                version = ""
            except Away as error:
                time.sleep(max(0.2, error.pause))
                version = ""
            except BuildaError as error:
                self._fail(error)
                return
            except Exception as error:  # those who follow Jobs would wait for ever
                self._fail(BuildaError(f"watch of {kind} ended: {type(error).__name__}: {error}"))
                raise

    def _fail(self, error: BuildaError) -> None:
        """Raise `error` to all who ask."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _list_all(self, kind: str) -> str:
        found = super().list(kind, label_selector=f"{RUN}={self.run}")
        there = {one["metadata"]["name"]: one for one in found["items"]}
        with self._changed:
            before = dict(self._objects[kind])
        for name, one in there.items():
            if before.get(name, {}).get("metadata", {}).get("resourceVersion") != one["metadata"]["resourceVersion"]:
                self._take(kind, "MODIFIED" if name in before else "ADDED", one)
        for name in before.keys() - there.keys():
            self._take(kind, "DELETED", before[name])
        with self._changed:
            self._listed.add(kind)
            self._changed.notify_all()
        version: str = found["metadata"]["resourceVersion"]
        return version

    def _take(self, kind: str, change: str, found: Object) -> None:
        name = found["metadata"]["name"]
        with self._changed:
            if change == "DELETED":
                self._objects[kind].pop(name, None)
                if kind == "jobs":
                    self._gone.add(name)
            else:
                self._objects[kind][name] = found
            if kind == "pods" and (job := _label(found)) is not None:
                self._number += 1
                self._changes.setdefault(job, []).append(_Change(self._number, change, found))
            self._changed.notify_all()


def _label(found: Object) -> str | None:
    value = (found["metadata"].get("labels") or {}).get(_JOB)
    return None if value is None else str(value)


def _job_of(kind: str, selectors: dict[str, str]) -> str | None:
    """The Job whose pods are asked for; None for another question."""
    name, _, value = selectors.get("label_selector", "").partition("=")
    return value if kind == "pods" and name == _JOB else None
