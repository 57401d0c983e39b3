"""The API server: the requests that builda makes, and what its refusals mean. Only this module imports the client.

Answers are the API's own JSON. A request that finds the server away is tried again for a while; one that changes
something is made so that a second one finds what the first did.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from builda.cluster.where import Where
from builda.errors import AlreadyExists, BuildaError, InvalidValue, NotFound, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Object: TypeAlias = "dict[str, Any]"

AWAY = 90.0
"""Seconds for which the API server may be away."""
_TIMEOUT = (10.0, 30.0)  # to connect, and between two bytes
_HINT = "what --pod-template, --request, --limit and --job-label say goes into the Job as it is"
_ANSWER = 60.0  # seconds that a command may work on after its input
_ERRORS, _ENDED = 2, 3  # channels of a WebSocket to a command (v4.channel.k8s.io and v5)


class Gone(BuildaError):
    """The server no longer has the changes since the version that a watch began with (410)."""


class Away(BuildaError):
    """The connection to the server broke or could not be made."""


class Forbidden(BuildaError):
    """The server refuses (401, 403): rights, quotas, admission. The message has its words."""


class Cluster:
    """One namespace of a cluster. Threads may share it."""

    def __init__(self, api: Any, namespace: str, away: float = AWAY) -> None:
        from kubernetes.client import BatchV1Api, CoreV1Api, VersionApi

        self.api = api
        self._batch, self._core, self._version = BatchV1Api(api), CoreV1Api(api), VersionApi(api)
        self._away = away
        self.namespace = namespace
        self._known: dict[str, Any] = {}

    def version(self) -> tuple[int, int]:
        """Major and minor version of the server."""
        if "version" not in self._known:
            self._known["version"] = self._asked(self._version.get_code)
        found = self._known["version"]
        digits = "".join(letter for letter in str(found.get("minor", "0")) if letter.isdecimal())
        return int(found.get("major") or 0), int(digits or 0)

    def level(self, label: str) -> str | None:
        """The value of a label of the namespace; None without it, or without the right to read it."""
        try:
            if "namespace" not in self._known:
                self._known["namespace"] = self._asked(self._core.read_namespace, self.namespace)
            found = self._known["namespace"]
        except Forbidden:
            return None
        value = (found["metadata"].get("labels") or {}).get(label)
        return None if value is None else str(value)

    def create(self, kind: str, body: Object) -> Object:
        """Make a Job or Secret; if there is one of this name already, which an earlier attempt made, return that."""
        try:
            made: Object = self._asked(self._method("create", kind), self.namespace, body)
            return made
        except AlreadyExists:
            return self.get(kind, body["metadata"]["name"])
        except (Forbidden, InvalidValue) as error:
            what = f"{body['kind']} {body['metadata']['name']} of namespace {self.namespace}"
            raise type(error)(f"cluster does not take the {what}: {error}", hint=error.hint) from error

    def get(self, kind: str, name: str) -> Object:
        """One object; NotFound if it is not there."""
        found: Object = self._asked(self._method("read", kind), name, self.namespace)
        return found

    def list(self, kind: str, **selectors: str) -> Object:
        """A list of objects, with the version that a watch may begin with."""
        found: Object = self._asked(self._method("list", kind), self.namespace, **selectors)
        return found

    def may(self, verb: str, resource: str) -> bool:
        """Whether the client has a right in the namespace; `resource` is GROUP/RESOURCE, with /SUBRESOURCE perhaps."""
        from kubernetes.client import AuthorizationV1Api

        group, _, rest = resource.partition("/")
        name, _, sub = rest.partition("/")
        asked = {"namespace": self.namespace, "verb": verb, "group": group, "resource": name, "subresource": sub}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        found = self._asked(AuthorizationV1Api(self.api).create_self_subject_access_review, body)
        return bool(found["status"].get("allowed"))

    def quotas(self) -> Object | None:
        """The quotas of the namespace; None without the right to see them."""
        try:
            found: Object = self._asked(self._core.list_namespaced_resource_quota, self.namespace)
        except Forbidden:
            return None
        return found

    def delete(self, kind: str, name: str) -> None:
        """The object and what it owns go; nothing if it is not there."""
        with suppress(NotFound):
            self._asked(self._method("delete", kind), name, self.namespace, propagation_policy="Background")

    def watch(self, kind: str, version: str, seconds: int, **selectors: str) -> Iterator[Object]:
        """The changes since `version` for at most so many seconds. Gone if the server forgot them; Away if it broke."""
        options = {**selectors, "watch": True, "resource_version": version, "timeout_seconds": seconds}
        with self._stream(self._method("list", kind), self.namespace, silence=seconds + 15.0, **options) as chunks:
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
        options: dict[str, Any] = {"container": container, "follow": True}
        if since is not None:
            options["since_seconds"] = max(1, int(since) + 2)
        with self._stream(self._core.read_namespaced_pod_log, pod, self.namespace, **options) as chunks:
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
        from kubernetes.client import ApiClient, ApiException, CoreV1Api
        from kubernetes.stream import stream

        core = CoreV1Api(ApiClient(self.api.configuration))  # `stream` changes its client, which threads share
        streams = {"stdin": True, "stdout": True, "stderr": True, "tty": False}
        try:
            return stream(
                core.connect_get_namespaced_pod_exec,
                pod,
                self.namespace,
                container=container,
                command=list(command),
                binary=True,
                _preload_content=False,
                **streams,
            )
        except ApiException as error:
            raise upgrade_refusal(str(error.reason)) from error

    def _method(self, verb: str, kind: str) -> Callable[..., Any]:
        one = kind.removesuffix("s")
        method: Callable[..., Any] = getattr(self._batch if kind == "jobs" else self._core, f"{verb}_namespaced_{one}")
        return method

    def _asked(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """The answer, decoded; asked again while the server is away or busy."""
        end, pause = time.monotonic() + self._away, 0.1
        while True:
            try:
                return json.loads(_read(_asked_once(method, _TIMEOUT, *arguments, **options)))
            except Away as error:
                if time.monotonic() + pause > end:
                    raise BuildaError(
                        f"API server is away for {self._away:.0f} s: {error}",
                        hint="a Job that was made goes on without its client; builda build --attach JOB watches it",
                    ) from error
            time.sleep(pause)
            pause = min(pause * 2, 5.0)

    @contextmanager
    def _stream(
        self, method: Callable[..., Any], *arguments: Any, silence: float = _TIMEOUT[1], **options: Any
    ) -> Iterator[Iterator[bytes]]:
        reply = _asked_once(method, (_TIMEOUT[0], silence), *arguments, **options)
        try:
            yield _chunks(reply)
        finally:
            reply.close()  # it was not read to its end, so that its connection cannot serve again


def _asked_once(method: Callable[..., Any], timeout: tuple[float, float], *arguments: Any, **options: Any) -> Any:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return method(*arguments, **options, _preload_content=False, _request_timeout=timeout)
    except ApiException as error:
        body = error.body if error.body is not None else error.reason
        text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
        raise refusal(int(error.status or 0), text) from error
    except (HTTPError, OSError) as error:
        raise Away(_words(error)) from error
    except ValueError as error:  # the client has schemas of its own
        raise InvalidValue(f"client of Kubernetes refuses: {_words(error)}", hint=_HINT) from error


def _read(reply: Any) -> bytes:
    from urllib3.exceptions import HTTPError

    try:
        data: bytes = reply.data
    except (HTTPError, OSError) as error:
        raise Away(f"answer broke off: {_words(error)}") from error
    return data


def refusal(status: int, body: str) -> BuildaError:
    """The error for an answer that is none: the server's own words, and what can be done."""
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        message = " ".join(body.split())[:400] or f"status {status}"
    match status:
        case 404:
            return NotFound(f"cluster has no such object: {message}")
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
    if "denied the request" in message or "denied request" in message:
        return "the policy says what it wants; --pod-template and --job-label change the Job"
    return "docs/cluster.md has the Role that builds need; builda cluster check says which rights are missing"


