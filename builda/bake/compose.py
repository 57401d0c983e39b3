"""Compose files: each service with a `build` section is a target, and all of them are the group `default`."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable, Iterator, Mapping

from builda.bake import fields
from builda.bake.declared import Declaration, Declared, Group
from builda.bake.documents import Budget, Node, Place, fault, kind_of, mapping, plain
from builda.bake.dotenv import raw_variables, variables
from builda.bake.fields import merged
from builda.bake.interpolation import interpolate
from builda.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_RESOLVE = "docker compose config writes the file with everything in it"
_NAMES: Mapping[str, str] = {
    "args": "args",
    "additional_contexts": "contexts",
    "cache_from": "cache-from",
    "cache_to": "cache-to",
    "context": "context",
    "dockerfile": "dockerfile",
    "dockerfile_inline": "dockerfile-inline",
    "entitlements": "entitlements",
    "extra_hosts": "extra-hosts",
    "labels": "labels",
    "network": "network",
    "no_cache": "no-cache",
    "no_cache_filter": "no-cache-filter",
    "platforms": "platforms",
    "pull": "pull",
    "shm_size": "shm-size",
    "tags": "tags",
    "target": "target",
}
"""Keys of a build section and the attributes that they are."""


def declare(
    node: Node, environ: Mapping[str, str], into: Declared, env_file: Callable[[str], str | None] = lambda path: None
) -> None:
    """Add the services of a compose file. `environ` has the variables of the `.env` file beside it, too.

    `env_file` returns the text of a file that an `env_file` names, or None if it is not there.
    """
    top = mapping(node, "a compose file")
    if "include" in top:
        raise fault(top["include"].place, "include of other files is not supported", _RESOLVE)
    services = top.get("services", Node({}, node.place))
    reader = _Compose(node.place.file, environ, top, env_file)
    names = []
    for name, service in mapping(services, "services").items():
        found = reader.target(name, service)
        if found is not None:
            names.append(name.replace(".", "_"))
            into.add_target(names[-1], found)
    into.add_group("default", Group(tuple(names), services.place))
    into.warnings += reader.warnings()


class _Compose:
    def __init__(
        self,
        file: str,
        environ: Mapping[str, str],
        top: Mapping[str, Node],
        env_file: Callable[[str], str | None],
    ) -> None:
        self._env_file = env_file
        self._base = os.path.dirname(file) if file != "-" else ""
        self._environ = environ
        self._top = top
        self._unset: set[str] = set()
        self._profiles: list[str] = []
        self._owned: list[str] = []
        self._budget = Budget()

    def warnings(self) -> Iterator[str]:
        """What is to be said of the file."""
        if self._unset:
            names = ", ".join(sorted(self._unset))
            yield f"variables of the compose file have no value and stand for nothing: {names}"
        if self._profiles:
            yield f"profiles are ignored, their services are built too: {', '.join(self._profiles)}"
        if self._owned:
            names = ", ".join(self._owned)
            yield f"uid, gid and mode of secrets are ignored, RUN --mount=type=secret says them: {names}"

    def target(self, name: str, node: Node) -> Declaration | None:
        """The target of a service; None for one that is not built."""
        service = mapping(node, f"service {name}")
        if "extends" in service:
            raise fault(service["extends"].place, f"service {name}: extends is not supported", _RESOLVE)
        build = service.get("build")
        if build is None or build.value is None:
            return None
        what = f"service {name}"
        if "profiles" in service:
            self._profiles.append(name)
        if isinstance(build.value, str):
            said: dict[str, Any] = {"context": self._plain(build)}
        else:
            said = self._said(what, mapping(build, f"{what}: build"), service)
        if "image" in service and "tags" not in said:
            said["tags"] = self._image(service["image"], what)
        if "platform" in service and not said.get("platforms"):
            said["platforms"] = self._image(service["platform"], what)
        said["context"] = self._path(said.get("context", "."))
        return Declaration(said, (), node.place)

    def _plain(self, node: Node) -> Any:
        return plain(node, lambda text, place: interpolate(text, place, self._environ, self._unset), self._budget)

    def _image(self, node: Node, what: str) -> list[str]:
        value = self._plain(node)
        if not isinstance(value, str):
            raise fault(node.place, f"{what}: image is a text, not {kind_of(value)}")
        return [value] if value else []

    def _said(self, what: str, build: Mapping[str, Node], service: Mapping[str, Node]) -> dict[str, Any]:
        said: dict[str, Any] = {}
        extension: dict[str, Any] = {}
        for key, node in build.items():
            value = self._plain(node)
            if value is None or (key == "isolation" and value == "default"):
                continue
            if key == "isolation":
                raise fault(
                    node.place, f"{what}: isolation is of Windows: {value}", "builda --mode says how RUN is isolated"
                )
            if key == "x-bake":
                extension = self._extension(what, node, value)
            elif key in _NAMES:
                said[_NAMES[key]] = self._attribute(key, value, node.place, what, service)
            else:
                said = merged(said, self._further(key, value, node.place, what))
        return merged(said, extension)

    def _attribute(self, key: str, value: Any, place: Place, what: str, service: Mapping[str, Node]) -> Any:
        match key:
            case "args":
                value = self._args(value, service, what)
            case "labels" | "extra_hosts" | "additional_contexts":
                value = _named(value, ":" if key == "extra_hosts" else "=")
            case _:
                pass
        if key == "additional_contexts" and isinstance(value, dict):
            value = {name: self._context(one) for name, one in value.items()}
        return fields.value_of(_NAMES[key], value, place, what)

    def _args(self, value: Any, service: Mapping[str, Node], what: str) -> Any:
        """Build arguments; one without a value takes the variable's, of the service or else of the caller."""
        if isinstance(value, list):
            value = {
                name: text if equals else None
                for name, equals, text in (str(one).partition("=") for one in value if one is not None)
            }
        if not isinstance(value, dict):
            return value
        missing = {name for name, one in value.items() if one is None}
        environ = {**self._environ, **self._service_environ(service, missing, what)}
        return {name: environ.get(name) if one is None else one for name, one in value.items()}

    def _service_environ(self, service: Mapping[str, Node], wanted: set[str], what: str) -> dict[str, str]:
        """The variables of a service, as far as some are `wanted`; `environment` counts more than `env_file`."""
        node = service.get("environment")
        value = None if node is None else _named(self._plain(node), "=")
        own = {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}
        if wanted <= own.keys() or "env_file" not in service:
            return own
        return {**self._from_files(service["env_file"], what), **own}

    def _from_files(self, node: Node, what: str) -> dict[str, str]:
        """The variables of the files of an `env_file`: one path, or a list of paths and mappings."""
        value = self._plain(node)
        found: dict[str, str] = {}
        for one in value if isinstance(value, list) else [value]:
            said = one if isinstance(one, dict) else {"path": one}
            if not isinstance(said.get("path"), str) or said.get("format") not in (None, "raw"):
                raise fault(node.place, f"{what}: env_file is a path, or has a path and format: raw")
            path = self._path(said["path"])
            text = self._env_file(path)
            if text is None and fields.value_of("pull", said.get("required", True), node.place, what):
                hint = "write required: false, or give the build arguments values"
                raise fault(node.place, f"{what}: no such file or directory for env_file: {path}", hint)
            if text is not None:
                raw = said.get("format") == "raw"
                found |= raw_variables(text) if raw else variables(text, path, self._environ, self._unset)
        return found

    def _context(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.startswith("service:"):
            return f"target:{value[8:].replace('.', '_')}"
        return self._path(value)

    def _further(self, key: str, value: Any, place: Place, what: str) -> dict[str, Any]:
        """What keys say that are no attribute by themselves."""
        match key:
            case "secrets":
                return {"secret": [self._secret(one, place, what) for one in _list(value, place, what, key)]}
            case "ssh":
                return {"ssh": _ssh(value, place, what)}
            case "ulimits":
                return {"ulimits": _ulimits(value, place, what)}
            case "privileged":
                on = fields.value_of("pull", value, place, what)
                return {"entitlements": ["security.insecure"]} if on else {}
            case "provenance" | "sbom":
                text = str(value).lower()
                if text == "false":
                    return {}
                return {"attest": [f"type={key}" if text == "true" else f"type={key},{value}"]}
            case _:
                pass
        if key.startswith("x-"):
            return {}
        from difflib import get_close_matches

        near = get_close_matches(key, _NAMES, 1)
        raise fault(place, f"{what}: build has no {key}", f"did you mean {near[0]}?" if near else None)

    def _secret(self, value: Any, place: Place, what: str) -> str:
        """What a service says of a secret of the file, as --secret is written."""
        source = value.get("source") if isinstance(value, dict) else value
        named = (value.get("target") if isinstance(value, dict) else None) or source
        if isinstance(value, dict) and not value.keys().isdisjoint(("uid", "gid", "mode")):
            self._owned.append(f"{what}: {source}")
        secrets = self._top.get("secrets")
        node = None if secrets is None else mapping(secrets, "secrets").get(str(source))
        if node is None:
            raise fault(place, f"{what}: there is no secret {source}", "secrets of the file name it")
        found = self._plain(node)
        if isinstance(found, dict) and isinstance(found.get("file"), str):
            return f"id={named},src={self._path(found['file'])}"
        if isinstance(found, dict) and isinstance(found.get("environment"), str):
            return f"id={named},env={found['environment']}"
        raise fault(node.place, f"secret {source} has neither file nor environment")

    def _extension(self, what: str, node: Node, value: Any) -> dict[str, Any]:
        """`x-bake`: attributes as bake files have them; a text is a list of one."""
        places = {key: one.place for key, one in mapping(node, f"{what}: x-bake").items()}
        said = {}
        for key, one in value.items():
            lists = isinstance(one, str) and fields.FIELDS.get(key) in ("texts", "added")
            said[key] = fields.value_of(key, [one] if lists else one, places[key], f"{what}: x-bake")
        return said

    def _path(self, text: str) -> str:
        """A path of the file, which is relative to the file's directory."""
        if not self._base or "://" in text or text.startswith(("target:", "git@")) or os.path.isabs(text):
            return os.path.expanduser(text) if text.startswith("~") else text
        return os.path.normpath(os.path.join(self._base, os.path.expanduser(text)))


def _named(value: Any, between: str) -> Any:
    """A mapping that may be written as a list of `NAME=VALUE`."""
    if not isinstance(value, list):
        return value
    found = {}
    for one in value:
        if not isinstance(one, str):
            return value
        name, _, text = one.partition("=") if "=" in one else one.partition(between)
        found[name] = text
    return found


def _list(value: Any, place: Place, what: str, key: str) -> Iterable[Any]:
    if not isinstance(value, list):
        raise fault(place, f"{what}: {key} is a list, not {kind_of(value)}")
    return value


def _ssh(value: Any, place: Place, what: str) -> list[str]:
    if isinstance(value, dict):
        return [name if one is None else f"{name}={one}" for name, one in value.items()]
    return fields.texts(list(_list(value, place, what, "ssh")))


def _ulimits(value: Any, place: Place, what: str) -> list[str]:
    if not isinstance(value, dict):
        raise fault(place, f"{what}: ulimits is a mapping, not {kind_of(value)}")
    try:
        return [
            f"{name}={one['soft']}:{one['hard']}" if isinstance(one, dict) else f"{name}={fields.text(one)}"
            for name, one in value.items()
        ]
    except (KeyError, InvalidValue) as error:
        raise fault(place, f"{what}: a ulimit is a number, or has soft and hard") from error
