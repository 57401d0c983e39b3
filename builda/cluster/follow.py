"""Following a Job: its pods come and go, connections break, and each frame of a build is given once and in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from builda.cluster import state
from builda.cluster.connection import Away, Cluster, Forbidden, Gone
from builda.cluster.frames import Awaiting, Ended, Exited, Frame, Reader, Skipped
from builda.cluster.objects import CONTAINER
from builda.cluster.state import Pod
from builda.errors import BuildaError, InvalidValue, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builda.cluster.state import Object

_SHORT, _LONG = 2, 20
"""Seconds that a watch lasts before the Job itself is looked at: at first, and when all has been still for long."""
_SOON = 2.0
"""Seconds within which a Job has a pod, or an event that says why not."""
_JOB_NAME = "batch.kubernetes.io/job-name"
_STARTING = 5.0
"""Seconds for which a node may take to make a pod without being asked what keeps it."""
_LAST = 30.0
"""Seconds of vain attempts after which the log of a pod that ended is given up, and the Job of another looked at."""


class JobFailed(BuildaError):
    """The Job ended, or cannot begin, without a word from the build."""


def follow(
    cluster: Cluster, job: str, say: Callable[[str], None], feed: Callable[[str], None] | None = None
) -> Iterator[Frame]:
    """What the pods of the Job write until one of them says how the build ended, which is the last frame.

    `say` is told in a sentence what the cluster does meanwhile. `feed` sends its contexts to the pod of a name, which
    waits for them. JobFailed if the Job ends otherwise.
    """
    done = set[str]()
    cause: str | None = None
    failure: BuildaError | None = None
    while True:
        pod = _Waiting(cluster, job, done, cause, failure, say).for_pod()
        log = _Log(cluster, job, pod, say)
        failure = None
        for frame in log.frames():
            if isinstance(frame, Ended) and not frame.is_last:
                failure = frame.error
                break
            if isinstance(frame, Awaiting) and feed is not None:
                feed(pod.name)
            yield frame
            if isinstance(frame, Ended | Exited):
                return
        if log.reader.lost:
            say(f"{log.reader.lost} lines of the log of pod {pod.name} are gone: the node rotated it")
        done.add(pod.name)
        cause = str(failure) if failure is not None else log.cause()
        say(f"pod {pod.name} did not finish: {cause}")


def refusal(cluster: Cluster, job: str) -> str | None:
    """The words in which the first pod of a Job is refused; None if there is a pod, or nothing is said soon."""
    end, pause = cluster.clock() + _SOON, 0.05
    while cluster.clock() < end:
        if cluster.list("pods", label_selector=f"{_JOB_NAME}={job}")["items"]:
            return None
        try:
            words = state.refused(
                cluster.list("events", field_selector=f"{state.OF_JOBS},involvedObject.name={job}")["items"]
            )
        except Forbidden:
            return None
        if words is not None:
            return words
        cluster.sleep(pause)
        pause *= 2
    return None


class _Waiting:
    """The wait for a pod whose log can be read."""

    def __init__(
        self,
        cluster: Cluster,
        job: str,
        done: set[str],
        cause: str | None,
        failure: BuildaError | None,
        say: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._job = job
        self._selector = f"{_JOB_NAME}={job}"
        self._done = done
        self._cause = cause
        self._failure = failure
        self._say = say
        self._said: str | None = None
        self._since: dict[tuple[str, str], float] = {}

    def for_pod(self) -> Pod:
        """The newest pod that has begun and is not done; JobFailed if there will be none."""
        seconds, version, pods = _SHORT, "", dict[str, Pod]()
        while True:
            if not version:
                version, pods = self._listed()
            pod = state.newest(pod for pod in pods.values() if pod.name not in self._done)
            if pod is not None and (pod.begun or pod.ended):
                return pod
            if pod is not None:
                self._look_at(pod)
            changed, version = self._watched(version, pods, seconds)
            if not changed:
                self._look_at_job(pod)
                seconds = min(seconds * 2, _LONG)

    def _listed(self) -> tuple[str, dict[str, Pod]]:
        found = self._cluster.list("pods", label_selector=self._selector)
        pods = {pod.name: pod for pod in map(state.pod_of, found["items"])}
        if self._done and all(name in self._done for name in pods):
            self._look_at_job(None)
        return found["metadata"]["resourceVersion"], pods

    def _watched(self, version: str, pods: dict[str, Pod], seconds: int) -> tuple[bool, str]:
        """Take the next change into `pods`; whether there was one, and the version after it ("" if that is unknown)."""
        try:
            for change in self._cluster.watch("pods", version, seconds, label_selector=self._selector):
                found = change["object"]
                version = found["metadata"]["resourceVersion"]
                if change["type"] == "DELETED":
                    pods.pop(found["metadata"]["name"], None)
                    return False, version
                if change["type"] in ("ADDED", "MODIFIED"):
                    pod = state.pod_of(found)
                    pods[pod.name] = pod
                    return True, version
        except Gone:
            return True, ""
        except Away as error:
            self._cluster.sleep(max(0.2, error.pause))
            return False, ""
        return False, version

    def _look_at(self, pod: Pod) -> None:
        """Say why the pod does not begin; JobFailed if it never will."""
        if pod.waiting is None:
            return
        late = pod.may_pass and not state.is_patient(self._seconds_since("waiting", pod.name))
        if pod.hopeless or late or (pod.no_image and _is_absent(pod.waiting)):
            raise JobFailed(f"pod of the build does not begin: {pod.waiting}", hint=_hint_for_waiting(pod))
        self._tell(f"pod {pod.name} waits: {pod.waiting}")

    def _look_at_node(self, pod: Pod) -> None:
        """Say what keeps a node from making the pod, which its status does not say; JobFailed if it stays so."""
        if pod.waiting is not None or not pod.placed:
            return
        seconds = self._seconds_since("placed", pod.name)
        if seconds < _STARTING:  # a volume may wait for the Secret at first
            return
        words = self._events(f"{state.OF_PODS},involvedObject.name={pod.name}", state.hindered)
        if words is None:
            return
        is_over = state.lacks_user_namespaces(words) or not state.is_patient(seconds)
        if words.startswith(state.NO_SANDBOX) and is_over:
            raise JobFailed(f"node cannot make the pod of the build: {words}", hint=_HINT_FOR_NODES)
        self._tell(f"pod {pod.name} waits: {words}")

    def _seconds_since(self, what: str, pod: str) -> float:
        """Seconds since this was first seen of a pod."""
        return self._cluster.clock() - self._since.setdefault((what, pod), self._cluster.clock())

    def _events(self, selector: str, chosen: Callable[[Iterable[Object]], str | None]) -> str | None:
        """The words of the event that is chosen; None without one, or without the right to see events."""
        try:
            return chosen(self._cluster.list("events", field_selector=selector)["items"])
        except Forbidden:
            return None

    def _look_at_job(self, pod: Pod | None) -> None:
        """JobFailed if no further pod comes."""
        try:
            job = self._cluster.get("jobs", self._job)
        except NotFound as error:
            raise JobFailed(f"Job is gone, somebody deleted it: {self._job}") from error
        ended = state.finished(job)
        if ended is not None and ended.reason == "BackoffLimitExceeded" and self._failure is not None:
            raise self._failure
        if ended is not None:
            no_users = state.lacks_user_namespaces(self._cause or "")
            raise JobFailed(self._why(ended), hint=_HINT_FOR_NODES if no_users else _HINTS.get(ended.reason))
        if state.is_suspended(job):
            self._tell(f"Job {self._job} is held back by its queue")
        elif pod is None:
            self._look_at_refusals()
        else:
            self._look_at_node(pod)

    def _look_at_refusals(self) -> None:
        words = self._events(f"involvedObject.name={self._job}", state.refused)
        if words is not None and state.is_final(words):
            raise JobFailed(f"cluster refuses the pod of the build: {words}", hint=_hint_for(words))
        if words is not None:
            self._tell(f"cluster makes no pod for now: {words}")

    def _why(self, ended: state.Finished) -> str:
        last = f"; its last pod: {self._cause}" if self._cause else ""
        if not ended.failed:
            return f"Job ended, and its log does not say how the build did: {self._job}{last}"
        return f"Job failed, {ended.reason}: {ended.message}{last}"

    def _tell(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._say(text)


class _Vain:
    """How long a log has been asked for in vain. The time in which the API server itself is away does not count."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._total = 0.0
        self._began = clock()

    def begins(self) -> None:
        """The next attempt begins, with a pause."""
        self._began = self._clock()

    def opened(self, *, is_enough: bool) -> None:
        """There was an answer; if `is_enough`, it was not in vain."""
        if is_enough:
            self._total, self._began = 0.0, self._clock()

    def seconds(self) -> float:
        """The sum of all attempts until now."""
        self._total += self._clock() - self._began
        return self._total