def upgrade_refusal(reason: str) -> BuildaError:
    """The error for a WebSocket that cannot be opened, from what the client says of it."""
    found = re.search(r"Handshake status (\d+)", reason)
    if found is None:
        return Away(_words_of(reason))
    body = reason.rpartition("-+-+-")[2].strip()
    if body.startswith(("b'", 'b"')):
        body = body[2:-1].replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"')
    error = refusal(int(found[1]), body)
    if isinstance(error, Forbidden):
        error.hint = "--context-via api needs the right to create and get pods/exec: docs/cluster.md"
    return error


def connect(where: Where, environ: Mapping[str, str]) -> Cluster:
    """The cluster that kubectl would ask: by the kubeconfig, else by the service account of the pod we are in."""
    try:
        _prepare_import()
        from kubernetes import client as kubernetes_client
        from kubernetes import config as kubernetes_config
        from kubernetes.config.config_exception import ConfigException
    except ImportError as error:
        raise Unsupported(
            "--on kubernetes needs the client of Kubernetes, which is not installed",
            hint="pip install 'builda[cluster]'",
        ) from error

    client: Any = kubernetes_client
    config: Any = kubernetes_config
    configuration = client.Configuration()
    configuration.retries = False
    namespace = where.namespace
    kubeconfig = environ.get("KUBECONFIG") or os.path.join(environ.get("HOME", "/root"), ".kube/config")
    try:
        config.load_kube_config(kubeconfig, context=where.context, client_configuration=configuration)
        active = config.list_kube_config_contexts(kubeconfig)
        chosen = next((one for one in active[0] if one["name"] == where.context), active[1])
        namespace = namespace or chosen["context"].get("namespace") or "default"
    except (ConfigException, OSError, KeyError, TypeError) as error:
        if where.context is not None:
            raise NotFound(f"kubeconfig has no usable context {where.context}: {_words(error)}") from error
        namespace = _in_cluster(config, configuration, namespace, error)
    return Cluster(client.ApiClient(configuration), namespace)


