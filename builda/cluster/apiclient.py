"""The official client of Kubernetes: who the user is, and connections to the server. Only this module imports it.

Its classes for kinds of objects and for groups of the API are left out: to import them takes a second, and builda
has JSON on both sides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from builda.cluster.where import Where
from builda.errors import InvalidValue, NotFound, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Query: TypeAlias = Iterable[tuple[str, str]]

_PARTS: Mapping[str, Mapping[str, str]] = {
    "kubernetes": {},
    "kubernetes.client": {"Configuration": "configuration"},
    "kubernetes.utils": {},
}
"""Packages whose parts are imported one by one, and where they have the names that other parts take from them."""


class Client:
    """The server that a configuration of the client leads to. Threads may share it."""

    def __init__(self, configuration: Any) -> None:
        from kubernetes.client.rest import RESTClientObject

        self._configuration = configuration
        self._pool = RESTClientObject(configuration).pool_manager

    def request(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        timeout: tuple[float, float] | None = None,
    ) -> Any:
        """The response of urllib3 as it begins, whatever its status; `timeout` is to connect, and between two bytes."""
        from urllib3.util import Timeout

        headers = {"Accept": "application/json, */*", "User-Agent": "builda", **self._credentials()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._pool.request(
            method,
            self._url(path, query),
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=None if timeout is None else Timeout(connect=timeout[0], read=timeout[1]),
            preload_content=False,
        )

    def talk(self, path: str, query: Query) -> Any:
        """A WebSocket with channels, as the client has it; WebSocketException or OSError if it cannot be opened."""
        from kubernetes.stream import ws_client

        client: Any = ws_client
        url = client.get_websocket_url(self._url(path, query))
        return client.WSClient(self._configuration, url, self._credentials(), capture_all=False, binary=True)

    def _url(self, path: str, query: Query) -> str:
        from urllib.parse import urlencode

        asked = urlencode(list(query))
        return f"{self._configuration.host}{path}{'?' if asked else ''}{asked}"

    def _credentials(self) -> dict[str, str]:
        """The headers that say who the user is; a token that expires is renewed."""
        settings = self._configuration.auth_settings().values()
        return {one["key"]: one["value"] for one in settings if one["in"] == "header" and one["value"]}


def found(where: Where, environ: Mapping[str, str]) -> tuple[Client, str]:
    """The server that kubectl would ask, and the namespace: by the kubeconfig, else by the service account of the pod.

    Unsupported if the client is not installed; NotFound if nothing says where a cluster is; InvalidValue for a
    kubeconfig that is none.
    """
    try:
        _prepare_import()
        import yaml  # of the client
        from kubernetes import config as kubernetes_config
        from kubernetes.client.configuration import Configuration
        from kubernetes.config.config_exception import ConfigException
    except ImportError as error:
        raise Unsupported(
            "--on kubernetes needs the client of Kubernetes, which is not installed",
            hint="pip install 'builda[cluster]'",
        ) from error

    config: Any = kubernetes_config
    configuration = Configuration()
    configuration.retries = False
    namespace = where.namespace
    kubeconfig = environ.get("KUBECONFIG") or os.path.join(environ.get("HOME", "/root"), ".kube/config")
    try:
        config.load_kube_config(kubeconfig, context=where.context, client_configuration=configuration)
        active = config.list_kube_config_contexts(kubeconfig)
        chosen = next((one for one in active[0] if one["name"] == where.context), active[1])
        namespace = namespace or chosen["context"].get("namespace") or "default"
        _look_at_user(config, kubeconfig, chosen["context"].get("user"), configuration)
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidValue(f"kubeconfig is malformed: {kubeconfig}: {words(error)}") from error
    except (ConfigException, OSError) as error:
        if where.context is not None:
            raise NotFound(f"kubeconfig has no usable context {where.context}: {words(error)}") from error
        namespace = _in_cluster(config, configuration, namespace, error)
    return Client(configuration), namespace


def _look_at_user(config: Any, kubeconfig: str, name: str | None, configuration: Any) -> None:
    """What the client leaves out: a token's file is read again, as it is replaced, and a plugin that fails is an error.

    Unsupported if the user's plugin gave no credentials.
    """
    merged = config.kube_config.KubeConfigMerger(kubeconfig).config
    if name is None or "users" not in merged or (found := merged["users"].get_with_name(name, safe=True)) is None:
        return
    user = found["user"]
    path = user.safe_get("tokenFile")
    if path is not None and configuration.api_key:
        renewing(configuration, os.path.join(os.path.dirname(os.path.abspath(user.path or kubeconfig)), path))
    plugin = user.safe_get("exec")
    if plugin is not None and not configuration.api_key and not configuration.cert_file:
        raise Unsupported(
            f"plugin of the kubeconfig gives no credentials for user {name}: {plugin.get('command')}",
            hint="its words are above; kubectl auth whoami tells whether it works for kubectl",
        )


def renewing(configuration: Any, path: str) -> None:
    """Have each request read the token's file, which is replaced before the token ends."""

    def read(configuration: Any) -> None:
        try:
            with open(path, encoding="utf-8") as file:
                token = file.read().strip()
        except OSError:
            return  # it is being replaced; the token that is known may still do
        for key in configuration.api_key:
            configuration.api_key[key] = f"Bearer {token}"

    configuration.refresh_api_key_hook = read


def _in_cluster(config: Any, configuration: Any, namespace: str | None, first: BaseException) -> str:
    from kubernetes.config.config_exception import ConfigException

    try:
        config.load_incluster_config(client_configuration=configuration)
    except ConfigException as error:
        raise NotFound(
            f"no cluster is configured: {words(first)}", hint="write a kubeconfig (KUBECONFIG), as for kubectl"
        ) from error
    if namespace is not None:
        return namespace
    with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as file:
        return file.read().strip()


def _prepare_import() -> None:
    """Have the packages of the client import their parts one by one, as they are asked for.

    By themselves they import all of them, which takes a second of each command: the classes of all kinds of objects,
    informers, leader elections, and libraries that only these need.
    """
    import sys
    from importlib import import_module

    if "kubernetes" in sys.modules:
        return
    for name, homes in _PARTS.items():
        _prepare_package(name, homes)
    client = sys.modules["kubernetes.client"]
    vars(client)["ApiClient"] = _api_client
    import_module("kubernetes.config.kube_config")  # which asks it for tokens of OpenID Connect only
    del vars(client)["ApiClient"]


def _api_client(**options: Any) -> Any:
    from kubernetes.client.api_client import ApiClient

    return ApiClient(**options)


def _prepare_package(name: str, homes: Mapping[str, str]) -> None:
    import sys
    from importlib import import_module, util

    spec = util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(name)
    package, loader = util.module_from_spec(spec), spec.loader

    def part(wanted: str) -> object:
        if wanted.startswith("__"):
            raise AttributeError(f"module {name} has no attribute {wanted}")
        if wanted in homes:
            return getattr(import_module(f"{name}.{homes[wanted]}"), wanted)
        if util.find_spec(f"{name}.{wanted}") is not None:
            return import_module(f"{name}.{wanted}")
        vars(package).pop("__getattr__", None)
        loader.exec_module(package)  # somebody else wants the whole of it
        return getattr(package, wanted)

    vars(package)["__getattr__"] = part  # PEP 562: who imports the package finds its parts
    sys.modules[name] = package


def words(error: BaseException) -> str:
    """What an error says, in one line."""
    return in_line(str(error)) or type(error).__name__


def in_line(text: str) -> str:
    """The text without its line breaks, and not too long."""
    return " ".join(text.split())[:300]