class _Log:
    """What one pod writes, however often the stream breaks, and why the pod ended."""

    def __init__(self, cluster: Cluster, job: str, pod: Pod, say: Callable[[str], None]) -> None:
        self.reader = Reader()
        self._cluster = cluster
        self._job = job
        self._pod = pod
        self._say = say
        self._cause: str | None = None

    def frames(self) -> Iterator[Frame]:
        """The frames until nothing more can come."""
        since: float | None = None
        heard, pause, pod, vain = self._cluster.clock(), 0.1, self._pod, _Vain(self._cluster.clock)
        while True:
            asked, last = 0.0, self.reader.last
            try:
                with self._cluster.log(self._pod.name, CONTAINER, since) as pieces:
                    vain.opened(is_enough=not pod.ended)
                    for piece in pieces:
                        heard, pause = self._cluster.clock(), 0.1
                        yield from self.reader.take(piece)
                if pod.ended:
                    if since is None:
                        return
                    raise Skipped  # its last lines may be older than they seemed to be
            except Skipped:  # what came last was written long before it came
                since = None
                self.reader.again()
                continue
            except NotFound:  # of the pod, or of a node whose agent has just begun and does not know its pods yet
                pass
            except Away as error:  # also 500, for a node that does not answer
                asked = error.pause
            except InvalidValue:  # 400 for a container that has no log yet, or never began
                if pod.ended and not pod.begun:
                    return
            vain.opened(is_enough=self.reader.last > last)
            if vain.seconds() > _LAST and (pod.ended or self._is_job_over()):
                return
            try:
                pod = self._look()
            except NotFound:
                return
            since = self._cluster.clock() - heard
            self.reader.again(is_whole=False)
            vain.begins()
            self._cluster.sleep(max(pause, asked))
            pause = min(pause * 2, 2.0)

    def _is_job_over(self) -> bool:
        """Whether the Job has ended; its pod may be there for ever, as a node that is gone confirms no deletion."""
        try:
            return state.finished(self._cluster.get("jobs", self._job)) is not None
        except NotFound:
            return True

    def cause(self) -> str:
        """Why the pod ended: what the cluster says or said last, and the last words that are no frame."""
        try:
            self._look()
        except NotFound:
            self._cause = self._cause or state.DELETED
        strange = self.reader.strange
        return f"{self._cause or 'its log ends'}{f'; it said: {strange[-1]}' if strange else ''}"

    def _look(self) -> Pod:
        """The pod as it is now. That it is lost is said before it has ended, which takes minutes if its node died."""
        found = state.pod_of(self._cluster.get("pods", self._pod.name))
        if found.cause is not None and found.cause != self._cause and not found.ended:
            self._say(f"pod {found.name} is lost: {found.cause}")
        self._cause = found.cause or self._cause
        return found


