"""The API server: the requests that builda makes, and what its refusals mean.

Answers are the API's own JSON. A request that finds the server away is tried again for a while; one that changes
something is made so that a second one finds what the first did.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

from builda.cluster import apiclient
from builda.errors import AlreadyExists, BuildaError, InvalidValue, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from builda.cluster.apiclient import Client, Query
    from builda.cluster.where import Where

    Object: TypeAlias = "dict[str, Any]"

AWAY = 90.0
"""Seconds for which the API server may be away."""
_TIMEOUT = (10.0, 30.0)  # to connect, and between two bytes
_MOMENT = 1.0
"""Seconds of a pause between two attempts from which on it is said that the server is away."""
_IT_GOES_ON = "a Job that was made goes on without its client; builda build --attach JOB watches it"
_NO_ANSWER = "see whether the kubeconfig has the server's address, and whether kubectl cluster-info reaches it"
_HINT = "what --pod-template, --request, --limit and --job-label say goes into the Job as it is"
_GROUPS = {"jobs": "/apis/batch/v1"}
"""Kinds of objects that are not of the core group, and the paths of their groups."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LONGEST_PAUSE = 60.0  # seconds that Retry-After may ask for
_ANSWER = 60.0  # seconds that a command may work on after its input
_ERRORS, _ENDED = 2, 3  # channels of a WebSocket to a command (v4.channel.k8s.io and v5)


class Gone(BuildaError):
    """The server no longer has the changes since the version that a watch began with (410)."""


class Away(BuildaError):
    """The connection to the server broke or could not be made, or the server has too much to do."""

    pause = 0.0
    """Seconds after which the server wants to be asked again (Retry-After)."""


class Forbidden(BuildaError):
    """The server refuses (401, 403): rights, quotas, admission. The message has its words."""


