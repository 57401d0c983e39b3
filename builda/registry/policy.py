"""policy.json (containers-policy.json(5)): which images may be taken from where.

`Policy.load` reads the file; everything after it is pure. builda verifies no signatures: a rule that wants one refuses.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from builda.errors import BuildaError, InvalidValue, NotFound, PolicyRejected
from builda.inputfile import read_input
from builda.oci.reference import Reference
from builda.places import Places
from builda.values import dataclass

Rules: TypeAlias = tuple[str, ...]
"""The types of the requirements in one list, all of which an image has to fulfil."""

_PLAIN = ("insecureAcceptAnything", "reject")
_SIGNED: Mapping[str, frozenset[str]] = {
    "signedBy": frozenset({"keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"}),
    "signedBaseLayer": frozenset({"baseLayerIdentity"}),
    "sigstoreSigned": frozenset(
        "keyPath keyPaths keyData keyDatas fulcio rekorPublicKeyPath rekorPublicKeyPaths rekorPublicKeyData "
        "rekorPublicKeyDatas pki signedIdentity".split()
    ),
}
_BY_PATH = ("dir", "oci", "oci-archive")


@dataclass(frozen=True, slots=True)
class Policy:
    """What one policy.json says: the rules of each transport by scope, and those for everything else."""

    file: str
    default: Rules
    transports: Mapping[str, Mapping[str, Rules]]

    @classmethod
    def load(cls, places: Places, path: Path | None = None) -> Policy | None:
        """The policy in `path`, else in $CONTAINERS_POLICY_JSON, else this user's or this machine's; None without one.

        NotFound if a file that was named does not exist, InvalidValue for one that is no policy.
        """
        named = path or places.path("CONTAINERS_POLICY_JSON")
        file = named or next((d / "policy.json" for d in places.configuration() if _exists(d / "policy.json")), None)
        return None if file is None else parse(_read(file), str(file))

    def rules(self, transport: str, scopes: tuple[str, ...]) -> tuple[str, Rules]:
        """The rules for an image whose scopes are `scopes`, the narrowest first, and the place in the file of them."""
        known = self.transports.get(transport, {})
        for scope in (*scopes, ""):
            if scope in known:
                return f"transports.{transport}.{json.dumps(scope, ensure_ascii=False)}", known[scope]
        return "default", self.default

    def check(self, transport: str, scopes: tuple[str, ...], name: str) -> None:
        """Return if the image may be used; PolicyRejected naming `name` and the rule otherwise."""
        place, rules = self.rules(transport, scopes)
        for rule in rules:
            if rule == "reject":
                raise PolicyRejected(
                    f"image is rejected by {self.file}: {name}",
                    hint=f"{place} of that file has a rule that says reject",
                )
            if rule != "insecureAcceptAnything":
                raise PolicyRejected(
                    f"{self.file} wants a signature ({rule}), which builda cannot verify: {name}",
                    hint=f"the rule is {place}; skopeo copies an image under this policy, to a place that it accepts",
                )


def docker_scopes(reference: Reference) -> tuple[str, ...]:
    """The scopes that a name in a registry falls under, the narrowest first: itself, its parents, its domains."""
    identity = f"{reference.name}@{reference.digest}" if reference.digest else f"{reference.name}:{reference.tag}"
    parts = reference.name.split("/")
    parents = tuple("/".join(parts[:count]) for count in range(len(parts), 0, -1))
    labels = reference.registry.rpartition(":")[0] or reference.registry
    domains = labels.split(".")
    return (identity, *parents, *("*." + ".".join(domains[start:]) for start in range(1, len(domains))))


def file_scopes(transport: str, path: str) -> tuple[str, ...]:
    """The scopes that an image in a file or directory falls under: the resolved path and its parents but /."""
    if transport not in _BY_PATH:
        return ()
    resolved = Path(os.path.realpath(path))
    return tuple(str(place) for place in (resolved, *resolved.parents) if str(place) != "/")


def parse(text: str, file: str) -> Policy:
    """The policy in `text`; InvalidValue naming `file` for anything that is none, unknown keys included."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"not JSON ({error}): {file}") from error
    if not isinstance(value, dict) or value.keys() - {"default", "transports"} or "default" not in value:
        raise InvalidValue(f"a policy is an object of default and, perhaps, transports: {file}", hint=_unknown(value))
    transports = _object(value.get("transports", {}), "transports", file)
    return Policy(
        file,
        _rules(value["default"], "default", file),
        {
            transport: {
                _scope(transport, scope, file): _rules(rules, f"transports.{transport}.{scope!r}", file)
                for scope, rules in _object(scopes, f"transports.{transport}", file).items()
            }
            for transport, scopes in transports.items()
        },
    )


def _exists(file: Path) -> bool:
    """Whether there is anything of this name: what cannot be read is an error, never no policy."""
    return os.path.lexists(file)


def _read(file: Path) -> str:
    try:
        data = read_input(file, "policy.json")
    except FileNotFoundError as error:
        raise NotFound(f"no such policy.json: {file}") from error
    except OSError as error:
        raise BuildaError(f"policy.json cannot be read, {(error.strerror or str(error)).lower()}: {file}") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue(f"not UTF-8: {file}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"two keys are {key!r}")
        found[key] = value
    return found


def _unknown(value: object) -> str | None:
    keys = sorted(value.keys() - {"default", "transports"}) if isinstance(value, dict) else []
    return f"it has {', '.join(map(repr, keys))}" if keys else None


def _object(value: object, where: str, file: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValue(f"{where} is not an object in {file}")
    return value


def _scope(transport: str, scope: str, file: str) -> str:
    """`scope` if it could ever match: a rule that never applies would be a hole."""
    if transport in _BY_PATH and scope and (scope == "/" or os.path.normpath(scope) != scope or scope[0] != "/"):
        hint = 'the scope of a whole transport is ""' if scope == "/" else None
        raise InvalidValue(f"a scope of {transport} is an absolute path without . and .. in {file}: {scope}", hint=hint)
    if transport == "docker-archive" and scope:
        raise InvalidValue(f'docker-archive has the scope "" only in {file}: {scope}')
    if transport == "docker" and ("//" in scope or scope.startswith("/") or scope.endswith("/")):
        raise InvalidValue(f"a scope of docker is a name, or the beginning of one, in {file}: {scope}")
    return scope


def _rules(value: object, where: str, file: str) -> Rules:
    if not isinstance(value, list) or not value:
        raise InvalidValue(f"{where} is not an array of one or more rules in {file}")
    return tuple(_rule(rule, where, file) for rule in value)


def _rule(value: object, where: str, file: str) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str):
        raise InvalidValue(f"a rule of {where} is not an object with a type in {file}")
    if kind not in _PLAIN and kind not in _SIGNED:
        raise InvalidValue(
            f"unknown type of a rule in {where} of {file}: {kind}", hint=f"it is {', '.join((*_PLAIN, *_SIGNED))}"
        )
    unknown = sorted(value.keys() - {"type"} - _SIGNED.get(kind, frozenset()))
    if unknown:
        raise InvalidValue(f"{kind} has no key {unknown[0]!r} in {where} of {file}")
    return kind