_HINTS = {
    "DeadlineExceeded": "--job-deadline gives a build more time",
    "BackoffLimitExceeded": "--job-retries lets it be tried more often; a limit of memory that is too small shows as "
    "OOMKilled",
}


def _is_absent(waiting: str) -> bool:
    """Whether a registry has said that there is no such image, or that it may not be had."""
    words = waiting.lower()
    return any(text in words for text in ("not found", "manifest unknown", "unauthorized", "denied"))


def _hint_for(words: str) -> str | None:
    if "PodSecurity" in words:
        return "--mode chooses a pod that the namespace admits; builda cluster check says which"
    if "security context constraint" in words:
        return "OpenShift chooses the user: docs/cluster.md has the pod template for it"
    if "must specify" in words or "LimitRange" in words or "per Container is" in words:
        return "--request and --limit say what resources the pod asks for"
    return None


def _hint_for_waiting(pod: Pod) -> str | None:
    if pod.no_image:
        return "--builder-image names an image of builda that the nodes can pull; docs/cluster.md says how to make one"
    return "kubectl describe pod has more words; --pod-template, --mode and --builder-image say what the pod is"


_HINT_FOR_NODES = (
    "if the node's runtime has no user namespaces, --mode chroot or --mode traced takes a pod that needs none"
)