def _prepare_import() -> None:
    """Have the parts of the client imported one by one.

    The package imports all of them, which takes a second of each command: those for informers, dynamic objects and
    leader elections, and libraries that only these need.
    """
    import sys
    from importlib import import_module, util

    if "kubernetes" in sys.modules:
        return
    spec = util.find_spec("kubernetes")
    if spec is None:
        raise ImportError("kubernetes")

    def part(name: str) -> object:
        try:
            return import_module(f"kubernetes.{name}")
        except ModuleNotFoundError as error:
            raise AttributeError(f"module kubernetes has no attribute {name}") from error

    package = util.module_from_spec(spec)
    package.__getattr__ = part  # type: ignore[method-assign]  # PEP 562: who imports the package finds its parts
    sys.modules["kubernetes"] = package


def _in_cluster(config: Any, configuration: Any, namespace: str | None, first: BaseException) -> str:
    from kubernetes.config.config_exception import ConfigException

    try:
        config.load_incluster_config(client_configuration=configuration)
    except ConfigException as error:
        raise NotFound(
            f"no cluster is configured: {_words(first)}", hint="write a kubeconfig (KUBECONFIG), as for kubectl"
        ) from error
    if namespace is not None:
        return namespace
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:
        return file.read().strip()


def _chunks(reply: Any) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        while data := reply.read1(1 << 16):
            yield data
    except (HTTPError, OSError) as error:
        raise Away(f"stream broke: {_words(error)}") from error


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
            raise Away(f"stream broke: {_words(error)}") from error
    ended = talk.read_channel(_ENDED)
    if not ended:
        raise Away("stream ended without a word of how the command did")
    if json.loads(ended).get("status") == "Success":
        return ""
    said = talk.read_channel(_ERRORS).decode(errors="replace").strip()
    return said or str(json.loads(ended).get("message") or "it ended with an error")


def _words(error: BaseException) -> str:
    return _words_of(str(error)) or type(error).__name__


def _words_of(text: str) -> str:
    return " ".join(text.split())[:300]