class Cluster:
    """One namespace of a cluster. Threads may share it."""

    def __init__(
        self,
        server: Client,
        namespace: str,
        away: float = AWAY,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`tell` is told when the server is away for longer than a moment."""
        self.server = server
        self._away = away
        self.tell = tell
        self._has_answered = False
        self.clock = clock
        self.sleep = sleep
        self.namespace = namespace
        self._known: dict[str, Any] = {}
        self._learnt: dict[str, str | None] = {}
        self._learns = Lock()

    def version(self) -> tuple[int, int]:
        """Major and minor version of the server."""
        if "version" not in self._known:
            self._known["version"] = self._asked("GET", "/version/")
        found = self._known["version"]
        digits = "".join(letter for letter in str(found.get("minor", "0")) if letter.isdecimal())
        return int(found.get("major") or 0), int(digits or 0)

    def level(self, label: str) -> str | None:
        """The value of a label of the namespace, as read or learnt; None without the label or the right to read it."""
        if label in self._learnt:
            return self._learnt[label]
        try:
            if "namespace" not in self._known:
                self._known["namespace"] = self._asked("GET", f"/api/v1/namespaces/{self.namespace}")
            found = self._known["namespace"]
        except Forbidden:
            return None
        value = (found["metadata"].get("labels") or {}).get(label)
        return None if value is None else str(value)

    @contextmanager
    def learning(self, label: str) -> Iterator[bool]:
        """Whether it is to be found out what a label of the namespace would say; others wait until it was."""
        with self._learns:
            yield label not in self._learnt

    def learn(self, label: str, value: str | None) -> None:
        """The cluster does as if a label of the namespace had this value (None: as if it were not there)."""
        self._learnt[label] = value

    def create(self, kind: str, body: Object) -> Object:
        """Make a Job or Secret; if there is one of this name already, which an earlier attempt made, return that."""
        try:
            made: Object = self._asked("POST", self._path(kind), body=body)
            return made
        except AlreadyExists:
            return self.get(kind, body["metadata"]["name"])
        except (Forbidden, InvalidValue) as error:
            what = f"{body['kind']} {body['metadata']['name']} of namespace {self.namespace}"
            raise type(error)(f"cluster does not take the {what}: {error}", hint=error.hint) from error

    def get(self, kind: str, name: str) -> Object:
        """One object; NotFound if it is not there."""
        found: Object = self._asked("GET", self._path(kind, name))
        return found

    def list(self, kind: str, **selectors: str) -> Object:
        """A list of objects, with the version that a watch may begin with."""
        found: Object = self._asked("GET", self._path(kind), _query(selectors))
        return found

    def may(self, verb: str, resource: str) -> bool:
        """Whether the client has a right in the namespace; `resource` is GROUP/RESOURCE, with /SUBRESOURCE perhaps."""
        group, _, rest = resource.partition("/")
        name, _, sub = rest.partition("/")
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": name, "subresource": sub}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        found = self._asked("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body)
        return bool(found["status"].get("allowed"))

    def quotas(self) -> Object | None:
        """The quotas of the namespace; None without the right to see them."""
        try:
            return self.list("resourcequotas")
        except Forbidden:
            return None

    def delete(self, kind: str, name: str) -> bool:
        """The object and what it owns go; whether it was there."""
        try:
            self._asked("DELETE", self._path(kind, name), [("propagationPolicy", "Background")])
        except NotFound:
            return False
        return True

    def watch(self, kind: str, version: str, seconds: int, **selectors: str) -> Iterator[Object]:
        """The changes since `version` for at most so many seconds. Gone if the server forgot them; Away if it broke."""
        query = [("watch", "true"), ("resourceVersion", version), ("timeoutSeconds", str(seconds)), *_query(selectors)]
        with self._stream(self._path(kind), query, seconds + 15.0) as chunks:
            rest = b""
            for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    change = json.loads(line)
                    if change["type"] == "ERROR":
                        raise refusal(int(change["object"].get("code") or 0), json.dumps(change["object"]))
                    yield change

    @contextmanager
    def log(self, pod: str, container: str, since: float | None = None) -> Iterator[Iterator[bytes]]:
        """What a container writes, as it comes, from `since` seconds ago or the beginning on; Away if it breaks."""
        query = [("container", container), ("follow", "true")]
        if since is not None:
            query.append(("sinceSeconds", str(max(1, int(since) + 2))))
        with self._stream(self._path("pods", pod, "/log"), query, _TIMEOUT[1]) as chunks:
            yield chunks

    def feed(self, pod: str, container: str, command: Sequence[str], pieces: Iterable[bytes]) -> None:
        """Run a command in a container, with `pieces` as its standard input.

        The command has to know by itself where its input ends: an end cannot be sent to every server. Away if the
        connection breaks; BuildaError with the command's own words if it fails.
        """
        talk = self._talk(pod, container, command)
        try:
            error = _fed(talk, pieces)
        finally:
            talk.close()
        if error:
            raise BuildaError(f"command in pod {pod} failed: {error}")

    def _talk(self, pod: str, container: str, command: Sequence[str]) -> Any:
        from websocket import WebSocketException

        streams = [(name, "true") for name in ("stdin", "stdout", "stderr")]
        query = [("container", container), *(("command", word) for word in command), *streams, ("tty", "false")]
        try:
            return self.server.talk(self._path("pods", pod, "/exec"), query)
        except (WebSocketException, OSError) as error:
            raise upgrade_refusal(str(error)) from error

    def _path(self, kind: str, name: str | None = None, below: str = "") -> str:
        top = f"{_GROUPS.get(kind, '/api/v1')}/namespaces/{self.namespace}/{kind}"
        if name is None:
            return top
        if _NAME.fullmatch(name) is None:
            raise NotFound(f"cluster has no object of {kind} with such a name: {name!r}")
        return f"{top}/{name}{below}"

    def _asked(self, method: str, path: str, query: Query = (), body: Object | None = None) -> Any:
        """The answer, decoded; asked again while the server is away or busy."""
        end, pause = self.clock() + self._away, 0.1
        while True:
            try:
                answer = json.loads(_read(_asked_once(self.server, method, path, query, body, _TIMEOUT)))
            except Away as error:
                wait = max(pause, error.pause)
                if self.clock() + wait > end:
                    hint = _IT_GOES_ON if self._has_answered else _NO_ANSWER
                    raise BuildaError(f"API server is away for {self._away:.0f} s: {error}", hint=hint) from error
                if pause < _MOMENT <= pause * 2:
                    self.tell(f"API server is away, and asked again for {self._away:.0f} s: {error}")
            else:
                self._has_answered = True
                return answer
            self.sleep(wait)
            pause = min(pause * 2, 5.0)

    @contextmanager
    def _stream(self, path: str, query: Query, silence: float) -> Iterator[Iterator[bytes]]:
        reply = _asked_once(self.server, "GET", path, query, None, (_TIMEOUT[0], silence))
        try:
            yield _chunks(reply)
        finally:
            reply.close()  # it was not read to its end, so that its connection cannot serve again


def _query(selectors: Mapping[str, str]) -> list[tuple[str, str]]:
    """Selectors as the API calls them."""
    names = {"label_selector": "labelSelector", "field_selector": "fieldSelector"}
    return [(names[name], value) for name, value in selectors.items()]


def _asked_once(
    server: Client, method: str, path: str, query: Query, body: Object | None, timeout: tuple[float, float]
) -> Any:
    """The answer as it begins; an error for one that is none."""
    from urllib3.exceptions import HTTPError, SSLError

    try:
        reply = server.request(method, path, query, body, timeout)
    except SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise Away(apiclient.words(error)) from error
        raise Forbidden(
            f"certificate of the API server is not accepted: {apiclient.words(error)}",
            hint="the kubeconfig has the server's authority: certificate-authority, certificate-authority-data",
        ) from error
    except (HTTPError, OSError) as error:
        raise Away(apiclient.words(error)) from error
    if not 200 <= reply.status < 300:
        refused = refusal(reply.status, _read(reply).decode(errors="replace") or str(reply.reason or ""))
        if isinstance(refused, Away):
            refused.pause = _seconds(reply.headers.get("Retry-After"))
        raise refused
    return reply


def _read(reply: Any) -> bytes:
    from urllib3.exceptions import HTTPError

    try:
        data: bytes = reply.data
    except (HTTPError, OSError) as error:
        raise Away(f"answer broke off: {apiclient.words(error)}") from error
    return data


def _seconds(retry_after: str | None) -> float:
    """What Retry-After says; the API server writes seconds, and a date of a proxy before it is not waited for."""
    return min(float(retry_after), _LONGEST_PAUSE) if retry_after and retry_after.strip().isdecimal() else 0.0


def refusal(status: int, body: str) -> BuildaError:
    """The error for an answer that is none: the server's own words, and what can be done."""
    reason = ""
    try:
        found = json.loads(body)
        message, reason = str(found["message"]), str(found.get("reason"))
    except (ValueError, KeyError, TypeError):
        message = " ".join(body.split())[:400] or f"status {status}"
    match status:
        case 404:
            return NotFound(f"cluster has no such object: {message}")
        case 409 if reason == "Conflict":  # many objects at once that one quota counts
            return Away(f"server is busy ({status}): {message}")
        case 409:
            return AlreadyExists(f"cluster has such an object already: {message}")
        case 410:
            return Gone(message)
        case 401:
            return Forbidden(f"cluster does not accept the credentials: {message}", hint="log in to the cluster again")
        case 403:
            return Forbidden(f"cluster refuses: {message}", hint=_hint_for(message))
        case 429 | 500 | 502 | 503 | 504 | 0:
            return Away(f"server is busy ({status}): {message}")
        case _:
            return InvalidValue(f"cluster refuses ({status}): {message}", hint=_HINT)


def _hint_for(message: str) -> str:
    if "exceeded quota" in message:
        return "wait until other Jobs of the namespace have ended (builda cluster ls), or have the quota raised"
    if "being terminated" in message:
        return "the namespace is being deleted: name another one with --on kubernetes/NAMESPACE"
    if "denied the request" in message or "denied request" in message:
        return "the policy says what it wants; --pod-template and --job-label change the Job"
    return "docs/cluster.md has the Role that builds need; builda cluster check says which rights are missing"


def upgrade_refusal(reason: str) -> BuildaError:
    """The error for a WebSocket that cannot be opened, from what the client says of it."""
    found = re.search(r"Handshake status (\d+)", reason)
    if found is None:
        return Away(apiclient.in_line(reason))
    body = reason.rpartition("-+-+-")[2].strip()
    if body.startswith(("b'", 'b"')):
        body = body[2:-1].replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"')
    error = refusal(int(found[1]), body)
    if isinstance(error, Forbidden):
        error.hint = "--context-via api needs the right to create and get pods/exec: docs/cluster.md"
    return error


def connect(where: Where, environ: Mapping[str, str], tell: Callable[[str], None] = lambda text: None) -> Cluster:
    """The cluster that kubectl would ask: by the kubeconfig, else by the service account of the pod we are in."""
    return Cluster(*apiclient.found(where, environ), tell=tell)


def _chunks(reply: Any) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        while data := reply.read1(1 << 16):
            yield data
    except (HTTPError, OSError) as error:
        raise Away(f"stream broke: {apiclient.words(error)}") from error


def _fed(talk: Any, pieces: Iterable[bytes]) -> str:
    """Send the pieces to a command, and wait for its end; its words if it failed."""
    from websocket import WebSocketException

    try:
        for piece in pieces:
            talk.write_stdin(piece)
            talk.update(timeout=0)
            if not talk.is_open():
                break
        talk.run_forever(timeout=_ANSWER)
    except (WebSocketException, OSError) as error:
        if not talk.peek_channel(_ENDED):
            raise Away(f"stream broke: {apiclient.words(error)}") from error
    ended = talk.read_channel(_ENDED)
    if not ended:
        raise Away("stream ended without a word of how the command did")
    if json.loads(ended).get("status") == "Success":
        return ""
    said = talk.read_channel(_ERRORS).decode(errors="replace").strip()
    return said or str(json.loads(ended).get("message") or "it ended with an error")
